//! The code cache's memory: one memfd mapped twice, writable in one place and executable in
//! another, the executable view below 2 GiB.

use native::executable::{self, serialize};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::ptr;
use thiserror::Error;

/// `MAP_32BIT` (Linux arch/x86/include/uapi/asm/mman.h).
const MAP_32BIT: u32 = 0x40;
/// Alignment of what is appended.
const ALIGNMENT: usize = 16;

/// Why there is no code cache.
#[derive(Debug, Error)]
pub enum ArenaError {
    /// The kernel refused memory.
    #[error("cannot map {bytes:#x} bytes for translated code ({step}): {source}")]
    Map {
        /// What was tried.
        step: &'static str,
        /// How much was wanted.
        bytes: usize,
        /// The kernel's answer.
        source: rustix::io::Errno,
    },
    /// The executable view is out of reach of 32-bit displacements.
    #[error("the host placed translated code at {0:#x}, it must lie below 2 GiB")]
    TooHigh(u64),
}

/// How much of the arena is for cold code, in parts of 64. Of a kernel's blocks a third is cold;
/// where one part is full the other one counts as full, too.
const COLD_PARTS: usize = 26;

/// Addresses for a block's hot and cold code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spot {
    pub(crate) hot: u64,
    pub(crate) cold: u64,
}

/// Append-only executable memory. Hot code is packed at the beginning, cold code behind it, so that
/// they do not share the host's cache lines and pages.
#[derive(Debug)]
pub(crate) struct Arena {
    code: *mut c_void,
    view: *mut c_void,
    size: usize,
    /// Where cold code begins.
    split: usize,
    /// Ends of the hot and of the cold code.
    used: usize,
    cold_used: usize,
    /// What [`Arena::reset`] keeps of the hot code.
    kept: usize,
}

// SAFETY: the pointers are to mappings that the arena owns.
unsafe impl Send for Arena {}

impl Arena {
    /// An empty arena of `size` bytes; pages are allocated when first written.
    pub(crate) fn new(size: usize) -> Result<Arena, ArenaError> {
        let fail = |step| move |source| ArenaError::Map { step, bytes: size, source };
        let file = executable::file("ringshift-jit", size).map_err(fail("memfd"))?;
        let map = |prot, flags| {
            // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
            unsafe { mmap(ptr::null_mut(), size, prot, flags, &file, 0) }
        };
        let low = MapFlags::SHARED | MapFlags::from_bits_retain(MAP_32BIT);
        let code = map(ProtFlags::READ | ProtFlags::EXEC, low).map_err(fail("executable view"))?;
        let view = map(ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        let view = view.map_err(fail("writable view")).inspect_err(|_| {
            // SAFETY: mapped above, used by nobody.
            let _ = unsafe { munmap(code, size) };
        })?;
        let split = (size / 64 * (64 - COLD_PARTS)).next_multiple_of(ALIGNMENT);
        let arena = Arena { code, view, size, split, used: 0, cold_used: split, kept: 0 };
        if code as u64 + size as u64 > softmmu::low::LOW_LIMIT {
            return Err(ArenaError::TooHigh(code as u64));
        }
        Ok(arena)
    }

    /// The addresses that the next [`Arena::append`] puts code at.
    pub(crate) fn next(&self) -> Spot {
        let at = |used: usize| self.code as u64 + used.next_multiple_of(ALIGNMENT) as u64;
        // Cold code is not worth aligning.
        Spot { hot: at(self.used), cold: self.code as u64 + self.cold_used as u64 }
    }

    /// Bytes left for each kind of code.
    pub(crate) fn room(&self) -> usize {
        self.hot_room().min(self.size - self.cold_used)
    }

    fn hot_room(&self) -> usize {
        self.split - self.used.next_multiple_of(ALIGNMENT).min(self.split)
    }

    /// Appends hot and cold code and returns where it is, or nothing where the arena is full.
    pub(crate) fn append(&mut self, hot: &[u8], cold: &[u8]) -> Option<Spot> {
        if hot.len() > self.hot_room() || cold.len() > self.size - self.cold_used {
            return None;
        }
        let spot = self.next();
        let start = self.used.next_multiple_of(ALIGNMENT);
        // SAFETY: the bytes lie inside the writable view, which only this thread uses.
        unsafe {
            let view = self.view.cast::<u8>();
            ptr::copy_nonoverlapping(hot.as_ptr(), view.add(start), hot.len());
            ptr::copy_nonoverlapping(cold.as_ptr(), view.add(self.cold_used), cold.len());
        }
        self.used = start + hot.len();
        self.cold_used += cold.len();
        serialize();
        Some(spot)
    }

    /// The code at `address`, as it is now.
    pub(crate) fn read(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let offset = address.checked_sub(self.code as u64)? as usize;
        let end = if offset < self.split { self.used } else { self.cold_used };
        if offset.checked_add(len)? > end {
            return None;
        }
        let mut bytes = vec![0; len];
        // SAFETY: the bytes lie inside the view, which only this thread writes.
        unsafe {
            let source = self.view.cast::<u8>().add(offset);
            ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), len);
        }
        Some(bytes)
    }

    /// What was appended so far survives [`Arena::reset`].
    pub(crate) fn keep(&mut self) {
        self.kept = self.used;
    }

    /// Forgets everything behind what is kept. Nothing of it may be on the way to execution.
    pub(crate) fn reset(&mut self) {
        self.used = self.kept;
        self.cold_used = self.split;
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.cold_used = self.split;
        self.kept = 0;
    }

    /// Makes the 32-bit displacement at code address `site` (that of a jump or call which ends
    /// with it) lead to `target`.
    pub(crate) fn patch(&mut self, site: u64, target: u64) {
        let offset = site.wrapping_sub(self.code as u64) as usize;
        debug_assert!(offset + 4 <= self.cold_used);
        let relative = target.wrapping_sub(site + 4) as u32;
        // SAFETY: `site` was emitted as a displacement inside the arena; the displacement need
        // not be aligned, and no other thread executes this vCPU's code.
        unsafe { self.view.cast::<u8>().add(offset).cast::<u32>().write_unaligned(relative) };
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: both are mappings of this size that the arena made.
        unsafe {
            let _ = munmap(self.code, self.size);
            let _ = munmap(self.view, self.size);
        }
    }
}
