//! The high precision event timer: a 64-bit counter at 100 MHz and three comparators.
//!
//! | offset | register |
//! |---|---|
//! | 0x000 | capabilities and ID |
//! | 0x010 | configuration: 0 enable, 1 legacy replacement |
//! | 0x020 | interrupt status, of level-triggered comparators; writing 1 clears |
//! | 0x0F0 | main counter, written only while it is halted |
//! | 0x100 + 0x20 n | comparator n: configuration; + 8 value |
//!
//! With legacy replacement, comparator 0 takes the PIT's interrupt line and comparator 1 the
//! RTC's; those two devices then interrupt nobody ([`LegacyLine`]). Otherwise a comparator drives
//! the pin of the I/O APIC that its configuration names, 16 to 23. A comparator that is written
//! behind the counter matches when the counter has wrapped, as the specification has it; drivers
//! look at the counter after they write.
//!
//! Source: IA-PC HPET Specification 1.0a (2004), section 2.3.

mod registers;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bus::{BusDevice, store_value, value_of};
use crate::clock::{Clock, Timer, TimerClient};
use crate::interrupt::IrqLine;
pub use registers::{Hpet, Route};

/// First address of the registers.
pub const HPET_BASE: u64 = 0xfed0_0000;
/// Their length.
pub const HPET_SIZE: u64 = 0x400;
/// Number of comparators.
pub const COMPARATORS: usize = 3;
/// Nanoseconds of a tick.
const TICK_NS: u64 = 10;
/// The same in femtoseconds.
const TICK_FS: u64 = TICK_NS * 1_000_000;
/// Least period, in ticks, that periodic mode keeps up: for the ACPI table.
pub const MINIMUM_TICK: u16 = 2_000;

/// The low half of the capabilities register, for the ACPI table.
pub fn block_id() -> u32 {
    Hpet::default().read(0, 0) as u32
}

/// Whether the legacy replacement is on; shared by the HPET and the lines that it replaces.
#[derive(Clone, Debug, Default)]
pub struct Replaced(Arc<AtomicBool>);

/// The interrupt line of the PIT or the RTC, which the HPET can take over.
pub struct LegacyLine {
    /// The line.
    pub line: Box<dyn IrqLine>,
    /// The HPET's switch.
    pub replaced: Replaced,
}

impl IrqLine for LegacyLine {
    fn set_level(&self, high: bool) {
        if !self.replaced.0.load(Ordering::SeqCst) {
            self.line.set_level(high);
        }
    }
}

/// Where interrupts go.
pub struct Outputs {
    /// ISA interrupt line 0.
    pub irq_0: Box<dyn IrqLine>,
    /// ISA interrupt line 8.
    pub irq_8: Box<dyn IrqLine>,
    /// The I/O APIC's pins from [`FIRST_PIN`] on, eight of them.
    pub pins: Vec<Box<dyn IrqLine>>,
    /// Switches the legacy devices' lines.
    pub replaced: Replaced,
}

/// The first pin of the I/O APIC that comparators can drive.
pub const FIRST_PIN: u8 = 16;

/// The timer on the bus.
pub struct HpetDevice {
    hpet: Hpet,
    clock: Arc<dyn Clock>,
    timer: Box<dyn Timer>,
    outputs: Outputs,
}

impl HpetDevice {
    /// Attaches a timer after reset.
    pub fn new(clock: Arc<dyn Clock>, timer: Box<dyn Timer>, outputs: Outputs) -> Self {
        Self { hpet: Hpet::default(), clock, timer, outputs }
    }

    /// The state to save.
    pub fn state(&self) -> &Hpet {
        &self.hpet
    }

    /// Takes a saved state and drives all outputs to match.
    pub fn restore(&mut self, hpet: Hpet) {
        self.hpet = hpet;
        self.outputs.replaced.0.store(self.hpet.legacy_replacement(), Ordering::SeqCst);
        self.drive();
    }

    fn now(&self) -> u64 {
        self.clock.now_ns() / TICK_NS
    }

    fn line(&self, index: usize) -> Option<&dyn IrqLine> {
        match self.hpet.route(index)? {
            Route::Irq0 => Some(&*self.outputs.irq_0),
            Route::Irq8 => Some(&*self.outputs.irq_8),
            Route::Pin(pin) => {
                let index = usize::from(pin.checked_sub(FIRST_PIN)?);
                self.outputs.pins.get(index).map(|line| &**line)
            }
        }
    }

    /// Takes what has happened up to now.
    fn advance(&mut self, now: u64) {
        let edges = self.hpet.advance(now);
        for index in (0..COMPARATORS).filter(|index| edges >> index & 1 != 0) {
            if let Some(line) = self.line(index) {
                line.pulse_high();
            }
        }
    }

    /// Drives the level-triggered lines and sets the alarm.
    fn drive(&self) {
        for index in (0..COMPARATORS).filter(|&index| self.hpet.level(index)) {
            if let Some(line) = self.line(index) {
                line.set_level(true);
            }
        }
        self.timer.arm(self.hpet.next_alarm().map(|tick| tick.saturating_mul(TICK_NS)));
    }

    /// Lets go of the lines that were driven, before a change of routes or status.
    fn release(&self) {
        for index in (0..COMPARATORS).filter(|&index| self.hpet.level(index)) {
            if let Some(line) = self.line(index) {
                line.set_level(false);
            }
        }
    }
}

impl BusDevice for HpetDevice {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let now = self.now();
        self.advance(now);
        let shift = (offset & 7) * 8;
        store_value(data, self.hpet.read(offset & !7, now) >> shift);
        self.drive();
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let now = self.now();
        self.advance(now);
        let shift = (offset & 7) * 8;
        let bits = data.len() as u64 * 8;
        let mask = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        self.release();
        let was_legacy = self.hpet.legacy_replacement();
        self.hpet.write(offset & !7, value_of(data) << shift, mask << shift, now);
        let legacy = self.hpet.legacy_replacement();
        if legacy != was_legacy {
            // The lines' other drivers have not been heard, or will not be.
            self.outputs.replaced.0.store(legacy, Ordering::SeqCst);
            self.outputs.irq_0.set_level(false);
            self.outputs.irq_8.set_level(false);
        }
        self.advance(now);
        self.drive();
    }
}

impl TimerClient for HpetDevice {
    fn timer_expired(&mut self, now_ns: u64) {
        self.advance(now_ns / TICK_NS);
        self.drive();
    }
}
