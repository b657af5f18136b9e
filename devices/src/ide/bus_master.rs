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

use super::channel::{Channel, reborrow};
use super::drive::{Drive, Media, Phase, error, status as ata};
use crate::block::BlockDevice;
use crate::bus::{BusDevice, lock};
use crate::dma::DmaMemory;

const START: u8 = 1 << 0;
const TO_MEMORY: u8 = 1 << 3;
const ACTIVE: u8 = 1 << 0;
const ERROR: u8 = 1 << 1;
const INTERRUPT: u8 = 1 << 2;
/// Entries of a table of 64 KiB; a table without an end is an error.
const MAX_ENTRIES: u32 = 8192;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BusMaster {
    command: u8,
    status: u8,
    table: u32,
}

/// Walks the table.
struct Regions<'a> {
    memory: &'a dyn DmaMemory,
    next: u32,
    entries: u32,
    address: u64,
    left: u64,
    last: bool,
}

impl Regions<'_> {
    /// The next piece of memory, at most `want` bytes; `None` at the table's end or if the table
    /// cannot be read.
    fn piece(&mut self, want: u64) -> Option<(u64, u64)> {
        if self.left == 0 {
            if self.last || self.entries >= MAX_ENTRIES {
                return None;
            }
            let mut entry = [0; 8];
            if !self.memory.read(self.next.into(), &mut entry) {
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

/// Why a transfer stopped short.
enum Stop {
    /// The table is too short, or names what is no memory.
    Table,
    /// The medium.
    Medium,
}

impl BusMaster {
    pub(super) fn new(drives: [bool; 2]) -> Self {
        let status = u8::from(drives[0]) << 5 | u8::from(drives[1]) << 6;
        Self { command: 0, status, table: 0 }
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

    /// Moves a drive's data, if it waits and the engine is active.
    pub(super) fn run(&mut self, drive: &mut Drive, media: &mut Media, memory: &dyn DmaMemory) {
        if self.status & ACTIVE == 0 || self.command & START == 0 {
            return;
        }
        let mut regions =
            Regions { memory, next: self.table, entries: 0, address: 0, left: 0, last: false };
        let result = match std::mem::replace(&mut drive.phase, Phase::Idle) {
            Phase::DmaRead { offset, left } => read(&mut regions, media, offset, left),
            Phase::DmaWrite { offset, left } => write(&mut regions, media, offset, left),
            Phase::DmaReply { data } => reply(&mut regions, &data),
            other => {
                drive.phase = other;
                return;
            }
        };
        let packet = matches!(media, Media::Cdrom(_));
        match result {
            Ok(()) if packet => drive.packet_done(),
            Ok(()) => drive.complete(),
            Err(Stop::Medium) if packet => drive.packet_unreadable(),
            Err(Stop::Medium) => drive.fail(error::UNC),
            Err(Stop::Table) => {
                self.status |= ERROR;
                drive.fail(error::ABRT);
            }
        }
        drive.status &= !ata::DRQ;
        // A table with room to spare leaves the engine active.
        if regions.last && regions.left == 0 || self.status & ERROR != 0 {
            self.status &= !ACTIVE;
        }
    }
}

fn read(
    regions: &mut Regions<'_>,
    media: &mut Media,
    mut offset: u64,
    mut left: u64,
) -> Result<(), Stop> {
    let medium: &mut dyn BlockDevice = match media {
        Media::Disk(disk) => &mut **disk,
        Media::Cdrom(disc) => reborrow(disc).ok_or(Stop::Medium)?,
    };
    let mut buffer = Vec::new();
    while left > 0 {
        let (address, count) = regions.piece(left).ok_or(Stop::Table)?;
        buffer.resize(count as usize, 0);
        medium.read_at(offset, &mut buffer).map_err(|failure| {
            tracing::error!(%failure, "reading an image");
            Stop::Medium
        })?;
        if !regions.memory.write(address, &buffer) {
            return Err(Stop::Table);
        }
        offset += count;
        left -= count;
    }
    Ok(())
}

fn write(
    regions: &mut Regions<'_>,
    media: &mut Media,
    mut offset: u64,
    mut left: u64,
) -> Result<(), Stop> {
    let Media::Disk(medium) = media else { return Err(Stop::Medium) };
    let mut buffer = Vec::new();
    while left > 0 {
        let (address, count) = regions.piece(left).ok_or(Stop::Table)?;
        buffer.resize(count as usize, 0);
        if !regions.memory.read(address, &mut buffer) {
            return Err(Stop::Table);
        }
        medium.write_at(offset, &buffer).map_err(|failure| {
            tracing::error!(%failure, "writing an image");
            Stop::Medium
        })?;
        offset += count;
        left -= count;
    }
    Ok(())
}

fn reply(regions: &mut Regions<'_>, mut data: &[u8]) -> Result<(), Stop> {
    while !data.is_empty() {
        let (address, count) = regions.piece(data.len() as u64).ok_or(Stop::Table)?;
        let (now, rest) = data.split_at(count as usize);
        if !regions.memory.write(address, now) {
            return Err(Stop::Table);
        }
        data = rest;
    }
    Ok(())
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
