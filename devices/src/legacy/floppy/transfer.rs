//! Commands that move sectors: what the disk is asked for, and what follows from the answer.

use serde::{Deserialize, Serialize};

use super::{
    DATA_ERROR, DMA_CHANNEL, END_OF_CYLINDER, Failure, Floppy, NO_DISK, NO_SECTOR, OVERRUN, SECTOR,
    WRITE_PROTECTED, geometry,
};
use crate::block::{Answer, Request};
use crate::bus::lock;
use crate::legacy::dma8237::Direction;

/// What a command does with its sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Action {
    Read,
    Write,
    Format,
}

/// A command in its execution phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Execution {
    action: Action,
    multi_track: bool,
    /// Drive and head of the command.
    select: u8,
    /// Cylinder, head and sector of the next sector; at the end, of the one after the last.
    at: [u8; 3],
    last_sector: u8,
    /// Sectors that the disk was asked for, from `at` on one track.
    sectors: u8,
    /// What is to be written.
    data: Vec<u8>,
    /// DMA has reached its terminal count.
    end: bool,
}

/// A track's first byte on the medium.
fn track_offset(cylinder: u8, head: u8, sectors: u8) -> u64 {
    (u64::from(cylinder) * 2 + u64::from(head)) * u64::from(sectors) * SECTOR as u64
}

impl Floppy {
    /// READ DATA, WRITE DATA and the like.
    pub(super) fn transfer(&mut self, command: &[u8]) {
        let byte = |at: usize| command.get(at).copied().unwrap_or(0);
        let write = matches!(byte(0) & 0x1f, 0x05 | 0x09);
        self.state.executing = Some(Execution {
            action: if write { Action::Write } else { Action::Read },
            multi_track: byte(0) & 0x80 != 0,
            select: byte(1) & 7,
            at: [byte(2), byte(3), byte(4)],
            last_sector: byte(6),
            sectors: 0,
            data: Vec::new(),
            end: false,
        });
        self.go_on();
    }

    /// FORMAT TRACK: fills the track under the head; its sectors' identities, which DMA brings, are
    /// those of the geometry.
    pub(super) fn format(&mut self, select: u8, filler: u8) {
        let drive = usize::from(select & 3);
        let (cylinder, head) = (self.state.cylinder[drive], select >> 2 & 1);
        let at = [cylinder, head, 1];
        let disk = self.disks.get(drive).and_then(Option::as_ref);
        let (failure, sectors) = match disk.map(|disk| (geometry(disk.size()), disk.read_only())) {
            None => (Some(NO_DISK), 0),
            Some(((_, sectors), true)) => (Some(WRITE_PROTECTED), sectors),
            Some(((cylinders, sectors), false)) => {
                ((cylinder >= cylinders).then_some(NO_SECTOR), sectors)
            }
        };
        if let Some(failure) = failure {
            return self.finish(Err(failure), select, at);
        }
        {
            let mut dma = lock(&self.dma);
            if let Some((len, Direction::FromMemory)) = dma.pending(DMA_CHANNEL) {
                let mut identities = vec![0; len.min(usize::from(sectors) * 4)];
                dma.from_memory(DMA_CHANNEL, &mut identities);
            }
        }
        self.state.executing = Some(Execution {
            action: Action::Format,
            multi_track: false,
            select,
            at,
            last_sector: sectors,
            sectors,
            data: vec![filler; usize::from(sectors) * SECTOR],
            end: true,
        });
        self.resume();
    }

    /// Moves sectors until DMA's terminal count, as far as the disk answers at once.
    fn go_on(&mut self) {
        while let Some(mut execution) = self.state.executing.take() {
            if let Err(failure) = self.prepare(&mut execution) {
                return self.finish(Err(failure), execution.select, execution.at);
            }
            self.state.executing = Some(execution);
            if !self.ask() {
                return;
            }
        }
    }

    /// Asks again for what a restored controller was waiting for.
    pub(super) fn resume(&mut self) {
        if self.state.executing.is_some() && self.ask() {
            self.go_on();
        }
    }

    /// Finds the next sectors of one track, and takes from memory what goes there.
    fn prepare(&self, execution: &mut Execution) -> Result<(), Failure> {
        let [cylinder, head, sector] = execution.at;
        let disk = self.disks.get(usize::from(execution.select & 3)).and_then(Option::as_ref);
        let disk = disk.ok_or(NO_DISK)?;
        let (cylinders, sectors) = geometry(disk.size());
        let write = execution.action == Action::Write;
        if write && disk.read_only() {
            return Err(WRITE_PROTECTED);
        }
        if cylinder >= cylinders || head > 1 || sector == 0 || sector > sectors {
            return Err(NO_SECTOR);
        }
        let mut dma = lock(&self.dma);
        let (pending, direction) = dma.pending(DMA_CHANNEL).ok_or(OVERRUN)?;
        if write != (direction == Direction::FromMemory) {
            return Err(OVERRUN);
        }
        let last = execution.last_sector.clamp(sector, sectors);
        let wanted = pending.div_ceil(SECTOR).max(1);
        let count = usize::from(last - sector + 1).min(wanted);
        execution.sectors = count as u8;
        if write {
            let mut data = vec![0; count * SECTOR];
            let len = pending.min(data.len());
            let part = data.get_mut(..len).unwrap_or_default();
            execution.end = dma.from_memory(DMA_CHANNEL, part);
            execution.data = data;
        }
        Ok(())
    }

    /// Asks the disk for the sectors. `true` when it has answered and the command goes on.
    fn ask(&mut self) -> bool {
        if self.asked {
            // The answer to a request from before a reset comes first.
            return false;
        }
        let Some(execution) = &self.state.executing else { return false };
        let [cylinder, head, sector] = execution.at;
        let disk = self.disks.get(usize::from(execution.select & 3)).and_then(Option::as_ref);
        let Some(disk) = disk.cloned() else {
            return self.answered(Err(std::io::Error::other("no disk in the drive")));
        };
        let (_, per_track) = geometry(disk.size());
        let offset = track_offset(cylinder, head, per_track)
            + u64::from(sector.saturating_sub(1)) * SECTOR as u64;
        let request = match execution.action {
            Action::Read => Request::Read { offset, len: usize::from(execution.sectors) * SECTOR },
            Action::Write | Action::Format => {
                Request::Write { offset, data: execution.data.clone() }
            }
        };
        self.ticket += 1;
        let (ticket, floppy) = (self.ticket, self.me.clone());
        self.asked = true;
        let answer = disk.submit(request, move |answer| {
            let Some(floppy) = floppy.upgrade() else { return };
            let mut floppy = lock(&floppy);
            floppy.asked = false;
            if floppy.ticket != ticket {
                floppy.resume();
            } else if floppy.answered(answer) {
                floppy.go_on();
            }
        });
        self.asked = answer.is_none();
        answer.is_some_and(|answer| self.answered(answer))
    }

    /// The disk answers. `true` when the command goes on.
    fn answered(&mut self, answer: Answer) -> bool {
        let Some(mut execution) = self.state.executing.take() else { return false };
        let result = self.take(&mut execution, answer);
        match result {
            Ok(true) => {
                self.state.executing = Some(execution);
                return true;
            }
            Ok(false) => self.finish(Ok(()), execution.select, execution.at),
            Err(failure) => self.finish(Err(failure), execution.select, execution.at),
        }
        false
    }

    /// Gives memory what was read, and moves on. `true` when more is to be moved.
    fn take(&self, execution: &mut Execution, answer: Answer) -> Result<bool, Failure> {
        let data = answer.map_err(|_| DATA_ERROR)?;
        match execution.action {
            Action::Format => return Ok(false),
            Action::Write => {}
            Action::Read => {
                let mut dma = lock(&self.dma);
                let (pending, direction) = dma.pending(DMA_CHANNEL).ok_or(OVERRUN)?;
                if direction == Direction::FromMemory {
                    return Err(OVERRUN);
                }
                let part = data.get(..pending.min(data.len())).unwrap_or_default();
                execution.end = dma.to_memory(DMA_CHANNEL, part);
            }
        }
        let [cylinder, head, first] = execution.at;
        let sector = first.saturating_add(execution.sectors.saturating_sub(1));
        let at_end = sector >= execution.last_sector;
        let other_head = execution.multi_track && head == 0;
        execution.at = match (at_end, other_head) {
            (false, _) => [cylinder, head, sector.saturating_add(1)],
            (true, true) => [cylinder, 1, 1],
            (true, false) => [cylinder.wrapping_add(1), head & u8::from(!execution.multi_track), 1],
        };
        if execution.end {
            Ok(false)
        } else if at_end && !other_head {
            Err(END_OF_CYLINDER)
        } else {
            Ok(true)
        }
    }
}
