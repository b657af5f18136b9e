//! A vCPU's memory management unit: paging state, flushes, translation.

use std::sync::Arc;

use thiserror::Error;
use x86::Fault;
use x86::control::{cr0, cr4, efer};

use crate::bus::PhysBus;
use crate::code::{CodeEvent, CodeWrite, Mailbox, for_each_page};
use crate::exit::ExitRequest;
use crate::low::LowError;
use crate::mapping::MappingChanges;
use crate::paging::{Access, Leaf, Paging, PagingMode, PagingState, Rights};
use crate::ram::{GuestRam, PAGE_SIZE, PageFlags};
use crate::second_level::SecondLevel;
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
    /// Set when a store hit cached code: `code_written` has entries. Engines check it after
    /// each instruction.
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
    paging: Paging,
    a20: u64,
    tlb: Tlb,
    second: SecondLevel,
    mailbox: Arc<Mailbox>,
    /// A translation with a protection key other than 0 may be in the first-level TLB.
    keys_cached: bool,
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

    fn invalidate(&mut self, linear: u64) {
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

    fn flush_pcid(&mut self, pcid: u16) {
        self.stats.flushes += 1;
        self.second.flush_pcid(pcid & 0xFFF);
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

    fn publish_generation(&mut self) {
        self.tlb.set_generation(self.second.generation());
    }

    fn drop_first_level(&mut self) {
        self.keys_cached = false;
        self.mapping_changes.all();
        self.tlb.drop_all();
    }

    fn drop_local(&mut self) {
        self.mapping_changes.local();
        self.tlb.drop_local();
    }

    fn walker_for<'a>(&'a self, paging: &'a Paging) -> Walker<'a> {
        Walker { ram: &self.ram, bus: &*self.bus, paging, a20: self.a20 }
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
            let write = flags.plain() && leaf.dirty() && seen && grants(Access::Write);
            let fill = Fill {
                linear,
                gpa: frame,
                read: grants(Access::Read),
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

    /// Marks the whole page of `gpa` as code: see [`Mmu::mark_code_range`], which is better.
    pub fn mark_code(&mut self, gpa: u64) {
        self.mark_code_range(gpa & !(PAGE_SIZE - 1), PAGE_SIZE);
    }

    /// Marks `len` bytes at `gpa` as cached code, before the engine decodes them. A later
    /// store to one of their 64-byte granules, by any vCPU or device, unmarks the granule and
    /// is reported by [`Mmu::take_code_writes`] on every vCPU; then the engine drops its
    /// blocks there. Ranges may be marked again and overlap.
    ///
    /// Other vCPUs lose their write tags when they read their mail. Before the engine decodes
    /// it waits for that with [`Mmu::wait_for_code_sync`]; alone, it need not.
    pub fn mark_code_range(&mut self, gpa: u64, len: u64) {
        let ram = self.ram.clone();
        for_each_page(gpa, len, |gpa, len| {
            if ram.mark_code_in_page(&self.mailbox, gpa, len) {
                self.tlb.drop_writes_to(gpa);
            }
        });
    }

    /// Reads the mail of other vCPUs and devices about code. The engine calls it when
    /// [`ExitRequest::CODE`] is set, and then looks at `code_dirty`.
    pub fn sync_code_pages(&mut self) {
        for event in self.mailbox.take() {
            match event {
                CodeEvent::Marked(gpa) => self.tlb.drop_writes_to(gpa),
                CodeEvent::Written(write) => {
                    if write == CodeWrite::EVERYTHING {
                        self.tlb.drop_writes();
                    }
                    self.report_code_write(write);
                }
            }
        }
        self.mailbox.done();
    }

    /// Waits until no other vCPU can store to a marked page unseen: each has read its mail or
    /// is parked. Reads the own mail meanwhile, since others may wait for this vCPU.
    pub fn wait_for_code_sync(&mut self) {
        while self.ram.code.others_lag(&self.mailbox) {
            self.sync_code_pages();
            std::thread::yield_now();
        }
    }

    /// Declares that this vCPU executes nothing for a while (HLT, stopped), so that nobody
    /// waits for it.
    pub fn park(&self) {
        self.mailbox.set_parked(true);
    }

    /// Ends [`Mmu::park`] and reads the mail.
    pub fn unpark(&mut self) {
        self.mailbox.set_parked(false);
        self.sync_code_pages();
    }

    /// Takes the list of invalid code and clears `code_dirty`.
    pub fn take_code_writes(&mut self) -> Vec<CodeWrite> {
        self.code_dirty = false;
        std::mem::take(&mut self.code_written)
    }

    fn report_code_write(&mut self, write: CodeWrite) {
        self.stats.code_writes += 1;
        self.code_dirty = true;
        if self.code_written.last() != Some(&write) {
            self.code_written.push(write);
        }
    }

    /// After a store on the slow path to `len` bytes of RAM within one page.
    pub(crate) fn note_write(&mut self, gpa: u64, len: u64, flags: PageFlags) {
        if flags.has(PageFlags::HAS_CODE) {
            self.stats.code_page_stores += 1;
        }
        if let Some(write) = self.ram.note_write_in_page(Some(&self.mailbox), gpa, len) {
            self.report_code_write(write);
        }
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
