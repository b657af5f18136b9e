//! Byte ranges and element runs: structures, instruction bytes, REP MOVS and REP STOS.

use x86::Fault;

use crate::host;
use crate::mmu::{Mmu, Translated};
use crate::paging::{Access, Rights};
use crate::ram::{PAGE_SIZE, PageFlags};
use crate::tlb::index;
use crate::width::Width;

/// Pages whose translations an all-or-nothing write keeps.
const KEPT_PAGES: usize = 4;

impl Mmu {
    /// Translates for `rights`, through the TLB where it can answer for RAM.
    pub(crate) fn translate_cached(
        &mut self,
        linear: u64,
        access: Access,
        rights: Rights,
    ) -> Result<Translated, Fault> {
        // SAFETY: the index is below the table's length; only this thread uses the table.
        let entry = unsafe { *self.table_for(rights).add(index(linear)) };
        let tag = match access {
            Access::Read => entry.read,
            Access::Write => entry.write,
            Access::Fetch => entry.exec,
        };
        if tag != linear & !(PAGE_SIZE - 1) {
            return self.translate(linear, access, rights);
        }
        let gpa = (entry.page | linear & 0xFFF).wrapping_sub(self.ram.base() as u64);
        Ok(Translated { gpa, flags: self.ram.flags(gpa) })
    }

    /// Checks an access to `len` bytes at the current privilege, with its effects on accessed
    /// and dirty flags, without performing it.
    pub fn probe(&mut self, linear: u64, len: usize, access: Access) -> Result<(), Fault> {
        self.probe_with(self.rights, linear, len, access)
    }

    /// [`Mmu::probe`] with the rights of another CPL.
    pub fn probe_as(
        &mut self,
        cpl: u8,
        linear: u64,
        len: usize,
        access: Access,
    ) -> Result<(), Fault> {
        self.probe_with(self.rights_at(cpl), linear, len, access)
    }

    fn probe_with(
        &mut self,
        rights: Rights,
        linear: u64,
        len: usize,
        access: Access,
    ) -> Result<(), Fault> {
        let (mut at, mut left) = (linear, len);
        while left > 0 {
            let piece = left.min(Self::page_rest(at));
            self.translate_cached(at, access, rights)?;
            at = self.advance(at, piece as u64);
            left -= piece;
        }
        Ok(())
    }

    /// Reads bytes at the current privilege. All pages are checked before the first byte is
    /// read.
    pub fn read_bytes(&mut self, linear: u64, data: &mut [u8]) -> Result<(), Fault> {
        let rights = self.rights;
        if data.len() > Self::page_rest(linear) {
            self.probe_with(rights, linear, data.len(), Access::Read)?;
        }
        let mut at = linear;
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at_mut(rest.len().min(Self::page_rest(at)));
            let page = self.translate_cached(at, Access::Read, rights)?;
            self.read_translated(page, piece);
            at = self.advance(at, piece.len() as u64);
            rest = tail;
        }
        Ok(())
    }

    /// Writes bytes at the current privilege, all or nothing: every page is checked before
    /// the first byte is written. (Beyond four pages, page tables that another vCPU changes
    /// meanwhile can still stop it halfway.)
    pub fn write_bytes(&mut self, linear: u64, data: &[u8]) -> Result<(), Fault> {
        let rights = self.rights;
        let mut kept = [Translated { gpa: 0, flags: PageFlags(0) }; KEPT_PAGES];
        let (mut at, mut left, mut page) = (linear, data.len(), 0);
        while left > 0 {
            let piece = left.min(Self::page_rest(at));
            let translated = self.translate_cached(at, Access::Write, rights)?;
            if let Some(slot) = kept.get_mut(page) {
                *slot = translated;
            }
            page += 1;
            at = self.advance(at, piece as u64);
            left -= piece;
        }
        let (mut at, mut rest, mut page) = (linear, data, 0);
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(rest.len().min(Self::page_rest(at)));
            let translated = match kept.get(page) {
                Some(translated) => *translated,
                None => self.translate_cached(at, Access::Write, rights)?,
            };
            self.write_translated(translated, piece);
            page += 1;
            at = self.advance(at, piece.len() as u64);
            rest = tail;
        }
        Ok(())
    }

    /// The host bytes from `linear` to the end of its page, where the page is RAM that may be
    /// accessed so right now without side effects; for writes also without cached code. Valid
    /// until the next flush or change of code marks. `None` says nothing about faults.
    pub fn host_span(&mut self, linear: u64, access: Access) -> Option<(*mut u8, usize)> {
        let fault_address = self.fault_address;
        let Ok(page) = self.translate_cached(linear, access, self.rights) else {
            self.fault_address = fault_address;
            return None;
        };
        if access == Access::Write && !page.flags.plain() {
            return None;
        }
        Some((self.ram_ptr(page)?, Self::page_rest(linear)))
    }

    /// STOS in ascending order: stores up to `count` elements without leaving the page, and at
    /// least one if `count` is not zero. Returns how many.
    pub fn fill_run<T: Width>(
        &mut self,
        linear: u64,
        count: usize,
        value: T,
    ) -> Result<usize, Fault> {
        if count == 0 {
            return Ok(0);
        }
        let count = count.min(Self::page_rest(linear) / T::SIZE as usize);
        if count <= 1 {
            // A single element, or the first one crosses the page.
            return self.store(linear, value).map(|()| 1);
        }
        let page = self.translate_cached(linear, Access::Write, self.rights)?;
        match self.ram_ptr(page) {
            Some(pointer) if !page.flags.has(PageFlags::ROM) => {
                // SAFETY: the elements lie inside one page of RAM.
                unsafe { host::fill_elements(pointer, count, value) };
                self.note_run(page, (count * T::SIZE as usize) as u64);
                Ok(count)
            }
            _ => self.store(linear, value).map(|()| 1),
        }
    }

    /// MOVS in ascending order: copies up to `count` elements without leaving either page, and
    /// at least one if `count` is not zero. Returns how many. Overlapping operands give what
    /// copying one element after the other gives.
    pub fn copy_run<T: Width>(&mut self, dst: u64, src: u64, count: usize) -> Result<usize, Fault> {
        if count == 0 {
            return Ok(0);
        }
        let fits = Self::page_rest(dst).min(Self::page_rest(src)) / T::SIZE as usize;
        let count = count.min(fits);
        if count > 1 {
            let from = self.translate_cached(src, Access::Read, self.rights)?;
            let to = self.translate_cached(dst, Access::Write, self.rights)?;
            if let (Some(source), Some(target)) = (self.ram_ptr(from), self.ram_ptr(to))
                && !to.flags.has(PageFlags::ROM)
            {
                // SAFETY: both runs lie inside one page of RAM each.
                unsafe { host::copy_elements::<T>(target, source, count) };
                self.note_run(to, (count * T::SIZE as usize) as u64);
                return Ok(count);
            }
        }
        let value = self.load::<T>(src)?;
        self.store(dst, value).map(|()| 1)
    }

    fn note_run(&mut self, page: Translated, len: u64) {
        if page.flags.has(PageFlags::HAS_CODE) || !page.flags.has(PageFlags::DIRTY) {
            self.note_write(page.gpa, len, page.flags);
        }
    }

    /// Reads up to 15 instruction bytes at the current privilege. Returns how many bytes could
    /// be fetched, and the fault that stopped the rest. The fault counts only if the
    /// instruction turns out to need those bytes; `fault_address` is set for that case.
    pub fn fetch_bytes(&mut self, linear: u64, data: &mut [u8; 15]) -> (usize, Option<Fault>) {
        let mut at = linear;
        let mut done = 0;
        while done < data.len() {
            let page = match self.fetch_translate(at) {
                Ok(page) => Translated { gpa: page.gpa, flags: self.ram.flags(page.gpa) },
                Err(fault) => return (done, Some(fault)),
            };
            let len = (data.len() - done).min(Self::page_rest(at));
            self.read_translated(page, &mut data[done..done + len]);
            done += len;
            at = self.advance(at, len as u64);
        }
        (done, None)
    }

    /// Reads physical memory, RAM or device.
    pub fn phys_read(&mut self, gpa: u64, data: &mut [u8]) {
        let mut rest = data;
        let mut at = gpa;
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at_mut(rest.len().min(Self::page_rest(at)));
            let page = Translated { gpa: at, flags: self.ram.flags(at) };
            self.read_translated(page, piece);
            at = at.wrapping_add(piece.len() as u64);
            rest = tail;
        }
    }

    /// Writes physical memory, RAM or device. ROM stays as it is.
    pub fn phys_write(&mut self, gpa: u64, data: &[u8]) {
        let mut rest = data;
        let mut at = gpa;
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(rest.len().min(Self::page_rest(at)));
            let page = Translated { gpa: at, flags: self.ram.flags(at) };
            self.write_translated(page, piece);
            at = at.wrapping_add(piece.len() as u64);
            rest = tail;
        }
    }
}
