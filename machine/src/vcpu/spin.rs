//! What a spinning guest costs: where the vCPUs outnumber the host's processors, the one that it
//! waits for may not be running.

use std::sync::atomic::{AtomicU32, Ordering};

/// PAUSE instructions in a burst before the host thread yields.
const BURST: u32 = 32;

/// Counts one vCPU's PAUSE instructions.
pub(crate) struct SpinHint {
    /// There are more vCPUs than the host has processors for.
    crowded: bool,
    pauses: AtomicU32,
}

impl SpinHint {
    /// For a vCPU of a machine with `cpus` of them.
    pub(crate) fn new(cpus: u32) -> SpinHint {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        SpinHint { crowded: cpus as usize > processors, pauses: AtomicU32::new(0) }
    }

    /// The guest executed PAUSE. Yields the host thread once in a burst.
    pub(crate) fn pause(&self) {
        // Only the vCPU's own thread counts here, so nothing is lost between load and store.
        let pauses = self.pauses.load(Ordering::Relaxed).wrapping_add(1);
        self.pauses.store(pauses, Ordering::Relaxed);
        if self.crowded && pauses.is_multiple_of(BURST) {
            std::thread::yield_now();
        }
    }
}
