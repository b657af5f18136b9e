//! The PIIX's reset control register, I/O port 0xCF9: what ACPI's FADT names as the reset register.
//!
//! | bit | meaning |
//! |---|---|
//! | 1 | SYS_RST: the reset is of the whole system, not of the CPUs alone |
//! | 2 | RST_CPU: writing 1 resets; reads as 0 |
//! | 3 | FULL_RST (ICH and later): the reset cycles the power |
//!
//! ACPI's reset value is therefore [`RESET_VALUE`]. The port lies inside the PCI configuration
//! address register (0xCF8 to 0xCFB), which takes 32-bit accesses only: where a host bridge owns
//! the range, it passes byte accesses at 0xCF9 on to this device.
//!
//! Sources: Intel 82371AB (PIIX4) datasheet, section 4.2.6; ACPI specification 6.5, section
//! 4.8.3.6.

use serde::{Deserialize, Serialize};

use crate::bus::BusDevice;

/// The ports, for [`crate::Bus::insert_ports`].
pub const PORTS: &[(u16, u16)] = &[(RESET_PORT, 1)];
/// The port of the register.
pub const RESET_PORT: u16 = 0xcf9;
/// What to write for a system reset.
pub const RESET_VALUE: u8 = SYS_RST | RST_CPU;

const SYS_RST: u8 = 1 << 1;
const RST_CPU: u8 = 1 << 2;
const FULL_RST: u8 = 1 << 3;

/// How much a reset resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetKind {
    /// The CPUs' INIT: they start over, devices and RAM stay.
    Cpu,
    /// Everything but RAM.
    System,
    /// As if the power had been cycled.
    PowerCycle,
}

/// Asks the machine for a reset. Called with the device locked: note the request, act later.
pub type ResetRequest = Box<dyn Fn(ResetKind) + Send>;

/// The register: the pure register machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetControl {
    value: u8,
}

impl ResetControl {
    /// The register's value; the reset bit has cleared itself.
    pub fn read(&self) -> u8 {
        self.value
    }

    /// Writes the register; returns the reset that this asks for.
    pub fn write(&mut self, value: u8) -> Option<ResetKind> {
        self.value = value & (SYS_RST | FULL_RST);
        (value & RST_CPU != 0).then_some(match value & (SYS_RST | FULL_RST) {
            SYS_RST => ResetKind::System,
            both if both & SYS_RST != 0 => ResetKind::PowerCycle,
            _ => ResetKind::Cpu,
        })
    }
}

/// The attachment: the register on the bus. Only byte accesses count.
pub struct ResetControlDevice {
    register: ResetControl,
    request: ResetRequest,
}

impl ResetControlDevice {
    /// Attaches the register; `request` hears of resets.
    pub fn new(request: ResetRequest) -> Self {
        Self { register: ResetControl::default(), request }
    }

    /// The state to save.
    pub fn state(&self) -> &ResetControl {
        &self.register
    }

    /// Takes a saved state.
    pub fn restore(&mut self, register: ResetControl) {
        self.register = register;
    }
}

impl BusDevice for ResetControlDevice {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        match data {
            [byte] => *byte = self.register.read(),
            _ => data.fill(0xff),
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let [value] = *data
            && let Some(kind) = self.register.write(value)
        {
            (self.request)(kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::bus::lock;

    #[test]
    fn the_reset_bit_acts_and_the_others_choose() {
        let mut register = ResetControl::default();
        for (value, kind) in [
            (0x00, None),
            (0x02, None),
            (0x06, Some(ResetKind::System)),
            (0x0e, Some(ResetKind::PowerCycle)),
            (0x04, Some(ResetKind::Cpu)),
            (0x0c, Some(ResetKind::Cpu)),
            (0xfb, None),
        ] {
            assert_eq!(register.write(value), kind, "{value:#x}");
            assert_eq!(register.read(), value & 0x0a);
        }
    }

    #[test]
    fn only_bytes_reach_the_register() {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        let mut device = ResetControlDevice::new(Box::new(move |kind| lock(&log).push(kind)));
        device.write(0xcf9, &[6, 0]);
        device.write(0xcf9, &[0, 0, 6, 0]);
        assert!(lock(&requests).is_empty());
        device.write(0xcf9, &[RESET_VALUE]);
        assert_eq!(*lock(&requests), [ResetKind::System]);
        let (mut byte, mut word) = ([0], [0; 2]);
        device.read(0xcf9, &mut byte);
        device.read(0xcf9, &mut word);
        assert_eq!((byte, word), ([2], [0xff; 2]));
    }
}
