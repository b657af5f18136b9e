//! A channel: two drives that share their ports, their interrupt and a bus master.

use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};

use super::bus_master::BusMaster;
use super::drive::{Drive, Media, Phase, status};
use crate::bus::BusDevice;
use crate::dma::DmaMemory;
use crate::interrupt::IrqLine;

/// Device control: interrupt disable.
const NIEN: u8 = 1 << 1;
/// Device control: software reset.
const SRST: u8 = 1 << 2;
/// Device control: reads show the bytes before the latest.
const HOB: u8 = 1 << 7;
/// Device register: the second drive.
const DEV: u8 = 1 << 4;
/// The command that resets a packet device.
const DEVICE_RESET: u8 = 0x08;
/// Offset of the alternate status register from the command block.
const CONTROL: u64 = 0x206;

/// The state to save; media are the machine's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    pub(super) drives: [Drive; 2],
    /// Which drive is selected.
    second: bool,
    control: u8,
    /// The interrupt line's level: the bus master notes its rising edge.
    interrupt: bool,
    pub(super) bus_master: BusMaster,
}

/// The attachment of a channel.
pub struct Channel {
    pub(super) state: ChannelState,
    pub(super) media: [Option<Media>; 2],
    serials: [String; 2],
    base: u64,
    irq: Box<dyn IrqLine>,
    pub(super) memory: Arc<dyn DmaMemory>,
    /// Counts requests to the media and resets, to know an answer that nobody waits for.
    pub(super) ticket: u64,
    /// The medium of a drive has a request that it has not answered, perhaps one from before a reset.
    /// The drive makes no other meanwhile: a host that resets again and again piles up nothing.
    pub(super) asked: [bool; 2],
    /// Itself, for the media's answers.
    pub(super) me: Weak<Mutex<Channel>>,
}

impl Channel {
    /// A channel whose command block is at port `base`, with these drives. `irq` is IRQ 14 or 15.
    pub fn shared(
        base: u16,
        media: [Option<Media>; 2],
        irq: Box<dyn IrqLine>,
        memory: Arc<dyn DmaMemory>,
    ) -> Arc<Mutex<Self>> {
        let serials = [0, 1].map(|index| format!("RS{base:04X}{index}"));
        let drives = [Drive::new(media[0].as_ref()), Drive::new(media[1].as_ref())];
        let bus_master = BusMaster::new([media[0].is_some(), media[1].is_some()]);
        let state =
            ChannelState { drives, second: false, control: 0, interrupt: false, bus_master };
        Arc::new_cyclic(|me| {
            let me = me.clone();
            let base = base.into();
            Mutex::new(Self {
                state,
                media,
                serials,
                base,
                irq,
                memory,
                ticket: 0,
                asked: [false; 2],
                me,
            })
        })
    }

    /// The state to save.
    pub fn state(&self) -> &ChannelState {
        &self.state
    }

    /// Takes a saved state and drives the interrupt to match. What a drive was waiting for is asked
    /// for again.
    pub fn restore(&mut self, state: ChannelState) {
        self.state = state;
        self.ticket += 1;
        for drive in &mut self.state.drives {
            drive.waiting = false;
        }
        self.work();
        self.drive_interrupt();
    }

    pub(super) fn index(&self) -> usize {
        usize::from(self.state.second)
    }

    pub(super) fn selected(&mut self) -> (&mut Drive, Option<&Media>) {
        let index = self.index();
        (&mut self.state.drives[index], self.media[index].as_ref())
    }

    pub(super) fn drive_interrupt(&mut self) {
        let index = self.index();
        let drive = &self.state.drives[index];
        let high = drive.intrq && self.state.control & NIEN == 0 && self.media[index].is_some();
        if high && !self.state.interrupt {
            self.state.bus_master.note_interrupt();
        }
        self.state.interrupt = high;
        self.irq.set_level(high);
    }

    fn read_register(&mut self, register: u64) -> u8 {
        let present = self.media.iter().any(Option::is_some);
        if !present {
            // Nobody drives the bus; bit 7 is pulled down so that hosts see no busy drive.
            return 0x7f;
        }
        let absent = self.media[self.index()].is_none();
        let before = self.state.control & HOB != 0;
        let index = self.index();
        let drive = &mut self.state.drives[index];
        let show = |fifo: super::drive::Fifo| if before { fifo.before } else { fifo.now };
        match register {
            1 => drive.error,
            2 => show(drive.count),
            3 => show(drive.lba[0]),
            4 => show(drive.lba[1]),
            5 => show(drive.lba[2]),
            6 => drive.device | 0xa0 | if index == 1 { DEV } else { 0 },
            // The first drive answers for an absent second: status 0.
            7 | CONTROL if absent => 0,
            7 => {
                let value = drive.status;
                drive.intrq = false;
                self.drive_interrupt();
                value
            }
            CONTROL => drive.status,
            _ => 0xff,
        }
    }

    fn write_register(&mut self, register: u64, value: u8) {
        // A busy drive takes a reset and nothing else.
        let packet = matches!(self.media[self.index()], Some(Media::Cdrom(_)));
        let reset = register == CONTROL || register == 7 && value == DEVICE_RESET && packet;
        if self.state.drives[self.index()].busy() && !reset {
            return;
        }
        match register {
            1..=5 => {
                self.state.control &= !HOB;
                for drive in &mut self.state.drives {
                    match register {
                        1 => drive.features.push(value),
                        2 => drive.count.push(value),
                        3 => drive.lba[0].push(value),
                        4 => drive.lba[1].push(value),
                        _ => drive.lba[2].push(value),
                    }
                }
            }
            6 => {
                self.state.control &= !HOB;
                self.state.second = value & DEV != 0;
                for drive in &mut self.state.drives {
                    drive.device = value & !DEV;
                }
                self.drive_interrupt();
            }
            7 => {
                self.state.control &= !HOB;
                self.command(value);
                self.drive_interrupt();
            }
            CONTROL => {
                if value & SRST != 0 && self.state.control & SRST == 0 {
                    self.reset();
                }
                self.state.control = value & (NIEN | SRST | HOB);
                self.drive_interrupt();
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.state.second = false;
        // What the media still answer is for nobody.
        self.ticket += 1;
        for (drive, media) in self.state.drives.iter_mut().zip(&self.media) {
            drive.reset(media.as_ref());
        }
    }

    fn command(&mut self, command: u8) {
        let index = self.index();
        match command {
            // EXECUTE DEVICE DIAGNOSTIC: both drives, the first answers.
            0x90 => {
                let control = self.state.control;
                self.reset();
                self.state.control = control;
                self.state.drives[0].intrq = true;
            }
            // DEVICE RESET, of packet devices only.
            DEVICE_RESET if matches!(self.media[index], Some(Media::Cdrom(_))) => {
                self.ticket += 1;
                let device = self.state.drives[index].device;
                self.state.drives[index].reset(self.media[index].as_ref());
                self.state.drives[index].device = device;
            }
            _ => {
                let serial = &self.serials[index];
                let drive = &mut self.state.drives[index];
                match &self.media[index] {
                    Some(Media::Disk(disk)) => drive.disk_command(command, disk, serial),
                    Some(Media::Cdrom(_)) => drive.cdrom_command(command, serial),
                    None => {}
                }
            }
        }
        self.work();
    }

    fn read_data(&mut self, data: &mut [u8]) {
        let (drive, media) = self.selected();
        if drive.status & status::DRQ == 0 || !drive.read_data(data) {
            return;
        }
        match media {
            Some(Media::Disk(_)) => drive.block_read(),
            Some(Media::Cdrom(_)) => {
                // IDENTIFY PACKET DEVICE is an ATA transfer: it ends without an interrupt.
                if drive.count.now & super::drive::reason::IO == 0 {
                    drive.phase = Phase::Idle;
                    drive.status = status::DRDY | status::DSC;
                } else {
                    drive.packet_block_read();
                }
            }
            None => {}
        }
        self.work();
        self.drive_interrupt();
    }

    fn write_data(&mut self, data: &[u8]) {
        let (drive, media) = self.selected();
        if drive.status & status::DRQ == 0 || !drive.write_data(data) {
            return;
        }
        match media {
            Some(Media::Disk(_)) => drive.block_written(),
            Some(Media::Cdrom(disc)) => drive.run_packet(disc.as_ref()),
            None => {}
        }
        self.work();
        self.drive_interrupt();
    }

    /// A write to the bus master's registers.
    pub(super) fn write_bus_master(&mut self, offset: u64, value: u8) {
        if self.state.bus_master.write(offset, value) {
            self.work();
            self.drive_interrupt();
        }
    }
}

impl BusDevice for Channel {
    /// `offset` is the port number.
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let register = offset.wrapping_sub(self.base);
        if register == 0 {
            return self.read_data(data);
        }
        crate::bus::read_bytes(register, data, |register| self.read_register(register));
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let register = offset.wrapping_sub(self.base);
        if register == 0 {
            return self.write_data(data);
        }
        crate::bus::write_bytes(register, data, |register, value| {
            self.write_register(register, value);
        });
    }
}
