//! The PC/AT's pair of 8259A interrupt controllers, with the edge/level control of a PIIX.
//!
//! | port | read | write |
//! |---|---|---|
//! | 0x20 master, 0xA0 slave | IRR or ISR (as OCW3 chose), or the poll answer | ICW1, OCW2, OCW3 |
//! | 0x21 master, 0xA1 slave | IMR, or the poll answer | ICW2 to ICW4, OCW1 |
//! | 0x4D0 master, 0x4D1 slave | ELCR | ELCR: 1 makes an input level-triggered |
//!
//! The slave's INT drives the master's input 2; the master's INT is the pair's INTR output. As in
//! the PIIX, ICW1's LTIM bit has no effect (ELCR replaces it), inputs 0, 1, 2, 8 and 13 are always
//! edge-triggered, and the 8080 mode (ICW4 bit 0 clear) behaves as the 8086 mode.
//!
//! Sources: Intel 8259A datasheet (231468-003); Intel 82371AB (PIIX4) datasheet, section 4.2.3.

mod chip;
#[cfg(test)]
mod tests;

use chip::Chip;

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::bus::{BusDevice, lock, read_bytes, write_bytes};
use crate::interrupt::IrqLine;

/// The ports, for [`crate::Bus::insert_ports`].
pub const PORTS: &[(u16, u16)] = &[(0x20, 2), (0xa0, 2), (0x4d0, 2)];

/// The master's input that the slave drives.
const CASCADE: u8 = 2;
/// The value of a data bus that nobody drives.
const FLOATING_BUS: u8 = 0xff;
/// Inputs whose trigger mode the ELCR can change.
const ELCR_MASTER_MASK: u8 = 0xf8;
const ELCR_SLAVE_MASK: u8 = 0xde;

/// The pair: the pure register machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pic {
    master: Chip,
    slave: Chip,
}

impl Pic {
    /// The pair at power-on, unprogrammed and silent.
    pub fn new() -> Self {
        Self { master: Chip::new(1 << CASCADE), slave: Chip::new(CASCADE) }
    }

    /// Programs the pair as a PC BIOS leaves it: vectors 0x08 to 0x0F and 0x70 to 0x77, with the
    /// timer, the keyboard, the cascade and the real-time clock unmasked.
    pub fn program_as_bios(&mut self) {
        const SEQUENCE: [(u64, u8); 10] = [
            (0x20, 0x11), // ICW1: edge-triggered, cascaded, ICW4 follows
            (0xa0, 0x11),
            (0x21, 0x08), // ICW2: vector base
            (0xa1, 0x70),
            (0x21, 1 << CASCADE), // ICW3
            (0xa1, CASCADE),
            (0x21, 0x01), // ICW4: 8086 mode, explicit EOI
            (0xa1, 0x01),
            (0x21, 0xb8), // OCW1: inputs 0, 1, 2 and 6 open
            (0xa1, 0x8e), // inputs 8, 12, 13 and 14 open
        ];
        for (port, value) in SEQUENCE {
            self.write_port(port, value);
        }
    }

    /// Drives request line `line` (0 to 15). Line 2 does not exist: the cascade takes its input;
    /// it and lines above 15 are ignored.
    pub fn set_irq(&mut self, line: u8, level: bool) {
        match line {
            CASCADE => {}
            0..=7 => self.master.set_line(line, level),
            8..=15 => self.slave.set_line(line - 8, level),
            _ => {}
        }
        self.drive_cascade();
    }

    /// The INTR output: a request waits for [`Self::acknowledge`].
    pub fn intr(&self) -> bool {
        self.master.pending().is_some()
    }

    /// The INTA cycle of the CPU: the vector, 0 to 255. If the request has gone, this is the
    /// spurious vector: input 7 of the chip that was asked, nothing in service there.
    pub fn acknowledge(&mut self) -> u8 {
        let input = self.master.take();
        let vector = match input {
            Some(input) if self.master.has_slave_at(input) => self.acknowledge_slave(input),
            Some(_) | None => self.master.vector(input),
        };
        self.drive_cascade();
        vector
    }

    fn acknowledge_slave(&mut self, identity: u8) -> u8 {
        if identity != self.slave.icw3 & 7 {
            return FLOATING_BUS;
        }
        let input = self.slave.take();
        // INT drops on acknowledgement, so that a request still pending makes a new edge.
        self.master.set_line(CASCADE, false);
        self.slave.vector(input)
    }

    fn drive_cascade(&mut self) {
        self.master.set_line(CASCADE, self.slave.pending().is_some());
    }

    /// Reads the register at `port`; ports that are not the pair's read as all-ones.
    pub fn read_port(&mut self, port: u64) -> u8 {
        let value = match port {
            0x20 => self.master.read_command(),
            0x21 => self.master.read_data(),
            0xa0 => self.slave.read_command(),
            0xa1 => self.slave.read_data(),
            0x4d0 => self.master.elcr,
            0x4d1 => self.slave.elcr,
            _ => return 0xff,
        };
        // A polled read acknowledges.
        self.drive_cascade();
        value
    }

    /// Writes the register at `port`; ports that are not the pair's are ignored.
    pub fn write_port(&mut self, port: u64, value: u8) {
        match port {
            0x20 => self.master.write_command(value),
            0x21 => self.master.write_data(value),
            0xa0 => self.slave.write_command(value),
            0xa1 => self.slave.write_data(value),
            0x4d0 => self.master.set_elcr(value & ELCR_MASTER_MASK),
            0x4d1 => self.slave.set_elcr(value & ELCR_SLAVE_MASK),
            _ => return,
        }
        self.drive_cascade();
    }
}

impl Default for Pic {
    fn default() -> Self {
        Self::new()
    }
}

/// The attachment: the pair on the bus, driving an INTR wire (to a CPU's INTR pin or to a local
/// APIC's LINT0).
pub struct PicDevice {
    pic: Pic,
    intr: Box<dyn IrqLine>,
}

impl PicDevice {
    /// Attaches `pic`, whose INTR output drives `intr`.
    pub fn new(pic: Pic, intr: Box<dyn IrqLine>) -> Self {
        let device = Self { pic, intr };
        device.drive();
        device
    }

    /// Drives request line `line` (0 to 15).
    pub fn set_irq(&mut self, line: u8, level: bool) {
        self.pic.set_irq(line, level);
        self.drive();
    }

    /// The INTR output.
    pub fn intr(&self) -> bool {
        self.pic.intr()
    }

    /// The INTA cycle: see [`Pic::acknowledge`].
    pub fn acknowledge(&mut self) -> u8 {
        let vector = self.pic.acknowledge();
        self.drive();
        vector
    }

    /// The state to save.
    pub fn state(&self) -> &Pic {
        &self.pic
    }

    /// Takes a saved state and drives INTR to match.
    pub fn restore(&mut self, pic: Pic) {
        self.pic = pic;
        self.drive();
    }

    fn drive(&self) {
        self.intr.set_level(self.pic.intr());
    }
}

impl BusDevice for PicDevice {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, |port| self.pic.read_port(port));
        self.drive();
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        write_bytes(offset, data, |port, value| self.pic.write_port(port, value));
        self.drive();
    }
}

/// One request line of the pair, as a device sees it.
#[derive(Clone)]
pub struct PicLine {
    pic: Arc<Mutex<PicDevice>>,
    line: u8,
}

impl PicLine {
    /// Request line `line` (0 to 15) of `pic`.
    pub fn new(pic: Arc<Mutex<PicDevice>>, line: u8) -> Self {
        Self { pic, line }
    }
}

impl IrqLine for PicLine {
    fn set_level(&self, high: bool) {
        lock(&self.pic).set_irq(self.line, high);
    }
}
