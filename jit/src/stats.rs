//! Counters of the translator.

use decoder::Mnemonic;
use std::collections::HashMap;
use std::fmt;

/// Where instructions ran and why translated code was left.
#[derive(Clone, Default, Debug)]
pub struct Stats {
    /// Blocks translated.
    pub blocks_translated: u64,
    /// Guest instructions in them.
    pub instructions_translated: u64,
    /// Guest bytes in them.
    pub guest_bytes: u64,
    /// Host bytes they became.
    pub host_bytes: u64,
    /// Blocks dropped because their bytes were written.
    pub blocks_invalidated: u64,
    /// Times the cache was emptied.
    pub flushes: u64,
    /// Entries into translated code.
    pub entries: u64,
    /// Direct exits that were not linked.
    pub exits_link: u64,
    /// Near returns that nothing predicted.
    pub exits_return: u64,
    /// Exits for requests and limits.
    pub exits_poll: u64,
    /// Exits after a helper that changed the flow.
    pub exits_resync: u64,
    /// Exceptions in translated code.
    pub exits_fault: u64,
    /// Instructions executed in translated code.
    pub translated: u64,
    /// Instructions executed by the interpreter because their code was cold or odd.
    pub interpreted: u64,
    /// Instructions that translated code left to the interpreter's definition.
    pub helpers: u64,
    /// Of these, memory accesses that missed the TLB.
    pub slow_accesses: u64,
    /// Links patched.
    pub links: u64,
    /// The mnemonics most often left to helpers.
    pub top_helpers: Vec<(Mnemonic, u64)>,
}

impl Stats {
    /// The share of instructions that ran as copies on the host CPU, from 0 to 1: Popek and
    /// Goldberg's efficiency.
    pub fn native_share(&self) -> f64 {
        let all = self.translated + self.interpreted;
        let helped = self.helpers + self.slow_accesses;
        self.translated.saturating_sub(helped) as f64 / all.max(1) as f64
    }

    /// Gives name and value of each counter to `row`.
    pub fn rows(&self, row: &mut dyn FnMut(&str, String) -> fmt::Result) -> fmt::Result {
        row("native instructions", format!("{:.3} %", 100.0 * self.native_share()))?;
        row("in translated code", self.translated.to_string())?;
        row("interpreted", self.interpreted.to_string())?;
        row("helpers called", self.helpers.to_string())?;
        row("slow accesses", self.slow_accesses.to_string())?;
        row("blocks translated", self.blocks_translated.to_string())?;
        row("their instructions", self.instructions_translated.to_string())?;
        row("their guest bytes", self.guest_bytes.to_string())?;
        row("their host bytes", self.host_bytes.to_string())?;
        row("translations dropped", self.blocks_invalidated.to_string())?;
        row("cache flushes", self.flushes.to_string())?;
        row("links patched", self.links.to_string())?;
        row("entries", self.entries.to_string())?;
        row("left: unlinked", self.exits_link.to_string())?;
        row("left: return", self.exits_return.to_string())?;
        row("left: poll", self.exits_poll.to_string())?;
        row("left: helper", self.exits_resync.to_string())?;
        row("left: exception", self.exits_fault.to_string())?;
        for (mnemonic, count) in &self.top_helpers {
            row(&format!("helper {mnemonic:?}"), count.to_string())?;
        }
        Ok(())
    }
}

/// Counters that helpers keep.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) helpers: u64,
    pub(crate) slow: u64,
    /// By mnemonic.
    pub(crate) by_mnemonic: Box<[u64]>,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts { helpers: 0, slow: 0, by_mnemonic: vec![0; 2048].into() }
    }
}

impl Counts {
    /// The mnemonics most often left to helpers, with their counts.
    pub(crate) fn top(&self, n: usize) -> Vec<(Mnemonic, u64)> {
        let names: HashMap<usize, Mnemonic> = Mnemonic::values().map(|m| (m as usize, m)).collect();
        let mut all: Vec<_> = (self.by_mnemonic.iter().enumerate())
            .filter(|&(_, &count)| count != 0)
            .filter_map(|(i, &count)| names.get(&i).map(|&m| (m, count)))
            .collect();
        all.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        all.truncate(n);
        all
    }
}
