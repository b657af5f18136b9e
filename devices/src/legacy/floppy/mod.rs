//! The floppy disk controller, an 82077AA with two drives, on DMA channel 2.
//!
//! | port | read | write |
//! |---|---|---|
//! | 0x3F0, 0x3F1 | status registers A and B (PS/2 only): all-ones | |
//! | 0x3F2 | digital output | bits 1:0 drive, 2 not reset, 3 DMA and interrupt enable, 7:4 motors |
//! | 0x3F4 | main status | data rate; bit 7 resets |
//! | 0x3F5 | results, one byte at a time | command and parameters |
//! | 0x3F7 | digital input: bit 7 disk changed | data rate |
//!
//! A command is carried out when its last parameter arrives. One that moves sectors stays in its
//! execution phase, the controller busy, until the disk has answered and DMA has moved them
//! (`transfer.rs`); transfers by the processor (SPECIFY's ND bit) are not offered and end abnormally.
//!
//! Source: Intel 82077AA datasheet (290166).

#[cfg(test)]
mod tests;
mod transfer;

use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};

use crate::block::Medium;
use crate::bus::{BusDevice, read_bytes, write_bytes};
use crate::interrupt::IrqLine;
use crate::legacy::dma8237::DmaDevice;
use transfer::Execution;

/// The ports, for [`crate::Bus::insert_ports`].
pub const PORTS: &[(u16, u16)] = &[(0x3f0, 6), (0x3f7, 1)];

const DMA_CHANNEL: u8 = 2;
const SECTOR: usize = 512;

/// Main status: ready for a byte; to the host; a command is under way.
const RQM: u8 = 1 << 7;
const DIO: u8 = 1 << 6;
const BUSY: u8 = 1 << 4;
/// Digital output: not reset; DMA and interrupt on.
const NOT_RESET: u8 = 1 << 2;
const DMA_ENABLE: u8 = 1 << 3;
/// Status 0: abnormal termination; invalid command; seek end.
const ABNORMAL: u8 = 0x40;
const INVALID: u8 = 0x80;
const SEEK_END: u8 = 0x20;

/// Status registers 0 to 2 of a failed command.
type Failure = (u8, u8, u8);
const NO_DISK: Failure = (ABNORMAL, 0x01, 0);
const NO_SECTOR: Failure = (ABNORMAL, 0x04, 0);
const WRITE_PROTECTED: Failure = (ABNORMAL, 0x02, 0);
const DATA_ERROR: Failure = (ABNORMAL, 0x20, 0x20);
const END_OF_CYLINDER: Failure = (ABNORMAL, 0x80, 0);
const OVERRUN: Failure = (ABNORMAL, 0x10, 0);

/// Cylinders and sectors per track of a disk with two heads.
fn geometry(size: u64) -> (u8, u8) {
    match size / 1024 {
        0..=360 => (40, 9),
        361..=720 => (80, 9),
        721..=1200 => (80, 15),
        1201..=1440 => (80, 18),
        _ => (80, 36),
    }
}

/// The registers: what is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloppyState {
    output: u8,
    rate: u8,
    /// Command and parameters so far.
    command: Vec<u8>,
    /// Results that the host has not read; the next is the last.
    results: Vec<u8>,
    /// The command that moves data now.
    executing: Option<Execution>,
    cylinder: [u8; 4],
    /// Status 0 of drives whose interrupt SENSE INTERRUPT STATUS has not taken.
    pending: Vec<u8>,
    interrupt: bool,
    changed: [bool; 2],
    specify: [u8; 2],
    configure: [u8; 3],
    locked: bool,
    perpendicular: u8,
}

/// The controller with its disks.
pub struct Floppy {
    state: FloppyState,
    disks: [Option<Medium>; 2],
    irq: Box<dyn IrqLine>,
    dma: Arc<Mutex<DmaDevice>>,
    /// Counts requests to the disks and resets, to know an answer that nobody waits for.
    ticket: u64,
    /// A disk has a request that it has not answered, perhaps one from before a reset. None is made
    /// meanwhile: a host that resets again and again piles up nothing.
    asked: bool,
    /// Itself, for the disks' answers.
    me: Weak<Mutex<Floppy>>,
}

/// Parameters of a command, without the command byte itself.
fn parameters(command: u8) -> usize {
    match command & 0x1f {
        0x03 => 2,
        0x04 | 0x07 | 0x0a | 0x12 => 1,
        0x05 | 0x06 | 0x09 | 0x0c | 0x02 | 0x16 => 8,
        0x0d => 5,
        0x0f => 2,
        0x13 => 3,
        _ => 0,
    }
}

impl Floppy {
    /// A controller after reset. `irq` is IRQ 6; data move by channel 2 of `dma`.
    pub fn shared(
        disks: [Option<Medium>; 2],
        irq: Box<dyn IrqLine>,
        dma: Arc<Mutex<DmaDevice>>,
    ) -> Arc<Mutex<Self>> {
        let changed = [disks[0].is_some(), disks[1].is_some()];
        let state = FloppyState {
            output: NOT_RESET | DMA_ENABLE,
            rate: 2,
            command: Vec::new(),
            results: Vec::new(),
            executing: None,
            cylinder: [0; 4],
            pending: Vec::new(),
            interrupt: false,
            changed,
            specify: [0; 2],
            configure: [0; 3],
            locked: false,
            perpendicular: 0,
        };
        Arc::new_cyclic(|me| {
            let me = me.clone();
            Mutex::new(Self { state, disks, irq, dma, ticket: 0, asked: false, me })
        })
    }

    /// The state to save; disks are the machine's configuration.
    pub fn state(&self) -> &FloppyState {
        &self.state
    }

    /// Takes a saved state and drives the interrupt to match. What a disk was asked for is asked for
    /// again.
    pub fn restore(&mut self, state: FloppyState) {
        self.state = state;
        self.ticket += 1;
        self.resume();
        self.drive();
    }

    fn drive(&self) {
        self.irq.set_level(self.state.interrupt && self.state.output & DMA_ENABLE != 0);
    }

    fn interrupt(&mut self) {
        self.state.interrupt = true;
        self.drive();
    }

    fn reset(&mut self) {
        self.state.command.clear();
        self.state.results.clear();
        self.state.executing = None;
        self.ticket += 1;
        if !self.state.locked {
            self.state.configure = [0; 3];
        }
        // Polling finds every drive's ready line changed.
        self.state.pending = (0..4).rev().map(|drive| 0xc0 | drive).collect();
        self.interrupt();
    }

    fn main_status(&self) -> u8 {
        if self.state.output & NOT_RESET == 0 {
            0
        } else if self.state.executing.is_some() {
            BUSY
        } else if !self.state.results.is_empty() {
            RQM | DIO | BUSY
        } else if !self.state.command.is_empty() {
            RQM | BUSY
        } else {
            RQM
        }
    }

    fn read_register(&mut self, port: u64) -> u8 {
        match port {
            0x3f2 => self.state.output,
            0x3f4 => self.main_status(),
            0x3f5 => {
                self.state.interrupt = false;
                self.drive();
                self.state.results.pop().unwrap_or(0)
            }
            0x3f7 => {
                let drive = usize::from(self.state.output & 3);
                let motor = self.state.output >> 4 >> drive & 1 != 0;
                let changed = self.state.changed.get(drive).copied().unwrap_or(true);
                let empty = self.disks.get(drive).is_none_or(Option::is_none);
                u8::from(motor && (changed || empty)) << 7
            }
            _ => 0xff,
        }
    }

    fn write_register(&mut self, port: u64, value: u8) {
        match port {
            0x3f2 => {
                let released = value & !self.state.output & NOT_RESET != 0;
                self.state.output = value;
                if value & NOT_RESET == 0 {
                    self.state.interrupt = false;
                } else if released {
                    self.reset();
                }
                self.drive();
            }
            0x3f4 => {
                self.state.rate = value & 3;
                if value & 0x80 != 0 {
                    self.reset();
                }
            }
            0x3f7 => self.state.rate = value & 3,
            0x3f5 if self.main_status() & (RQM | DIO) == RQM => {
                self.state.command.push(value);
                let first = self.state.command.first().copied().unwrap_or(0);
                if self.state.command.len() > parameters(first) {
                    let command = std::mem::take(&mut self.state.command);
                    self.run(&command);
                }
            }
            _ => {}
        }
    }

    /// Leaves results for the host, first byte first.
    fn results(&mut self, results: &[u8]) {
        self.state.results = results.iter().rev().copied().collect();
    }

    fn run(&mut self, command: &[u8]) {
        let byte = |at: usize| command.get(at).copied().unwrap_or(0);
        let drive = usize::from(byte(1) & 3);
        match byte(0) & 0x1f {
            // SPECIFY.
            0x03 => self.state.specify = [byte(1), byte(2)],
            // SENSE DRIVE STATUS: ready, two sides, track 0, write protection.
            0x04 => {
                let protected =
                    self.disks.get(drive).and_then(Option::as_ref).is_some_and(|d| d.read_only());
                let track_0 = self.state.cylinder[drive] == 0;
                let status = byte(1) & 7 | 0x28 | u8::from(track_0) << 4 | u8::from(protected) << 6;
                self.results(&[status]);
            }
            // WRITE DATA, READ DATA, WRITE DELETED DATA, READ DELETED DATA.
            0x05 | 0x06 | 0x09 | 0x0c => self.transfer(command),
            // RECALIBRATE, SEEK.
            0x07 => self.seek(byte(1) & 3, 0),
            0x0f => self.seek(byte(1) & 7, byte(2)),
            // SENSE INTERRUPT STATUS.
            0x08 => {
                self.state.interrupt = false;
                self.drive();
                match self.state.pending.pop() {
                    Some(status) => {
                        let cylinder = self.state.cylinder[usize::from(status & 3)];
                        self.results(&[status, cylinder]);
                    }
                    None => self.results(&[INVALID]),
                }
            }
            // READ ID: some sector of the track.
            0x0a => {
                let cylinder = self.state.cylinder[drive];
                let head = byte(1) >> 2 & 1;
                match self.disks.get(drive).and_then(Option::as_ref) {
                    Some(disk) if cylinder < geometry(disk.size()).0 => {
                        self.finish(Ok(()), byte(1) & 7, [cylinder, head, 1]);
                    }
                    _ => self.finish(Err(NO_DISK), byte(1) & 7, [cylinder, head, 1]),
                }
            }
            // FORMAT TRACK.
            0x0d => {
                self.format(byte(1) & 7, byte(5));
            }
            // DUMPREG.
            0x0e => {
                let s = &self.state;
                let [a, b, c, d] = s.cylinder;
                let lock = u8::from(s.locked) << 7 | s.perpendicular & 0x7f;
                let results = [
                    a,
                    b,
                    c,
                    d,
                    s.specify[0],
                    s.specify[1],
                    0,
                    lock,
                    s.configure[1],
                    s.configure[2],
                ];
                self.results(&results);
            }
            // VERSION: an enhanced controller.
            0x10 => self.results(&[0x90]),
            // PERPENDICULAR MODE, CONFIGURE, LOCK.
            0x12 => self.state.perpendicular = byte(1),
            0x13 => self.state.configure = [byte(1), byte(2), byte(3)],
            0x14 => {
                self.state.locked = byte(0) & 0x80 != 0;
                self.results(&[u8::from(self.state.locked) << 4]);
            }
            _ => self.results(&[INVALID]),
        }
    }

    fn seek(&mut self, select: u8, cylinder: u8) {
        let drive = usize::from(select & 3);
        self.state.cylinder[drive] = cylinder;
        if let (Some(changed), Some(Some(_))) =
            (self.state.changed.get_mut(drive), self.disks.get(drive))
        {
            // A step with a disk in place clears the change line.
            *changed = false;
        }
        self.state.pending.insert(0, SEEK_END | select);
        self.state.pending.truncate(4);
        self.interrupt();
    }

    /// The result phase of a command with data, with an interrupt.
    fn finish(&mut self, result: Result<(), Failure>, select: u8, at: [u8; 3]) {
        let (status_0, status_1, status_2) = result.err().unwrap_or((0, 0, 0));
        let [cylinder, head, sector] = at;
        self.results(&[status_0 | select, status_1, status_2, cylinder, head, sector, 2]);
        self.interrupt();
    }
}

impl BusDevice for Floppy {
    /// Offsets are port numbers.
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, |port| self.read_register(port));
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        write_bytes(offset, data, |port, value| self.write_register(port, value));
    }
}
