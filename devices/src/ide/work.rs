//! What a busy drive asks its medium for, and what follows from the answer.

use super::bus_master::BadTable;
use super::channel::Channel;
use super::drive::{Drive, Media, Phase, batch, error, status};
use crate::block::{Answer, Medium, Request};
use crate::bus::lock;

/// Bytes that bus-master DMA moves at a time.
const DMA_BATCH: u64 = 256 << 10;

impl Channel {
    /// Goes on with the selected drive's command until it waits for its medium or for the host.
    pub(super) fn work(&mut self) {
        // Commands are given to the selected drive, and it stays selected while it is busy.
        let index = self.index();
        loop {
            let Some(media) = &self.media[index] else { return };
            let medium = media.medium().cloned();
            let Some(request) = self.request(index) else { return };
            let Some(medium) = medium else {
                // The disc was there when the command came.
                return self.fail_on_medium(index);
            };
            match self.ask(index, &medium, request) {
                Some(answer) => self.answered(index, answer),
                None => return,
            }
        }
    }

    /// What the drive needs of its medium now, if anything.
    fn request(&mut self, index: usize) -> Option<Request> {
        let drive = &mut self.state.drives[index];
        if drive.waiting {
            return None;
        }
        match &drive.phase {
            Phase::Idle | Phase::DataIn(_) | Phase::DataOut(_) | Phase::Packet { .. } => None,
            Phase::DmaRead { .. } | Phase::DmaWrite { .. } | Phase::DmaReply { .. }
                if !self.state.bus_master.active() =>
            {
                // Waits for the host to start the engine.
                drive.status = status::DRDY | status::DSC | status::DRQ;
                None
            }
            Phase::DmaReply { data } => {
                let moved = self.state.bus_master.scatter(&*self.memory, data);
                self.end_dma(index, moved);
                None
            }
            // The medium's answer to a request from before a reset comes first.
            _ if self.asked[index] => {
                drive.status = status::BSY | status::DRDY | status::DSC;
                None
            }
            Phase::Fetch { offset, left, block } => {
                Some(Request::Read { offset: *offset, len: batch(*block, *left) })
            }
            Phase::Store(transfer) => {
                let data = transfer.buffer.clone();
                Some(Request::Write { offset: transfer.offset, data })
            }
            Phase::Flush => Some(Request::Flush),
            Phase::DmaRead { offset, left } => {
                Some(Request::Read { offset: *offset, len: (*left).min(DMA_BATCH) as usize })
            }
            Phase::DmaWrite { offset, left } => {
                let (offset, len) = (*offset, (*left).min(DMA_BATCH) as usize);
                match self.state.bus_master.gather(&*self.memory, len) {
                    Ok(data) => Some(Request::Write { offset, data }),
                    Err(bad) => {
                        self.end_dma(index, Err(bad));
                        None
                    }
                }
            }
        }
    }

    fn ask(&mut self, index: usize, medium: &Medium, request: Request) -> Option<Answer> {
        let drive = &mut self.state.drives[index];
        drive.waiting = true;
        drive.status = status::BSY | status::DRDY | status::DSC;
        self.ticket += 1;
        let (ticket, channel) = (self.ticket, self.me.clone());
        self.asked[index] = true;
        let answer = medium.submit(request, move |answer| {
            let Some(channel) = channel.upgrade() else { return };
            let mut channel = lock(&channel);
            channel.asked[index] = false;
            if channel.ticket == ticket {
                channel.answered(index, answer);
            }
            channel.work();
            channel.drive_interrupt();
        });
        self.asked[index] = answer.is_none();
        answer
    }

    /// The medium answers what the drive waits for.
    fn answered(&mut self, index: usize, answer: Answer) {
        let packet = matches!(self.media[index], Some(Media::Cdrom(_)));
        let drive = &mut self.state.drives[index];
        drive.waiting = false;
        let Ok(data) = answer else { return self.fail_on_medium(index) };
        match std::mem::replace(&mut drive.phase, Phase::Idle) {
            Phase::Fetch { offset, left, block } if packet => {
                let rest = left.saturating_sub(data.len() as u64);
                drive.packet_block(data, offset, rest, block);
            }
            Phase::Fetch { offset, left, block } => drive.fetched(data, offset, left, block),
            Phase::Store(done) => {
                drive.stored(done.buffer.len() as u64, done.offset, done.left, done.block);
            }
            Phase::Flush => drive.complete(),
            Phase::DmaRead { offset, left } => {
                if !self.state.bus_master.active() {
                    // Stopped in between: the drive still has all to give.
                    drive.phase = Phase::DmaRead { offset, left };
                    return;
                }
                let count = data.len() as u64;
                match self.state.bus_master.scatter(&*self.memory, &data) {
                    Ok(()) if count < left => {
                        drive.phase = Phase::DmaRead { offset: offset + count, left: left - count };
                    }
                    moved => self.end_dma(index, moved),
                }
            }
            Phase::DmaWrite { offset, left } => {
                let count = left.min(DMA_BATCH);
                if count < left {
                    drive.phase = Phase::DmaWrite { offset: offset + count, left: left - count };
                } else {
                    self.end_dma(index, Ok(()));
                }
            }
            // These ask for nothing.
            phase @ (Phase::Idle
            | Phase::DataIn(_)
            | Phase::DataOut(_)
            | Phase::Packet { .. }
            | Phase::DmaReply { .. }) => drive.phase = phase,
        }
    }

    /// The command's data are moved, or the table of where to move them is bad.
    fn end_dma(&mut self, index: usize, table: Result<(), BadTable>) {
        let packet = matches!(self.media[index], Some(Media::Cdrom(_)));
        let drive = &mut self.state.drives[index];
        match &table {
            Ok(()) if packet => drive.packet_done(),
            Ok(()) => drive.complete(),
            Err(BadTable) => drive.fail(error::ABRT),
        }
        self.state.bus_master.end(table);
    }

    /// The medium could not be read, written or flushed.
    fn fail_on_medium(&mut self, index: usize) {
        let packet = matches!(self.media[index], Some(Media::Cdrom(_)));
        let drive = &mut self.state.drives[index];
        let phase = std::mem::replace(&mut drive.phase, Phase::Idle);
        let dma = matches!(phase, Phase::DmaRead { .. } | Phase::DmaWrite { .. });
        fail(drive, &phase, packet);
        if dma {
            self.state.bus_master.end(Ok(()));
        }
    }
}

fn fail(drive: &mut Drive, phase: &Phase, packet: bool) {
    match phase {
        _ if packet => drive.packet_unreadable(),
        Phase::Store(_) | Phase::DmaWrite { .. } | Phase::Flush => drive.fault(),
        Phase::Idle
        | Phase::Fetch { .. }
        | Phase::DataIn(_)
        | Phase::DataOut(_)
        | Phase::Packet { .. }
        | Phase::DmaRead { .. }
        | Phase::DmaReply { .. } => drive.fail(error::UNC),
    }
}
