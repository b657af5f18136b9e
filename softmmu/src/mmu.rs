//! A vCPU's memory management unit: paging state, flushes, translation.

use std::sync::Arc;

use thiserror::Error;
use x86::Fault;
use x86::control::{cr0, cr4, efer};

use crate::bus::PhysBus;
use crate::code::{CodeWrite, Mailbox};
use crate::exit::ExitRequest;
use crate::low::LowError;
use crate::mapping::MappingChanges;
use crate::paging::{Access, Leaf, Paging, PagingMode, PagingState, Rights};
use crate::ram::{GuestRam, PageFlags};
use crate::second_level::SecondLevel;
use crate::stale::StaleUses;
use crate::tlb::{Fill, Tlb, TlbEntry};
use crate::walk::Walker;

/// Why an [`Mmu`] could not be made.
#[derive(Debug, Error)]
pub enum MmuError {
    /// No low memory for the TLB or the exit request.
    #[error(transparent)]
    Low(#[from] LowError),
}

/// Counters for `--stats`.
#[derive(Clone, Copy, Default, Debug)]
pub struct MmuStats {
    /// Accesses of interpreted blocks, counted by the engine: the MMU does not count hits.
    pub accesses: u64,
    /// Accesses that missed the first-level TLB, those it never holds included.
    pub tlb_misses: u64,
    /// Misses that the second-level TLB answered.
    pub second_level_hits: u64,
    /// Page walks.
    pub walks: u64,
    /// Page faults found.
    pub page_faults: u64,
    /// Device memory accesses.
    pub mmio: u64,
    /// Accesses that crossed a page.
    pub page_crossings: u64,
    /// Flushes of an address space or of everything.
    pub flushes: u64,
    /// Stores that took the slow path because their page holds cached code.
    pub code_page_stores: u64,
    /// Of these, stores that hit cached code.
    pub code_writes: u64,
}

/// Where an instruction lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchPage {
    /// Physical address of the linear address that was asked for.
    pub gpa: u64,
    /// Whether the page is RAM (or ROM), so that code in it can be cached. Code in device
    /// memory must be fetched anew each time.
    pub ram: bool,
}

/// A translated address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translated {
    /// Physical address, A20 gate applied.
    pub(crate) gpa: u64,
    pub(crate) flags: PageFlags,
}

/// The memory management unit of one vCPU.
pub struct Mmu {
    /// The platform.
    pub bus: Arc<dyn PhysBus>,
    /// Guest RAM.
    pub ram: Arc<GuestRam>,
    /// Linear address of the last page fault; becomes CR2 on delivery.
    pub fault_address: u64,
    /// The word that other threads set to pull this vCPU out of guest code.
    pub exit_request: Arc<ExitRequest>,
    /// Counters.
    pub stats: MmuStats,
    /// Set when a store hit cached code, `code_written` has entries, or when a store to a device
    /// made it request an exit. Engines check it after each instruction.
    pub code_dirty: bool,
    /// Cached code that became invalid; taken by [`Mmu::take_code_writes`].
    pub code_written: Vec<CodeWrite>,
    /// Where an access that crosses a page continues: 0xFFFF_FFFF outside 64-bit mode, where
    /// linear addresses wrap at 4 GiB, otherwise all ones. [`Mmu::set_paging`] sets it by
    /// EFER.LMA; the interpreter narrows it in compatibility mode. Accesses that start above
    /// the mask (descriptor tables in compatibility mode) are not masked.
    pub linear_mask: u64,
    /// The table for the current privilege.
    pub(crate) table: *mut TlbEntry,
    /// Which translations may have changed, for engines that link code across pages.
    pub mapping_changes: MappingChanges,
    pub(crate) rights: Rights,
    cpl: u8,
    ac: bool,
    pub(crate) paging: Paging,
    a20: u64,
    pub(crate) tlb: Tlb,
    pub(crate) second: SecondLevel,
    pub(crate) mailbox: Arc<Mailbox>,
    /// A translation with a protection key other than 0 may be in the first-level TLB.
    pub(crate) keys_cached: bool,
    /// In strict mode: see [`crate::stale`].
    pub(crate) stale: Option<Box<StaleUses>>,
}

// SAFETY: the raw pointer is into the TLB that the Mmu owns.
unsafe impl Send for Mmu {}

impl Mmu {
    /// An MMU with paging off, CPL 0, A20 open and nothing cached.
    pub fn new(ram: Arc<GuestRam>, bus: Arc<dyn PhysBus>) -> Result<Mmu, MmuError> {
        let tlb = Tlb::new(ram.base())?;
        let exit_request = Arc::new(ExitRequest::new()?);
        let mailbox = ram.code.register(exit_request.clone());
        Ok(Mmu {
            bus,
            ram,
            fault_address: 0,
            exit_request,
            stats: MmuStats::default(),
            code_dirty: false,
            code_written: Vec::new(),
            linear_mask: 0xFFFF_FFFF,
            table: tlb.table(Rights::Supervisor),
            mapping_changes: MappingChanges::default(),
            rights: Rights::Supervisor,
            cpl: 0,
            ac: false,
            paging: Paging::new(PagingState::default()),
            a20: u64::MAX,
            tlb,
            second: SecondLevel::new(),
            mailbox,
            keys_cached: false,
            stale: None,
        })
    }

    /// The paging registers in force.
    pub fn paging(&self) -> &PagingState {
        &self.paging.state
    }

    /// The paging mode in force.
    pub fn paging_mode(&self) -> PagingMode {
        self.paging.mode
    }

    /// The host address, below 2 GiB, of the [`crate::TLB_ENTRIES`] entries for `rights`.
    pub fn tlb_address(&self, rights: Rights) -> u32 {
        self.tlb.table_address(rights)
    }

    /// The rights of explicit accesses at the current privilege.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// Takes over changed paging registers, with the invalidations that the change implies
    /// (SDM vol. 3A, section 4.10.4.1). A change of CR3 acts like [`Mmu::load_cr3`] without
    /// bit 63. `Err` is #GP(0) because a PDPTE of PAE paging has a reserved bit set; nothing
    /// has changed then.
    pub fn set_paging(&mut self, state: &PagingState) -> Result<(), Fault> {
        let old = self.paging;
        let mut new = Paging::new(*state);
        let changed = |old: u64, new: u64, bits: u64| (old ^ new) & bits != 0;
        let (cr0_old, cr4_old) = (old.state.cr0, old.state.cr4);
        if new.mode == PagingMode::Pae {
            new.pdpte = old.pdpte;
            let reload = old.mode != PagingMode::Pae
                || old.state.cr3 != state.cr3
                || changed(cr0_old, state.cr0, cr0::PG | cr0::CD | cr0::NW)
                || changed(cr4_old, state.cr4, cr4::PAE | cr4::PGE | cr4::PSE | cr4::SMEP);
            if reload {
                new.pdpte = self.walker_for(&new).read_pdptes().ok_or(Fault::GP0)?;
            }
        }
        self.paging = new;
        self.second.select(new.state.pcid());
        let everything = changed(cr0_old, state.cr0, cr0::PG)
            || changed(cr4_old, state.cr4, cr4::PAE | cr4::PSE | cr4::PGE | cr4::LA57 | cr4::PCIDE)
            || changed(old.state.efer, state.efer, efer::NXE | efer::LMA)
            || old.beyond_maxphyaddr != new.beyond_maxphyaddr;
        if everything {
            self.flush_all();
        } else {
            let rights_changed = changed(cr0_old, state.cr0, cr0::WP)
                || changed(cr4_old, state.cr4, cr4::SMEP | cr4::SMAP | cr4::PKE);
            // A key's two bits matter where pages carry it; key 0 is everywhere.
            let keys_changed = (old.state.pkru ^ state.pkru) & 3 != 0
                || (old.state.pkru != state.pkru && self.keys_cached);
            if rights_changed || (new.keys && keys_changed) {
                self.drop_first_level();
            }
            if rights_changed {
                self.second.new_epoch();
            }
            if old.state.cr3 != state.cr3 {
                self.flush_pcid(new.state.pcid());
                self.drop_local();
            }
        }
        if changed(old.state.efer, state.efer, efer::LMA) {
            let long = state.efer & efer::LMA != 0;
            self.linear_mask = if long { u64::MAX } else { 0xFFFF_FFFF };
        }
        self.set_privilege(self.cpl, self.ac);
        self.publish_generation();
        Ok(())
    }

    /// Sets the privilege of explicit accesses: the CPL, and EFLAGS.AC as SMAP sees it. Cheap:
    /// it selects a TLB table.
    #[inline(always)]
    pub fn set_privilege(&mut self, cpl: u8, ac: bool) {
        self.cpl = cpl;
        self.ac = ac;
        self.rights = self.paging.rights(cpl, ac);
        self.table = self.tlb.table(self.rights);
    }

    /// Keeps every translation until the guest invalidates it: none is lost to the size of the TLB
    /// (SDM vol. 3A, section 4.10.2.1, lets a processor keep one for as long). For tests of what a
    /// guest forgets to flush. Counts the accesses that go by translations which the page tables no
    /// longer have ([`Mmu::stale_uses`]); each access is looked at for that, which takes its time.
    pub fn keep_translations(&mut self) {
        self.second.keep_everything();
        self.stale.get_or_insert_default();
        self.drop_first_level();
    }

    /// The A20 gate: closed, physical address bit 20 reads as zero.
    pub fn set_a20(&mut self, open: bool) {
        let mask = if open { u64::MAX } else { !(1 << 20) };
        if mask != self.a20 {
            self.a20 = mask;
            self.flush_all();
        }
    }

    /// Drops all write tags, so that the next store to each page is seen by dirty tracking.
    pub fn drop_write_tags(&mut self) {
        self.tlb.drop_writes();
    }

    pub(crate) fn walker_for<'a>(&'a self, paging: &'a Paging) -> Walker<'a> {
        Walker { ram: &self.ram, bus: &*self.bus, paging, a20: self.a20, observes: false }
    }

    /// A walker that sets no accessed or dirty flag.
    pub(crate) fn observer(&self) -> Walker<'_> {
        Walker { observes: true, ..self.walker_for(&self.paging) }
    }

    pub(crate) fn paging_internal(&self) -> &Paging {
        &self.paging
    }

    /// Whether 64-bit paging can translate the address at all.
    fn canonical(&self, linear: u64) -> bool {
        let unused = match self.paging.mode {
            PagingMode::Level4 => 16,
            PagingMode::Level5 => 7,
            PagingMode::None | PagingMode::Legacy32 | PagingMode::Pae => return true,
        };
        ((linear << unused) as i64 >> unused) as u64 == linear
    }

    /// Translates on the slow path and fills the TLB. A page fault leaves its address in
    /// `fault_address`. Addresses that are not canonical are the caller's business; should one
    /// arrive here, it gets #GP(0) and is never cached.
    pub(crate) fn translate(
        &mut self,
        linear: u64,
        access: Access,
        rights: Rights,
    ) -> Result<Translated, Fault> {
        self.stats.tlb_misses += 1;
        if self.paging.mode == PagingMode::None {
            return Ok(self.enter(linear, Leaf::identity(linear), access, rights));
        }
        if !self.canonical(linear) {
            return Err(Fault::GP0);
        }
        // What is cached may grant an access but never refuse one: a fault always comes from a
        // walk of the tables as they are.
        if let Some(leaf) = self.second.lookup(linear)
            && (access != Access::Write || leaf.dirty())
            && self.paging.check(leaf, access, rights).is_ok()
        {
            self.stats.second_level_hits += 1;
            self.check_stale(linear, leaf, access, rights);
            return Ok(self.enter(linear, leaf.small(linear), access, rights));
        }
        self.stats.walks += 1;
        match self.walker_for(&self.paging).walk(linear, access, rights) {
            Ok(leaf) => {
                self.second.insert(linear, leaf);
                Ok(self.enter(linear, leaf.small(linear), access, rights))
            }
            Err(code) => {
                // A page fault invalidates what is cached for its address (SDM vol. 3A,
                // section 4.10.4.1).
                self.invalidate(linear);
                self.stats.page_faults += 1;
                self.fault_address = linear;
                Err(Fault::page(code))
            }
        }
    }

    /// Fills the first-level TLB from the translation of a 4 KiB page.
    fn enter(&mut self, linear: u64, leaf: Leaf, access: Access, rights: Rights) -> Translated {
        let frame = leaf.frame() & self.a20;
        let gpa = frame | linear & 0xFFF;
        let flags = self.ram.flags(frame);
        if flags.has(PageFlags::RAM) {
            let grants = |access| self.paging.check(leaf, access, rights).is_ok();
            // Stores through a write tag are not seen one by one, so it needs the page's dirty
            // flag; a read alone does not set that.
            let seen = access == Access::Write || flags.has(PageFlags::DIRTY);
            // Strict mode looks at each access.
            let inline = self.stale.is_none();
            let write = inline && flags.plain() && leaf.dirty() && seen && grants(Access::Write);
            let fill = Fill {
                linear,
                gpa: frame,
                read: inline && grants(Access::Read),
                write,
                exec: grants(Access::Fetch),
                global: leaf.global(),
            };
            if write {
                self.ram.set_flags(frame, PageFlags::DIRTY);
            }
            self.keys_cached |= leaf.key() != 0;
            self.tlb.fill(rights, fill);
        }
        Translated { gpa, flags }
    }

    /// Translates an instruction address, at the current privilege.
    #[inline]
    pub fn fetch_translate(&mut self, linear: u64) -> Result<FetchPage, Fault> {
        // SAFETY: the index is below the table's length; only this thread uses the table.
        let entry = unsafe { *self.table.add(crate::tlb::index(linear)) };
        if linear & !0xFFF == entry.exec {
            let host = entry.page | linear & 0xFFF;
            return Ok(FetchPage { gpa: host.wrapping_sub(self.ram.base() as u64), ram: true });
        }
        let page = self.translate(linear, Access::Fetch, self.rights)?;
        Ok(FetchPage { gpa: page.gpa, ram: page.flags.has(PageFlags::RAM) })
    }

    /// Whether the instruction page of `linear`, which [`Mmu::fetch_translate`] has just
    /// translated, is global: it stays mapped when CR3 changes.
    pub fn fetch_is_global(&self, linear: u64) -> bool {
        self.tlb.is_global(self.rights, linear)
    }

    /// The rights of an implicit supervisor access to a system data structure: SMAP holds
    /// whatever EFLAGS.AC says (SDM vol. 3A, section 4.6.1).
    #[inline]
    pub(crate) fn system_rights(&self) -> Rights {
        self.paging.rights(0, false)
    }

    /// The rights of an explicit access at another CPL, with the current EFLAGS.AC.
    #[inline]
    pub(crate) fn rights_at(&self, cpl: u8) -> Rights {
        self.paging.rights(cpl, self.ac)
    }

    #[inline(always)]
    pub(crate) fn table_for(&self, rights: Rights) -> *mut TlbEntry {
        self.tlb.table(rights)
    }
}

impl Drop for Mmu {
    fn drop(&mut self) {
        self.ram.code.unregister(&self.mailbox);
    }
}
