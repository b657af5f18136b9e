//! Time as devices see it: a clock to read and one-shot alarms to set on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Nanoseconds in a second.
pub const NS_PER_SECOND: u64 = 1_000_000_000;

/// The machine's one source of time.
pub trait Clock: Send + Sync {
    /// Monotonic nanoseconds since the machine started (or, for a restored machine, since its
    /// ancestor did).
    fn now_ns(&self) -> u64;

    /// Wall-clock nanoseconds since 1970-01-01 00:00:00 UTC, leap seconds not counted.
    fn unix_time_ns(&self) -> u64;
}

/// The one-shot alarm of one device, on the time scale of the machine's [`Clock`].
///
/// The machine implements it and calls the device's [`TimerClient::timer_expired`] at or after the
/// deadline. A device must bear an early or spurious call: it looks at the time it is given.
pub trait Timer: Send + Sync {
    /// Sets the alarm for `deadline_ns` on the [`Clock::now_ns`] scale, replacing any earlier one;
    /// `None` cancels it. A deadline in the past expires at once, though not inside this call.
    fn arm(&self, deadline_ns: Option<u64>);
}

impl<T: Timer + ?Sized> Timer for std::sync::Arc<T> {
    fn arm(&self, deadline_ns: Option<u64>) {
        (**self).arm(deadline_ns);
    }
}

/// The device's end of a [`Timer`].
pub trait TimerClient: Send {
    /// The alarm went off; `now_ns` is [`Clock::now_ns`] at the call.
    fn timer_expired(&mut self, now_ns: u64);
}

/// Time of the host: the default clock.
#[derive(Debug, Clone)]
pub struct HostClock {
    origin: Instant,
    elapsed_at_origin_ns: u64,
}

impl HostClock {
    /// A clock that reads 0 now.
    pub fn new() -> Self {
        Self::starting_at(0)
    }

    /// A clock that reads `now_ns` now: the clock of a machine restored from a snapshot.
    pub fn starting_at(now_ns: u64) -> Self {
        Self { origin: Instant::now(), elapsed_at_origin_ns: now_ns }
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn now_ns(&self) -> u64 {
        self.elapsed_at_origin_ns.wrapping_add(saturating_ns(self.origin.elapsed()))
    }

    fn unix_time_ns(&self) -> u64 {
        // A host clock before 1970 is a misconfigured host; the guest then sees the epoch.
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, saturating_ns)
    }
}

fn saturating_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A clock that moves only when told to: for tests, and for deterministic runs where the
/// instruction count moves it. Its wall clock advances with it.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ns: AtomicU64,
    unix_at_zero_ns: u64,
}

impl ManualClock {
    /// A clock at 0 whose wall clock stands at `unix_time_ns`.
    pub fn new(unix_time_ns: u64) -> Self {
        Self { now_ns: AtomicU64::new(0), unix_at_zero_ns: unix_time_ns }
    }

    /// Moves the time on by `ns`.
    pub fn advance(&self, ns: u64) {
        self.now_ns.fetch_add(ns, Ordering::SeqCst);
    }

    /// Sets the time since the machine's start. The caller keeps it monotonic.
    pub fn set(&self, now_ns: u64) {
        self.now_ns.store(now_ns, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> u64 {
        self.now_ns.load(Ordering::SeqCst)
    }

    fn unix_time_ns(&self) -> u64 {
        self.unix_at_zero_ns.wrapping_add(self.now_ns())
    }
}

/// How many whole periods of an oscillator of `hz` have passed at `ns`.
pub fn ns_to_ticks(ns: u64, hz: u64) -> u64 {
    (u128::from(ns) * u128::from(hz) / u128::from(NS_PER_SECOND)) as u64
}

/// The first nanosecond at which [`ns_to_ticks`] reaches `ticks`; saturates at the end of time.
/// `hz` must not be 0 (a frequency is a constant of a device).
pub fn ticks_to_ns(ticks: u64, hz: u64) -> u64 {
    let ns = (u128::from(ticks) * u128::from(NS_PER_SECOND)).div_ceil(u128::from(hz.max(1)));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// A timer that never goes off, for a device whose alarm is not wired.
#[derive(Debug, Default, Clone, Copy)]
pub struct UnconnectedTimer;

impl Timer for UnconnectedTimer {
    fn arm(&self, _deadline_ns: Option<u64>) {}
}

/// A timer that remembers its deadline: the test's end of a [`Timer`].
#[derive(Debug)]
pub struct ProbeTimer {
    deadline_ns: AtomicU64,
}

impl ProbeTimer {
    const IDLE: u64 = u64::MAX;

    /// A timer without a deadline.
    pub fn new() -> Self {
        Self { deadline_ns: AtomicU64::new(Self::IDLE) }
    }

    /// The deadline last armed, if it was not cancelled.
    pub fn deadline(&self) -> Option<u64> {
        Some(self.deadline_ns.load(Ordering::SeqCst)).filter(|&deadline| deadline != Self::IDLE)
    }
}

impl Default for ProbeTimer {
    fn default() -> Self {
        Self::new()
    }
}

impl Timer for ProbeTimer {
    fn arm(&self, deadline_ns: Option<u64>) {
        self.deadline_ns.store(deadline_ns.unwrap_or(Self::IDLE), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn manual_clock_moves_both_scales() {
        let clock = ManualClock::new(5_000);
        clock.advance(7);
        assert_eq!((clock.now_ns(), clock.unix_time_ns()), (7, 5_007));
        clock.set(100);
        assert_eq!((clock.now_ns(), clock.unix_time_ns()), (100, 5_100));
    }

    #[test]
    fn host_clock_is_monotonic_and_resumes() {
        let clock = HostClock::starting_at(1_000);
        let first = clock.now_ns();
        assert!(first >= 1_000);
        assert!(clock.now_ns() >= first);
        // 2020-01-01: any sane host is later.
        assert!(clock.unix_time_ns() > 1_577_836_800 * NS_PER_SECOND);
    }

    #[test]
    fn probe_timer_remembers_and_cancels() {
        let timer = ProbeTimer::new();
        assert_eq!(timer.deadline(), None);
        timer.arm(Some(9));
        assert_eq!(timer.deadline(), Some(9));
        timer.arm(None);
        assert_eq!(timer.deadline(), None);
    }

    proptest! {
        #[test]
        fn tick_conversion_is_exact(ticks in 0u64..1 << 40, hz in 1u64..10_000_000) {
            let ns = ticks_to_ns(ticks, hz);
            prop_assert_eq!(ns_to_ticks(ns, hz), ticks);
            if ns > 0 {
                prop_assert!(ns_to_ticks(ns - 1, hz) < ticks);
            }
        }
    }
}
