//! ACPI fixed hardware in the manner of the PIIX4's power management function.
//!
//! | offset | bytes | register |
//! |---|---|---|
//! | 0x00 | 2 | PM1a status: bit 0 timer carry, 5 global lock, 8 power button, 10 RTC, 15 woken; write 1 to clear |
//! | 0x02 | 2 | PM1a enable: the same bits, without 15 |
//! | 0x04 | 2 | PM1a control: bit 0 SCI_EN, 1 BM_RLD, 12:10 SLP_TYP, 13 SLP_EN |
//! | 0x08 | 4 | PM timer: 24 bits at 3.579545 MHz |
//! | 0x0C | 2 | GPE0 status; write 1 to clear |
//! | 0x0E | 2 | GPE0 enable |
//! | port 0xB2 | 1 | SMI command: [`ACPI_ENABLE`], [`ACPI_DISABLE`] |
//! | port 0xB3 | 1 | SMI status: a scratch byte |
//!
//! The block has no fixed place: map it where the FADT says with [`crate::Bus::insert`] and
//! [`BLOCK_BYTES`], and the SMI ports with [`crate::Bus::insert_ports`] and [`SMI_PORTS`]. There is
//! no SMM: the device itself does what a BIOS's SMI handler would. Sleep types are the PIIX4's: with
//! SLP_EN 0 powers off and 1 suspends to RAM, until the power button wakes, or, if they are enabled, the
//! real-time clock's alarm or a general purpose event; the others are ignored.
//!
//! Sources: ACPI specification 6.5, sections 4.8.3 and 4.8.4; Intel 82371AB (PIIX4) datasheet,
//! section 7.2.

mod registers;
#[cfg(test)]
mod tests;

pub use registers::{AcpiPm, SleepRequest};

use std::sync::Arc;

use crate::bus::{BusDevice, read_bytes, write_bytes};
use crate::clock::{Clock, Timer, TimerClient, ns_to_ticks, ticks_to_ns};
use crate::interrupt::IrqLine;

/// Bytes of the register block.
pub const BLOCK_BYTES: u64 = 0x40;
/// Offset of the PM1a event block: status, then enable; 4 bytes.
pub const PM1A_EVENT: u64 = 0x00;
/// Offset of the PM1a control block; 2 bytes.
pub const PM1A_CONTROL: u64 = 0x04;
/// Offset of the PM timer block; 4 bytes.
pub const PM_TIMER: u64 = 0x08;
/// Offset of the GPE0 block: status, then enable; 4 bytes.
pub const GPE0: u64 = 0x0c;
/// The SMI ports, for [`crate::Bus::insert_ports`].
pub const SMI_PORTS: &[(u16, u16)] = &[(SMI_COMMAND_PORT as u16, 2)];
/// The port of the FADT's SMI_CMD.
pub const SMI_COMMAND_PORT: u64 = 0xb2;
/// The scratch port beside it.
pub const SMI_STATUS_PORT: u64 = 0xb3;
/// The FADT's ACPI_ENABLE.
pub const ACPI_ENABLE: u8 = 0xf1;
/// The FADT's ACPI_DISABLE.
pub const ACPI_DISABLE: u8 = 0xf0;
/// SLP_TYP of S5, for the DSDT's `_S5`.
pub const SLEEP_TYPE_S5: u8 = 0;
/// SLP_TYP of S3, for the DSDT's `_S3`.
pub const SLEEP_TYPE_S3: u8 = 1;
/// Frequency of the PM timer.
pub const PM_TIMER_HZ: u64 = 3_579_545;

/// What the power plane does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerChange {
    /// S5: the machine powers off.
    Off,
    /// S3 begins: the CPUs stop and lose their state.
    Suspend,
    /// S3 ends: the boot processor starts as after RESET.
    Wake,
}

/// The attachment: the registers on the bus, driving SCI.
pub struct AcpiPmDevice {
    registers: AcpiPm,
    clock: Arc<dyn Clock>,
    sci: Box<dyn IrqLine>,
    timer: Box<dyn Timer>,
    power: Box<dyn Fn(PowerChange) + Send>,
}

impl AcpiPmDevice {
    /// Attaches the registers after reset: `sci` is SCI (IRQ9 on a PC, level-triggered), `timer` its
    /// own alarm. `power` hears of S5 and S3; it is called with the device locked: note the
    /// request, act later.
    pub fn new(
        clock: Arc<dyn Clock>,
        sci: Box<dyn IrqLine>,
        timer: Box<dyn Timer>,
        power: Box<dyn Fn(PowerChange) + Send>,
    ) -> Self {
        let mut device = Self { registers: AcpiPm::new(), clock, sci, timer, power };
        // A carry before the device existed is none.
        let now = device.now();
        device.registers.settle(now);
        device.registers.write(PM1A_EVENT, 0xff, now);
        device
    }

    /// Enters ACPI mode without the guest's asking: for machines whose FADT has no SMI command.
    pub fn enable_acpi(&mut self) {
        self.write(SMI_COMMAND_PORT, &[ACPI_ENABLE]);
    }

    /// The power button goes down: a guest in ACPI mode shuts down.
    pub fn press_power_button(&mut self) {
        self.registers.press_power_button();
        self.drive();
    }

    /// The real-time clock's alarm interrupt rises.
    pub fn rtc_alarm(&mut self) {
        self.registers.raise_rtc();
        self.drive();
    }

    /// Releases the global lock to a guest that waits for it.
    pub fn release_global_lock(&mut self) {
        self.registers.release_global_lock();
        self.drive();
    }

    /// Raises general purpose event `event` (0 to 15).
    pub fn raise_gpe(&mut self, event: u8) {
        self.registers.raise_gpe(event);
        self.drive();
    }

    /// The state to save.
    pub fn state(&self) -> &AcpiPm {
        &self.registers
    }

    /// Takes a saved state and drives SCI to match.
    pub fn restore(&mut self, registers: AcpiPm) {
        self.registers = registers;
        self.drive();
    }

    fn now(&self) -> u64 {
        ns_to_ticks(self.clock.now_ns(), PM_TIMER_HZ)
    }

    fn drive(&mut self) {
        let now = self.now();
        self.drive_at(now);
    }

    fn drive_at(&mut self, now: u64) {
        self.registers.settle(now);
        self.sci.set_level(self.registers.sci());
        let deadline = self.registers.next_carry(now);
        self.timer.arm(deadline.map(|tick| ticks_to_ns(tick, PM_TIMER_HZ)));
        if self.registers.wake() {
            (self.power)(PowerChange::Wake);
        }
    }
}

impl BusDevice for AcpiPmDevice {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // One instant for all bytes: the timer must not move between them. Reads are frequent
        // and change no output but the carry's, whose alarm is armed.
        let now = self.now();
        read_bytes(offset, data, |offset| self.registers.read(offset, now));
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let now = self.now();
        let mut request = None;
        write_bytes(offset, data, |offset, value| {
            request = self.registers.write(offset, value, now).or(request);
        });
        match request {
            Some(SleepRequest::SoftOff) => (self.power)(PowerChange::Off),
            Some(SleepRequest::SuspendToRam) => (self.power)(PowerChange::Suspend),
            Some(SleepRequest::Unsupported(sleep_type)) => {
                tracing::warn!(sleep_type, "the guest asked for a sleep state that is not offered");
            }
            None => {}
        }
        // Behind the request: what is up already wakes at once.
        self.drive_at(now);
    }
}

impl TimerClient for AcpiPmDevice {
    fn timer_expired(&mut self, now_ns: u64) {
        self.drive_at(ns_to_ticks(now_ns, PM_TIMER_HZ));
    }
}
