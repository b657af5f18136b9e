//! Counters of the translator.

use crate::profile::Mix;
use decoder::Code;
use hashbrown::HashMap;
use std::fmt;
use std::ops::AddAssign;

/// Rows of a table of what left translated code most often.
const TOP: usize = 20;
/// Blocks whose counts outlive their translations. Of more, half as many are kept: those that left
/// most.
const MAX_BLOCKS: usize = 1 << 14;

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
    /// Instructions that have no emission of their own and were left to the interpreter's
    /// definition.
    pub helpers: u64,
    /// Others that were left to it: memory accesses that missed the TLB, as a rule. Here and with
    /// `helpers`, those that raised an exception count as well.
    pub slow_accesses: u64,
    /// Links patched.
    pub links: u64,
    /// Instructions in translated code by strategy, where [`crate::Engine::count_strategies`] asks
    /// for it.
    pub shares: Option<Mix>,
    /// By instruction, how often it left translated code.
    pub by_code: HashMap<Code, Left>,
    /// By a block's linear address, how often code in it left translated code.
    pub by_block: HashMap<u64, Left>,
}

/// How often translated code was left.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Left {
    /// For the interpreter's definition of an instruction that has no other.
    pub helpers: u64,
    /// For that of an instruction whose memory access, or another condition, needed it.
    pub slow: u64,
    /// For the engine, after that or without.
    pub exits: u64,
}

impl Left {
    /// All together; an exit behind a helper's call counts as the call.
    fn weight(&self) -> u64 {
        self.helpers + self.slow + self.exits
    }
}

impl AddAssign for Left {
    fn add_assign(&mut self, other: Left) {
        self.helpers += other.helpers;
        self.slow += other.slow;
        self.exits += other.exits;
    }
}

/// The largest entries of a table, largest first; the smaller key where they are equal.
fn top<K: Copy + Ord>(table: &HashMap<K, Left>) -> Vec<(K, Left)> {
    let mut all: Vec<_> = table.iter().map(|(&key, &left)| (key, left)).collect();
    all.sort_by_key(|&(key, left)| (std::cmp::Reverse(left.weight()), key));
    all.truncate(TOP);
    all
}

impl Stats {
    /// All instructions executed.
    pub fn instructions(&self) -> u64 {
        self.translated + self.interpreted
    }

    /// The share of instructions that the host CPU ran without the interpreter, from 0 to 1: Popek
    /// and Goldberg's efficiency. Copies, and what was emitted by hand.
    pub fn native_share(&self) -> f64 {
        let helped = self.helpers + self.slow_accesses;
        share(self.translated.saturating_sub(helped), self.instructions())
    }

    /// The instructions, in the SDM's notation, that left translated code most often.
    pub fn top_instructions(&self) -> Vec<(&'static str, Left)> {
        let mut by_name: HashMap<&str, Left> = HashMap::new();
        for (code, &left) in &self.by_code {
            *by_name.entry(code.op_code().instruction_string()).or_default() += left;
        }
        top(&by_name)
    }

    /// The blocks, by their linear addresses, that left it most often.
    pub fn top_blocks(&self) -> Vec<(u64, Left)> {
        top(&self.by_block)
    }

    /// Gives name and value of each counter to `row`.
    pub fn rows(&self, row: &mut dyn FnMut(&str, String) -> fmt::Result) -> fmt::Result {
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
        row("left: exception", self.exits_fault.to_string())
    }

    /// The tables: instructions by how they ran, and what left translated code most often.
    pub fn tables(&self) -> Tables<'_> {
        Tables(self)
    }
}

impl AddAssign<&Stats> for Stats {
    fn add_assign(&mut self, other: &Stats) {
        self.blocks_translated += other.blocks_translated;
        self.instructions_translated += other.instructions_translated;
        self.guest_bytes += other.guest_bytes;
        self.host_bytes += other.host_bytes;
        self.blocks_invalidated += other.blocks_invalidated;
        self.flushes += other.flushes;
        self.entries += other.entries;
        self.exits_link += other.exits_link;
        self.exits_return += other.exits_return;
        self.exits_poll += other.exits_poll;
        self.exits_resync += other.exits_resync;
        self.exits_fault += other.exits_fault;
        self.translated += other.translated;
        self.interpreted += other.interpreted;
        self.helpers += other.helpers;
        self.slow_accesses += other.slow_accesses;
        self.links += other.links;
        if let Some(shares) = other.shares {
            *self.shares.get_or_insert_default() += shares;
        }
        for (&code, &left) in &other.by_code {
            *self.by_code.entry(code).or_default() += left;
        }
        for (&rip, &left) in &other.by_block {
            *self.by_block.entry(rip).or_default() += left;
        }
    }
}

fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

/// [`Stats::tables`].
pub struct Tables<'a>(&'a Stats);

impl fmt::Display for Tables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.0;
        let all = stats.instructions();
        writeln!(f, "\n  Guest instructions by how they ran{:>23}", "share")?;
        let mut row = |name: &str, count: u64| {
            writeln!(f, "  {name:<36}{count:>14} {:>7.3} %", 100.0 * share(count, all))
        };
        if let Some(mix) = &stats.shares {
            row("copies on the host CPU (passthrough)", mix.passthrough)?;
            row("emitted by hand (custom)", mix.custom)?;
            row("slow paths of these", mix.slow)?;
            row("helpers", mix.helper)?;
        } else {
            let helped = stats.helpers + stats.slow_accesses;
            row("copies, and emitted by hand", stats.translated.saturating_sub(helped))?;
            row("slow paths of these", stats.slow_accesses)?;
            row("helpers", stats.helpers)?;
        }
        row("interpreted", stats.interpreted)?;
        row("all", all)?;
        let efficiency = 100.0 * stats.native_share();
        writeln!(f, "  On the host CPU without intervention: {efficiency:.3} %")?;
        if !stats.by_code.is_empty() {
            head(f, "instructions")?;
        }
        for (name, left) in stats.top_instructions() {
            row_of(f, name, left)?;
        }
        if !stats.by_block.is_empty() {
            head(f, "blocks")?;
        }
        for (rip, left) in stats.top_blocks() {
            row_of(f, &format!("{rip:#x}"), left)?;
        }
        Ok(())
    }
}

fn head(f: &mut fmt::Formatter<'_>, what: &str) -> fmt::Result {
    let title = format!("Top {what} that left it");
    writeln!(f, "\n  {title:<34}{:>12} {:>12} {:>12}", "helper", "slow path", "to engine")
}

fn row_of(f: &mut fmt::Formatter<'_>, name: &str, left: Left) -> fmt::Result {
    writeln!(f, "  {name:<34}{:>12} {:>12} {:>12}", left.helpers, left.slow, left.exits)
}

/// Counters that helpers keep, and those of exits.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) helpers: u64,
    /// Instructions on their slow paths.
    pub(crate) slow: u64,
    /// Those that came to their end there, by their strategy.
    pub(crate) slow_done: Mix,
    /// By number of site.
    pub(crate) by_site: Vec<Left>,
    /// What blocks were entered for and did not execute.
    pub(crate) given_back: Mix,
    /// Exits without a site, by the block's linear address.
    pub(crate) by_block: HashMap<u64, Left>,
    /// Those of sites that are gone.
    before: HashMap<Code, Left>,
}

impl Counts {
    /// The sites are gone.
    pub(crate) fn flush(&mut self, sites: &[crate::helper::Site]) {
        (self.before, self.by_block) = self.tables(sites);
        self.by_site.clear();
        // A guest may run code at ever new addresses.
        if self.by_block.len() > MAX_BLOCKS {
            let mut all: Vec<_> = self.by_block.drain().collect();
            all.sort_by_key(|(_, left)| std::cmp::Reverse(left.weight()));
            self.by_block = all.into_iter().take(MAX_BLOCKS / 2).collect();
        }
    }

    /// By instruction and by block.
    pub(crate) fn tables(
        &self,
        sites: &[crate::helper::Site],
    ) -> (HashMap<Code, Left>, HashMap<u64, Left>) {
        let (mut by_code, mut by_block) = (self.before.clone(), self.by_block.clone());
        let counted = self.by_site.iter().zip(sites).filter(|(left, _)| **left != Left::default());
        for (&left, site) in counted {
            *by_code.entry(site.op.insn.code).or_default() += left;
            *by_block.entry(site.block).or_default() += left;
        }
        (by_code, by_block)
    }
}
