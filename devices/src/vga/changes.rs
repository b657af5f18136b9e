//! Telling those who look at the screen that something was written.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A count of changes, to wait on. Counting costs two atomic accesses while nobody waits.
#[derive(Debug, Default)]
pub struct Changes {
    count: AtomicU64,
    waiting: AtomicBool,
    gate: Mutex<()>,
    changed: Condvar,
}

impl Changes {
    /// The count: compare it with one taken earlier.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Something was written.
    pub fn note(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Lets everybody who waits look again.
    pub fn wake(&self) {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(false, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// Waits until `ready` holds, which is asked again at every change and [`Changes::wake`], or
    /// `limit` has passed. Returns what `ready` said last. `ready` must take no lock that is held
    /// around [`Changes::note`] or [`Changes::wake`].
    pub fn wait_until(&self, limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(true, Ordering::SeqCst);
        if !ready() {
            gate = match self.changed.wait_timeout(gate, limit) {
                Ok((gate, _)) => gate,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        drop(gate);
        ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_change_ends_the_wait() {
        let changes = Arc::new(Changes::default());
        let seen = changes.count();
        assert!(!changes.wait_until(Duration::from_millis(1), || changes.count() != seen));
        let writer = changes.clone();
        let thread = std::thread::spawn(move || writer.note());
        while !changes.wait_until(Duration::from_secs(10), || changes.count() != seen) {}
        thread.join().unwrap();
        assert_eq!(changes.count(), seen + 1);
    }
}
