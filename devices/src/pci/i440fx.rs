//! The 82441FX host bridge (PMC), function 0:0.0: shadow RAM control.
//!
//! | offset | register |
//! |---|---|
//! | 0x59 to 0x5F | PAM0 to PAM6: who answers reads and writes from 0xC0000 to 0xFFFFF |
//! | 0x72 | SMRAM control; there is no SMM, so SMRAM is never opened |
//!
//! Source: Intel 440FX PCIset datasheet (290549), sections 3.2.18 and 3.2.19.

use super::config::{ConfigSpace, Identity};
use super::function::{Behaviour, Function};

/// PAM0.
pub const PAM0: u8 = 0x59;
/// SMRAM control.
pub const SMRAM: u8 = 0x72;
const PAM_COUNT: u8 = 7;
/// SMRAM bit 4: the settings are locked until reset.
const D_LCK: u8 = 1 << 4;
/// SMRAM bit 6: SMRAM is open outside SMM. Cleared, and not to be set, once locked.
const D_OPEN: u8 = 1 << 6;

/// Who answers in a piece of the area below 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// First address.
    pub start: u64,
    /// Bytes: 0x4000, or 0x10000 for the last.
    pub len: u64,
    /// Reads come from RAM rather than from ROM on the bus.
    pub read_ram: bool,
    /// Writes go to RAM; else they are dropped.
    pub write_ram: bool,
}

/// The pieces as the seven PAM registers set them, from 0xC0000 up.
pub fn shadows(config: &ConfigSpace) -> Vec<Shadow> {
    let piece = |start, len, bits: u8| Shadow {
        start,
        len,
        read_ram: bits & 1 != 0,
        write_ram: bits & 2 != 0,
    };
    let mut pieces = Vec::with_capacity(13);
    for index in 1..PAM_COUNT {
        let value = config.get(PAM0 + index);
        let start = 0xc_0000 + u64::from(index - 1) * 0x8000;
        pieces.push(piece(start, 0x4000, value));
        pieces.push(piece(start + 0x4000, 0x4000, value >> 4));
    }
    pieces.push(piece(0xf_0000, 0x1_0000, config.get(PAM0) >> 4));
    pieces
}

/// Hears of shadow settings. Called with the bus's configuration locked: note them, or change the
/// memory map; do not touch the bus.
pub type ShadowControl = Box<dyn FnMut(&[Shadow]) + Send>;

struct HostBridge {
    shadow: ShadowControl,
    locked: bool,
}

impl Behaviour for HostBridge {
    fn written(&mut self, config: &mut ConfigSpace, offset: u8, len: usize) {
        let (first, end) = (usize::from(offset), usize::from(offset) + len);
        let touches = |register: u8, count: u8| {
            first < usize::from(register) + usize::from(count) && usize::from(register) < end
        };
        if touches(PAM0, PAM_COUNT) {
            (self.shadow)(&shadows(config));
        }
        if touches(SMRAM, 1) {
            let value = config.get(SMRAM);
            if value & D_LCK != 0 && !self.locked {
                self.locked = true;
                config.set(SMRAM, value & !D_OPEN);
                config.allow(SMRAM, &[0x08]);
            }
        }
    }
}

/// The bridge. Its subsystem ID is that by which firmware for emulators recognises an emulator.
pub fn host_bridge(shadow: ShadowControl) -> Function {
    let mut config = ConfigSpace::new(Identity {
        vendor: 0x8086,
        device: 0x1237,
        class: 0x06_0000,
        revision: 2,
        subsystem: (0x1af4, 0x1100),
        interrupt_pin: 0,
    });
    // Memory and bus master enables are hardwired; medium DEVSEL timing.
    config.set_u16(super::config::register::COMMAND, 0x0006);
    config.allow(super::config::register::COMMAND, &[0x00, 0x01]);
    config.set_u16(super::config::register::STATUS, 0x0280);
    config.allow(PAM0, &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33]);
    // PMCCFG, DRAM control and row boundaries hold what firmware writes; nothing depends on it.
    config.allow(0x50, &[0xff; 9]);
    config.allow(0x60, &[0xff; 8]);
    config.set(SMRAM, 0x02);
    config.allow(SMRAM, &[0x78]);
    Function::new(config, Vec::new(), Box::new(HostBridge { shadow, locked: false }))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn pam_registers_set_thirteen_pieces() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let mut bridge =
            host_bridge(Box::new(move |pieces| *log.lock().unwrap() = pieces.to_vec()));
        bridge.write(0x58, &[0, 0x10, 0x31, 0]);
        let pieces = seen.lock().unwrap().clone();
        assert_eq!(pieces.len(), 13);
        assert_eq!(pieces.iter().map(|p| p.len).sum::<u64>(), 0x4_0000);
        let rw = |p: &Shadow| (p.start, p.read_ram, p.write_ram);
        assert_eq!(rw(&pieces[0]), (0xc_0000, true, false));
        assert_eq!(rw(&pieces[1]), (0xc_4000, true, true));
        assert_eq!(rw(&pieces[2]), (0xc_8000, false, false));
        assert_eq!(rw(&pieces[12]), (0xf_0000, true, false));
    }

    #[test]
    fn smram_locks() {
        let mut bridge = host_bridge(Box::new(|_| {}));
        bridge.write(SMRAM, &[0x4a]);
        assert_eq!(bridge.config().get(SMRAM), 0x4a);
        bridge.write(SMRAM, &[0x5a]);
        assert_eq!(bridge.config().get(SMRAM), 0x1a);
        bridge.write(SMRAM, &[0x40]);
        assert_eq!(bridge.config().get(SMRAM) & 0x70, 0x10);
    }
}
