//! Loads, stores and read-modify-writes of one operand.
//!
//! The inlined part is the TLB hit. Everything else is one outlined function per width.

use std::sync::PoisonError;

use x86::Fault;

use crate::host;
use crate::mmu::{Mmu, Translated};
use crate::paging::{Access, Rights};
use crate::ram::{PAGE_SIZE, PageFlags};
use crate::tlb::{TlbEntry, index};
use crate::width::Width;

/// Bytes that the host accesses atomically even when misaligned.
const HOST_LINE: u64 = 64;

/// An operand that crosses a page: its translated halves.
struct Crossing {
    first: Translated,
    second: Translated,
    /// Bytes in the first page.
    split: usize,
}

#[inline(always)]
fn limit<T: Width>() -> u64 {
    PAGE_SIZE - u64::from(T::SIZE)
}

/// The host address on a read hit.
#[inline(always)]
fn read_hit<T: Width>(table: *mut TlbEntry, linear: u64) -> Option<*mut u8> {
    // SAFETY: the index is below the table's length; only the vCPU's thread uses the table.
    let entry = unsafe { &*table.add(index(linear)) };
    let offset = linear ^ entry.read;
    if offset <= limit::<T>() { Some(entry.page.wrapping_add(offset) as *mut u8) } else { None }
}

/// The host address on a write hit.
#[inline(always)]
fn write_hit<T: Width>(table: *mut TlbEntry, linear: u64) -> Option<*mut u8> {
    // SAFETY: the index is below the table's length; only the vCPU's thread uses the table.
    let entry = unsafe { &*table.add(index(linear)) };
    let offset = linear ^ entry.write;
    if offset <= limit::<T>() { Some(entry.page.wrapping_add(offset) as *mut u8) } else { None }
}

/// Reads, modifies and writes a word of RAM. Returns the old value.
///
/// # Safety
/// `pointer` must be valid for `T::SIZE` bytes.
#[inline(always)]
unsafe fn modify_host<T: Width>(
    pointer: *mut u8,
    atomic: bool,
    mut f: impl FnMut(T) -> Option<T>,
) -> T {
    // SAFETY: the caller's.
    unsafe {
        let mut old = host::load::<T>(pointer);
        loop {
            let Some(new) = f(old) else { return old };
            if !atomic {
                host::store::<T>(pointer, new);
                return old;
            }
            let seen = host::compare_exchange::<T>(pointer, old, new);
            if seen == old {
                return old;
            }
            old = seen;
        }
    }
}

fn splits_line(pointer: *mut u8, size: usize) -> bool {
    pointer as u64 % HOST_LINE + size as u64 > HOST_LINE
}

impl Mmu {
    /// Reads an operand at the current privilege.
    #[inline(always)]
    pub fn load<T: Width>(&mut self, linear: u64) -> Result<T, Fault> {
        match read_hit::<T>(self.table, linear) {
            // SAFETY: a hit lies inside a page of RAM.
            Some(pointer) => Ok(unsafe { host::load(pointer) }),
            None => self.load_slow(linear, self.rights),
        }
    }

    /// Writes an operand at the current privilege.
    #[inline(always)]
    pub fn store<T: Width>(&mut self, linear: u64, value: T) -> Result<(), Fault> {
        match write_hit::<T>(self.table, linear) {
            // SAFETY: a hit lies inside a page of RAM.
            Some(pointer) => unsafe { host::store(pointer, value) },
            None => return self.store_slow(linear, self.rights, value),
        }
        Ok(())
    }

    /// Reads an operand, writes `f` of it and returns the old value. The right to write is
    /// checked first, so that a fault reports a write. `locked` makes it atomic: `f` may then
    /// run more than once, and only its last run counts.
    #[inline(always)]
    pub fn modify<T: Width>(
        &mut self,
        linear: u64,
        locked: bool,
        mut f: impl FnMut(T) -> T,
    ) -> Result<T, Fault> {
        self.try_modify(linear, locked, |old| Some(f(old)))
    }

    /// [`Mmu::modify`] that writes nothing where `f` gives `None`.
    #[inline(always)]
    pub fn try_modify<T: Width>(
        &mut self,
        linear: u64,
        locked: bool,
        mut f: impl FnMut(T) -> Option<T>,
    ) -> Result<T, Fault> {
        match write_hit::<T>(self.table, linear) {
            Some(pointer) if !locked || !splits_line(pointer, T::SIZE as usize) => {
                // SAFETY: a hit lies inside a page of RAM.
                Ok(unsafe { modify_host(pointer, locked, f) })
            }
            _ => self.modify_slow(linear, locked, &mut f),
        }
    }

    /// Reads a system data structure (descriptor table, TSS): supervisor mode whatever the
    /// CPL, under SMAP whatever EFLAGS.AC.
    #[inline]
    pub fn load_system<T: Width>(&mut self, linear: u64) -> Result<T, Fault> {
        self.load_with(self.system_rights(), linear)
    }

    /// Writes a system data structure.
    #[inline]
    pub fn store_system<T: Width>(&mut self, linear: u64, value: T) -> Result<(), Fault> {
        self.store_with(self.system_rights(), linear, value)
    }

    /// Reads with the rights of another CPL.
    #[inline]
    pub fn load_as<T: Width>(&mut self, cpl: u8, linear: u64) -> Result<T, Fault> {
        self.load_with(self.rights_at(cpl), linear)
    }

    /// Writes with the rights of another CPL (stack pushes of an event that changes CPL).
    #[inline]
    pub fn store_as<T: Width>(&mut self, cpl: u8, linear: u64, value: T) -> Result<(), Fault> {
        self.store_with(self.rights_at(cpl), linear, value)
    }

    #[inline]
    fn load_with<T: Width>(&mut self, rights: Rights, linear: u64) -> Result<T, Fault> {
        match read_hit::<T>(self.table_for(rights), linear) {
            // SAFETY: a hit lies inside a page of RAM.
            Some(pointer) => Ok(unsafe { host::load(pointer) }),
            None => self.load_slow(linear, rights),
        }
    }

    #[inline]
    fn store_with<T: Width>(&mut self, rights: Rights, linear: u64, v: T) -> Result<(), Fault> {
        match write_hit::<T>(self.table_for(rights), linear) {
            // SAFETY: a hit lies inside a page of RAM.
            Some(pointer) => unsafe { host::store(pointer, v) },
            None => return self.store_slow(linear, rights, v),
        }
        Ok(())
    }

    /// The address at which an access goes on behind `linear`.
    pub(crate) fn advance(&self, linear: u64, by: u64) -> u64 {
        let next = linear.wrapping_add(by);
        if linear <= self.linear_mask { next & self.linear_mask } else { next }
    }

    /// Bytes from `linear` to the end of its page.
    pub(crate) fn page_rest(linear: u64) -> usize {
        (PAGE_SIZE - linear % PAGE_SIZE) as usize
    }

    fn crossing(&mut self, linear: u64, access: Access, rights: Rights) -> Result<Crossing, Fault> {
        self.stats.page_crossings += 1;
        let split = Self::page_rest(linear);
        let first = self.translate_cached(linear, access, rights)?;
        let second = self.translate_cached(self.advance(linear, split as u64), access, rights)?;
        Ok(Crossing { first, second, split })
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn load_slow<T: Width>(&mut self, linear: u64, rights: Rights) -> Result<T, Fault> {
        let mut bytes = [0u8; 8];
        if Self::page_rest(linear) >= T::SIZE as usize {
            let page = self.translate(linear, Access::Read, rights)?;
            if let Some(pointer) = self.ram_ptr(page) {
                // SAFETY: the operand lies inside one page of RAM.
                return Ok(unsafe { host::load(pointer) });
            }
            self.read_translated(page, &mut bytes[..T::SIZE as usize]);
        } else {
            let pages = self.crossing(linear, Access::Read, rights)?;
            let (low, high) = bytes[..T::SIZE as usize].split_at_mut(pages.split);
            self.read_translated(pages.first, low);
            self.read_translated(pages.second, high);
        }
        Ok(T::from_u64(u64::from_le_bytes(bytes)))
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn store_slow<T: Width>(
        &mut self,
        linear: u64,
        rights: Rights,
        value: T,
    ) -> Result<(), Fault> {
        let bytes = value.to_u64().to_le_bytes();
        if Self::page_rest(linear) >= T::SIZE as usize {
            let page = self.translate(linear, Access::Write, rights)?;
            match self.ram_ptr(page) {
                Some(pointer) if !page.flags.has(PageFlags::ROM) => {
                    // SAFETY: the operand lies inside one page of RAM.
                    unsafe { host::store(pointer, value) };
                    self.note_write(page.gpa, u64::from(T::SIZE), page.flags);
                }
                _ => self.write_translated(page, &bytes[..T::SIZE as usize]),
            }
        } else {
            let pages = self.crossing(linear, Access::Write, rights)?;
            let (low, high) = bytes[..T::SIZE as usize].split_at(pages.split);
            self.write_translated(pages.first, low);
            self.write_translated(pages.second, high);
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn modify_slow<T: Width>(
        &mut self,
        linear: u64,
        locked: bool,
        f: &mut dyn FnMut(T) -> Option<T>,
    ) -> Result<T, Fault> {
        let rights = self.rights;
        let crosses = Self::page_rest(linear) < T::SIZE as usize;
        let pages = if crosses {
            self.crossing(linear, Access::Write, rights)?
        } else {
            let first = self.translate(linear, Access::Write, rights)?;
            Crossing { first, second: first, split: T::SIZE as usize }
        };
        if !crosses
            && !pages.first.flags.has(PageFlags::ROM)
            && let Some(pointer) = self.ram_ptr(pages.first)
            && !(locked && splits_line(pointer, T::SIZE as usize))
        {
            // SAFETY: the operand lies inside one page of RAM.
            let old = unsafe { modify_host(pointer, locked, f) };
            self.note_write(pages.first.gpa, u64::from(T::SIZE), pages.first.flags);
            return Ok(old);
        }
        // Device memory, ROM, and operands that no single host instruction accesses
        // atomically: locked accesses exclude each other.
        let ram = self.ram.clone();
        let _guard = locked.then(|| ram.split_lock.lock().unwrap_or_else(PoisonError::into_inner));
        let mut bytes = [0u8; 8];
        let (low, high) = bytes[..T::SIZE as usize].split_at_mut(pages.split);
        self.read_translated(pages.first, low);
        if crosses {
            self.read_translated(pages.second, high);
        }
        let old = T::from_u64(u64::from_le_bytes(bytes));
        if let Some(new) = f(old) {
            let bytes = new.to_u64().to_le_bytes();
            let (low, high) = bytes[..T::SIZE as usize].split_at(pages.split);
            self.write_translated(pages.first, low);
            if crosses {
                self.write_translated(pages.second, high);
            }
        }
        Ok(old)
    }

    /// CMPXCHG16B: compares 16 bytes with `expected`, writes `new` if they are equal, and
    /// returns what memory held. Like the instruction, it needs the right to write either
    /// way. `linear` must be 16-byte aligned (the instruction takes #GP(0) otherwise).
    pub fn compare_exchange16(
        &mut self,
        linear: u64,
        expected: u128,
        new: u128,
    ) -> Result<u128, Fault> {
        if !linear.is_multiple_of(16) {
            return Err(Fault::GP0);
        }
        if let Some(pointer) = write_hit::<u64>(self.table, linear) {
            // SAFETY: 16 aligned bytes inside a page of RAM.
            return Ok(unsafe { host::compare_exchange16(pointer, expected, new) });
        }
        let page = self.translate(linear, Access::Write, self.rights)?;
        match self.ram_ptr(page) {
            Some(pointer) if !page.flags.has(PageFlags::ROM) => {
                // SAFETY: 16 aligned bytes inside a page of RAM.
                let old = unsafe { host::compare_exchange16(pointer, expected, new) };
                self.note_write(page.gpa, 16, page.flags);
                Ok(old)
            }
            _ => {
                let ram = self.ram.clone();
                let _guard = ram.split_lock.lock().unwrap_or_else(PoisonError::into_inner);
                let mut bytes = [0; 16];
                self.read_translated(page, &mut bytes);
                let old = u128::from_le_bytes(bytes);
                let write = if old == expected { new } else { old };
                self.write_translated(page, &write.to_le_bytes());
                Ok(old)
            }
        }
    }

    #[inline]
    pub(crate) fn ram_ptr(&self, page: Translated) -> Option<*mut u8> {
        if page.flags.has(PageFlags::RAM) {
            Some(self.ram.base().wrapping_add(page.gpa as usize))
        } else {
            None
        }
    }

    /// Reads bytes that do not leave the page.
    pub(crate) fn read_translated(&mut self, page: Translated, data: &mut [u8]) {
        match self.ram_ptr(page) {
            // SAFETY: the bytes lie inside one page of RAM.
            Some(pointer) => unsafe { host::copy(data.as_mut_ptr(), pointer, data.len()) },
            None => {
                let mut gpa = page.gpa;
                let mut rest = data;
                while !rest.is_empty() {
                    let (piece, tail) = rest.split_at_mut(bus_size(gpa, rest.len()));
                    self.stats.mmio += 1;
                    self.bus.mmio_read(gpa, piece);
                    gpa = gpa.wrapping_add(piece.len() as u64);
                    rest = tail;
                }
            }
        }
    }

    /// Writes bytes that do not leave the page. ROM stays as it is.
    pub(crate) fn write_translated(&mut self, page: Translated, data: &[u8]) {
        if page.flags.has(PageFlags::ROM) || data.is_empty() {
            return;
        }
        match self.ram_ptr(page) {
            Some(pointer) => {
                // SAFETY: the bytes lie inside one page of RAM.
                unsafe { host::copy(pointer, data.as_ptr(), data.len()) };
                self.note_write(page.gpa, data.len() as u64, page.flags);
            }
            None => {
                let mut gpa = page.gpa;
                let mut rest = data;
                while !rest.is_empty() {
                    let (piece, tail) = rest.split_at(bus_size(gpa, rest.len()));
                    self.stats.mmio += 1;
                    self.bus.mmio_write(gpa, piece);
                    gpa = gpa.wrapping_add(piece.len() as u64);
                    rest = tail;
                }
                // An interrupt that the device raised, another map: in time for the next
                // instruction.
                self.code_dirty |= self.exit_request.load() != 0;
            }
        }
    }
}

/// The size of the next device access for `len` bytes at `gpa`: all of them if they are an
/// operand's size, otherwise (rests of operands that cross a page, byte strings) the largest
/// aligned piece.
fn bus_size(gpa: u64, len: usize) -> usize {
    match len {
        1 | 2 | 4 | 8 => len,
        _ => {
            let aligned = 1usize << gpa.trailing_zeros().min(3);
            let fits = 1usize << len.ilog2().min(3);
            aligned.min(fits)
        }
    }
}
