//! What a spinning guest costs: where the vCPUs outnumber the host's processors, the one that it
//! waits for may not be running.

use std::sync::atomic::{AtomicU32, Ordering};

/// PAUSE instructions between two yields of the host thread, where the vCPUs outnumber the host's
/// processors.
const CROWDED: u32 = 32;
/// The same elsewhere: other processes may hold the processor of the vCPU that is waited for.
const ROOMY: u32 = 512;

/// Counts one vCPU's PAUSE instructions.
pub(crate) struct SpinHint {
    burst: u32,
    pauses: AtomicU32,
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
        SpinHint { burst, pauses: AtomicU32::new(0) }
    }

    /// The guest executed PAUSE. Yields the host thread once in a burst.
    pub(crate) fn pause(&self) {
        // Only the vCPU's own thread counts here, so nothing is lost between load and store.
        let pauses = self.pauses.load(Ordering::Relaxed).wrapping_add(1);
        if pauses < self.burst {
            self.pauses.store(pauses, Ordering::Relaxed);
        } else {
            self.pauses.store(0, Ordering::Relaxed);
            std::thread::yield_now();
        }
    }
}
