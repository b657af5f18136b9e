//! A function: its configuration space, what it maps where, and what else its registers do.

use super::AddressSpaces;
use super::config::{ConfigSpace, command, register};
use crate::bus::SharedDevice;

/// How a window's place is found in the configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decode {
    /// An I/O base address register, at this offset.
    Io(u8),
    /// A 32-bit memory base address register, at this offset.
    Memory(u8),
    /// The expansion ROM's base address register.
    Rom,
    /// The PIIX4's PMBASE, enabled by PMREGMISC.
    PmBase,
}

/// The PIIX4's PMBASE register (82371AB datasheet, section 7.1.20).
pub const PMBASE: u8 = 0x40;
/// The PIIX4's PMREGMISC register (section 7.1.34): bit 0 is PMIOSE.
pub const PMREGMISC: u8 = 0x80;

/// A range of I/O ports or memory that a function decodes.
pub struct Window {
    /// Where.
    decode: Decode,
    /// Bytes, a power of two: 4 or more for ports, 16 or more for memory.
    size: u32,
    /// Who answers.
    device: SharedDevice,
    /// The offset that the device sees of the first byte.
    first_offset: u64,
    /// Where it is mapped now.
    mapped: Option<u64>,
}

impl Window {
    /// A window of `size` bytes, rounded up to a power of two, that `device` answers.
    pub fn new(decode: Decode, size: u32, first_offset: u64, device: SharedDevice) -> Self {
        let size = size.max(4).checked_next_power_of_two().unwrap_or(1 << 31);
        Self { decode, size, device, first_offset, mapped: None }
    }

    /// Says that the window is on the bus already.
    pub fn mapped_at(mut self, base: u64) -> Self {
        self.mapped = Some(base);
        self
    }

    /// Declares the base address register.
    fn declare(&self, config: &mut ConfigSpace) {
        let mask = !(self.size - 1);
        match self.decode {
            Decode::Io(offset) => {
                config.set_u32(offset, 1);
                // All 32 bits can be written, as firmware expects when it sizes the window.
                config.allow(offset, &(mask & !3).to_le_bytes());
            }
            Decode::Memory(offset) => config.allow(offset, &(mask & !15).to_le_bytes()),
            Decode::Rom => config.allow(register::ROM, &(mask & !0x7ff | 1).to_le_bytes()),
            // The function declares it with its other registers.
            Decode::PmBase => {}
        }
    }

    /// Where the configuration says that the window is. A base of 0 counts as none, as on the
    /// bridges of the time, and so does one that would run past 4 GiB.
    fn wanted(&self, config: &ConfigSpace) -> Option<u64> {
        let enabled = |bit: u16| config.command() & bit != 0;
        let base = match self.decode {
            Decode::Io(offset) if enabled(command::IO) => {
                // There are 64 Ki ports.
                Some(config.get_u32(offset) & !3).filter(|base| base >> 16 == 0).unwrap_or(0)
            }
            Decode::Memory(offset) if enabled(command::MEMORY) => config.get_u32(offset) & !15,
            Decode::Rom if enabled(command::MEMORY) && config.get(register::ROM) & 1 != 0 => {
                config.get_u32(register::ROM) & !0x7ff
            }
            Decode::PmBase if config.get(PMREGMISC) & 1 != 0 => config.get_u32(PMBASE) & 0xffc0,
            Decode::Io(_) | Decode::Memory(_) | Decode::Rom | Decode::PmBase => return None,
        };
        // The all-ones of sizing is no place either.
        let last = base.checked_add(self.size - 1)?;
        (base != 0 && last != u32::MAX).then_some(base.into())
    }

    fn is_io(&self) -> bool {
        matches!(self.decode, Decode::Io(_) | Decode::PmBase)
    }

    /// Moves the window to where the configuration says. A place that is taken leaves it unmapped,
    /// to be tried again when something else has moved.
    fn update(&mut self, config: &ConfigSpace, spaces: &dyn AddressSpaces) {
        let wanted = self.wanted(config);
        if wanted == self.mapped {
            return;
        }
        let bus = if self.is_io() { spaces.io() } else { spaces.memory() };
        if let Some(base) = self.mapped.take() {
            let _ = bus.remove(base);
        }
        let Some(base) = wanted else { return };
        match bus.insert_window(base, self.size.into(), self.first_offset, self.device.clone()) {
            Ok(()) => self.mapped = Some(base),
            Err(error) => tracing::debug!(%error, "a PCI window is not mapped"),
        }
    }
}

/// What a function's own registers do.
pub trait Behaviour: Send {
    /// Software has written `len` bytes of the space from `offset` on; they are stored already.
    fn written(&mut self, config: &mut ConfigSpace, offset: u8, len: usize);
}

/// A function without registers of its own.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Behaviour for Plain {
    fn written(&mut self, _config: &mut ConfigSpace, _offset: u8, _len: usize) {}
}

/// A function on the bus.
pub struct Function {
    config: ConfigSpace,
    windows: Vec<Window>,
    behaviour: Box<dyn Behaviour>,
}

impl Function {
    /// A function with a configuration space, windows, and what its registers do.
    pub fn new(
        mut config: ConfigSpace,
        windows: Vec<Window>,
        behaviour: Box<dyn Behaviour>,
    ) -> Self {
        for window in &windows {
            window.declare(&mut config);
        }
        Self { config, windows, behaviour }
    }

    /// Its configuration space.
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    pub(super) fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    /// Reads the space; bytes past its end are all-ones.
    pub(super) fn read(&self, offset: u8, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let at = usize::from(offset) + index;
            *byte = u8::try_from(at).map_or(0xff, |at| self.config.get(at));
        }
    }

    /// Writes the space, without moving windows: see [`Function::update`].
    pub(super) fn write(&mut self, offset: u8, data: &[u8]) {
        for (index, byte) in data.iter().enumerate() {
            if let Ok(at) = u8::try_from(usize::from(offset) + index) {
                self.config.write(at, *byte);
            }
        }
        self.behaviour.written(&mut self.config, offset, data.len());
    }

    pub(super) fn update(&mut self, spaces: &dyn AddressSpaces) {
        for window in &mut self.windows {
            window.update(&self.config, spaces);
        }
    }

    /// Runs the behaviour over the whole space, after a restore.
    pub(super) fn apply_all(&mut self) {
        self.behaviour.written(&mut self.config, 0, 256);
    }
}
