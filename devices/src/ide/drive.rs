//! One drive: the task file, and the phases of a command's data.

use serde::{Deserialize, Serialize};

use super::identify::TransferMode;
use crate::block::Medium;

/// Status register bits.
pub(super) mod status {
    pub(crate) const ERR: u8 = 1 << 0;
    pub(crate) const DRQ: u8 = 1 << 3;
    /// Seek complete, or service for ATAPI.
    pub(crate) const DSC: u8 = 1 << 4;
    /// Device fault: a write that failed.
    pub(crate) const DF: u8 = 1 << 5;
    pub(crate) const DRDY: u8 = 1 << 6;
    /// The drive works; nothing else in the register counts.
    pub(crate) const BSY: u8 = 1 << 7;
}

/// Error register bits.
pub(super) mod error {
    /// Command aborted.
    pub(crate) const ABRT: u8 = 1 << 2;
    /// Address not found.
    pub(crate) const IDNF: u8 = 1 << 4;
    /// Uncorrectable data.
    pub(crate) const UNC: u8 = 1 << 6;
}

/// Interrupt reason bits in the sector count register of an ATAPI drive.
pub(super) mod reason {
    /// The transfer is of a command.
    pub(crate) const COD: u8 = 1 << 0;
    /// The transfer is to the host.
    pub(crate) const IO: u8 = 1 << 1;
}

/// What is attached.
pub enum Media {
    /// A hard disk.
    Disk(Medium),
    /// A CD-ROM drive, with its disc.
    Cdrom(Option<Medium>),
}

impl Media {
    /// The disk, or the disc in the drive.
    pub(super) fn medium(&self) -> Option<&Medium> {
        match self {
            Self::Disk(disk) => Some(disk),
            Self::Cdrom(disc) => disc.as_ref(),
        }
    }
}

/// Registers that hold two bytes: the latest, and the one before for 48-bit commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fifo {
    pub(super) now: u8,
    pub(super) before: u8,
}

impl Fifo {
    pub(super) fn push(&mut self, value: u8) {
        *self = Self { now: value, before: self.now };
    }
}

/// Data that the host moves through the data register, a DRQ block at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Transfer {
    pub(super) buffer: Vec<u8>,
    pub(super) position: usize,
    /// Where the DRQ block ends.
    pub(super) end: usize,
    /// Where on the medium the buffer goes, if the host writes; what follows it, if the host reads.
    pub(super) offset: u64,
    /// Bytes of the command beyond the buffer.
    pub(super) left: u64,
    /// Bytes of a DRQ block.
    pub(super) block: usize,
}

impl Transfer {
    pub(super) fn new(buffer: Vec<u8>, offset: u64, left: u64, block: usize) -> Self {
        let end = block.min(buffer.len());
        Self { buffer, position: 0, end, offset, left, block }
    }

    /// Goes on to the buffer's next DRQ block, if there is one.
    fn next_block(&mut self) -> bool {
        let more = self.end < self.buffer.len();
        self.end = self.end.saturating_add(self.block).min(self.buffer.len());
        more
    }
}

/// Bytes that are read or written at a time for the host's DRQ blocks of `block` bytes.
pub(super) fn batch(block: usize, left: u64) -> usize {
    const BATCH: usize = 64 << 10;
    let block = block.max(1);
    let bytes = block.max(BATCH - BATCH % block);
    usize::try_from(left).unwrap_or(bytes).min(bytes)
}

/// Where a command stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// No command.
    Idle,
    /// BSY: `left` bytes of the medium from `offset` are for the host, in DRQ blocks of `block`
    /// bytes; the first of them are being read.
    Fetch { offset: u64, left: u64, block: usize },
    /// The host reads the buffer.
    DataIn(Transfer),
    /// The host writes the buffer.
    DataOut(Transfer),
    /// BSY: the buffer is being stored.
    Store(Transfer),
    /// BSY: the medium is being flushed.
    Flush,
    /// The host writes a command packet.
    Packet { buffer: Vec<u8>, position: usize },
    /// A bus master reads `left` bytes of the medium from `offset`.
    DmaRead { offset: u64, left: u64 },
    /// A bus master writes them.
    DmaWrite { offset: u64, left: u64 },
    /// A bus master reads these bytes.
    DmaReply { data: Vec<u8> },
}

/// The saved part of a drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Drive {
    pub(super) features: Fifo,
    pub(super) count: Fifo,
    pub(super) lba: [Fifo; 3],
    pub(super) device: u8,
    pub(super) status: u8,
    pub(super) error: u8,
    /// The interrupt request.
    pub(super) intrq: bool,
    pub(super) phase: Phase,
    /// The medium was asked for what the phase needs, and has not answered.
    pub(super) waiting: bool,
    pub(super) multiple: u8,
    pub(super) mode: TransferMode,
    /// Heads and sectors per track that INITIALIZE DEVICE PARAMETERS set.
    pub(super) geometry: (u8, u8),
    /// Sense key, additional sense code and its qualifier of the last PACKET command.
    pub(super) sense: (u8, u8, u8),
    /// The last PACKET command asked for DMA.
    pub(super) packet_dma: bool,
}

impl Drive {
    pub(super) fn new(media: Option<&Media>) -> Self {
        let mut drive = Self {
            features: Fifo::default(),
            count: Fifo::default(),
            lba: [Fifo::default(); 3],
            device: 0,
            status: 0,
            error: 0,
            intrq: false,
            phase: Phase::Idle,
            waiting: false,
            multiple: 0,
            mode: TransferMode::default(),
            geometry: (super::identify::HEADS as u8, super::identify::SECTORS as u8),
            sense: (0, 0, 0),
            packet_dma: false,
        };
        drive.reset(media);
        drive
    }

    /// The registers after a reset: the signature of the kind of drive.
    pub(super) fn reset(&mut self, media: Option<&Media>) {
        self.phase = Phase::Idle;
        self.waiting = false;
        self.intrq = false;
        self.error = 1;
        self.count = Fifo { now: 1, before: 0 };
        self.device = 0;
        self.multiple = 0;
        let (low, mid, high, status) = match media {
            Some(Media::Disk(_)) => (1, 0, 0, status::DRDY | status::DSC),
            Some(Media::Cdrom(_)) => (1, 0x14, 0xeb, 0),
            None => (0xff, 0xff, 0xff, 0),
        };
        for (register, value) in self.lba.iter_mut().zip([low, mid, high]) {
            *register = Fifo { now: value, before: 0 };
        }
        self.status = status;
    }

    /// Ends the command well, with an interrupt.
    pub(super) fn complete(&mut self) {
        self.phase = Phase::Idle;
        self.status = status::DRDY | status::DSC;
        self.intrq = true;
    }

    /// Ends the command with `error`, with an interrupt.
    pub(super) fn fail(&mut self, error: u8) {
        self.phase = Phase::Idle;
        self.error = error;
        self.status = status::DRDY | status::DSC | status::ERR;
        self.intrq = true;
    }

    /// Waits for the host to move data.
    pub(super) fn request_data(&mut self, phase: Phase, interrupt: bool) {
        self.phase = phase;
        self.status = status::DRDY | status::DSC | status::DRQ;
        self.intrq |= interrupt;
    }

    /// Works on `phase`.
    pub(super) fn work(&mut self, phase: Phase) {
        self.phase = phase;
        self.status = status::BSY | status::DRDY | status::DSC;
    }

    /// Whether it works, and takes nothing from the host.
    pub(super) fn busy(&self) -> bool {
        self.status & status::BSY != 0
    }

    /// The host reads the data register: one byte, lowest first.
    fn next_byte(&mut self) -> u8 {
        match &mut self.phase {
            Phase::DataIn(transfer) if transfer.position < transfer.end => {
                let byte = transfer.buffer.get(transfer.position).copied();
                transfer.position += 1;
                byte.unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// The host reads the data register. `true` when the block is through.
    pub(super) fn read_data(&mut self, data: &mut [u8]) -> bool {
        for byte in data {
            *byte = self.next_byte();
        }
        matches!(&self.phase, Phase::DataIn(transfer) if transfer.position >= transfer.end)
    }

    /// The host writes the data register. `true` when the block is through.
    pub(super) fn write_data(&mut self, data: &[u8]) -> bool {
        let (buffer, position, end) = match &mut self.phase {
            Phase::DataOut(Transfer { buffer, position, end, .. }) => (buffer, position, *end),
            Phase::Packet { buffer, position } => {
                let end = buffer.len();
                (buffer, position, end)
            }
            _ => return false,
        };
        for byte in data {
            if let Some(slot) = buffer.get_mut(*position).filter(|_| *position < end) {
                *slot = *byte;
                *position += 1;
            }
        }
        *position >= end
    }

    /// Goes on to the next DRQ block of the buffer, if there is one.
    pub(super) fn next_block(&mut self) -> bool {
        match &mut self.phase {
            Phase::DataIn(transfer) | Phase::DataOut(transfer) => transfer.next_block(),
            _ => false,
        }
    }
}
