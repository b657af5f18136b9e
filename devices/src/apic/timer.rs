//! The local APIC timer.
//!
//! Source: SDM volume 3A, section "APIC Timer" and "TSC-Deadline Mode".

use serde::{Deserialize, Serialize};

use crate::clock::NS_PER_SECOND;

use super::registers::{DCR_WRITABLE, LVT_TIMER_PERIODIC, LVT_TIMER_TSC_DEADLINE};

/// The frequency of the timer's clock before the divider, in hertz: the core
/// crystal clock of Intel's server processors (SDM volume 3B, section "Determining
/// the Processor Base Frequency"), reported by CPUID leaf 15H and hypervisor leaf
/// 40000010H. It divides the machine's nanoseconds without remainder. Counts of a
/// nanosecond, which other hypervisors have, pass too quickly for a guest that
/// expects two reads to lie near each other, on a host that has other things to do.
pub const APIC_BUS_FREQUENCY_HZ: u64 = 25_000_000;

/// Nanoseconds of a clock before the divider.
const NS_PER_CLOCK: u64 = NS_PER_SECOND / APIC_BUS_FREQUENCY_HZ;
const _: () = assert!(NS_PER_SECOND.is_multiple_of(APIC_BUS_FREQUENCY_HZ));

/// A periodic timer is not reported to have fired sooner than this after the
/// last time. A guest that asks for a tick each nanosecond gets fewer, and the
/// host stays usable.
const MIN_PERIOD_NS: u64 = 20_000;

/// The two clocks that a local APIC looks at, read at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Machine time in nanoseconds, monotonic.
    pub ns: u64,
    /// The processor's time-stamp counter as its guest would read it.
    pub tsc: u64,
}

/// When the timer wants attention next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// At this machine time, in nanoseconds.
    Nanoseconds(u64),
    /// When the guest's time-stamp counter reaches this value.
    Tsc(u64),
}

/// Bits 18:17 of the LVT timer entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerMode {
    /// 00: count down once.
    OneShot,
    /// 01: count down again and again.
    Periodic,
    /// 10: fire when the TSC reaches IA32_TSC_DEADLINE.
    TscDeadline,
    /// 11: reserved; the timer stands still.
    Reserved,
}

impl TimerMode {
    /// The mode that an LVT timer entry selects.
    pub(super) fn from_lvt(entry: u32) -> Self {
        match (entry & LVT_TIMER_TSC_DEADLINE != 0, entry & LVT_TIMER_PERIODIC != 0) {
            (false, false) => Self::OneShot,
            (false, true) => Self::Periodic,
            (true, false) => Self::TscDeadline,
            (true, true) => Self::Reserved,
        }
    }

    fn counts(self) -> bool {
        match self {
            Self::OneShot | Self::Periodic => true,
            Self::TscDeadline | Self::Reserved => false,
        }
    }
}

/// Counter, divider and deadline. The mode is the LVT's and comes as argument.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ApicTimer {
    initial_count: u32,
    divide_configuration: u32,
    /// When the counter reaches zero; `None` while it stands at zero.
    expiry_ns: Option<u64>,
    /// IA32_TSC_DEADLINE; zero while not armed.
    tsc_deadline: u64,
}

impl ApicTimer {
    /// Nanoseconds for one count.
    fn count_ns(&self) -> u64 {
        self.divisor() * NS_PER_CLOCK
    }

    /// 1 to 128.
    fn divisor(&self) -> u64 {
        let code = self.divide_configuration >> 1 & 0b100 | self.divide_configuration & 0b11;
        // 000 to 110 divide by 2 to 128, 111 by 1.
        1 << ((code + 1) & 7)
    }

    fn period_ns(&self) -> u64 {
        u64::from(self.initial_count) * self.count_ns()
    }

    pub(super) fn initial_count(&self) -> u32 {
        self.initial_count
    }

    pub(super) fn divide_configuration(&self) -> u32 {
        self.divide_configuration
    }

    pub(super) fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// Nanoseconds to the end of the present period, zero when standing. The
    /// expiry may be some short periods ahead of that.
    fn remaining_ns(&self, now: Now) -> u64 {
        match self.expiry_ns.map_or(0, |expiry| expiry.saturating_sub(now.ns)) {
            0 => 0,
            remaining => (remaining - 1) % self.period_ns().max(1) + 1,
        }
    }

    /// The current-count register. Call [`ApicTimer::advance`] first.
    pub(super) fn current_count(&self, now: Now) -> u32 {
        let count = self.remaining_ns(now).div_ceil(self.count_ns());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Loads the initial count and starts counting; zero stops the timer.
    /// Ignored in TSC-deadline mode.
    pub(super) fn set_initial_count(&mut self, mode: TimerMode, count: u32, now: Now) {
        if mode == TimerMode::TscDeadline {
            return;
        }
        self.initial_count = count;
        self.expiry_ns =
            (count != 0 && mode.counts()).then(|| now.ns.saturating_add(self.period_ns()));
    }

    /// Changes the divider; the current count goes on from where it is.
    pub(super) fn set_divide_configuration(&mut self, value: u32, now: Now) {
        let count = u64::from(self.current_count(now));
        self.divide_configuration = value & DCR_WRITABLE;
        if self.expiry_ns.is_some() {
            self.expiry_ns = Some(now.ns.saturating_add(count * self.count_ns()));
        }
    }

    /// Writes IA32_TSC_DEADLINE. Ignored in the other modes.
    pub(super) fn set_tsc_deadline(&mut self, mode: TimerMode, deadline: u64) {
        if mode == TimerMode::TscDeadline {
            self.tsc_deadline = deadline;
        }
    }

    /// A change between one-shot and periodic lets the counter run on; any
    /// change to or from TSC-deadline mode disarms the timer.
    pub(super) fn change_mode(&mut self, old: TimerMode, new: TimerMode, now: Now) {
        if old == new {
            return;
        }
        if old.counts() && new.counts() {
            let remaining = self.remaining_ns(now);
            self.expiry_ns = self.expiry_ns.map(|_| now.ns.saturating_add(remaining));
        } else {
            self.expiry_ns = None;
            self.tsc_deadline = 0;
        }
    }

    /// Brings the timer up to `now`; whether it fired on the way. Periods that
    /// passed unnoticed coalesce, as their interrupts would in the IRR.
    pub(super) fn advance(&mut self, mode: TimerMode, now: Now) -> bool {
        match mode {
            TimerMode::OneShot | TimerMode::Periodic => {
                let Some(expiry) = self.expiry_ns.filter(|&expiry| expiry <= now.ns) else {
                    return false;
                };
                let period = self.period_ns();
                self.expiry_ns = if mode == TimerMode::OneShot || period == 0 {
                    None
                } else {
                    let into_period = (now.ns - expiry) % period;
                    let ahead = MIN_PERIOD_NS.next_multiple_of(period) - into_period;
                    Some(now.ns.saturating_add(ahead))
                };
                true
            }
            TimerMode::TscDeadline => {
                let fired = self.tsc_deadline != 0 && now.tsc >= self.tsc_deadline;
                if fired {
                    self.tsc_deadline = 0;
                }
                fired
            }
            TimerMode::Reserved => false,
        }
    }

    /// When [`ApicTimer::advance`] will return true.
    pub(super) fn next_deadline(&self, mode: TimerMode) -> Option<Deadline> {
        match mode {
            TimerMode::OneShot | TimerMode::Periodic => self.expiry_ns.map(Deadline::Nanoseconds),
            TimerMode::TscDeadline => {
                (self.tsc_deadline != 0).then_some(Deadline::Tsc(self.tsc_deadline))
            }
            TimerMode::Reserved => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After so many clocks.
    fn at(clocks: u64) -> Now {
        Now { ns: clocks * NS_PER_CLOCK, tsc: 0 }
    }

    fn deadline(clocks: u64) -> Option<Deadline> {
        Some(Deadline::Nanoseconds(clocks * NS_PER_CLOCK))
    }

    #[test]
    fn divide_configurations() {
        for (value, divisor) in [
            (0b0000, 2),
            (0b0001, 4),
            (0b0010, 8),
            (0b0011, 16),
            (0b1000, 32),
            (0b1001, 64),
            (0b1010, 128),
            (0b1011, 1),
        ] {
            let timer = ApicTimer { divide_configuration: value, ..ApicTimer::default() };
            assert_eq!(timer.divisor(), divisor, "{value:04b}");
        }
    }

    #[test]
    fn one_shot_counts_down_and_stays_at_zero() {
        let mut timer = ApicTimer::default();
        timer.set_divide_configuration(0b0001, at(0));
        timer.set_initial_count(TimerMode::OneShot, 100, at(1000));
        assert_eq!(timer.next_deadline(TimerMode::OneShot), deadline(1400));
        assert_eq!(timer.current_count(at(1000)), 100);
        assert_eq!(timer.current_count(at(1005)), 99);
        assert!(!timer.advance(TimerMode::OneShot, at(1399)));
        assert_eq!(timer.current_count(at(1399)), 1);
        assert!(timer.advance(TimerMode::OneShot, at(1400)));
        assert_eq!(timer.current_count(at(1400)), 0);
        assert!(!timer.advance(TimerMode::OneShot, at(9000)));
        assert_eq!(timer.next_deadline(TimerMode::OneShot), None);
    }

    #[test]
    fn periodic_keeps_its_phase_over_missed_periods() {
        let mut timer = ApicTimer::default();
        timer.set_divide_configuration(0b1011, at(0));
        timer.set_initial_count(TimerMode::Periodic, 100_000, at(0));
        assert!(timer.advance(TimerMode::Periodic, at(350_000)));
        assert_eq!(timer.next_deadline(TimerMode::Periodic), deadline(400_000));
        assert!(timer.advance(TimerMode::Periodic, at(400_000)));
        assert_eq!(timer.current_count(at(400_000)), 100_000);
    }

    #[test]
    fn short_periods_are_counted_but_not_all_reported() {
        let mut timer = ApicTimer::default();
        timer.set_divide_configuration(0b1011, at(0));
        timer.set_initial_count(TimerMode::Periodic, 300, at(0));
        assert!(timer.advance(TimerMode::Periodic, at(310)));
        assert_eq!(timer.current_count(at(310)), 290);
        assert_eq!(timer.current_count(at(599)), 1);
        assert_eq!(timer.current_count(at(600)), 300);
        assert_eq!(timer.next_deadline(TimerMode::Periodic), deadline(900));
        timer.set_initial_count(TimerMode::Periodic, 1, at(1000));
        assert!(timer.advance(TimerMode::Periodic, at(1001)));
        assert_eq!(timer.next_deadline(TimerMode::Periodic), deadline(1501));
    }

    #[test]
    fn the_divider_changes_under_a_running_count() {
        let mut timer = ApicTimer::default();
        timer.set_divide_configuration(0b1011, at(0));
        timer.set_initial_count(TimerMode::OneShot, 100, at(0));
        timer.set_divide_configuration(0b0000, at(50));
        assert_eq!(timer.current_count(at(50)), 50);
        assert_eq!(timer.next_deadline(TimerMode::OneShot), deadline(150));
    }

    #[test]
    fn time_near_its_end_does_not_overflow() {
        let mut timer = ApicTimer::default();
        let end = |before: u64| Now { ns: u64::MAX - before, tsc: 0 };
        timer.set_initial_count(TimerMode::Periodic, u32::MAX, end(1));
        assert!(timer.advance(TimerMode::Periodic, end(0)));
        assert!(timer.advance(TimerMode::Periodic, end(0)));
    }
}
