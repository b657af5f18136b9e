//! The attachments: ports, window, linear memory, BAR 2, option ROM, PCI function.

use std::sync::{Arc, Mutex};

use super::{Changes, MEMORY_SIZE, Vga};
use crate::bus::{BusDevice, SharedDevice, lock, read_bytes, store_value, value_of, write_bytes};
use crate::clock::Clock;
use crate::pci::config::register;
use crate::pci::{ConfigSpace, Decode, Function, Identity, Plain, Window};

/// The ports, for [`crate::Bus::insert_ports`].
pub const PORTS: &[(u16, u16)] =
    &[(0x3b4, 2), (0x3ba, 1), (0x3c0, 16), (0x3d4, 2), (0x3da, 1), (0x1ce, 3)];
/// First address of the VGA window.
pub const WINDOW_BASE: u64 = 0xa_0000;
/// Its length.
pub const WINDOW_SIZE: u64 = 0x2_0000;

/// Offsets in BAR 2.
const MMIO_PORTS: u64 = 0x400;
const MMIO_DISPI: u64 = 0x500;
const MMIO_SIZE: u32 = 0x1000;

/// The adapter on its ports; offsets are port numbers.
pub struct VgaDevice {
    pub(super) vga: Vga,
    clock: Arc<dyn Clock>,
    changes: Arc<Changes>,
}

impl VgaDevice {
    /// Attaches an adapter after reset.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { vga: Vga::new(), clock, changes: Arc::default() }
    }

    /// Tells `changes` of every write from now on.
    pub fn report_changes(&mut self, changes: Arc<Changes>) {
        self.changes = changes;
    }

    /// The adapter, to look at its screen.
    pub fn vga(&self) -> &Vga {
        &self.vga
    }

    /// The state to save.
    pub fn state(&self) -> &Vga {
        &self.vga
    }

    /// Takes a saved state; `false`, without effect, if it is of another memory size.
    pub fn restore(&mut self, vga: Vga) -> bool {
        let fits = vga.memory.len() == MEMORY_SIZE && vga.registers.palette.len() == 768;
        if fits {
            self.vga = vga;
        }
        fits
    }

    fn write_dispi(&mut self, register: u16, value: u16) {
        if self.vga.dispi.write(register, value) {
            let len = self.vga.dispi.pitch() * usize::from(self.vga.dispi.y);
            let len = len.min(MEMORY_SIZE);
            self.vga.memory[..len].fill(0);
        }
    }
}

impl BusDevice for VgaDevice {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match offset {
            0x1ce => store_value(data, self.vga.dispi.index.into()),
            0x1cf | 0x1d0 => {
                store_value(data, self.vga.dispi.read(self.vga.dispi.index).into());
            }
            _ => {
                let now = self.clock.now_ns();
                read_bytes(offset, data, |port| self.vga.registers.read(port, now));
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match offset {
            0x1ce => self.vga.dispi.index = value_of(data) as u16,
            0x1cf | 0x1d0 => self.write_dispi(self.vga.dispi.index, value_of(data) as u16),
            _ => write_bytes(offset, data, |port, value| self.vga.registers.write(port, value)),
        }
        self.changes.note();
    }
}

/// The window at [`WINDOW_BASE`].
pub struct VgaWindow(Arc<Mutex<VgaDevice>>);

impl VgaWindow {
    /// The window of an adapter.
    pub fn new(device: Arc<Mutex<VgaDevice>>) -> Self {
        Self(device)
    }
}

impl BusDevice for VgaWindow {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let mut device = lock(&self.0);
        read_bytes(offset, data, |offset| device.vga.read_window(offset));
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut device = lock(&self.0);
        write_bytes(offset, data, |offset, value| device.vga.write_window(offset, value));
        device.changes.note();
    }
}

/// BAR 0: video memory.
pub struct LinearWindow(Arc<Mutex<VgaDevice>>);

impl BusDevice for LinearWindow {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        lock(&self.0).vga.read_linear(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut device = lock(&self.0);
        device.vga.write_linear(offset, data);
        device.changes.note();
    }
}

/// BAR 2: the registers in memory.
pub struct MmioWindow(Arc<Mutex<VgaDevice>>);

impl BusDevice for MmioWindow {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let mut device = lock(&self.0);
        match offset {
            MMIO_PORTS..0x420 => device.read(offset - MMIO_PORTS + 0x3c0, data),
            MMIO_DISPI..0x516 if data.len() == 2 => {
                let value = device.vga.dispi.read(((offset - MMIO_DISPI) / 2) as u16);
                store_value(data, value.into());
            }
            _ => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut device = lock(&self.0);
        match offset {
            MMIO_PORTS..0x420 => device.write(offset - MMIO_PORTS + 0x3c0, data),
            MMIO_DISPI..0x516 if data.len() == 2 => {
                device.write_dispi(((offset - MMIO_DISPI) / 2) as u16, value_of(data) as u16);
                device.changes.note();
            }
            _ => {}
        }
    }
}

/// An option ROM.
pub struct OptionRom(Vec<u8>);

impl OptionRom {
    /// A ROM with this content; reads past its end are all-ones.
    pub fn new(content: Vec<u8>) -> Self {
        Self(content)
    }
}

impl BusDevice for OptionRom {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, |at| {
            usize::try_from(at).ok().and_then(|at| self.0.get(at)).copied().unwrap_or(0xff)
        });
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) {}
}

/// The adapter's PCI function, with its VGA BIOS, which may be empty.
pub fn pci_function(device: &Arc<Mutex<VgaDevice>>, bios: Vec<u8>) -> Function {
    let config = ConfigSpace::new(Identity {
        vendor: 0x1234,
        device: 0x1111,
        class: 0x03_0000,
        revision: 2,
        subsystem: (0x1af4, 0x1100),
        interrupt_pin: 0,
    });
    let shared = |device: SharedDevice| device;
    let linear = shared(Arc::new(Mutex::new(LinearWindow(device.clone()))));
    let registers = shared(Arc::new(Mutex::new(MmioWindow(device.clone()))));
    let mut windows = vec![
        Window::new(Decode::Memory(register::BAR0), MEMORY_SIZE as u32, 0, linear),
        Window::new(Decode::Memory(register::BAR0 + 8), MMIO_SIZE, 0, registers),
    ];
    if !bios.is_empty() {
        let rom_size = u32::try_from(bios.len()).unwrap_or(u32::MAX).clamp(0x1_0000, 0x100_0000);
        let rom = shared(Arc::new(Mutex::new(OptionRom::new(bios))));
        windows.push(Window::new(Decode::Rom, rom_size, 0, rom));
    }
    Function::new(config, windows, Box::new(Plain))
}
