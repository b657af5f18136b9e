//! Invalidation (SDM vol. 3A, section 4.10.4): CR3 loads, INVLPG, INVPCID, flushes.

use x86::Fault;
use x86::control::cr4;

use crate::mmu::Mmu;
use crate::paging::PagingMode;
use crate::ram::PAGE_SIZE;

/// INVPCID types (SDM vol. 2A, INVPCID).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvpcidKind {
    /// Type 0: one address of one PCID, global translations excepted.
    Address,
    /// Type 1: one PCID, global translations excepted.
    SingleContext,
    /// Type 2: everything.
    AllWithGlobals,
    /// Type 3: all PCIDs, global translations excepted.
    AllButGlobals,
}

impl InvpcidKind {
    /// Decodes the register operand; `None` is #GP(0).
    pub fn from_operand(operand: u64) -> Option<InvpcidKind> {
        match operand {
            0 => Some(InvpcidKind::Address),
            1 => Some(InvpcidKind::SingleContext),
            2 => Some(InvpcidKind::AllWithGlobals),
            3 => Some(InvpcidKind::AllButGlobals),
            _ => None,
        }
    }
}

impl Mmu {
    /// MOV to CR3 (SDM vol. 3A, section 4.10.4.1). `no_flush` is bit 63 of the source, which
    /// counts only under CR4.PCIDE; `cr3` comes without it. `Err` is #GP(0) because a PDPTE of
    /// PAE paging has a reserved bit set; nothing has changed then.
    pub fn load_cr3(&mut self, cr3: u64, no_flush: bool) -> Result<(), Fault> {
        let old_pcid = self.paging.state.pcid();
        let mut new = self.paging;
        new.state.cr3 = cr3;
        if new.mode == PagingMode::Pae {
            new.pdpte = self.walker_for(&new).read_pdptes().ok_or(Fault::GP0)?;
        }
        self.paging = new;
        self.second.select(new.state.pcid());
        let keep = no_flush && new.state.cr4 & cr4::PCIDE != 0;
        if !keep {
            self.flush_pcid(new.state.pcid());
        }
        if !keep || new.state.pcid() != old_pcid {
            self.drop_local();
        }
        self.publish_generation();
        Ok(())
    }

    /// Invalidates everything, global translations and all PCIDs included.
    pub fn flush_all(&mut self) {
        self.stats.flushes += 1;
        self.second.flush_all();
        self.drop_first_level();
        self.publish_generation();
    }

    /// Invalidates what is not global, in all PCIDs.
    pub fn flush_non_global(&mut self) {
        self.stats.flushes += 1;
        self.second.flush_non_global();
        self.drop_local();
        self.publish_generation();
    }

    /// INVLPG: invalidates the page of `linear` in the current PCID, and global translations
    /// of it.
    pub fn invlpg(&mut self, linear: u64) {
        self.invalidate(linear);
        self.second.new_epoch();
        self.publish_generation();
    }

    pub(crate) fn invalidate(&mut self, linear: u64) {
        let region = self.second.invalidate(linear, self.paging.state.pcid(), true);
        self.mapping_changes.region(linear, region);
        if region == PAGE_SIZE {
            self.tlb.drop_page(linear);
        } else {
            self.tlb.drop_region(linear, region);
        }
    }

    /// INVPCID.
    pub fn invpcid(&mut self, kind: InvpcidKind, pcid: u16, linear: u64) {
        match kind {
            InvpcidKind::Address if pcid == self.paging.state.pcid() => self.invlpg(linear),
            InvpcidKind::Address => {
                self.second.invalidate(linear, pcid & 0xFFF, false);
                self.second.new_epoch();
                self.publish_generation();
            }
            InvpcidKind::SingleContext => {
                self.flush_pcid(pcid);
                if pcid == self.paging.state.pcid() {
                    self.drop_local();
                }
                self.publish_generation();
            }
            InvpcidKind::AllWithGlobals => self.flush_all(),
            InvpcidKind::AllButGlobals => self.flush_non_global(),
        }
    }

    /// Identifies what instruction addresses translate to: while it has the same value, a
    /// linear address that was fetched from successfully at the same privilege still
    /// translates to the same physical address. An address space under PCIDs gets its old
    /// value back when it is loaded again without a flush. Guards links between blocks in
    /// different pages.
    pub fn fetch_generation(&self) -> u64 {
        self.second.generation()
    }

    /// The host address, below 2 GiB, of a word that holds [`Mmu::fetch_generation`].
    pub fn fetch_generation_address(&self) -> u32 {
        self.tlb.generation_address()
    }

    pub(crate) fn publish_generation(&mut self) {
        self.tlb.set_generation(self.second.generation());
    }

    pub(crate) fn flush_pcid(&mut self, pcid: u16) {
        self.stats.flushes += 1;
        self.second.flush_pcid(pcid & 0xFFF);
    }

    pub(crate) fn drop_first_level(&mut self) {
        self.keys_cached = false;
        self.mapping_changes.all();
        self.tlb.drop_all();
    }

    pub(crate) fn drop_local(&mut self) {
        self.mapping_changes.local();
        self.tlb.drop_local();
    }
}
