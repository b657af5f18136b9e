//! The first-level TLB: three direct-mapped tables that translated code reads inline.
//!
//! A tag is the linear address of a page, so that `linear ^ tag` is the offset in the page on
//! a hit and at least 4096 otherwise; comparing it with `4096 - size` folds the check for a
//! page crossing into the check for a hit. The tables carry no PCID: a change of address space
//! drops the entries that are not global, whose slots a bitmap lists.

use crate::low::{LowBox, LowError};
use crate::paging::Rights;

/// Entries per table, a power of two.
pub const TLB_ENTRIES: usize = 4096;
/// Tables: one for each value of [`Rights`].
pub const TLB_TABLES: usize = 3;

const SLOTS: usize = TLB_ENTRIES * TLB_TABLES;
const WORDS: usize = SLOTS / 64;
/// Heads of the chains of slots that hold a write tag for a physical page.
const BUCKETS: usize = 4096;
const END: u16 = u16::MAX;

/// One entry. A tag of an access that the page does not grant is [`absent`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TlbEntry {
    /// Tag for data reads.
    pub read: u64,
    /// Tag for data writes. Present only if the dirty flag is set and the page is plain RAM
    /// without cached code.
    pub write: u64,
    /// Tag for instruction fetches.
    pub exec: u64,
    /// Host address of the page.
    pub page: u64,
}

/// The index of the entry for a linear address.
#[inline(always)]
pub const fn index(linear: u64) -> usize {
    (linear >> 12) as usize & (TLB_ENTRIES - 1)
}

/// A tag that no address with this index matches: it belongs to another index.
#[inline(always)]
pub const fn absent(index: usize) -> u64 {
    if index == 0 { 0x1000 } else { 0 }
}

/// The tables, as they lie in low memory.
#[repr(C)]
pub struct TlbTables {
    entries: [[TlbEntry; TLB_ENTRIES]; TLB_TABLES],
    /// `Mmu::fetch_generation`.
    generation: u64,
}

/// The tables of a vCPU and what is needed to drop entries.
pub(crate) struct Tlb {
    tables: LowBox<TlbTables>,
    /// Slots in use whose translation is not global.
    local: Box<[u64; WORDS]>,
    /// Slots in use whose translation is global.
    global: Box<[u64; WORDS]>,
    /// Chains of the slots with a write tag, by physical page.
    heads: Box<[u16; BUCKETS]>,
    next: Box<[u16; SLOTS]>,
    prev: Box<[u16; SLOTS]>,
    /// Host address of guest-physical address 0.
    base: u64,
}

/// What [`Tlb::fill`] enters.
#[derive(Clone, Copy)]
pub(crate) struct Fill {
    pub(crate) linear: u64,
    /// Frame address.
    pub(crate) gpa: u64,
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) exec: bool,
    pub(crate) global: bool,
}

impl Tlb {
    /// Empty tables; `base` is the host address of guest-physical address 0.
    pub(crate) fn new(base: *mut u8) -> Result<Tlb, LowError> {
        // SAFETY: integers may be zero.
        let tables = unsafe { LowBox::<TlbTables>::zeroed()? };
        let tlb = Tlb {
            tables,
            local: Box::new([0; WORDS]),
            global: Box::new([0; WORDS]),
            heads: Box::new([END; BUCKETS]),
            next: Box::new([END; SLOTS]),
            prev: Box::new([END; SLOTS]),
            base: base as u64,
        };
        for rights in Rights::ALL {
            // Zero is the absent tag of every index but 0.
            tlb.clear_entry(tlb.slot(rights, 0));
        }
        Ok(tlb)
    }

    /// The first entry of the table for `rights`.
    #[inline(always)]
    pub(crate) fn table(&self, rights: Rights) -> *mut TlbEntry {
        self.tables.as_ptr().cast::<TlbEntry>().wrapping_add(rights as usize * TLB_ENTRIES)
    }

    /// The host address of the table for `rights`, below 2 GiB.
    pub(crate) fn table_address(&self, rights: Rights) -> u32 {
        self.tables.address() + (rights as usize * TLB_ENTRIES * size_of::<TlbEntry>()) as u32
    }

    /// The host address of the generation word.
    pub(crate) fn generation_address(&self) -> u32 {
        self.tables.address() + std::mem::offset_of!(TlbTables, generation) as u32
    }

    pub(crate) fn set_generation(&mut self, generation: u64) {
        self.tables.generation = generation;
    }

    fn slot(&self, rights: Rights, linear: u64) -> usize {
        rights as usize * TLB_ENTRIES + index(linear)
    }

    fn entry(&self, slot: usize) -> *mut TlbEntry {
        debug_assert!(slot < SLOTS);
        self.tables.as_ptr().cast::<TlbEntry>().wrapping_add(slot)
    }

    fn read_entry(&self, slot: usize) -> TlbEntry {
        // SAFETY: slots lie inside the tables, which only this thread uses.
        unsafe { self.entry(slot).read() }
    }

    fn clear_entry(&self, slot: usize) {
        let tag = absent(slot % TLB_ENTRIES);
        // SAFETY: slots lie inside the tables, which only this thread uses.
        unsafe { self.entry(slot).write(TlbEntry { read: tag, write: tag, exec: tag, page: 0 }) };
    }

    /// Enters a translation in the table for `rights`.
    pub(crate) fn fill(&mut self, rights: Rights, fill: Fill) {
        let slot = self.slot(rights, fill.linear);
        let page = fill.linear & !0xFFF;
        let absent = absent(index(page));
        let tag = |granted| if granted { page } else { absent };
        let entry = TlbEntry {
            read: tag(fill.read),
            write: tag(fill.write),
            exec: tag(fill.exec),
            page: self.base.wrapping_add(fill.gpa),
        };
        if self.read_entry(slot) != entry {
            self.unlink(slot);
            // SAFETY: slots lie inside the tables, which only this thread uses.
            unsafe { self.entry(slot).write(entry) };
            if fill.write {
                self.link(slot, fill.gpa);
            }
        }
        let (word, bit) = (slot / 64, 1 << (slot % 64));
        if fill.global {
            self.global[word] |= bit;
            self.local[word] &= !bit;
        } else {
            self.local[word] |= bit;
            self.global[word] &= !bit;
        }
    }

    /// Whether the slot for `linear` holds a global translation.
    pub(crate) fn is_global(&self, rights: Rights, linear: u64) -> bool {
        let slot = self.slot(rights, linear);
        self.global[slot / 64] >> (slot % 64) & 1 != 0
    }

    /// Drops one entry if its tag is for this page.
    pub(crate) fn drop_page(&mut self, linear: u64) {
        for rights in Rights::ALL {
            self.drop_slot_of(self.slot(rights, linear), linear);
        }
    }

    fn drop_slot_of(&mut self, slot: usize, linear: u64) {
        let page = linear & !0xFFF;
        let entry = self.read_entry(slot);
        if entry.read == page || entry.write == page || entry.exec == page {
            self.drop_slot(slot);
        }
    }

    /// Drops the entries of `size` bytes (a power of two, at least a page) around `linear`. Costs
    /// what is in use at the region's indices, not the region's size.
    pub(crate) fn drop_region(&mut self, linear: u64, size: u64) {
        let start = linear & !(size - 1);
        let pages = (size / 4096).min(TLB_ENTRIES as u64) as usize;
        for rights in Rights::ALL {
            // The region's indices do not wrap: their number is a power of two, and the first is a
            // multiple of it.
            let first = self.slot(rights, start);
            let end = first + pages;
            for word in first / 64..end.div_ceil(64) {
                let mut used = self.local[word] | self.global[word];
                while used != 0 {
                    let slot = word * 64 + used.trailing_zeros() as usize;
                    used &= used - 1;
                    // An absent tag is a page's of another index.
                    let inside =
                        |tag: u64| tag & !(size - 1) == start && index(tag) == slot % TLB_ENTRIES;
                    let entry = self.read_entry(slot);
                    if inside(entry.read) || inside(entry.write) || inside(entry.exec) {
                        self.drop_slot(slot);
                    }
                }
            }
        }
    }

    fn drop_slot(&mut self, slot: usize) {
        self.unlink(slot);
        self.clear_entry(slot);
        let (word, bit) = (slot / 64, 1 << (slot % 64));
        self.local[word] &= !bit;
        self.global[word] &= !bit;
    }

    /// Drops the entries that are not global.
    pub(crate) fn drop_local(&mut self) {
        for word in 0..WORDS {
            let mut bits = std::mem::take(&mut self.local[word]);
            while bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                self.unlink(slot);
                self.clear_entry(slot);
            }
        }
    }

    /// Drops everything.
    pub(crate) fn drop_all(&mut self) {
        for (local, global) in self.local.iter_mut().zip(self.global.iter_mut()) {
            *local |= std::mem::take(global);
        }
        self.drop_local();
    }

    /// Drops the write tags of a physical page.
    pub(crate) fn drop_writes_to(&mut self, gpa: u64) {
        let host = self.base.wrapping_add(gpa & !0xFFF);
        let mut slot = self.heads[bucket(gpa)];
        while slot != END {
            let current = usize::from(slot);
            slot = self.next[current];
            let entry = self.read_entry(current);
            if entry.page == host {
                self.drop_write(current);
            }
        }
    }

    /// Drops all write tags.
    pub(crate) fn drop_writes(&mut self) {
        for head in 0..BUCKETS {
            while self.heads[head] != END {
                self.drop_write(usize::from(self.heads[head]));
            }
        }
    }

    fn drop_write(&mut self, slot: usize) {
        self.unlink(slot);
        // SAFETY: slots lie inside the tables, which only this thread uses.
        unsafe { (*self.entry(slot)).write = absent(slot % TLB_ENTRIES) };
    }

    fn link(&mut self, slot: usize, gpa: u64) {
        let head = bucket(gpa);
        let next = std::mem::replace(&mut self.heads[head], slot as u16);
        self.next[slot] = next;
        self.prev[slot] = END;
        if next != END {
            self.prev[usize::from(next)] = slot as u16;
        }
    }

    /// Takes a slot out of the chain that its write tag put it in.
    fn unlink(&mut self, slot: usize) {
        let entry = self.read_entry(slot);
        if entry.write == absent(slot % TLB_ENTRIES) {
            return;
        }
        let gpa = entry.page.wrapping_sub(self.base);
        let (prev, next) = (self.prev[slot], self.next[slot]);
        if prev == END {
            self.heads[bucket(gpa)] = next;
        } else {
            self.next[usize::from(prev)] = next;
        }
        if next != END {
            self.prev[usize::from(next)] = prev;
        }
    }
}

fn bucket(gpa: u64) -> usize {
    (gpa >> 12) as usize & (BUCKETS - 1)
}
