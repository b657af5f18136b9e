//! What each part of a block's host code is for: notes for the listing and the counters.

use super::Unit;
use crate::profile::Mix;

/// How an instruction became host code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Strategy {
    /// A copy of the guest's own instruction runs on the host CPU.
    Passthrough,
    /// Emission written by hand.
    Custom,
    /// A call of the interpreter's definition.
    Helper,
}

/// What the code from an offset on is for. Instructions are counted from 0, in the order of
/// emission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// The entries, the instruction count and the poll.
    Entry,
    /// An instruction.
    Instruction(usize),
    /// The exit at the end, where execution goes on behind the block.
    End,
    /// The slow path of an instruction.
    Slow(usize),
    /// The taken branch of an instruction in the middle of the block.
    SideExit(usize),
    /// Leaving at the entry.
    Poll,
    /// Emptying the host stack of returns.
    StackFull,
    /// A constant, not code.
    Constant,
    /// Loading the guest's vector registers.
    LoadVectors,
    /// Loading the guest's x87 state.
    LoadX87,
    /// What leaves through a link that is not patched.
    Trampoline(usize),
}

/// The notes of one block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    /// Where each part begins, in ascending order.
    pub(crate) marks: Vec<(usize, Part)>,
    /// How each instruction was emitted.
    pub(crate) strategies: Vec<Strategy>,
    /// Where copies of guest instructions lie.
    pub(crate) copies: Vec<usize>,
}

impl Unit<'_> {
    /// What is emitted from here on belongs to `part`.
    pub(super) fn note(&mut self, part: Part) {
        let at = self.offset();
        self.notes.marks.push((at, part));
    }

    /// The instruction put next is the guest's own.
    pub(super) fn note_copy(&mut self) {
        let at = self.offset();
        self.notes.copies.push(at);
    }

    /// Tells the block's sites what is around them.
    pub(super) fn note_strategies_at_sites(&mut self) {
        let strategies = &self.notes.strategies;
        for site in &mut self.env.sites[self.first_site..] {
            let index = self.count - site.rest as usize;
            site.strategy = strategies.get(index).copied().unwrap_or(Strategy::Helper);
            site.behind = strategies.get(index + 1..).map_or(Mix::default(), Mix::of);
        }
    }

    /// Says how the current instruction is emitted.
    pub(super) fn note_strategy(&mut self, strategy: Strategy) {
        self.notes.strategies.resize(self.index + 1, strategy);
        self.notes.strategies[self.index] = strategy;
    }
}
