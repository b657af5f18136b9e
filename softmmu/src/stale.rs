//! What a guest gets from translations that its page tables no longer have: it changed an entry and
//! did not invalidate what the TLB held, or not yet (SDM vol. 3A, section 4.10.4).
//!
//! Counted in strict mode alone. Data accesses do not use the first-level TLB there, so each one comes
//! through [`Mmu::translate`], and what the second level answers is held against a walk that changes
//! nothing. Instruction pages are looked up once for a run of blocks and count once for it.

use crate::mmu::Mmu;
use crate::paging::{Access, Leaf, Rights};
use std::fmt;

/// Pages that are remembered.
const EXAMPLES: usize = 16;

/// A page that was used by a stale translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StalePage {
    /// Its linear address.
    pub linear: u64,
    /// The first such access.
    pub access: Access,
    /// Where the access went: the physical address of the page.
    pub went_to: u64,
    /// Where the tables would have sent it; `None` is a page fault.
    pub tables_say: Option<u64>,
}

/// Accesses that went otherwise than the page tables said.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct StaleUses {
    /// Data reads.
    pub reads: u64,
    /// Data writes.
    pub writes: u64,
    /// Lookups of instruction pages.
    pub fetches: u64,
    /// The first pages, each once.
    pub pages: Vec<StalePage>,
}

impl StaleUses {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.reads + self.writes + self.fetches
    }

    /// Adds those of another vCPU.
    pub fn merge(&mut self, other: &StaleUses) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.fetches += other.fetches;
        other.pages.iter().for_each(|&page| self.remember(page));
    }

    fn remember(&mut self, page: StalePage) {
        if self.pages.len() < EXAMPLES && self.pages.iter().all(|p| p.linear != page.linear) {
            self.pages.push(page);
        }
    }

    fn note(&mut self, page: StalePage) {
        match page.access {
            Access::Read => self.reads += 1,
            Access::Write => self.writes += 1,
            Access::Fetch => self.fetches += 1,
        }
        self.remember(page);
    }
}

impl fmt::Display for StaleUses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StaleUses { reads, writes, fetches, pages } = self;
        writeln!(
            f,
            "Accesses by translations that the page tables no longer had: {} ({reads} reads, \
             {writes} writes, {fetches} instruction pages)",
            self.total()
        )?;
        for page in pages {
            let what = match page.access {
                Access::Read => "read",
                Access::Write => "written",
                Access::Fetch => "executed",
            };
            write!(f, "  {:#x}: {what} at {:#x}, ", page.linear, page.went_to)?;
            match page.tables_say {
                Some(gpa) => writeln!(f, "now mapped to {gpa:#x}")?,
                None => writeln!(f, "now a page fault")?,
            }
        }
        Ok(())
    }
}

impl Mmu {
    /// What the guest got from stale translations so far; `None` unless in strict mode
    /// ([`Mmu::keep_translations`]).
    pub fn stale_uses(&self) -> Option<&StaleUses> {
        self.stale.as_deref()
    }

    /// Holds a cached translation that is about to be used against the tables.
    pub(crate) fn check_stale(
        &mut self,
        linear: u64,
        cached: Leaf,
        access: Access,
        rights: Rights,
    ) {
        if self.stale.is_none() {
            return;
        }
        let went_to = cached.small(linear).frame();
        let walk = self.observer().walk(linear, access, rights);
        let tables_say = walk.ok().map(|leaf| leaf.small(linear).frame());
        if tables_say == Some(went_to) {
            return;
        }
        let page = StalePage { linear: linear & !0xFFF, access, went_to, tables_say };
        if let Some(stale) = &mut self.stale {
            stale.note(page);
        }
    }
}
