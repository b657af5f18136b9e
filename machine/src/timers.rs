//! One-shot alarms of the devices, run by one thread.

use devices::{Clock, Timer, TimerClient};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

type Client = Weak<Mutex<dyn TimerClient>>;

#[derive(Default)]
struct Queue {
    /// One entry per timer: deadline in machine nanoseconds, and whom to call.
    entries: Vec<(Option<u64>, Option<Client>)>,
    stopping: bool,
}

/// The alarms of one machine.
///
/// Lock order: a device's lock may be held when its timer is armed (queue lock inside); the queue
/// lock is never held while a device is called.
pub(crate) struct Timers {
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The timer of one device.
pub(crate) struct TimerHandle {
    timers: Arc<Timers>,
    index: usize,
}

impl Timers {
    /// An empty queue on `clock`.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Timers> {
        Arc::new(Timers { clock, queue: Mutex::default(), changed: Condvar::new() })
    }

    /// A new timer. Its device, which needs the timer to be built, comes after by
    /// [`Timers::connect`].
    pub(crate) fn timer(self: &Arc<Self>) -> TimerHandle {
        let mut queue = self.lock();
        queue.entries.push((None, None));
        TimerHandle { timers: self.clone(), index: queue.entries.len() - 1 }
    }

    /// Says whom timer number `index` calls.
    pub(crate) fn connect(&self, index: usize, client: Client) {
        if let Some(entry) = self.lock().entries.get_mut(index) {
            entry.1 = Some(client);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls every device whose deadline has passed. Returns the next deadline.
    pub(crate) fn run_due(&self) -> Option<u64> {
        loop {
            let now = self.clock.now_ns();
            let client = {
                let mut queue = self.lock();
                let due = queue.entries.iter_mut().find(|e| e.0.is_some_and(|at| at <= now));
                match due {
                    None => return queue.entries.iter().filter_map(|e| e.0).min(),
                    Some(entry) => {
                        entry.0 = None;
                        entry.1.clone()
                    }
                }
            };
            if let Some(client) = client.and_then(|c| c.upgrade()) {
                client.lock().unwrap_or_else(PoisonError::into_inner).timer_expired(now);
            }
        }
    }

    /// The thread's body: sleeps to the next deadline, until [`Timers::stop`].
    pub(crate) fn run(&self) {
        loop {
            let next = self.run_due();
            let queue = self.lock();
            if queue.stopping {
                return;
            }
            // A timer armed between run_due and the lock shows here.
            let next = queue.entries.iter().filter_map(|e| e.0).min().or(next);
            let now = self.clock.now_ns();
            match next {
                Some(at) if at <= now => {}
                Some(at) => {
                    let wait = Duration::from_nanos(at - now);
                    drop(self.changed.wait_timeout(queue, wait));
                }
                None => drop(self.changed.wait(queue)),
            }
        }
    }

    /// Ends [`Timers::run`].
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }
}

impl TimerHandle {
    /// The number for [`Timers::connect`].
    pub(crate) fn index(&self) -> usize {
        self.index
    }
}

impl Timer for TimerHandle {
    fn arm(&self, deadline_ns: Option<u64>) {
        let mut queue = self.timers.lock();
        let earliest = queue.entries.iter().filter_map(|e| e.0).min();
        if let Some(entry) = queue.entries.get_mut(self.index) {
            entry.0 = deadline_ns;
        }
        let earlier = match (deadline_ns, earliest) {
            (Some(new), Some(old)) => new < old,
            (Some(_), None) => true,
            (None, _) => false,
        };
        drop(queue);
        if earlier {
            self.timers.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::ManualClock;

    struct Counter(Vec<u64>);

    impl TimerClient for Counter {
        fn timer_expired(&mut self, now_ns: u64) {
            self.0.push(now_ns);
        }
    }

    #[test]
    fn deadlines_fire_once_and_in_time() {
        let clock = Arc::new(ManualClock::new(0));
        let timers = Timers::new(clock.clone());
        let counter = Arc::new(Mutex::new(Counter(Vec::new())));
        let timer = timers.timer();
        let client: Arc<Mutex<dyn TimerClient>> = counter.clone();
        timers.connect(timer.index(), Arc::downgrade(&client));
        timer.arm(Some(100));
        assert_eq!(timers.run_due(), Some(100));
        clock.advance(100);
        assert_eq!(timers.run_due(), None);
        assert_eq!(timers.run_due(), None);
        assert_eq!(counter.lock().unwrap().0, [100]);
    }
}
