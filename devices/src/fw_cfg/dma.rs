//! Transfers between items and guest memory.
//!
//! The guest writes the address of a structure of 16 bytes, all big-endian:
//!
//! | offset | field |
//! |---|---|
//! | 0 | control: bit 0 error, 1 read, 2 skip, 3 select the key in bits 16 to 31, 4 write |
//! | 4 | length in bytes |
//! | 8 | guest physical address |
//!
//! The transfer is over when the write is: control has become 0, or the error bit alone. Past the
//! end of an item zeros are read. There are no items that can be written.
//!
//! Source: QEMU documentation, "QEMU Firmware Configuration (fw_cfg) Device", "Guest-side DMA
//! Interface".

use super::FwCfg;
use crate::DmaMemory;
use std::sync::Arc;

/// What the address register reads as, where there is DMA.
pub(super) const SIGNATURE: [u8; 8] = *b"QEMU CFG";

const ERROR: u32 = 1 << 0;
const READ: u32 = 1 << 1;
const SKIP: u32 = 1 << 2;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;

/// Bytes moved at a time.
const PIECE: usize = 64 << 10;

impl FwCfg {
    /// Carries out what the structure at `address` says. Where there is none, nothing happens.
    pub(super) fn transfer(&mut self, address: u64) {
        let Some(memory) = self.memory.clone() else { return };
        let mut words = [0; 16];
        if !memory.read(address, &mut words) {
            return;
        }
        let word = |at: usize| {
            let [a, b, c, d] = [at, at + 1, at + 2, at + 3].map(|at| words[at]);
            u32::from_be_bytes([a, b, c, d])
        };
        let (control, length) = (word(0), word(4));
        let target = u64::from(word(8)) << 32 | u64::from(word(12));
        if control & SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let done = if control & READ != 0 {
            self.read_to(&memory, target, length)
        } else if control & WRITE != 0 {
            false
        } else {
            if control & SKIP != 0 {
                self.state.offset = self.state.offset.saturating_add(length.into());
            }
            true
        };
        let status = if done { 0 } else { ERROR };
        memory.write(address, &status.to_be_bytes());
    }

    /// Copies the next `length` bytes of the item to guest memory. `false` if not all of that is
    /// RAM.
    fn read_to(&mut self, memory: &Arc<dyn DmaMemory>, target: u64, length: u32) -> bool {
        let item = self.items.get(&self.state.selector).map_or(&[][..], Vec::as_slice);
        let zeros = [0; PIECE];
        let mut moved = 0;
        while moved < u64::from(length) {
            let start = usize::try_from(self.state.offset).unwrap_or(usize::MAX);
            let rest = item.get(start..).filter(|rest| !rest.is_empty()).unwrap_or(&zeros);
            let size = (u64::from(length) - moved).min(rest.len().min(PIECE) as u64);
            let Some(at) = target.checked_add(moved) else { return false };
            if !memory.write(at, &rest[..size as usize]) {
                return false;
            }
            moved += size;
            self.state.offset = self.state.offset.saturating_add(size);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::key;
    use super::*;
    use crate::BusDevice;
    use crate::dma::ProbeMemory;

    const STRUCTURE: usize = 0x100;

    struct Bench {
        device: FwCfg,
        memory: Arc<ProbeMemory>,
    }

    impl Bench {
        fn new() -> Bench {
            let mut device = FwCfg::new(1 << 20, 1);
            let memory = ProbeMemory::new(0x3_0000);
            device.set_dma(memory.clone());
            Bench { device, memory }
        }

        /// Starts a transfer, and returns what control has become.
        fn transfer(&mut self, control: u32, length: u32, target: u64) -> u32 {
            let structure =
                [&control.to_be_bytes()[..], &length.to_be_bytes()[..], &target.to_be_bytes()[..]];
            assert!(self.memory.write(STRUCTURE as u64, &structure.concat()));
            self.device.write(4, &[0; 4]);
            self.device.write(8, &(STRUCTURE as u32).to_be_bytes());
            let mut control = [0; 4];
            assert!(self.memory.read(STRUCTURE as u64, &mut control));
            u32::from_be_bytes(control)
        }

        fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
            let mut data = vec![0; len];
            assert!(self.memory.read(at, &mut data));
            data
        }
    }

    #[test]
    fn the_device_says_that_it_is_there() {
        let mut device = FwCfg::new(0, 1);
        let mut address = [0; 8];
        device.read(4, &mut address);
        assert_eq!(address, [0xFF; 8]);
        device.set_dma(ProbeMemory::new(0));
        device.read(4, &mut address);
        assert_eq!(&address, b"QEMU CFG");
        device.write(0, &key::ID.to_le_bytes());
        let mut id = [0];
        device.read(1, &mut id);
        assert_eq!(id, [3]);
    }

    #[test]
    fn items_are_read_in_parts() {
        let mut bench = Bench::new();
        let content: Vec<u8> = (0..0x1_8000u32).map(|i| (i >> 4) as u8 | 1).collect();
        let key = bench.device.add_file("opt/a", content.clone()).unwrap();
        let select = u32::from(key) << 16 | SELECT;
        assert_eq!(bench.transfer(select | READ, 0x1_8000, 0x1000), 0);
        assert_eq!(bench.bytes(0x1000, 0x1_8000), content);
        // From here on zeros.
        assert_eq!(bench.transfer(READ, 0x10, 0x1000), 0);
        assert_eq!(bench.bytes(0x1000, 0x11), [&[0; 16], &content[16..17]].concat());
        assert_eq!(bench.transfer(select, 7, u64::MAX), 0);
        assert_eq!(bench.transfer(SKIP, 0x1_7FF8, u64::MAX), 0);
        assert_eq!(bench.transfer(READ, 0x10, 0x2000), 0);
        assert_eq!(bench.bytes(0x2000, 16), [&content[0x1_7FF8..], &[0; 8]].concat());
    }

    #[test]
    fn what_is_not_ram_is_an_error() {
        let mut bench = Bench::new();
        let select = u32::from(key::SIGNATURE) << 16 | SELECT;
        assert_eq!(bench.transfer(select | READ, 4, 0x3_0000), ERROR);
        assert_eq!(bench.transfer(select | READ, 4, u64::MAX - 1), ERROR);
        assert_eq!(bench.transfer(select | READ, u32::MAX, 0x1000), ERROR);
        assert_eq!(bench.transfer(select | WRITE, 4, 0x1000), ERROR);
        assert_eq!(bench.transfer(0, u32::MAX, 0), 0);
        // No structure: nothing to tell.
        bench.device.write(4, &[0xFF; 4]);
        bench.device.write(8, &[0xFF; 4]);
        bench.device.write(8, &0x2_FFF8u32.to_be_bytes());
    }
}
