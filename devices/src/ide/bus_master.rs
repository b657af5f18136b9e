//! Bus-master IDE: registers of a channel, and the walk over its table of physical regions.
//!
//! | offset | register |
//! |---|---|
//! | 0 | command: bit 0 start, bit 3 direction (1: to memory) |
//! | 2 | status: bit 0 active, 1 error and 2 interrupt (write 1 to clear), 5 and 6 drives can DMA |
//! | 4 | physical address of the table, 32 bits |
//!
//! A table entry has a 32-bit address, a 16-bit byte count (0 is 64 KiB), and bit 31 of its second
//! word in the last entry.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::channel::Channel;
use crate::bus::{BusDevice, lock};
use crate::dma::DmaMemory;

const START: u8 = 1 << 0;
const TO_MEMORY: u8 = 1 << 3;
const ACTIVE: u8 = 1 << 0;
const ERROR: u8 = 1 << 1;
const INTERRUPT: u8 = 1 << 2;
/// Entries of a table of 64 KiB; a table without an end is an error.
const MAX_ENTRIES: u32 = 8192;

/// The registers, and how far the engine is in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BusMaster {
    command: u8,
    status: u8,
    table: u32,
    walk: Walk,
}

/// A place in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Walk {
    /// The next entry's address.
    next: u32,
    entries: u32,
    /// What is left of the current entry's memory.
    address: u64,
    left: u64,
    /// The current entry is the last.
    last: bool,
}

impl Walk {
    /// The next piece of memory, at most `want` bytes; `None` at the table's end or if the table
    /// cannot be read.
    fn piece(&mut self, memory: &dyn DmaMemory, want: u64) -> Option<(u64, u64)> {
        if self.left == 0 {
            if self.last || self.entries >= MAX_ENTRIES {
                return None;
            }
            let mut entry = [0; 8];
            if !memory.read(self.next.into(), &mut entry) {
                return None;
            }
            self.next = self.next.wrapping_add(8);
            self.entries += 1;
            let [a, b, c, d, low, high, _, flags] = entry;
            self.address = u64::from(u32::from_le_bytes([a, b, c, d]) & !1);
            self.left = match u16::from_le_bytes([low, high]) & !1 {
                0 => 0x1_0000,
                count => count.into(),
            };
            self.last = flags & 0x80 != 0;
        }
        let count = want.min(self.left);
        let piece = (self.address, count);
        self.address += count;
        self.left -= count;
        Some(piece)
    }
}

/// The table is too short, or names what is no memory.
pub(super) struct BadTable;

impl BusMaster {
    pub(super) fn new(drives: [bool; 2]) -> Self {
        let status = u8::from(drives[0]) << 5 | u8::from(drives[1]) << 6;
        Self { command: 0, status, table: 0, walk: Walk::default() }
    }

    pub(super) fn note_interrupt(&mut self) {
        self.status |= INTERRUPT;
    }

    fn read(&self, offset: u64) -> u8 {
        match offset {
            0 => self.command,
            2 => self.status,
            4..=7 => self.table.to_le_bytes()[(offset - 4) as usize],
            _ => 0xff,
        }
    }

    /// Returns whether the engine was started.
    pub(super) fn write(&mut self, offset: u64, value: u8) -> bool {
        match offset {
            0 => {
                let started = value & START != 0 && self.command & START == 0;
                self.command = value & (START | TO_MEMORY);
                if started {
                    self.status |= ACTIVE;
                    self.walk = Walk { next: self.table, ..Walk::default() };
                } else if self.command & START == 0 {
                    self.status &= !ACTIVE;
                }
                return started;
            }
            2 => {
                self.status &= !(value & (ERROR | INTERRUPT));
                self.status = self.status & !0x60 | value & 0x60;
            }
            4..=7 => {
                let mut bytes = self.table.to_le_bytes();
                bytes[(offset - 4) as usize] = value;
                self.table = u32::from_le_bytes(bytes) & !3;
            }
            _ => {}
        }
        false
    }

    /// Whether the engine is started and has not ended.
    pub(super) fn active(&self) -> bool {
        self.status & ACTIVE != 0 && self.command & START != 0
    }

    /// Stores `data` into the table's memory.
    pub(super) fn scatter(
        &mut self,
        memory: &dyn DmaMemory,
        mut data: &[u8],
    ) -> Result<(), BadTable> {
        while !data.is_empty() {
            let (address, count) = self.walk.piece(memory, data.len() as u64).ok_or(BadTable)?;
            let (now, rest) = data.split_at(count as usize);
            if !memory.write(address, now) {
                return Err(BadTable);
            }
            data = rest;
        }
        Ok(())
    }

    /// The next `len` bytes of the table's memory.
    pub(super) fn gather(
        &mut self,
        memory: &dyn DmaMemory,
        len: usize,
    ) -> Result<Vec<u8>, BadTable> {
        let mut data = vec![0; len];
        let mut rest = data.as_mut_slice();
        while !rest.is_empty() {
            let (address, count) = self.walk.piece(memory, rest.len() as u64).ok_or(BadTable)?;
            let (now, later) = rest.split_at_mut(count as usize);
            if !memory.read(address, now) {
                return Err(BadTable);
            }
            rest = later;
        }
        Ok(data)
    }

    /// The drive has ended its command; `table` says whether the table was at fault.
    pub(super) fn end(&mut self, table: Result<(), BadTable>) {
        if table.is_err() {
            self.status |= ERROR;
        }
        // A table with room to spare leaves the engine active.
        if self.walk.last && self.walk.left == 0 || self.status & ERROR != 0 {
            self.status &= !ACTIVE;
        }
    }
}

/// Both channels' registers, as BAR 4 of the IDE function shows them.
pub struct BusMasterPorts {
    channels: [Arc<Mutex<Channel>>; 2],
}

impl BusMasterPorts {
    /// The registers of these channels.
    pub fn new(channels: [Arc<Mutex<Channel>>; 2]) -> Self {
        Self { channels }
    }

    fn channel(&self, offset: u64) -> &Mutex<Channel> {
        &self.channels[usize::from(offset & 8 != 0)]
    }
}

impl BusDevice for BusMasterPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        crate::bus::read_bytes(offset, data, |offset| {
            lock(self.channel(offset)).state.bus_master.read(offset & 7)
        });
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        crate::bus::write_bytes(offset, data, |offset, value| {
            lock(self.channel(offset)).write_bus_master(offset & 7, value);
        });
    }
}
