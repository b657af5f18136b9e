//! How far a suite has come.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that a suite moves and an observer reads from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
}

/// [`Progress`] at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Cases to run, 0 while that is unknown.
    pub total: u64,
    /// Cases run.
    pub done: u64,
    /// Cases that differed.
    pub failed: u64,
}

impl Progress {
    /// Nothing done.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// Adds cases to be run.
    pub fn expect(&self, cases: u64) {
        self.total.fetch_add(cases, Ordering::Relaxed);
    }

    /// One case is done.
    pub fn advance(&self, failed: bool) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            total: self.total.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}
