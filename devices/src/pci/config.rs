//! The 256 bytes of a function's configuration space: values, and which bits software may change.

use serde::{Deserialize, Serialize};

/// Offsets of the header's registers (PCI Local Bus Specification 3.0, section 6.1).
pub mod register {
    /// Vendor ID, 16 bits.
    pub const VENDOR: u8 = 0x00;
    /// Device ID, 16 bits.
    pub const DEVICE: u8 = 0x02;
    /// Command, 16 bits.
    pub const COMMAND: u8 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u8 = 0x06;
    /// Revision, 8 bits.
    pub const REVISION: u8 = 0x08;
    /// Class code, 24 bits.
    pub const CLASS: u8 = 0x09;
    /// Header type, 8 bits; bit 7 says that the device has several functions.
    pub const HEADER_TYPE: u8 = 0x0e;
    /// The first of six base address registers.
    pub const BAR0: u8 = 0x10;
    /// Subsystem vendor ID, 16 bits.
    pub const SUBSYSTEM_VENDOR: u8 = 0x2c;
    /// Subsystem ID, 16 bits.
    pub const SUBSYSTEM: u8 = 0x2e;
    /// Expansion ROM base address.
    pub const ROM: u8 = 0x30;
    /// Interrupt line: a note of firmware's.
    pub const INTERRUPT_LINE: u8 = 0x3c;
    /// Interrupt pin: 0 none, 1 to 4 INTA# to INTD#.
    pub const INTERRUPT_PIN: u8 = 0x3d;
}

/// Bits of the command register.
pub mod command {
    /// The function answers I/O accesses.
    pub const IO: u16 = 1 << 0;
    /// The function answers memory accesses.
    pub const MEMORY: u16 = 1 << 1;
    /// The function may be bus master.
    pub const MASTER: u16 = 1 << 2;
    /// INTx is masked.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Length of the space in bytes.
pub const CONFIG_SIZE: usize = 256;

/// What a function says that it is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Base class, sub-class, programming interface, from high to low: 24 bits.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor ID and subsystem ID.
    pub subsystem: (u16, u16),
    /// 0 none, 1 to 4 INTA# to INTD#.
    pub interrupt_pin: u8,
}

/// A configuration space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    /// Bits that writing 1 clears.
    clearable: Vec<u8>,
}

impl ConfigSpace {
    /// The header of a function, with a command register that enables what every function may
    /// have, and the interrupt line to note.
    pub fn new(identity: Identity) -> Self {
        let zeros = || vec![0; CONFIG_SIZE];
        let mut space = Self { bytes: zeros(), writable: zeros(), clearable: zeros() };
        space.set_u16(register::VENDOR, identity.vendor);
        space.set_u16(register::DEVICE, identity.device);
        space.set(register::REVISION, identity.revision);
        for (index, byte) in (0u8..).zip(&identity.class.to_le_bytes()[..3]) {
            space.set(register::CLASS + index, *byte);
        }
        space.set_u16(register::SUBSYSTEM_VENDOR, identity.subsystem.0);
        space.set_u16(register::SUBSYSTEM, identity.subsystem.1);
        space.set(register::INTERRUPT_PIN, identity.interrupt_pin);
        // I/O, memory, master, parity and SERR enables; INTx disable.
        space.allow(register::COMMAND, &[0x47, 0x05]);
        space.allow(register::INTERRUPT_LINE, &[0xff]);
        // The error bits of the status register, which nothing here sets.
        space.clear_by_ones(register::STATUS + 1, 0xf9);
        space
    }

    /// Sets a byte, whatever software may do.
    pub fn set(&mut self, offset: u8, value: u8) {
        if let Some(byte) = self.bytes.get_mut(usize::from(offset)) {
            *byte = value;
        }
    }

    /// Sets two bytes, little-endian.
    pub fn set_u16(&mut self, offset: u8, value: u16) {
        let [low, high] = value.to_le_bytes();
        self.set(offset, low);
        self.set(offset.wrapping_add(1), high);
    }

    /// Sets four bytes, little-endian.
    pub fn set_u32(&mut self, offset: u8, value: u32) {
        self.set_u16(offset, value as u16);
        self.set_u16(offset.wrapping_add(2), (value >> 16) as u16);
    }

    /// A byte.
    pub fn get(&self, offset: u8) -> u8 {
        self.bytes.get(usize::from(offset)).copied().unwrap_or(0xff)
    }

    /// Two bytes, little-endian.
    pub fn get_u16(&self, offset: u8) -> u16 {
        u16::from_le_bytes([self.get(offset), self.get(offset.wrapping_add(1))])
    }

    /// Four bytes, little-endian.
    pub fn get_u32(&self, offset: u8) -> u32 {
        u32::from(self.get_u16(offset)) | u32::from(self.get_u16(offset.wrapping_add(2))) << 16
    }

    /// Lets software change the bits of `masks`, from `offset` on.
    pub fn allow(&mut self, offset: u8, masks: &[u8]) {
        for (byte, mask) in self.writable.iter_mut().skip(offset.into()).zip(masks) {
            *byte = *mask;
        }
    }

    /// Lets software clear the bits of `mask` by writing ones.
    pub fn clear_by_ones(&mut self, offset: u8, mask: u8) {
        if let Some(byte) = self.clearable.get_mut(usize::from(offset)) {
            *byte = mask;
        }
    }

    /// Software writes a byte.
    pub fn write(&mut self, offset: u8, value: u8) {
        let at = usize::from(offset);
        let (Some(byte), Some(writable), Some(clearable)) =
            (self.bytes.get_mut(at), self.writable.get(at), self.clearable.get(at))
        else {
            return;
        };
        *byte = *byte & !writable | value & writable;
        *byte &= !(value & clearable);
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        self.get_u16(register::COMMAND)
    }

    /// Takes the values of a saved space of the same function; `false` if it cannot be one.
    pub fn restore(&mut self, saved: ConfigSpace) -> bool {
        let fits = saved.bytes.len() == CONFIG_SIZE
            && saved.writable == self.writable
            && saved.clearable == self.clearable;
        if fits {
            *self = saved;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: 0x1237,
            class: 0x06_0000,
            revision: 2,
            subsystem: (0x1af4, 0x1100),
            interrupt_pin: 0,
        })
    }

    #[test]
    fn the_header_tells_the_identity() {
        let space = space();
        assert_eq!(space.get_u32(0), 0x1237_8086);
        assert_eq!(space.get_u32(8), 0x0600_0002);
        assert_eq!(space.get_u32(0x2c), 0x1100_1af4);
    }

    #[test]
    fn only_writable_bits_change() {
        let mut space = space();
        for offset in 0..=255 {
            space.write(offset, 0xff);
        }
        assert_eq!(space.get_u32(0), 0x1237_8086);
        assert_eq!(space.command(), 0x0547);
        assert_eq!(space.get(register::INTERRUPT_LINE), 0xff);
        assert_eq!(space.get_u32(0x10), 0);
    }

    #[test]
    fn ones_clear_status_bits() {
        let mut space = space();
        space.set_u16(register::STATUS, 0x2280);
        space.write(register::STATUS + 1, 0x20);
        assert_eq!(space.get_u16(register::STATUS), 0x0280);
    }
}
