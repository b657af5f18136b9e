//! The MC146818 as a pure register machine, with the PC's 128 bytes of CMOS RAM.
//!
//! Nothing ticks here: while the clock runs, the time registers are computed from the wall clock,
//! and the flags of register C from what has passed since they were last looked at.

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use super::calendar::{DAY, Fields, weekday};
use crate::clock::{NS_PER_SECOND, ns_to_ticks, ticks_to_ns};

/// Indices of the registers.
pub(super) mod index {
    pub(in super::super) const SECONDS: u8 = 0x00;
    pub(in super::super) const SECONDS_ALARM: u8 = 0x01;
    pub(in super::super) const MINUTES: u8 = 0x02;
    pub(in super::super) const MINUTES_ALARM: u8 = 0x03;
    pub(in super::super) const HOURS: u8 = 0x04;
    pub(in super::super) const HOURS_ALARM: u8 = 0x05;
    pub(in super::super) const WEEKDAY: u8 = 0x06;
    pub(in super::super) const DAY: u8 = 0x07;
    pub(in super::super) const MONTH: u8 = 0x08;
    pub(in super::super) const YEAR: u8 = 0x09;
    pub(in super::super) const A: u8 = 0x0a;
    pub(in super::super) const B: u8 = 0x0b;
    pub(in super::super) const C: u8 = 0x0c;
    pub(in super::super) const D: u8 = 0x0d;
    pub(in super::super) const CENTURY: u8 = 0x32;
}

/// Bytes of CMOS RAM, registers included.
const CMOS_BYTES: usize = 128;
/// The oscillator behind the divider chain.
const OSCILLATOR_HZ: u64 = 32_768;

/// Register A: update in progress.
const A_UIP: u8 = 1 << 7;
/// Register A: the divider chain; only one setting fits a PC's 32,768 Hz crystal.
const A_DIVIDER: u8 = 0x70;
const A_DIVIDER_32768_HZ: u8 = 0x20;
/// Register A: the rate of periodic interrupts.
const A_RATE: u8 = 0x0f;
/// Register D: RAM and time are valid.
const D_VRT: u8 = 1 << 7;
/// Hours, in the 12-hour format: after noon.
const HOURS_PM: u8 = 1 << 7;
/// An alarm byte from here on matches anything.
const ALARM_ANY: u8 = 0xc0;

/// UIP rises this long before the registers change: t_BUC, 244 µs, and the update cycle itself,
/// 1984 µs.
const UPDATE_NS: u64 = 244_000 + 1_984_000;
/// From the end of a divider reset to the first update.
const RESTART_PHASE_NS: u64 = NS_PER_SECOND / 2;

bitflags! {
    /// Register B.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct B: u8 {
        /// Daylight saving enable: kept, without effect, as in later parts.
        const DSE = 1 << 0;
        /// 24-hour format.
        const HOURS_24 = 1 << 1;
        /// Data mode: binary rather than BCD.
        const DM = 1 << 2;
        /// Square wave enable: the pin is not connected.
        const SQWE = 1 << 3;
        const UIE = 1 << 4;
        const AIE = 1 << 5;
        const PIE = 1 << 6;
        /// Stops updates so that the time can be set.
        const SET = 1 << 7;
    }

    /// Register C; each flag lies where register B has its enable bit.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct C: u8 {
        const UF = 1 << 4;
        const AF = 1 << 5;
        const PF = 1 << 6;
        const IRQF = 1 << 7;
    }
}

/// A moment on both of the machine's time scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// [`crate::Clock::now_ns`].
    pub now_ns: u64,
    /// [`crate::Clock::unix_time_ns`].
    pub unix_ns: u64,
}

/// The clock, its alarm and its RAM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtc {
    /// All 128 bytes. The time bytes count only while the clock is stopped; register C holds the
    /// flags without IRQF.
    cmos: Vec<u8>,
    /// The index register (port 0x70 bits 6:0).
    index: u8,
    /// Port 0x70 bit 7.
    nmi_masked: bool,
    /// The guest's time, in seconds since 1970, is `(unix + phase) / 1 s + offset`.
    offset_s: i64,
    phase_ns: u64,
    /// The day-of-week register's lead over the calendar, 0 to 6: software may never have set it.
    weekday_lead: i64,
    /// Days by which the day register is beyond the end of its month. The chip does not look at what
    /// is written: the day stands until midnight. Software that sets the date of a running clock byte
    /// by byte passes through such dates.
    #[serde(default)]
    excess_days: i64,
    /// The midnight at which they go, in seconds since 1970.
    #[serde(default)]
    excess_end: i64,
    /// The divider chain was held in reset since the clock last ran.
    divider_was_reset: bool,
    /// Second of the last update that the flags know of.
    last_update: i64,
    /// Oscillator ticks up to which the periodic flag knows.
    last_tick: u64,
}

impl Rtc {
    /// A clock that runs on the wall clock's UTC, in BCD and the 24-hour format, with its rate
    /// selected as a PC BIOS does (1024 Hz) and no interrupt enabled.
    pub fn new(moment: Moment) -> Self {
        let mut cmos = vec![0; CMOS_BYTES];
        for (index, value) in
            [(index::A, A_DIVIDER_32768_HZ | 6), (index::B, B::HOURS_24.bits()), (index::D, D_VRT)]
        {
            cmos[usize::from(index)] = value;
        }
        let mut rtc = Self {
            cmos,
            index: 0,
            nmi_masked: false,
            offset_s: 0,
            phase_ns: 0,
            weekday_lead: 0,
            excess_days: 0,
            excess_end: 0,
            divider_was_reset: false,
            last_update: 0,
            last_tick: 0,
        };
        rtc.forget_past(moment);
        rtc
    }

    /// A byte as stored; a damaged snapshot's missing bytes are 0.
    fn stored(&self, index: u8) -> u8 {
        self.cmos.get(usize::from(index)).copied().unwrap_or(0)
    }

    fn store(&mut self, index: u8, value: u8) {
        if let Some(byte) = self.cmos.get_mut(usize::from(index)) {
            *byte = value;
        }
    }

    fn b(&self) -> B {
        B::from_bits_truncate(self.stored(index::B))
    }

    fn divider_runs(&self) -> bool {
        self.stored(index::A) & A_DIVIDER == A_DIVIDER_32768_HZ
    }

    fn runs(&self) -> bool {
        self.divider_runs() && !self.b().contains(B::SET)
    }

    /// Sets the guest's time `seconds` ahead of the wall clock (behind it, if negative).
    pub fn set_offset(&mut self, seconds: i64, moment: Moment) {
        self.offset_s = seconds;
        self.excess_days = 0;
        self.forget_past(moment);
    }

    /// The wall clock in whole seconds and the nanoseconds into the running one.
    fn wall(&self, moment: Moment) -> (i64, u64) {
        let ns = moment.unix_ns.saturating_add(self.phase_ns);
        ((ns / NS_PER_SECOND) as i64, ns % NS_PER_SECOND)
    }

    /// The guest's time in seconds since 1970, while the clock runs.
    fn seconds(&self, moment: Moment) -> i64 {
        self.wall(moment).0.saturating_add(self.offset_s)
    }

    fn forget_past(&mut self, moment: Moment) {
        self.last_update = self.seconds(moment);
        self.last_tick = ns_to_ticks(moment.now_ns, OSCILLATOR_HZ);
    }

    /// Raises the flags for what has happened since the last call.
    pub fn settle(&mut self, moment: Moment) {
        let mut flags = C::empty();
        if self.runs() {
            let seconds = self.seconds(moment);
            if seconds > self.last_update {
                flags |= C::UF;
                let alarm = self.next_alarm(self.last_update);
                flags.set(C::AF, alarm.is_some_and(|alarm| alarm <= seconds));
            }
            self.last_update = seconds;
        }
        let tick = ns_to_ticks(moment.now_ns, OSCILLATOR_HZ);
        if let Some(period) = self.period() {
            flags.set(C::PF, tick / period > self.last_tick / period);
        }
        self.last_tick = tick;
        self.store(index::C, self.stored(index::C) | flags.bits());
    }

    /// Oscillator ticks between periodic interrupts.
    fn period(&self) -> Option<u64> {
        match self.stored(index::A) & A_RATE {
            _ if !self.divider_runs() => None,
            0 => None,
            // The two slowest taps of the short divider repeat as the fastest settings.
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// The first second after `after` that the alarm matches; `None` if it never does.
    fn next_alarm(&self, after: i64) -> Option<i64> {
        let [second, minute, hour] =
            [index::SECONDS_ALARM, index::MINUTES_ALARM, index::HOURS_ALARM].map(|index| {
                let stored = self.stored(index);
                (stored < ALARM_ANY).then(|| match index {
                    index::HOURS_ALARM => self.decode_hours(stored),
                    _ => self.decode(stored),
                })
            });
        let matches = |alarm: Option<i64>, now: i64| alarm.is_none_or(|alarm| alarm == now);
        let mut at = after.saturating_add(1);
        let limit = at.saturating_add(DAY);
        // Skips whole hours, then whole minutes: fewer than 300 rounds in a day.
        while at < limit {
            let of_day = at.rem_euclid(DAY);
            if !matches(hour, of_day / 3600) {
                at = at.saturating_add(3600 - of_day % 3600);
            } else if !matches(minute, of_day / 60 % 60) {
                at = at.saturating_add(60 - of_day % 60);
            } else if !matches(second, of_day % 60) {
                at = at.saturating_add(1);
            } else {
                return Some(at);
            }
        }
        None
    }

    /// When the next enabled interrupt is due, on the [`Moment::now_ns`] scale. None is due while
    /// its flag is still up. Call [`Self::settle`] first.
    pub fn next_event(&self, moment: Moment) -> Option<u64> {
        // Enabled, and not flagged.
        let waits = |enable: B| self.b().bits() & !self.stored(index::C) & enable.bits() != 0;
        let periodic = self.period().filter(|_| waits(B::PIE)).map(|period| {
            let tick = ns_to_ticks(moment.now_ns, OSCILLATOR_HZ);
            ticks_to_ns((tick / period + 1).saturating_mul(period), OSCILLATOR_HZ)
        });
        let (seconds, into) = (self.seconds(moment), self.wall(moment).1);
        let at_second = |second: i64| {
            let ahead = u64::try_from(second.saturating_sub(seconds)).unwrap_or(0);
            moment.now_ns.saturating_add(ahead.saturating_mul(NS_PER_SECOND)).saturating_sub(into)
        };
        let update = (self.runs() && waits(B::UIE)).then(|| at_second(seconds.saturating_add(1)));
        let alarm = if self.runs() && waits(B::AIE) { self.next_alarm(seconds) } else { None };
        [periodic, update, alarm.map(at_second)].into_iter().flatten().min()
    }

    /// The interrupt output: a flag whose interrupt is enabled.
    pub fn interrupt(&self) -> bool {
        let enables = self.b() & (B::PIE | B::AIE | B::UIE);
        self.stored(index::C) & enables.bits() != 0
    }

    /// Whether the alarm is what raises the interrupt output, alone or with others.
    pub fn alarm(&self) -> bool {
        self.b().contains(B::AIE) && self.stored(index::C) & C::AF.bits() != 0
    }

    /// The reset input: disables interrupts and clears the flags. Time and RAM stay.
    pub fn reset(&mut self) {
        let kept = self.b() - (B::PIE | B::AIE | B::UIE | B::SQWE);
        self.store(index::B, kept.bits());
        self.store(index::C, 0);
        self.nmi_masked = false;
    }

    /// Whether the last write to port 0x70 masked NMI.
    pub fn nmi_masked(&self) -> bool {
        self.nmi_masked
    }

    /// Reads port 0x70 (write-only: all-ones) or 0x71; others read as all-ones.
    pub fn read_port(&mut self, port: u64, moment: Moment) -> u8 {
        match port {
            0x71 => self.read(self.index, moment),
            _ => 0xff,
        }
    }

    /// Writes port 0x70 or 0x71; others are ignored.
    pub fn write_port(&mut self, port: u64, value: u8, moment: Moment) {
        match port {
            0x70 => {
                self.index = value & 0x7f;
                self.nmi_masked = value & 0x80 != 0;
            }
            0x71 => self.write(self.index, value, moment),
            _ => {}
        }
    }

    /// Reads CMOS byte `index` (0 to 127) as the guest does; reading register C clears it.
    pub fn read(&mut self, index: u8, moment: Moment) -> u8 {
        self.settle(moment);
        match index {
            index if is_time(index) && self.runs() => self.time_register(index, moment),
            index::A => {
                let updating = self.runs() && self.wall(moment).1 >= NS_PER_SECOND - UPDATE_NS;
                (self.stored(index::A) & !A_UIP) | if updating { A_UIP } else { 0 }
            }
            index::C => {
                let request = if self.interrupt() { C::IRQF } else { C::empty() };
                let flags = self.stored(index::C) | request.bits();
                self.store(index::C, 0);
                flags
            }
            _ => self.stored(index),
        }
    }

    /// Writes CMOS byte `index` (0 to 127) as the guest does.
    pub fn write(&mut self, index: u8, value: u8, moment: Moment) {
        self.settle(moment);
        match index {
            index if is_time(index) && self.runs() => {
                self.capture_time(moment);
                self.store(index, value);
                self.adopt_time(moment);
            }
            index::A | index::B => self.write_control(index, value, moment),
            index::C | index::D => {}
            _ => self.store(index, value),
        }
    }

    /// Registers A and B, which start and stop the clock.
    fn write_control(&mut self, index: u8, value: u8, moment: Moment) {
        let ran = self.runs();
        if ran {
            self.capture_time(moment);
        }
        let value = match index {
            index::A => value & !A_UIP,
            // SET ends update interrupts.
            _ if value & B::SET.bits() != 0 => value & !B::UIE.bits(),
            _ => value,
        };
        self.store(index, value);
        self.divider_was_reset |= !self.divider_runs();
        if self.runs() && !ran {
            if std::mem::take(&mut self.divider_was_reset) {
                let into = moment.unix_ns % NS_PER_SECOND;
                self.phase_ns = (NS_PER_SECOND + RESTART_PHASE_NS - into) % NS_PER_SECOND;
            }
            self.adopt_time(moment);
        }
    }

    /// Copies the running time into the registers.
    fn capture_time(&mut self, moment: Moment) {
        for index in TIME_REGISTERS {
            let value = self.time_register(index, moment);
            self.store(index, value);
        }
    }

    /// Runs on from what the registers say.
    fn adopt_time(&mut self, moment: Moment) {
        let register = |index| self.decode(self.stored(index));
        let mut fields = Fields {
            second: register(index::SECONDS),
            minute: register(index::MINUTES),
            hour: self.decode_hours(self.stored(index::HOURS)),
            day: register(index::DAY),
            month: register(index::MONTH),
            year: 100 * register(index::CENTURY) + register(index::YEAR),
        };
        let excess_days = (fields.day - fields.days_in_month()).max(0);
        fields.day -= excess_days;
        let seconds = fields.seconds();
        self.weekday_lead = (register(index::WEEKDAY) - 1 - weekday(seconds)).rem_euclid(7);
        self.excess_days = excess_days;
        self.excess_end = seconds - seconds.rem_euclid(DAY) + DAY;
        self.offset_s = seconds.saturating_sub(self.wall(moment).0);
        self.last_update = seconds;
    }

    /// A time register of the running clock.
    fn time_register(&self, index: u8, moment: Moment) -> u8 {
        let seconds = self.seconds(moment);
        let fields = Fields::of(seconds);
        let value = match index {
            index::SECONDS => fields.second,
            index::MINUTES => fields.minute,
            index::HOURS => return self.encode_hours(fields.hour),
            index::WEEKDAY => {
                (weekday(seconds) + self.weekday_lead.rem_euclid(7)).rem_euclid(7) + 1
            }
            index::DAY if seconds < self.excess_end => fields.day + self.excess_days,
            index::DAY => fields.day,
            index::MONTH => fields.month,
            index::YEAR => fields.year.rem_euclid(100),
            _ => fields.year.div_euclid(100),
        };
        self.encode(value)
    }

    fn encode(&self, value: i64) -> u8 {
        let value = value.rem_euclid(100) as u8;
        if self.b().contains(B::DM) { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, register: u8) -> i64 {
        if self.b().contains(B::DM) {
            register.into()
        } else {
            i64::from(register >> 4) * 10 + i64::from(register & 15)
        }
    }

    fn encode_hours(&self, hour: i64) -> u8 {
        if self.b().contains(B::HOURS_24) {
            return self.encode(hour);
        }
        let clock_face = (hour + 11) % 12 + 1;
        self.encode(clock_face) | if hour >= 12 { HOURS_PM } else { 0 }
    }

    fn decode_hours(&self, register: u8) -> i64 {
        if self.b().contains(B::HOURS_24) {
            return self.decode(register);
        }
        let after_noon = if register & HOURS_PM != 0 { 12 } else { 0 };
        self.decode(register & !HOURS_PM) % 12 + after_noon
    }
}

const TIME_REGISTERS: [u8; 8] = [
    index::SECONDS,
    index::MINUTES,
    index::HOURS,
    index::WEEKDAY,
    index::DAY,
    index::MONTH,
    index::YEAR,
    index::CENTURY,
];

fn is_time(index: u8) -> bool {
    TIME_REGISTERS.contains(&index)
}
