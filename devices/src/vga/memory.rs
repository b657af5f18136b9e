//! The window at 0xA0000: which part of it answers, and the planes behind it.

use super::Vga;

/// Sequencer memory mode: no odd/even, chain-4.
const CHAIN_4: u8 = 1 << 3;
/// Graphics mode: host odd/even.
const ODD_EVEN: u8 = 1 << 4;
/// Graphics mode: read mode 1, color compare.
const READ_COMPARE: u8 = 1 << 3;

/// All bits of a byte, or none.
fn spread(bit: bool) -> u8 {
    if bit { 0xff } else { 0 }
}

impl Vga {
    /// The offset into the selected map of window offset `offset` (from 0xA0000), if it answers.
    fn map(&self, offset: u64) -> Option<usize> {
        if self.registers.miscellaneous & 2 == 0 {
            return None;
        }
        let (start, len) = match self.registers.graphics[6] >> 2 & 3 {
            0 => (0, 0x2_0000),
            1 => (0, 0x1_0000),
            2 => (0x1_0000, 0x8000),
            _ => (0x1_8000, 0x8000),
        };
        let inside = offset.checked_sub(start).filter(|&inside| inside < len)?;
        Some(inside as usize + usize::from(self.dispi.bank) * 0x1_0000)
    }

    fn chained(&self) -> bool {
        self.registers.sequencer[4] & CHAIN_4 != 0
    }

    /// Reads the window, `offset` bytes from 0xA0000.
    pub(super) fn read_window(&mut self, offset: u64) -> u8 {
        let Some(at) = self.map(offset) else { return 0xff };
        if self.chained() {
            return self.memory.get(at).copied().unwrap_or(0xff);
        }
        let graphics = self.registers.graphics;
        let odd_even = graphics[5] & ODD_EVEN != 0;
        let cell = if odd_even { at >> 1 } else { at };
        let Some(planes) = self.memory.get(cell * 4..cell * 4 + 4) else { return 0xff };
        self.latch.copy_from_slice(planes);
        if odd_even {
            return self.latch[usize::from(graphics[4] & 2) | at & 1];
        }
        if graphics[5] & READ_COMPARE == 0 {
            return self.latch[usize::from(graphics[4] & 3)];
        }
        let mut differs = 0;
        for (plane, latch) in self.latch.iter().enumerate() {
            if graphics[7] >> plane & 1 != 0 {
                differs |= latch ^ spread(graphics[2] >> plane & 1 != 0);
            }
        }
        !differs
    }

    /// Writes the window.
    pub(super) fn write_window(&mut self, offset: u64, value: u8) {
        let Some(at) = self.map(offset) else { return };
        let mask = self.registers.sequencer[2];
        if self.chained() {
            if mask >> (at & 3) & 1 != 0
                && let Some(byte) = self.memory.get_mut(at)
            {
                *byte = value;
            }
            return;
        }
        let graphics = self.registers.graphics;
        if graphics[5] & ODD_EVEN != 0 {
            let plane = graphics[4] & 2 | (at & 1) as u8;
            if mask >> plane & 1 != 0
                && let Some(byte) = self.memory.get_mut((at >> 1) * 4 + usize::from(plane))
            {
                *byte = value;
            }
            return;
        }
        let rotated = value.rotate_right((graphics[3] & 7).into());
        let Some(planes) = self.memory.get_mut(at * 4..at * 4 + 4) else { return };
        for (plane, (byte, latch)) in planes.iter_mut().zip(self.latch).enumerate() {
            if mask >> plane & 1 == 0 {
                continue;
            }
            let set_reset = spread(graphics[0] >> plane & 1 != 0);
            let (source, bits) = match graphics[5] & 3 {
                0 if graphics[1] >> plane & 1 != 0 => (set_reset, graphics[8]),
                0 => (rotated, graphics[8]),
                1 => {
                    *byte = latch;
                    continue;
                }
                2 => (spread(value >> plane & 1 != 0), graphics[8]),
                _ => (set_reset, rotated & graphics[8]),
            };
            let result = match graphics[3] >> 3 & 3 {
                0 => source,
                1 => source & latch,
                2 => source | latch,
                _ => source ^ latch,
            };
            *byte = result & bits | latch & !bits;
        }
    }

    /// Reads the linear window.
    pub(super) fn read_linear(&self, offset: u64, data: &mut [u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = self.memory.get(start.saturating_add(index)).copied().unwrap_or(0xff);
        }
    }

    /// Writes the linear window.
    pub(super) fn write_linear(&mut self, offset: u64, data: &[u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, value) in data.iter().enumerate() {
            if let Some(byte) = self.memory.get_mut(start.saturating_add(index)) {
                *byte = *value;
            }
        }
    }
}
