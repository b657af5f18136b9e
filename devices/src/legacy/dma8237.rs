//! The PC/AT's pair of 8237A DMA controllers, with the page registers.
//!
//! | port | register |
//! |---|---|
//! | 0x00 to 0x07 | channels 0 to 3: address and count, 16 bits through a flip-flop |
//! | 0x08 | status (read), command (write) |
//! | 0x09 to 0x0F | request, single mask, mode, clear flip-flop, master clear, clear mask, all masks |
//! | 0xC0 to 0xDE, even | the same for channels 4 to 7, which move words |
//! | 0x81 to 0x83, 0x87, 0x89 to 0x8B, 0x8F | address bits 16 to 23 of channels 2, 3, 1, 0, 6, 7, 5 and refresh |
//!
//! A device asks for its channel's transfer and does it at once: [`Dma::transfer`].
//!
//! Source: Intel 8237A datasheet (231466); IBM PC/AT Technical Reference, section 1.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bus::{BusDevice, read_bytes, write_bytes};
use crate::dma::DmaMemory;

/// The ports, for [`crate::Bus::insert_ports`].
pub const PORTS: &[(u16, u16)] = &[(0x00, 16), (0x81, 15), (0xc0, 32)];

/// Command bit 2: the controller is off.
const DISABLED: u8 = 1 << 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Channel {
    base_address: u16,
    base_count: u16,
    address: u16,
    count: u16,
    mode: u8,
    masked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Chip {
    channels: [Channel; 4],
    command: u8,
    /// Channels that reached terminal count.
    reached: u8,
    flip_flop: bool,
}

impl Chip {
    fn new() -> Self {
        let channel = Channel { masked: true, ..Channel::default() };
        Self { channels: [channel; 4], command: 0, reached: 0, flip_flop: false }
    }

    fn read(&mut self, register: u64) -> u8 {
        match register {
            0..=7 => {
                let channel = self.channels[(register / 2) as usize];
                let value = if register & 1 == 0 { channel.address } else { channel.count };
                let [low, high] = value.to_le_bytes();
                self.flip_flop = !self.flip_flop;
                if self.flip_flop { low } else { high }
            }
            8 => std::mem::take(&mut self.reached),
            15 => self.channels.iter().rev().fold(0xf0, |mask, c| mask << 1 | u8::from(c.masked)),
            _ => 0xff,
        }
    }

    fn write(&mut self, register: u64, value: u8) {
        match register {
            0..=7 => {
                let high = self.flip_flop;
                self.flip_flop = !high;
                let channel = &mut self.channels[(register / 2) as usize];
                let (base, current) = if register & 1 == 0 {
                    (&mut channel.base_address, &mut channel.address)
                } else {
                    (&mut channel.base_count, &mut channel.count)
                };
                *base = if high {
                    *base & 0xff | u16::from(value) << 8
                } else {
                    *base & 0xff00 | u16::from(value)
                };
                *current = *base;
            }
            8 => self.command = value,
            10 => self.channels[usize::from(value & 3)].masked = value & 4 != 0,
            11 => self.channels[usize::from(value & 3)].mode = value,
            12 => self.flip_flop = false,
            13 => {
                self.command = 0;
                self.reached = 0;
                self.flip_flop = false;
                self.channels.iter_mut().for_each(|channel| channel.masked = true);
            }
            14 => self.channels.iter_mut().for_each(|channel| channel.masked = false),
            15 => {
                for (index, channel) in self.channels.iter_mut().enumerate() {
                    channel.masked = value >> index & 1 != 0;
                }
            }
            _ => {}
        }
    }
}

/// Which way data move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the device to memory.
    ToMemory,
    /// From memory to the device.
    FromMemory,
    /// The device's data are only checked.
    Verify,
}

/// The pair: the pure register machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dma {
    chips: [Chip; 2],
    /// Page registers, by port minus 0x80.
    pages: [u8; 16],
}

/// The page register of each channel, as port minus 0x80.
const PAGE_OF: [usize; 8] = [7, 3, 1, 2, 15, 11, 9, 10];

impl Dma {
    /// The pair after reset.
    pub fn new() -> Self {
        Self { chips: [Chip::new(), Chip::new()], pages: [0; 16] }
    }

    /// Bytes that channel `channel` (0 to 3) is programmed to move, if it is open, and which way.
    pub fn pending(&self, channel: u8) -> Option<(usize, Direction)> {
        let chip = &self.chips[0];
        let state = chip.channels.get(usize::from(channel))?;
        if state.masked || chip.command & DISABLED != 0 {
            return None;
        }
        let direction = match state.mode >> 2 & 3 {
            1 => Direction::ToMemory,
            2 => Direction::FromMemory,
            _ => Direction::Verify,
        };
        Some((usize::from(state.count) + 1, direction))
    }

    /// Moves `len` bytes, at most what is pending, by channel `channel`: `each` gets the physical
    /// address of a byte and its index. Returns whether terminal count was reached.
    fn advance(&mut self, channel: u8, len: usize, mut each: impl FnMut(u64, usize)) -> bool {
        let page = PAGE_OF.get(usize::from(channel)).and_then(|&page| self.pages.get(page));
        let page = u64::from(page.copied().unwrap_or(0)) << 16;
        let chip = &mut self.chips[0];
        let Some(state) = chip.channels.get_mut(usize::from(channel)) else { return false };
        let down = state.mode & 0x20 != 0;
        for index in 0..len {
            each(page | u64::from(state.address), index);
            state.address =
                if down { state.address.wrapping_sub(1) } else { state.address.wrapping_add(1) };
            let last = state.count == 0;
            state.count = state.count.wrapping_sub(1);
            if last {
                chip.reached |= 1 << channel;
                if state.mode & 0x10 != 0 {
                    state.address = state.base_address;
                    state.count = state.base_count;
                } else {
                    state.masked = true;
                }
                return true;
            }
        }
        false
    }

    fn read_port(&mut self, port: u64) -> u8 {
        match port {
            0x00..=0x0f => self.chips[0].read(port),
            0x80..=0x8f => self.pages[(port & 15) as usize],
            0xc0..=0xdf if port & 1 == 0 => self.chips[1].read((port - 0xc0) / 2),
            _ => 0xff,
        }
    }

    fn write_port(&mut self, port: u64, value: u8) {
        match port {
            0x00..=0x0f => self.chips[0].write(port, value),
            0x80..=0x8f => self.pages[(port & 15) as usize] = value,
            0xc0..=0xdf if port & 1 == 0 => self.chips[1].write((port - 0xc0) / 2, value),
            _ => {}
        }
    }
}

impl Default for Dma {
    fn default() -> Self {
        Self::new()
    }
}

/// The attachment: the pair on the bus, with the memory that it reaches.
pub struct DmaDevice {
    dma: Dma,
    memory: Arc<dyn DmaMemory>,
}

impl DmaDevice {
    /// Attaches a pair after reset.
    pub fn new(memory: Arc<dyn DmaMemory>) -> Self {
        Self { dma: Dma::new(), memory }
    }

    /// The state to save.
    pub fn state(&self) -> &Dma {
        &self.dma
    }

    /// Takes a saved state.
    pub fn restore(&mut self, dma: Dma) {
        self.dma = dma;
    }

    /// See [`Dma::pending`].
    pub fn pending(&self, channel: u8) -> Option<(usize, Direction)> {
        self.dma.pending(channel)
    }

    /// Moves a device's bytes to memory. Returns whether terminal count was reached.
    pub fn to_memory(&mut self, channel: u8, data: &[u8]) -> bool {
        let memory = self.memory.clone();
        let verify = self.dma.pending(channel).is_some_and(|(_, d)| d == Direction::Verify);
        self.dma.advance(channel, data.len(), |address, index| {
            if let (false, Some(byte)) = (verify, data.get(index..index + 1)) {
                memory.write(address, byte);
            }
        })
    }

    /// Moves bytes from memory to a device. Returns whether terminal count was reached.
    pub fn from_memory(&mut self, channel: u8, data: &mut [u8]) -> bool {
        let memory = self.memory.clone();
        let len = data.len();
        self.dma.advance(channel, len, |address, index| {
            if let Some(byte) = data.get_mut(index..index + 1) {
                memory.read(address, byte);
            }
        })
    }
}

impl BusDevice for DmaDevice {
    /// Offsets are port numbers.
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, |port| self.dma.read_port(port));
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        write_bytes(offset, data, |port, value| self.dma.write_port(port, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::lock;
    use crate::dma::ProbeMemory;
    use proptest::prelude::*;

    fn program(device: &mut DmaDevice, mode: u8, address: u32, count: u16) {
        device.write(0x0c, &[0]);
        device.write(0x0b, &[mode | 2]);
        let [low, mid, high, _] = address.to_le_bytes();
        device.write(0x04, &[low]);
        device.write(0x04, &[mid]);
        device.write(0x81, &[high]);
        let [low, high] = (count - 1).to_le_bytes();
        device.write(0x05, &[low]);
        device.write(0x05, &[high]);
        device.write(0x0a, &[2]);
    }

    #[test]
    fn channel_2_moves_bytes_to_its_terminal_count() {
        let memory = ProbeMemory::new(0x2_0000);
        let mut device = DmaDevice::new(memory.clone());
        assert_eq!(device.pending(2), None, "masked after reset");
        program(&mut device, 0x44, 0x1_2340, 6);
        assert_eq!(device.pending(2), Some((6, Direction::ToMemory)));
        assert!(!device.to_memory(2, &[1, 2, 3, 4]));
        assert!(device.to_memory(2, &[5, 6, 7, 8]));
        assert_eq!(lock(&memory.0)[0x1_2340..0x1_2348], [1, 2, 3, 4, 5, 6, 0, 0]);
        let mut status = [0];
        device.read(8, &mut status);
        assert_eq!(status, [4]);
        assert_eq!(device.pending(2), None);

        program(&mut device, 0x58, 0x1_2342, 2);
        let mut data = [0; 2];
        assert!(device.from_memory(2, &mut data));
        assert_eq!(data, [3, 4]);
        assert_eq!(device.pending(2), Some((2, Direction::FromMemory)), "starts over");
    }

    proptest! {
        #[test]
        fn random_accesses(accesses in prop::collection::vec(
            (any::<bool>(), 0u64..0x100, any::<u8>()), 0..300,
        )) {
            let mut device = DmaDevice::new(ProbeMemory::new(0x1000));
            for (write, port, value) in accesses {
                if write {
                    device.write(port, &[value]);
                } else {
                    device.read(port, &mut [value]);
                }
                if let Some((len, direction)) = device.pending(value & 7) {
                    let mut data = vec![0; len.min(600)];
                    if direction == Direction::FromMemory {
                        device.from_memory(value & 7, &mut data);
                    } else {
                        device.to_memory(value & 7, &data);
                    }
                }
            }
            let saved = serde_json::to_string(device.state()).unwrap();
            device.restore(serde_json::from_str(&saved).unwrap());
        }
    }
}
