//! Counting instructions where no limit has to be met exactly: each block, and each exit from the
//! middle of one, has a counter of its own. One counter for all would make every block wait for the
//! one before it.

use softmmu::{LowBox, LowError};

/// Counters until everything is translated anew.
const CAPACITY: usize = 1 << 18;

/// The counters of an engine.
pub(crate) struct Counters {
    values: LowBox<[u64; CAPACITY]>,
    /// Instructions that each stands for; negative for exits from the middle.
    weights: Vec<i32>,
    /// The sum of those that were cleared.
    settled: i64,
}

impl Counters {
    pub(crate) fn new() -> Result<Counters, LowError> {
        // SAFETY: integers may be zero.
        let values = unsafe { LowBox::zeroed()? };
        Ok(Counters { values, weights: Vec::new(), settled: 0 })
    }

    /// How many are left.
    pub(crate) fn room(&self) -> usize {
        CAPACITY - self.weights.len()
    }

    /// The address of a new counter that stands for `weight` instructions.
    pub(crate) fn add(&mut self, weight: i32) -> i32 {
        let index = self.weights.len().min(CAPACITY - 1);
        self.weights.push(weight);
        self.values.address() as i32 + 8 * index as i32
    }

    /// Instructions counted since the beginning.
    pub(crate) fn total(&self) -> i64 {
        let counted = self.weights.iter().zip(self.values.iter());
        self.settled + counted.map(|(&w, &n)| i64::from(w) * n as i64).sum::<i64>()
    }

    /// Counts `by` instructions more, or less.
    pub(crate) fn adjust(&mut self, by: i64) {
        self.settled += by;
    }

    /// Gives all counters back.
    pub(crate) fn clear(&mut self) {
        self.settled = self.total();
        self.values[..self.weights.len().min(CAPACITY)].fill(0);
        self.weights.clear();
    }
}
