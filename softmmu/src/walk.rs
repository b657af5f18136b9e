//! Page walks (SDM vol. 3A, sections 4.3 to 4.8).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use x86::control::{cr4, efer};
use x86::fault::pf;

use crate::bus::PhysBus;
use crate::paging::{Access, Leaf, Paging, PagingMode, Rights};
use crate::ram::{GuestRam, PageFlags};

/// Bits of paging-structure entries.
pub mod entry {
    /// Present.
    pub const P: u64 = 1 << 0;
    /// Writable.
    pub const RW: u64 = 1 << 1;
    /// User.
    pub const US: u64 = 1 << 2;
    /// Accessed.
    pub const A: u64 = 1 << 5;
    /// Dirty.
    pub const D: u64 = 1 << 6;
    /// Page size: the entry maps a large page.
    pub const PS: u64 = 1 << 7;
    /// Global.
    pub const G: u64 = 1 << 8;
    /// Execute-disable.
    pub const XD: u64 = 1 << 63;
    /// Shift of the protection key.
    pub const KEY_SHIFT: u32 = 59;
    /// Address of the next table or of a 4 KiB page.
    pub const FRAME: u64 = 0x000F_FFFF_FFFF_F000;
}
use entry::{A, D, FRAME, G, KEY_SHIFT, P, PS, RW, US, XD};

/// Bits that are reserved in a PDPTE register: 2:1 and 8:5 (SDM vol. 3A, table 4-8), besides
/// the address bits beyond MAXPHYADDR.
const PDPTE_RESERVED: u64 = 0x1E6 | 0xFFF0_0000_0000_0000;

/// Where an entry was read.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) gpa: u64,
    /// 4 or 8 bytes.
    pub(crate) size: u64,
}

/// One walk's view of memory.
pub(crate) struct Walker<'a> {
    pub(crate) ram: &'a GuestRam,
    pub(crate) bus: &'a dyn PhysBus,
    pub(crate) paging: &'a Paging,
    /// Address bits that the A20 gate lets through.
    pub(crate) a20: u64,
    /// Leaves accessed and dirty flags as they are.
    pub(crate) observes: bool,
}

/// Why a walk ended: a page-fault error code, or an entry that changed under the walk.
enum Stop {
    Fault(u32),
    Changed,
}

impl Walker<'_> {
    /// Translates `linear`, sets accessed and dirty flags, checks rights. `Err` is the error
    /// code of a page fault.
    pub(crate) fn walk(&self, linear: u64, access: Access, rights: Rights) -> Result<Leaf, u32> {
        loop {
            let result = match self.paging.mode {
                PagingMode::None => return Ok(Leaf::identity(linear)),
                PagingMode::Legacy32 => self.legacy32(linear, access, rights),
                PagingMode::Pae => self.pae(linear, access, rights),
                PagingMode::Level4 => self.long(linear, access, rights, 4),
                PagingMode::Level5 => self.long(linear, access, rights, 5),
            };
            match result {
                Ok(leaf) => return Ok(leaf),
                Err(Stop::Fault(code)) => return Err(code),
                // Another vCPU changed an entry between our read and our update of its A or D
                // flag. Each retry means that somebody made progress.
                Err(Stop::Changed) => {}
            }
        }
    }

    /// Reads the four PDPTEs of PAE paging. `None` if one has a reserved bit set, which is
    /// #GP(0) in the instruction that loads them (SDM vol. 3A, section 4.4.1).
    pub(crate) fn read_pdptes(&self) -> Option<[u64; 4]> {
        let table = self.paging.state.cr3 & 0xFFFF_FFE0;
        let mut pdptes = [0; 4];
        for (index, pdpte) in pdptes.iter_mut().enumerate() {
            *pdpte = self.read(Slot { gpa: table + index as u64 * 8, size: 8 });
            let reserved = PDPTE_RESERVED | self.paging.beyond_maxphyaddr;
            if *pdpte & P != 0 && *pdpte & reserved != 0 {
                return None;
            }
        }
        Some(pdptes)
    }

    /// The bits that must be clear in a present entry at `level` (1 is the page table) that
    /// maps a large page or not (SDM vol. 3A, tables 4-5 to 4-20).
    pub(crate) fn reserved_bits(&self, level: u32, large: bool) -> u64 {
        let beyond = self.paging.beyond_maxphyaddr;
        if self.paging.mode == PagingMode::Legacy32 {
            // Of a 4 MiB page: bit 21, and the part of bits 20:13 (address bits 39:32) that
            // MAXPHYADDR leaves out.
            return if large { 1 << 21 | (beyond >> 32 & 0xFF) << 13 } else { 0 };
        }
        let nx = self.paging.state.efer & efer::NXE != 0;
        let pae = self.paging.mode == PagingMode::Pae;
        let common = beyond | if nx { 0 } else { XD } | if pae { 0x7FF0_0000_0000_0000 } else { 0 };
        match (level, large) {
            // Below the address of a large page only bit 12 (PAT) has a meaning.
            (2, true) => common | 0x1F_E000,
            (3, true) if self.paging.state.without_1gib_pages => common | PS,
            (3, true) => common | 0x3FFF_E000,
            // PS is reserved above the levels that map pages.
            (_, true) => common | PS,
            (_, false) => common,
        }
    }

    fn legacy32(&self, linear: u64, access: Access, rights: Rights) -> Result<Leaf, Stop> {
        let cr3 = self.paging.state.cr3 & 0xFFFF_F000;
        let slot = Slot { gpa: cr3 + (linear >> 22 & 0x3FF) * 4, size: 4 };
        let pde = self.present(slot, access, rights)?;
        if pde & PS != 0 && self.paging.state.cr4 & cr4::PSE != 0 {
            if pde & self.reserved_bits(2, true) != 0 {
                return self.reserved(access, rights);
            }
            // PSE-36: bits 20:13 are address bits 39:32.
            let high = (pde >> 13 & 0xFF) << 32;
            let half = linear & 1 << 21;
            let frame = high | pde & 0xFFC0_0000 | half;
            let leaf = Leaf(frame | Leaf::LARGE | self.leaf_flags(pde, pde, pde));
            return self.finish(slot, pde, leaf, access, rights);
        }
        self.set_accessed(slot, pde)?;
        let slot = Slot { gpa: (pde & 0xFFFF_F000) + (linear >> 12 & 0x3FF) * 4, size: 4 };
        let pte = self.present(slot, access, rights)?;
        let leaf = Leaf(pte & 0xFFFF_F000 | self.leaf_flags(pte, pde & pte, 0));
        self.finish(slot, pte, leaf, access, rights)
    }

    fn pae(&self, linear: u64, access: Access, rights: Rights) -> Result<Leaf, Stop> {
        let pdpte = self.paging.pdpte[(linear >> 30 & 3) as usize];
        if pdpte & P == 0 {
            return Err(Stop::Fault(self.paging.attempt(access, rights)));
        }
        self.levels(linear, access, rights, pdpte & FRAME, 2)
    }

    fn long(&self, linear: u64, access: Access, rights: Rights, top: u32) -> Result<Leaf, Stop> {
        self.levels(linear, access, rights, self.paging.state.cr3 & FRAME, top)
    }

    /// Walks tables of 512 eight-byte entries from level `top` (1 is the page table).
    fn levels(
        &self,
        linear: u64,
        access: Access,
        rights: Rights,
        root: u64,
        top: u32,
    ) -> Result<Leaf, Stop> {
        let mut table = root;
        // R/W and U/S hold if set at every level, XD if set at any.
        let mut all = !0;
        let mut any = 0;
        for level in (1..=top).rev() {
            let shift = 12 + 9 * (level - 1);
            let slot = Slot { gpa: table + (linear >> shift & 0x1FF) * 8, size: 8 };
            let value = self.present(slot, access, rights)?;
            all &= value;
            any |= value;
            let large = value & PS != 0 && level > 1;
            if value & self.reserved_bits(level, large) != 0 {
                return self.reserved(access, rights);
            }
            if level > 1 && !large {
                self.set_accessed(slot, value)?;
                table = value & FRAME;
                continue;
            }
            let size = match level {
                3 => Leaf::HUGE,
                2 => Leaf::LARGE,
                _ => 0,
            };
            let frame = value & FRAME & !((1 << shift) - 1);
            let leaf = Leaf(frame | size | self.leaf_flags(value, all, any));
            return self.finish(slot, value, leaf, access, rights);
        }
        // The loop ends at level 1 at the latest.
        Err(Stop::Changed)
    }

    /// Attributes of a leaf from its own entry and the conjunction and union of all levels.
    fn leaf_flags(&self, own: u64, all: u64, any: u64) -> u64 {
        let mut flags = 0;
        if all & RW != 0 {
            flags |= Leaf::WRITABLE;
        }
        if all & US != 0 {
            flags |= Leaf::USER;
        }
        if self.paging.mode != PagingMode::Legacy32 && any & XD != 0 {
            flags |= Leaf::NO_EXECUTE;
        }
        if own & D != 0 {
            flags |= Leaf::DIRTY;
        }
        if own & G != 0 && self.paging.state.cr4 & cr4::PGE != 0 {
            flags |= Leaf::GLOBAL;
        }
        if matches!(self.paging.mode, PagingMode::Level4 | PagingMode::Level5) {
            // Kept even while CR4.PKE is clear: setting it flushes nothing.
            flags |= (own >> KEY_SHIFT & 15) << Leaf::KEY_SHIFT;
        }
        flags
    }

    fn reserved<T>(&self, access: Access, rights: Rights) -> Result<T, Stop> {
        Err(Stop::Fault(pf::PRESENT | pf::RESERVED | self.paging.attempt(access, rights)))
    }

    /// Reads an entry that must be present.
    fn present(&self, slot: Slot, access: Access, rights: Rights) -> Result<u64, Stop> {
        let value = self.read(slot);
        if value & P == 0 {
            return Err(Stop::Fault(self.paging.attempt(access, rights)));
        }
        Ok(value)
    }

    /// Checks rights and sets the flags of the entry that maps the page. A and D stay as they
    /// are when the access faults.
    fn finish(
        &self,
        slot: Slot,
        value: u64,
        mut leaf: Leaf,
        access: Access,
        rights: Rights,
    ) -> Result<Leaf, Stop> {
        self.paging.check(leaf, access, rights).map_err(Stop::Fault)?;
        let mut set = A;
        if access == Access::Write {
            set |= D;
            leaf.0 |= Leaf::DIRTY;
        }
        if value & set != set {
            self.update(slot, value, value | set)?;
        }
        Ok(leaf)
    }

    fn set_accessed(&self, slot: Slot, value: u64) -> Result<(), Stop> {
        if value & A == 0 { self.update(slot, value, value | A) } else { Ok(()) }
    }

    pub(crate) fn read(&self, slot: Slot) -> u64 {
        let gpa = slot.gpa & self.a20;
        match self.ram.host_ptr(gpa) {
            // SAFETY: the slot is aligned to its size, so it lies inside one page of RAM; the
            // pointer is aligned and only atomic accesses go through the reference.
            Some(pointer) => unsafe {
                if slot.size == 4 {
                    u64::from(AtomicU32::from_ptr(pointer.cast()).load(Ordering::Acquire))
                } else {
                    AtomicU64::from_ptr(pointer.cast()).load(Ordering::Acquire)
                }
            },
            None => {
                let mut bytes = [0; 8];
                if let Some(bytes) = bytes.get_mut(..slot.size as usize) {
                    self.bus.mmio_read(gpa, bytes);
                }
                u64::from_le_bytes(bytes)
            }
        }
    }

    /// Sets flags in an entry by compare-exchange.
    fn update(&self, slot: Slot, old: u64, new: u64) -> Result<(), Stop> {
        if self.observes {
            return Ok(());
        }
        let gpa = slot.gpa & self.a20;
        let Some(pointer) = self.ram.host_ptr(gpa) else {
            // Paging structures in device memory: the flags are written like any store.
            if let Some(bytes) = new.to_le_bytes().get(..slot.size as usize) {
                self.bus.mmio_write(gpa, bytes);
            }
            return Ok(());
        };
        if self.ram.flags(gpa).has(PageFlags::ROM) {
            return Ok(());
        }
        self.ram.set_flags(gpa, PageFlags::DIRTY);
        // SAFETY: as in `read`.
        let swapped = unsafe {
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            if slot.size == 4 {
                AtomicU32::from_ptr(pointer.cast())
                    .compare_exchange(old as u32, new as u32, success, failure)
                    .is_ok()
            } else {
                AtomicU64::from_ptr(pointer.cast())
                    .compare_exchange(old, new, success, failure)
                    .is_ok()
            }
        };
        if swapped { Ok(()) } else { Err(Stop::Changed) }
    }
}
