//! The MC146818 real-time clock and CMOS RAM of a PC/AT.
//!
//! | port | read | write |
//! |---|---|---|
//! | 0x70 | nothing (all-ones) | index in bits 6:0, NMI mask in bit 7 |
//! | 0x71 | the indexed byte | the indexed byte |
//!
//! | index | meaning |
//! |---|---|
//! | 0x00, 02, 04 | seconds, minutes, hours; 0x01, 03, 05 their alarms (0xC0 and above: any) |
//! | 0x06 to 0x09 | day of the week (1 is Sunday), day, month, year of the century |
//! | 0x0A | UIP, divider, rate |
//! | 0x0B | SET, PIE, AIE, UIE, SQWE, DM, 24/12, DSE |
//! | 0x0C | IRQF, PF, AF, UF; cleared by reading |
//! | 0x0D | VRT |
//! | 0x0F | shutdown status: where a BIOS goes on after a CPU reset |
//! | 0x15 to 0x18, 0x30, 0x31, 0x34, 0x35, 0x5B to 0x5D | sizes of memory, see [`MemorySizes`] |
//! | 0x32 | century, in the data mode of the other time registers |
//!
//! The time is the host's wall clock (UTC) plus an offset, which software changes by setting the
//! clock. IRQ8 is the chip's IRQ output: high while an enabled flag of register C is up.
//!
//! Sources: Motorola MC146818A datasheet (ADI1166); the IBM PC/AT Technical Reference, "Real-Time
//! Clock/CMOS RAM Information".

mod calendar;
mod mc146818;
#[cfg(test)]
mod tests;

pub use mc146818::{Moment, Rtc};

use std::sync::Arc;

use crate::bus::{BusDevice, read_bytes, write_bytes};
use crate::clock::{Clock, Timer, TimerClient};
use crate::interrupt::{IrqLine, UnconnectedIrq};

/// The ports, for [`crate::Bus::insert_ports`].
pub const PORTS: &[(u16, u16)] = &[(0x70, 2)];

/// CMOS index of the shutdown status byte.
pub const SHUTDOWN_STATUS: u8 = 0x0f;

/// How much memory a machine has, as a PC BIOS notes it in CMOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySizes {
    /// Bytes of RAM below 4 GiB, counted from 0 with the hole below 1 MiB.
    pub below_4g: u64,
    /// Bytes of RAM from 4 GiB on.
    pub above_4g: u64,
}

impl MemorySizes {
    /// The CMOS bytes, as index and value. Fields hold what they can: 64 MiB in 0x17 and 0x30,
    /// 4 GiB in 0x34, 1 TiB in 0x5B.
    fn cmos_bytes(self) -> [(u8, u8); 11] {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        const UNIT: u64 = 64 * KIB;
        let word = |value: u64| (value.min(0xffff) as u16).to_le_bytes();
        let base = word(self.below_4g.min(640 * KIB) / KIB);
        let extended = word(self.below_4g.saturating_sub(MIB) / KIB);
        let above_16m = word(self.below_4g.saturating_sub(16 * MIB) / UNIT);
        let above_4g = (self.above_4g / UNIT).min(0xff_ffff).to_le_bytes();
        [
            (0x15, base[0]),
            (0x16, base[1]),
            (0x17, extended[0]),
            (0x18, extended[1]),
            (0x30, extended[0]),
            (0x31, extended[1]),
            (0x34, above_16m[0]),
            (0x35, above_16m[1]),
            (0x5b, above_4g[0]),
            (0x5c, above_4g[1]),
            (0x5d, above_4g[2]),
        ]
    }
}

/// The attachment: the clock on the bus, driving IRQ8.
pub struct RtcDevice {
    rtc: Rtc,
    clock: Arc<dyn Clock>,
    irq: Box<dyn IrqLine>,
    timer: Box<dyn Timer>,
    alarm: Box<dyn IrqLine>,
}

impl RtcDevice {
    /// Attaches a clock that shows the wall clock's UTC: `irq` is IRQ8, `timer` its own alarm.
    pub fn new(clock: Arc<dyn Clock>, irq: Box<dyn IrqLine>, timer: Box<dyn Timer>) -> Self {
        let rtc = Rtc::new(moment(&*clock));
        Self { rtc, clock, irq, timer, alarm: Box::new(UnconnectedIrq) }
    }

    /// Connects the alarm's own output: up while the alarm's flag and its enable bit are. IRQ8 does
    /// not tell it from the other interrupts.
    pub fn connect_alarm(&mut self, alarm: Box<dyn IrqLine>) {
        self.alarm = alarm;
        self.alarm.set_level(self.rtc.alarm());
    }

    /// Sets the guest's time `seconds` ahead of the wall clock: a time zone, or another date.
    pub fn set_time_offset(&mut self, seconds: i64) {
        let moment = moment(&*self.clock);
        self.rtc.set_offset(seconds, moment);
        self.drive(moment);
    }

    /// Notes the sizes of memory as a PC BIOS does, and the checksum over bytes 0x10 to 0x2D.
    pub fn set_memory_sizes(&mut self, sizes: MemorySizes) {
        for (index, value) in sizes.cmos_bytes() {
            self.set_cmos(index, value);
        }
        let sum = (0x10..=0x2d).map(|index| u16::from(self.cmos(index))).sum::<u16>();
        let [low, high] = sum.to_le_bytes();
        self.set_cmos(0x2e, high);
        self.set_cmos(0x2f, low);
    }

    /// A byte as the guest would read it. Register C is not for this: reading clears it.
    pub fn cmos(&mut self, index: u8) -> u8 {
        let moment = moment(&*self.clock);
        self.rtc.read(index & 0x7f, moment)
    }

    /// Writes a byte as the guest would.
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        let moment = moment(&*self.clock);
        self.rtc.write(index & 0x7f, value, moment);
        self.drive(moment);
    }

    /// Whether port 0x70 masks NMI.
    pub fn nmi_masked(&self) -> bool {
        self.rtc.nmi_masked()
    }

    /// The reset input: see [`Rtc::reset`].
    pub fn reset(&mut self) {
        self.rtc.reset();
        self.drive(moment(&*self.clock));
    }

    /// The state to save.
    pub fn state(&self) -> &Rtc {
        &self.rtc
    }

    /// Takes a saved state. The time goes on with the wall clock: what was due since is raised.
    pub fn restore(&mut self, rtc: Rtc) {
        self.rtc = rtc;
        self.drive(moment(&*self.clock));
    }

    fn drive(&mut self, moment: Moment) {
        self.rtc.settle(moment);
        self.irq.set_level(self.rtc.interrupt());
        self.alarm.set_level(self.rtc.alarm());
        self.timer.arm(self.rtc.next_event(moment));
    }
}

fn moment(clock: &dyn Clock) -> Moment {
    Moment { now_ns: clock.now_ns(), unix_ns: clock.unix_time_ns() }
}

impl BusDevice for RtcDevice {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let moment = moment(&*self.clock);
        read_bytes(offset, data, |port| self.rtc.read_port(port, moment));
        self.drive(moment);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let moment = moment(&*self.clock);
        write_bytes(offset, data, |port, value| self.rtc.write_port(port, value, moment));
        self.drive(moment);
    }
}

impl TimerClient for RtcDevice {
    fn timer_expired(&mut self, now_ns: u64) {
        self.drive(Moment { now_ns, unix_ns: self.clock.unix_time_ns() });
    }
}
