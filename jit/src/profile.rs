//! What the code of each strategy does, counted on request: translated code then counts the entries
//! of each block and its side exits, and the mix of strategies in between is known.

use crate::emit::{Notes, Part, Strategy};
use softmmu::{LowBox, LowError};
use std::ops::{AddAssign, Sub};

/// Counters of one engine. They are handed out until the translations are flushed.
const COUNTERS: usize = 1 << 18;
/// The most that one block needs: its own, and one for each side exit.
pub(crate) const MAX_PER_BLOCK: usize = 65;

/// Instructions by [`Strategy`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mix {
    /// Copies.
    pub passthrough: u64,
    /// By hand.
    pub custom: u64,
    /// By the interpreter's definition.
    pub helper: u64,
    /// Of those with code of their own, those that took the slow path of it.
    pub slow: u64,
}

impl Mix {
    /// Those of a part of a block.
    pub(crate) fn of(strategies: &[Strategy]) -> Mix {
        let count = |wanted| strategies.iter().filter(|&&s| s == wanted).count() as u64;
        Mix {
            passthrough: count(Strategy::Passthrough),
            custom: count(Strategy::Custom),
            helper: count(Strategy::Helper),
            slow: 0,
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.passthrough + self.custom + self.helper + self.slow
    }

    fn times(self, factor: u64) -> Mix {
        Mix {
            passthrough: self.passthrough * factor,
            custom: self.custom * factor,
            helper: self.helper * factor,
            slow: self.slow * factor,
        }
    }
}

impl AddAssign for Mix {
    fn add_assign(&mut self, other: Mix) {
        self.passthrough += other.passthrough;
        self.custom += other.custom;
        self.helper += other.helper;
        self.slow += other.slow;
    }
}

impl Sub for Mix {
    type Output = Mix;

    fn sub(self, other: Mix) -> Mix {
        Mix {
            passthrough: self.passthrough.saturating_sub(other.passthrough),
            custom: self.custom.saturating_sub(other.custom),
            helper: self.helper.saturating_sub(other.helper),
            slow: self.slow.saturating_sub(other.slow),
        }
    }
}

/// A block that counts.
struct Counted {
    linear: u64,
    counter: usize,
    mix: Mix,
    /// Side exits: their counter, and what is not executed behind them.
    exits: Vec<(usize, Mix)>,
}

/// The counters.
pub(crate) struct Profile {
    counters: LowBox<[u64; COUNTERS]>,
    used: usize,
    blocks: Vec<Counted>,
    /// What blocks that are gone did.
    before: Mix,
}

impl Profile {
    pub(crate) fn new() -> Result<Profile, LowError> {
        // SAFETY: integers may be zero.
        let counters = unsafe { LowBox::<[u64; COUNTERS]>::zeroed()? };
        Ok(Profile { counters, used: 0, blocks: Vec::new(), before: Mix::default() })
    }

    /// Where the counters lie: address and bytes.
    pub(crate) fn region(&self) -> (u64, u64) {
        (u64::from(self.counters.address()), 8 * COUNTERS as u64)
    }

    /// Whether another block finds room.
    pub(crate) fn has_room(&self) -> bool {
        self.used + MAX_PER_BLOCK <= COUNTERS
    }

    /// The address of the first counter that is free; a block takes them in order.
    pub(crate) fn next(&self) -> i32 {
        (self.counters.address() as usize + 8 * self.used) as i32
    }

    /// Takes the counters that the block at `linear` was emitted with: one for its entries, then one
    /// for each of its side exits, in their order.
    pub(crate) fn add(&mut self, linear: u64, notes: &Notes) {
        let counter = self.used;
        let strategies = &notes.strategies;
        let rests = notes.marks.iter().filter_map(|mark| {
            let Part::SideExit(index) = mark.1 else { return None };
            Some(strategies.get(index + 1..).map_or(Mix::default(), Mix::of))
        });
        let exits: Vec<_> = rests.enumerate().map(|(i, rest)| (counter + 1 + i, rest)).collect();
        self.used += 1 + exits.len();
        self.blocks.push(Counted { linear, counter, mix: Mix::of(strategies), exits });
    }

    fn executed(&self, block: &Counted) -> Mix {
        let mut left = Mix::default();
        for &(counter, rest) in &block.exits {
            left += rest.times(self.counters[counter]);
        }
        block.mix.times(self.counters[block.counter]) - left
    }

    /// What has been executed, but for what helpers gave back.
    pub(crate) fn total(&self) -> Mix {
        let mut total = self.before;
        for block in &self.blocks {
            total += self.executed(block);
        }
        total
    }

    /// Linear address of the block that was entered most often, of those that are translated.
    pub(crate) fn hottest(&self) -> Option<u64> {
        let hottest = self.blocks.iter().max_by_key(|block| self.counters[block.counter])?;
        (self.counters[hottest.counter] != 0).then_some(hottest.linear)
    }

    /// The translations are gone.
    pub(crate) fn flush(&mut self) {
        self.before = self.total();
        self.blocks.clear();
        self.counters[..self.used].fill(0);
        self.used = 0;
    }
}
