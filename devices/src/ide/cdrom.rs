//! The PACKET commands of a CD-ROM drive (INF-8090i; SPC-3 and MMC-5 call them the same).

use super::drive::{Drive, Phase, Transfer, error, reason, status};
use super::identify;
use crate::block::Medium;

/// Bytes of a logical block.
pub(super) const BLOCK: u64 = 2048;
/// Bytes of a command packet.
const PACKET: usize = 12;
/// LBA 0 lies two seconds into the disc, in frames of 1/75 second.
const LEAD_IN_FRAMES: u32 = 150;

/// Sense keys.
mod key {
    pub(super) const NO_SENSE: u8 = 0;
    pub(super) const NOT_READY: u8 = 2;
    pub(super) const MEDIUM_ERROR: u8 = 3;
    pub(super) const ILLEGAL_REQUEST: u8 = 5;
}

/// Sense key, additional sense code, qualifier.
type Sense = (u8, u8, u8);
const MEDIUM_NOT_PRESENT: Sense = (key::NOT_READY, 0x3a, 0);
const INVALID_OPCODE: Sense = (key::ILLEGAL_REQUEST, 0x20, 0);
const OUT_OF_RANGE: Sense = (key::ILLEGAL_REQUEST, 0x21, 0);
const INVALID_FIELD: Sense = (key::ILLEGAL_REQUEST, 0x24, 0);
const UNRECOVERED_READ: Sense = (key::MEDIUM_ERROR, 0x11, 0);

/// What a packet asks for.
enum Answer {
    Nothing,
    /// These bytes, cut to the length that the host allows.
    Reply(Vec<u8>, usize),
    /// This part of the disc.
    Blocks {
        offset: u64,
        left: u64,
    },
}

fn be16(packet: &[u8], at: usize) -> usize {
    packet.get(at..at + 2).map_or(0, |b| usize::from(b[0]) << 8 | usize::from(b[1]))
}

fn be32(packet: &[u8], at: usize) -> u32 {
    (be16(packet, at) << 16 | be16(packet, at + 2)) as u32
}

/// Minute, second and frame of a logical block.
fn msf(lba: u32) -> [u8; 3] {
    let frame = lba.saturating_add(LEAD_IN_FRAMES);
    [(frame / 75 / 60) as u8, (frame / 75 % 60) as u8, (frame % 75) as u8]
}

impl Drive {
    /// Runs an ATA command of a CD-ROM drive.
    pub(super) fn cdrom_command(&mut self, command: u8, serial: &str) {
        self.error = 0;
        match command {
            // PACKET.
            0xa0 => {
                self.packet_dma = self.features.now & 1 != 0;
                self.count.now = reason::COD;
                let phase = Phase::Packet { buffer: vec![0; PACKET], position: 0 };
                self.request_data(phase, false);
            }
            // IDENTIFY PACKET DEVICE.
            0xa1 => {
                let data = identify::cdrom(serial, self.mode);
                // No interrupt reason: this is an ATA transfer.
                self.count.now = 0;
                self.reply(data);
            }
            // IDENTIFY DEVICE, READ SECTOR(S): aborted, the signature in place.
            0xec | 0x20 => {
                let mode = self.mode;
                let device = self.device;
                self.reset(Some(&super::Media::Cdrom(None)));
                self.mode = mode;
                self.device = device;
                self.fail(error::ABRT);
            }
            _ => self.common_command(command),
        }
    }

    /// The packet is complete.
    pub(super) fn run_packet(&mut self, disc: Option<&Medium>) {
        let Phase::Packet { buffer: packet, .. } = std::mem::replace(&mut self.phase, Phase::Idle)
        else {
            return;
        };
        // Byte count limit, for PIO: even, and never 0.
        let limit = usize::from(self.lba[1].now) | usize::from(self.lba[2].now) << 8;
        let limit = if limit == 0 { 0xfffe } else { (limit & !1).max(2) };
        match self.packet(&packet, disc) {
            Err(sense) => self.packet_failed(sense),
            Ok(Answer::Nothing) => self.packet_done(),
            Ok(Answer::Reply(mut data, allowed)) => {
                data.truncate(allowed);
                if data.is_empty() {
                    self.packet_done();
                } else if self.packet_dma {
                    self.count.now = reason::IO;
                    self.request_data(Phase::DmaReply { data }, false);
                } else {
                    // No host asks for a reply in parts.
                    data.truncate(limit);
                    self.packet_block(data, 0, 0, limit);
                }
            }
            Ok(Answer::Blocks { left: 0, .. }) => self.packet_done(),
            Ok(Answer::Blocks { offset, left }) if self.packet_dma => {
                self.count.now = reason::IO;
                self.request_data(Phase::DmaRead { offset, left }, false);
            }
            Ok(Answer::Blocks { offset, left }) => {
                // Whole logical blocks where the limit has room for one.
                let room = limit as u64;
                let block = if room >= BLOCK { room - room % BLOCK } else { room };
                self.work(Phase::Fetch { offset, left, block: block as usize });
            }
        }
    }

    /// The host has read a block: offers the next, or ends the command.
    pub(super) fn packet_block_read(&mut self) {
        if self.next_block() {
            return self.offer_packet_block();
        }
        let Phase::DataIn(Transfer { offset, left, block, .. }) = self.phase else { return };
        if left == 0 {
            self.packet_done();
        } else {
            self.work(Phase::Fetch { offset, left, block });
        }
    }

    /// Offers `buffer` to the host; `left` bytes from `offset` follow it.
    pub(super) fn packet_block(&mut self, buffer: Vec<u8>, offset: u64, left: u64, block: usize) {
        let count = buffer.len() as u64;
        let transfer = Transfer::new(buffer, offset + count, left.saturating_sub(count), block);
        self.phase = Phase::DataIn(transfer);
        self.offer_packet_block();
    }

    /// Shows the length of the DRQ block, and asks the host to read it.
    fn offer_packet_block(&mut self) {
        let count = match &self.phase {
            Phase::DataIn(transfer) => transfer.end.saturating_sub(transfer.position) as u16,
            _ => 0,
        };
        self.count.now = reason::IO;
        [self.lba[1].now, self.lba[2].now] = count.to_le_bytes();
        self.status = status::DRDY | status::DSC | status::DRQ;
        self.intrq = true;
    }

    pub(super) fn packet_done(&mut self) {
        self.sense = (key::NO_SENSE, 0, 0);
        self.count.now = reason::COD | reason::IO;
        self.complete();
    }

    fn packet_failed(&mut self, sense: Sense) {
        self.sense = sense;
        self.count.now = reason::COD | reason::IO;
        self.fail(sense.0 << 4 | error::ABRT);
        self.status &= !status::DF;
    }

    /// A transfer that failed on the medium.
    pub(super) fn packet_unreadable(&mut self) {
        self.packet_failed(UNRECOVERED_READ);
    }

    fn packet(&self, packet: &[u8], disc: Option<&Medium>) -> Result<Answer, Sense> {
        let opcode = packet.first().copied().unwrap_or(0);
        let byte = |at: usize| packet.get(at).copied().unwrap_or(0);
        let present = || disc.ok_or(MEDIUM_NOT_PRESENT);
        let blocks = || present().map(|disc| (disc.size() / BLOCK) as u32);
        match opcode {
            // TEST UNIT READY.
            0x00 => present().map(|_| Answer::Nothing),
            // REQUEST SENSE.
            0x03 => {
                let (key, code, qualifier) = self.sense;
                let mut data = vec![0; 18];
                data[0] = 0x70;
                data[2] = key;
                data[7] = 10;
                data[12] = code;
                data[13] = qualifier;
                Ok(Answer::Reply(data, byte(4).into()))
            }
            // INQUIRY.
            0x12 => {
                if byte(1) & 1 != 0 {
                    return Err(INVALID_FIELD);
                }
                // CD-ROM, removable, SPC-less ATAPI.
                let mut data = vec![0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0];
                data.extend(b"RINGSHFTCD-ROM          1.0 ");
                Ok(Answer::Reply(data, byte(4).into()))
            }
            // START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, SEEK, SET CD SPEED.
            0x1b | 0x1e | 0x2b | 0xbb => Ok(Answer::Nothing),
            // READ CAPACITY.
            0x25 => {
                let last = blocks()?.saturating_sub(1);
                let data = [last.to_be_bytes(), (BLOCK as u32).to_be_bytes()].concat();
                Ok(Answer::Reply(data, 8))
            }
            // READ (10), READ (12).
            0x28 => extent(blocks()?, be32(packet, 2), be16(packet, 7) as u32),
            0xa8 => extent(blocks()?, be32(packet, 2), be32(packet, 6)),
            // READ CD: user data of data sectors.
            0xbe => {
                let count = u32::from(byte(6)) << 16 | be16(packet, 7) as u32;
                match byte(9) & 0xf8 {
                    0x00 => Ok(Answer::Nothing),
                    0x10 => extent(blocks()?, be32(packet, 2), count),
                    _ => Err(INVALID_FIELD),
                }
            }
            // READ TOC/PMA/ATIP.
            0x43 => {
                let data = toc(blocks()?, byte(1) & 2 != 0, byte(2) & 0xf, byte(9) >> 6, byte(6))?;
                Ok(Answer::Reply(data, be16(packet, 7)))
            }
            // GET CONFIGURATION: the profile list, with CD-ROM current.
            0x46 => {
                let current = u16::from(disc.is_some()) * 8;
                let mut data = vec![0, 0, 0, 12];
                data.extend([0, 0]);
                data.extend(current.to_be_bytes());
                data.extend([0, 0, 0x03, 4, 0, 8, u8::from(disc.is_some()), 0]);
                Ok(Answer::Reply(data, be16(packet, 7)))
            }
            // GET EVENT STATUS NOTIFICATION: polled only; the media class, without an event.
            0x4a => {
                if byte(1) & 1 == 0 {
                    return Err(INVALID_FIELD);
                }
                let present = u8::from(disc.is_some()) << 1;
                let data = if byte(4) & 0x10 != 0 {
                    vec![0, 6, 4, 0x10, 0, present, 0, 0]
                } else {
                    vec![0, 2, 0x80, 0x10]
                };
                Ok(Answer::Reply(data, be16(packet, 7)))
            }
            // READ DISC INFORMATION: complete, one session, one track.
            0x51 => {
                present()?;
                let mut data = vec![0; 34];
                data[1] = 32;
                data[2] = 0x0e;
                data[3..7].fill(1);
                data[7] = 0x20;
                Ok(Answer::Reply(data, be16(packet, 7)))
            }
            // MODE SENSE (10): error recovery, and capabilities.
            0x5a => {
                let page = byte(2) & 0x3f;
                let mut data = vec![0; 8];
                if matches!(page, 0x01 | 0x3f) {
                    data.extend([0x01, 6, 0, 5, 0, 0, 0, 0]);
                }
                if matches!(page, 0x2a | 0x3f) {
                    data.extend([0x2a, 0x12, 0, 0, 0x71, 0x60, 0x29, 0]);
                    // Speeds: 4x now and at most; 2 volume levels; no buffer.
                    data.extend([0x02, 0xc2, 0, 2, 2, 0, 0x02, 0xc2, 0, 0, 0, 0]);
                }
                if data.len() == 8 {
                    return Err(INVALID_FIELD);
                }
                let length = (data.len() - 2) as u16;
                data[..2].copy_from_slice(&length.to_be_bytes());
                data[2] = if disc.is_some() { 0x01 } else { 0x70 };
                Ok(Answer::Reply(data, be16(packet, 7)))
            }
            _ => {
                tracing::debug!(opcode, "a PACKET command that is not offered");
                Err(INVALID_OPCODE)
            }
        }
    }
}

fn extent(blocks: u32, first: u32, count: u32) -> Result<Answer, Sense> {
    if first > blocks || count > blocks - first {
        return Err(OUT_OF_RANGE);
    }
    Ok(Answer::Blocks { offset: u64::from(first) * BLOCK, left: u64::from(count) * BLOCK })
}

/// The table of contents of a disc with one data track. `old_format` is the format field of SFF-8020,
/// which older drivers still use.
fn toc(blocks: u32, as_msf: bool, format: u8, old_format: u8, start: u8) -> Result<Vec<u8>, Sense> {
    let address = |lba: u32| {
        if as_msf {
            let [minute, second, frame] = msf(lba);
            [0, minute, second, frame]
        } else {
            lba.to_be_bytes()
        }
    };
    let mut data = vec![0, 0, 1, 1];
    match if format == 0 { old_format } else { format } {
        0 => {
            if start > 1 && start != 0xaa {
                return Err(INVALID_FIELD);
            }
            if start <= 1 {
                data.extend([0, 0x14, 1, 0]);
                data.extend(address(0));
            }
            data.extend([0, 0x16, 0xaa, 0]);
            data.extend(address(blocks));
        }
        1 => {
            data.extend([0, 0x14, 1, 0]);
            data.extend(address(0));
        }
        2 => {
            // Raw Q subcode: first track, last track, lead-out, the track itself.
            for (point, value) in
                [(0xa0, [1, 0, 0]), (0xa1, [1, 0, 0]), (0xa2, msf(blocks)), (1, msf(0))]
            {
                data.extend([1, 0x14, 0, point, 0, 0, 0, 0]);
                data.extend(value);
            }
        }
        _ => return Err(INVALID_FIELD),
    }
    let length = (data.len() - 2) as u16;
    data[..2].copy_from_slice(&length.to_be_bytes());
    Ok(data)
}
