//! The ATA commands of a hard disk (ATA/ATAPI-6, chapter 8).

use super::drive::{Drive, Phase, Transfer, batch, error, status};
use super::identify::{self, TransferMode};
use crate::block::Medium;

/// Bytes of a sector.
pub(super) const SECTOR: u64 = 512;

/// Where a command's sectors are.
struct Extent {
    offset: u64,
    bytes: u64,
}

impl Drive {
    /// The sectors that the task file names; `wide` for 48-bit commands.
    fn extent(&self, media: &Medium, wide: bool) -> Option<Extent> {
        let sectors = media.size() / SECTOR;
        let [low, mid, high] = self.lba;
        let now = u64::from(low.now) | u64::from(mid.now) << 8 | u64::from(high.now) << 16;
        let first = if wide {
            let before =
                u64::from(low.before) | u64::from(mid.before) << 8 | u64::from(high.before) << 16;
            before << 24 | now
        } else if self.device & 0x40 != 0 {
            u64::from(self.device & 0xf) << 24 | now
        } else {
            let (heads, per_track) = (u64::from(self.geometry.0), u64::from(self.geometry.1));
            let cylinder = u64::from(mid.now) | u64::from(high.now) << 8;
            let head = u64::from(self.device & 0xf);
            let sector = u64::from(low.now).checked_sub(1)?;
            (cylinder * heads + head) * per_track + sector
        };
        let count = if wide {
            match u64::from(self.count.before) << 8 | u64::from(self.count.now) {
                0 => 0x1_0000,
                count => count,
            }
        } else {
            match u64::from(self.count.now) {
                0 => 0x100,
                count => count,
            }
        };
        (first < sectors && count <= sectors - first)
            .then_some(Extent { offset: first * SECTOR, bytes: count * SECTOR })
    }

    /// Runs an ATA command of a disk. `serial` is its serial number.
    pub(super) fn disk_command(&mut self, command: u8, media: &Medium, serial: &str) {
        self.error = 0;
        match command {
            // READ SECTOR(S), with and without retries; EXT. READ MULTIPLE; EXT.
            0x20 | 0x21 | 0x24 => self.pio_read(media, command == 0x24, 1),
            0xc4 | 0x29 if self.multiple != 0 => {
                self.pio_read(media, command == 0x29, self.multiple);
            }
            // WRITE SECTOR(S), EXT. WRITE MULTIPLE, EXT.
            0x30 | 0x31 | 0x34 => self.pio_write(media, command == 0x34, 1),
            0xc5 | 0x39 if self.multiple != 0 => {
                self.pio_write(media, command == 0x39, self.multiple);
            }
            // READ DMA, EXT. WRITE DMA, EXT.
            0xc8 | 0xc9 | 0x25 => match self.extent(media, command == 0x25) {
                Some(Extent { offset, bytes }) => {
                    self.request_data(Phase::DmaRead { offset, left: bytes }, false);
                }
                None => self.fail(error::IDNF),
            },
            0xca | 0xcb | 0x35 => match self.extent(media, command == 0x35) {
                Some(_) if media.read_only() => self.fail(error::ABRT),
                Some(Extent { offset, bytes }) => {
                    self.request_data(Phase::DmaWrite { offset, left: bytes }, false);
                }
                None => self.fail(error::IDNF),
            },
            // READ VERIFY SECTOR(S), EXT.
            0x40..=0x42 => match self.extent(media, command == 0x42) {
                Some(_) => self.complete(),
                None => self.fail(error::IDNF),
            },
            // FLUSH CACHE, EXT.
            0xe7 | 0xea => self.work(Phase::Flush),
            // IDENTIFY DEVICE.
            0xec => {
                let sectors = media.size() / SECTOR;
                let data = identify::disk(sectors, serial, self.multiple, self.mode);
                self.reply(data);
            }
            // SET MULTIPLE MODE: 0 or a power of two.
            0xc6 => {
                let count = self.count.now;
                if count <= identify::MAX_MULTIPLE && (count == 0 || count.is_power_of_two()) {
                    self.multiple = count;
                    self.complete();
                } else {
                    self.fail(error::ABRT);
                }
            }
            // INITIALIZE DEVICE PARAMETERS.
            0x91 => {
                self.geometry = ((self.device & 0xf) + 1, self.count.now.max(1));
                self.complete();
            }
            // READ NATIVE MAX ADDRESS, EXT.
            0xf8 | 0x27 => {
                self.show_last_sector(media.size() / SECTOR, command == 0x27);
                self.complete();
            }
            _ => self.common_command(command),
        }
    }

    /// Commands of disks and CD-ROM drives alike; others are aborted.
    pub(super) fn common_command(&mut self, command: u8) {
        match command {
            // SET FEATURES: transfer mode; caches and the like are as they are.
            0xef => match self.features.now {
                0x03 => {
                    self.mode = TransferMode(self.count.now);
                    self.complete();
                }
                0x02 | 0x82 | 0xaa | 0x55 | 0x66 | 0xcc | 0x05 | 0x85 | 0x42 | 0xc2 => {
                    self.complete();
                }
                _ => self.fail(error::ABRT),
            },
            // RECALIBRATE and SEEK.
            0x10..=0x1f | 0x70..=0x7f => self.complete(),
            // CHECK POWER MODE: active.
            0xe5 | 0x98 => {
                self.count.now = 0xff;
                self.complete();
            }
            // STANDBY and IDLE, immediate and with timers; SLEEP.
            0xe0..=0xe3 | 0xe6 | 0x94..=0x97 | 0x99 => self.complete(),
            _ => {
                tracing::debug!(command, "an ATA command that is not offered");
                self.fail(error::ABRT);
            }
        }
    }

    /// Gives the host `data`, in one block.
    pub(super) fn reply(&mut self, data: Vec<u8>) {
        let block = data.len();
        self.request_data(Phase::DataIn(Transfer::new(data, 0, 0, block)), true);
    }

    fn show_last_sector(&mut self, sectors: u64, wide: bool) {
        let last = sectors.saturating_sub(1);
        let shown = if wide { last } else { last.min(0x0fff_ffff) };
        let bytes = shown.to_le_bytes();
        for (register, index) in self.lba.iter_mut().zip(0..) {
            register.now = bytes.get(index).copied().unwrap_or(0);
            register.before = bytes.get(index + 3).copied().unwrap_or(0);
        }
        if !wide {
            self.device = self.device & 0xf0 | (bytes[3] & 0xf);
        }
    }

    fn pio_read(&mut self, media: &Medium, wide: bool, sectors: u8) {
        let Some(Extent { offset, bytes }) = self.extent(media, wide) else {
            return self.fail(error::IDNF);
        };
        let block = usize::from(sectors.max(1)) * SECTOR as usize;
        self.work(Phase::Fetch { offset, left: bytes, block });
    }

    fn pio_write(&mut self, media: &Medium, wide: bool, sectors: u8) {
        let Some(Extent { offset, bytes }) = self.extent(media, wide) else {
            return self.fail(error::IDNF);
        };
        if media.read_only() {
            return self.fail(error::ABRT);
        }
        let block = usize::from(sectors.max(1)) * SECTOR as usize;
        self.next_batch_out(offset, bytes, block, false);
    }

    fn next_batch_out(&mut self, offset: u64, left: u64, block: usize, interrupt: bool) {
        let count = batch(block, left);
        let transfer = Transfer::new(vec![0; count], offset, left - count as u64, block);
        self.request_data(Phase::DataOut(transfer), interrupt);
    }

    /// The medium gave the first bytes of a [`Phase::Fetch`].
    pub(super) fn fetched(&mut self, data: Vec<u8>, offset: u64, left: u64, block: usize) {
        let count = data.len() as u64;
        let transfer = Transfer::new(data, offset + count, left.saturating_sub(count), block);
        self.request_data(Phase::DataIn(transfer), true);
    }

    /// The host has read a block: offers the next, or ends the command. The last block of an ATA
    /// transfer ends without another interrupt.
    pub(super) fn block_read(&mut self) {
        if self.next_block() {
            self.intrq = true;
            return;
        }
        let Phase::DataIn(Transfer { offset, left, block, .. }) = self.phase else { return };
        if left == 0 {
            self.phase = Phase::Idle;
            self.status = status::DRDY | status::DSC;
        } else {
            self.work(Phase::Fetch { offset, left, block });
        }
    }

    /// The host has filled a block: asks for the next, or stores what there is.
    pub(super) fn block_written(&mut self) {
        if self.next_block() {
            self.intrq = true;
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::DataOut(transfer) => self.work(Phase::Store(transfer)),
            other => self.phase = other,
        }
    }

    /// The medium has stored `count` bytes of a [`Phase::Store`].
    pub(super) fn stored(&mut self, count: u64, offset: u64, left: u64, block: usize) {
        if left == 0 {
            self.complete();
        } else {
            self.next_batch_out(offset + count, left, block, true);
        }
    }

    /// The host could not write: a fault of the device.
    pub(super) fn fault(&mut self) {
        self.fail(error::ABRT);
        self.status |= status::DF;
    }
}
