//! What a spinning guest costs: the vCPU that it waits for may not be running, because the host's
//! processors are busy with this one, or with other programs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// PAUSE instructions between two looks at the host, where the vCPUs outnumber its processors.
const CROWDED: u32 = 32;
/// The same elsewhere: other processes may hold the processor of the vCPU that is waited for.
const ROOMY: u32 = 512;

/// Bursts that end in a yield. If the guest spins on, yielding has not helped: the scheduler may
/// come straight back to a thread that yields, and it charges spinning as work.
const YIELDS: u32 = 4;
/// How long the thread then sleeps after each burst. A thread that sleeps is run soon after it
/// wakes, one that has used up its share is not.
const NAP: Duration = Duration::from_micros(50);
/// Two bursts further apart than this belong to two waits.
const PATIENCE: Duration = Duration::from_micros(200);

/// Counts one vCPU's PAUSE instructions.
pub(crate) struct SpinHint {
    burst: u32,
    pauses: AtomicU32,
    wait: Mutex<Wait>,
}

/// The wait that the guest may be in.
struct Wait {
    /// Bursts of PAUSE so far.
    bursts: u32,
    /// When the last one was dealt with.
    last: Instant,
}

impl Wait {
    /// A burst is over at `now`: says whether to sleep rather than yield.
    fn burst(&mut self, now: Instant) -> bool {
        self.bursts = if now.saturating_duration_since(self.last) > PATIENCE {
            0
        } else {
            self.bursts.saturating_add(1)
        };
        self.bursts >= YIELDS
    }
}

impl SpinHint {
    /// For a vCPU of a machine with `cpus` of them.
    pub(crate) fn new(cpus: u32) -> SpinHint {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let burst = match cpus {
            // There is nobody to wait for.
            0 | 1 => u32::MAX,
            _ if cpus as usize > processors => CROWDED,
            _ => ROOMY,
        };
        let wait = Mutex::new(Wait { bursts: 0, last: Instant::now() });
        SpinHint { burst, pauses: AtomicU32::new(0), wait }
    }

    /// The guest executed PAUSE. Gives up the host's processor once in a burst.
    pub(crate) fn pause(&self) {
        // Only the vCPU's own thread counts here, so nothing is lost between load and store.
        let pauses = self.pauses.load(Ordering::Relaxed).wrapping_add(1);
        if pauses < self.burst {
            self.pauses.store(pauses, Ordering::Relaxed);
            return;
        }
        self.pauses.store(0, Ordering::Relaxed);
        let mut wait = devices::lock(&self.wait);
        if wait.burst(Instant::now()) {
            std::thread::sleep(NAP);
        } else {
            std::thread::yield_now();
        }
        wait.last = Instant::now();
    }
}
