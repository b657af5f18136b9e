//! Guest RAM: one memfd, mapped once.
//!
//! File offset and guest-physical address are the same number, so that the host address of
//! any byte is `base + gpa`. The holes cost nothing: the file is sparse and the mapping
//! reserves no memory. A flag byte per 4 KiB page says what the page is.

use std::fs::File;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use thiserror::Error;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use crate::code::CodeWatch;
use crate::host;

/// Size of a page and of a page frame, in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// No guest-physical address of RAM lies at or above this (16 TiB).
pub const RAM_LIMIT: u64 = 1 << 44;

/// A contiguous piece of RAM in the guest-physical address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RamRange {
    /// First guest-physical address, a multiple of 4096.
    pub gpa: u64,
    /// Length in bytes, a multiple of 4096, not zero.
    pub len: u64,
}

impl RamRange {
    /// The layout of a PC with `size` bytes of RAM (rounded down to pages): a hole for VGA
    /// memory at 0xA0000..0xC0000, shadow RAM from 0xC0000 on, and what does not fit below
    /// `below_4g_limit` (a multiple of 4096, above 1 MiB) from 4 GiB on.
    pub fn pc(size: u64, below_4g_limit: u64) -> Vec<RamRange> {
        const VGA: u64 = 0xA_0000;
        const SHADOW: u64 = 0xC_0000;
        const HIGH: u64 = 1 << 32;
        let size = size & !(PAGE_SIZE - 1);
        let low_end = size.min(below_4g_limit & !(PAGE_SIZE - 1)).min(HIGH);
        let pieces =
            [(0, low_end.min(VGA)), (SHADOW, low_end.max(SHADOW)), (HIGH, HIGH + size - low_end)];
        pieces
            .into_iter()
            .filter(|(start, end)| end > start)
            .map(|(start, end)| RamRange { gpa: start, len: end - start })
            .collect()
    }

    /// First address behind the range.
    pub fn end(&self) -> u64 {
        self.gpa.saturating_add(self.len)
    }
}

/// Why guest RAM could not be made or reached.
#[derive(Debug, Error)]
pub enum RamError {
    /// A range is empty, unaligned or too high.
    #[error(
        "RAM range {gpa:#x}..+{len:#x} is empty, not page-aligned or ends above {RAM_LIMIT:#x}"
    )]
    BadRange {
        /// Start of the range.
        gpa: u64,
        /// Its length.
        len: u64,
    },
    /// Two ranges share an address.
    #[error("two RAM ranges overlap at {gpa:#x}")]
    Overlap {
        /// First shared address.
        gpa: u64,
    },
    /// No range was given.
    #[error("a guest without RAM cannot run")]
    Empty,
    /// The host refused memory.
    #[error("cannot {action} {bytes:#x} bytes of guest memory: {source}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// Size of the object.
        bytes: u64,
        /// The kernel's answer.
        source: rustix::io::Errno,
    },
    /// The view for devices could not be made.
    #[error("cannot map guest memory for devices: {0}")]
    View(String),
    /// An access left RAM.
    #[error("guest-physical range {gpa:#x}..+{len:#x} is not RAM")]
    NotRam {
        /// Start of the access.
        gpa: u64,
        /// Its length.
        len: u64,
    },
}

/// What a guest-physical page is. A set of the constants below.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageFlags(pub u8);

impl PageFlags {
    /// The page is backed by host memory.
    pub const RAM: PageFlags = PageFlags(1 << 0);
    /// Guest stores have no effect.
    pub const ROM: PageFlags = PageFlags(1 << 1);
    /// Some bytes of the page are cached as decoded or translated code.
    pub const HAS_CODE: PageFlags = PageFlags(1 << 2);
    /// Written since the flag was last taken.
    pub const DIRTY: PageFlags = PageFlags(1 << 3);

    /// Whether any flag of `other` is set.
    #[inline(always)]
    pub const fn has(self, other: PageFlags) -> bool {
        self.0 & other.0 != 0
    }
    /// Both sets together.
    pub const fn and(self, other: PageFlags) -> PageFlags {
        PageFlags(self.0 | other.0)
    }
    /// The page may be written through a TLB tag: RAM, not ROM, no code.
    #[inline(always)]
    pub const fn plain(self) -> bool {
        self.0 & (Self::RAM.0 | Self::ROM.0 | Self::HAS_CODE.0) == Self::RAM.0
    }
}

/// Guest RAM, shared by the vCPUs and devices of a machine.
#[derive(Debug)]
pub struct GuestRam {
    base: *mut u8,
    /// Guest-physical addresses from here on are not RAM; also the length of the mapping.
    limit: u64,
    ranges: Vec<RamRange>,
    file: Arc<File>,
    flags: *const AtomicU8,
    granules: *const AtomicU64,
    /// Who is told of writes to code.
    pub(crate) code: CodeWatch,
    /// Serialises locked accesses that no single host instruction can perform.
    pub(crate) split_lock: Mutex<()>,
}

// SAFETY: the pointers are to mappings that live as long as the value, and are only accessed
// volatile or atomically.
unsafe impl Send for GuestRam {}
// SAFETY: as above.
unsafe impl Sync for GuestRam {}

fn reserve(bytes: u64) -> Result<*mut u8, RamError> {
    // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
    unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            bytes as usize,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    }
    .map(<*mut _>::cast)
    .map_err(|source| RamError::Host { action: "reserve", bytes, source })
}

impl GuestRam {
    /// Makes zeroed RAM at the given ranges, in any order.
    pub fn new(ranges: &[RamRange]) -> Result<GuestRam, RamError> {
        let mut ranges = ranges.to_vec();
        ranges.sort_by_key(|range| range.gpa);
        for range in &ranges {
            let aligned = (range.gpa | range.len) % PAGE_SIZE == 0;
            if range.len == 0 || !aligned || range.end() > RAM_LIMIT {
                return Err(RamError::BadRange { gpa: range.gpa, len: range.len });
            }
        }
        for pair in ranges.windows(2) {
            if pair[0].end() > pair[1].gpa {
                return Err(RamError::Overlap { gpa: pair[1].gpa });
            }
        }
        let limit = ranges.last().ok_or(RamError::Empty)?.end();
        let fail = |action| move |source| RamError::Host { action, bytes: limit, source };
        let file = memfd_create("guest-ram", MemfdFlags::CLOEXEC).map_err(fail("create"))?;
        ftruncate(&file, limit).map_err(fail("size"))?;
        let pages = limit / PAGE_SIZE;
        let flags = reserve(pages)?;
        let granules = reserve(pages * 8).inspect_err(|_| {
            // SAFETY: mapped above, not used by anybody.
            let _ = unsafe { munmap(flags.cast(), pages as usize) };
        })?;
        // SAFETY: a new shared mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                limit as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &file,
                0,
            )
        };
        let base = base.map_err(|source| {
            // SAFETY: mapped above, not used by anybody.
            unsafe {
                let _ = munmap(flags.cast(), pages as usize);
                let _ = munmap(granules.cast(), pages as usize * 8);
            }
            RamError::Host { action: "map", bytes: limit, source }
        })?;
        let ram = GuestRam {
            base: base.cast(),
            limit,
            ranges,
            file: Arc::new(File::from(file)),
            flags: flags.cast::<AtomicU8>(),
            granules: granules.cast::<AtomicU64>(),
            code: CodeWatch::default(),
            split_lock: Mutex::new(()),
        };
        for range in &ram.ranges {
            let (first, count) = (range.gpa / PAGE_SIZE, range.len / PAGE_SIZE);
            // SAFETY: the array has a byte for each page below `limit`; nobody else has it yet.
            unsafe { flags.add(first as usize).write_bytes(PageFlags::RAM.0, count as usize) };
        }
        Ok(ram)
    }

    /// The ranges of RAM, ascending.
    pub fn ranges(&self) -> &[RamRange] {
        &self.ranges
    }

    /// Bytes of RAM, without the holes.
    pub fn size(&self) -> u64 {
        self.ranges.iter().map(|range| range.len).sum()
    }

    /// The host address of guest-physical address 0.
    #[inline(always)]
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    #[inline(always)]
    fn flag_byte(&self, gpa: u64) -> Option<&AtomicU8> {
        if gpa < self.limit {
            // SAFETY: the array has a byte for each page below `limit`, and lives as long as
            // `self`.
            Some(unsafe { &*self.flags.add((gpa / PAGE_SIZE) as usize) })
        } else {
            None
        }
    }

    /// The 64-byte granules of the page of `gpa` that hold cached code, bit 0 for the lowest.
    pub(crate) fn granule_word(&self, gpa: u64) -> Option<&AtomicU64> {
        if gpa < self.limit {
            // SAFETY: the array has a word for each page below `limit`, and lives as long as
            // `self`.
            Some(unsafe { &*self.granules.add((gpa / PAGE_SIZE) as usize) })
        } else {
            None
        }
    }

    /// What the page of `gpa` is.
    #[inline(always)]
    pub fn flags(&self, gpa: u64) -> PageFlags {
        self.flag_byte(gpa).map_or(PageFlags(0), |byte| PageFlags(byte.load(Ordering::Acquire)))
    }

    /// Adds flags to the page of `gpa`; returns what it had.
    pub(crate) fn set_flags(&self, gpa: u64, flags: PageFlags) -> PageFlags {
        let Some(byte) = self.flag_byte(gpa) else { return PageFlags(0) };
        let old = byte.load(Ordering::Acquire);
        if old & flags.0 == flags.0 {
            return PageFlags(old);
        }
        PageFlags(byte.fetch_or(flags.0, Ordering::AcqRel))
    }

    /// Takes flags off the page of `gpa`; returns what it had.
    pub(crate) fn clear_flags(&self, gpa: u64, flags: PageFlags) -> PageFlags {
        self.flag_byte(gpa)
            .map_or(PageFlags(0), |byte| PageFlags(byte.fetch_and(!flags.0, Ordering::AcqRel)))
    }

    /// Makes the pages of a range read-only to the guest, or writable again. The vCPUs must
    /// flush their TLBs afterwards (`Mmu::flush_all`).
    pub fn set_rom(&self, gpa: u64, len: u64, rom: bool) {
        let end = gpa.saturating_add(len).min(self.limit);
        for page in gpa / PAGE_SIZE..end.div_ceil(PAGE_SIZE) {
            let address = page * PAGE_SIZE;
            if !self.flags(address).has(PageFlags::RAM) {
                continue;
            }
            if rom {
                self.set_flags(address, PageFlags::ROM);
            } else {
                self.clear_flags(address, PageFlags::ROM);
            }
        }
    }

    /// Takes the dirty flag of a page: whether it was written since. Stores through write tags
    /// are seen again only after the vCPUs dropped those (`Mmu::drop_write_tags`).
    pub fn take_dirty(&self, gpa: u64) -> bool {
        self.clear_flags(gpa, PageFlags::DIRTY).has(PageFlags::DIRTY)
    }

    /// The host address of a byte of RAM, valid to the end of its page.
    #[inline(always)]
    pub fn host_ptr(&self, gpa: u64) -> Option<*mut u8> {
        if self.flags(gpa).has(PageFlags::RAM) {
            // SAFETY: RAM lies inside the mapping.
            Some(unsafe { self.base.add(gpa as usize) })
        } else {
            None
        }
    }

    /// Whether all of `gpa..gpa + len` is RAM.
    pub fn contains(&self, gpa: u64, len: u64) -> bool {
        let Some(end) = gpa.checked_add(len) else { return false };
        let mut next = gpa;
        for range in &self.ranges {
            if next >= range.gpa && next < range.end() {
                next = range.end();
            }
        }
        len == 0 || next >= end
    }

    /// Reads RAM. Nothing is read if part of the range is not RAM.
    pub fn read(&self, gpa: u64, data: &mut [u8]) -> Result<(), RamError> {
        let len = data.len() as u64;
        if !self.contains(gpa, len) {
            return Err(RamError::NotRam { gpa, len });
        }
        // SAFETY: the range is RAM, so inside the mapping.
        unsafe { host::copy(data.as_mut_ptr(), self.base.add(gpa as usize), data.len()) };
        Ok(())
    }

    /// Writes RAM on behalf of a loader or a device, ROM included. Cached code there is
    /// invalidated. Nothing is written if part of the range is not RAM.
    pub fn write(&self, gpa: u64, data: &[u8]) -> Result<(), RamError> {
        let len = data.len() as u64;
        if !self.contains(gpa, len) {
            return Err(RamError::NotRam { gpa, len });
        }
        // SAFETY: the range is RAM, so inside the mapping.
        unsafe { host::copy(self.base.add(gpa as usize), data.as_ptr(), data.len()) };
        self.note_device_write(gpa, len);
        Ok(())
    }

    /// The same memory as `vm-memory` sees it, for boot loaders and devices. It is a mapping of
    /// its own of the same memfd and may outlive `self`. Who writes through it tells
    /// [`GuestRam::note_device_write`].
    pub fn guest_memory(&self) -> Result<GuestMemoryMmap, RamError> {
        let ranges = self.ranges.iter().map(|range| {
            let file = FileOffset::from_arc(self.file.clone(), range.gpa);
            (GuestAddress(range.gpa), range.len as usize, Some(file))
        });
        GuestMemoryMmap::from_ranges_with_files(ranges.collect::<Vec<_>>())
            .map_err(|error| RamError::View(error.to_string()))
    }

    /// The memfd; file offset and guest-physical address are the same.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Bytes of RAM that the host has really allocated.
    pub fn resident(&self) -> u64 {
        rustix::fs::fstat(&*self.file).map_or(0, |stat| stat.st_blocks as u64 * 512)
    }
}

impl Drop for GuestRam {
    fn drop(&mut self) {
        let pages = (self.limit / PAGE_SIZE) as usize;
        // SAFETY: the three mappings were made by `new` with these sizes, and nothing refers
        // to them any more.
        unsafe {
            let _ = munmap(self.base.cast(), self.limit as usize);
            let _ = munmap(self.flags.cast_mut().cast(), pages);
            let _ = munmap(self.granules.cast_mut().cast(), pages * 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestMemoryBackend};

    #[test]
    fn pc_layout_has_its_holes() {
        const GIB: u64 = 1 << 30;
        let small = RamRange::pc(64 << 20, 3 * GIB);
        assert_eq!(
            small,
            [
                RamRange { gpa: 0, len: 0xA_0000 },
                RamRange { gpa: 0xC_0000, len: (64 << 20) - 0xC_0000 },
            ]
        );
        let large = RamRange::pc(5 * GIB, 3 * GIB);
        assert_eq!(large[1].end(), 3 * GIB);
        assert_eq!(large[2], RamRange { gpa: 4 * GIB, len: 2 * GIB });
        assert_eq!(RamRange::pc(4096, 3 * GIB), [RamRange { gpa: 0, len: 4096 }]);
    }

    #[test]
    fn bad_layouts_are_refused() {
        let range = |gpa, len| RamRange { gpa, len };
        assert!(matches!(GuestRam::new(&[]), Err(RamError::Empty)));
        assert!(matches!(GuestRam::new(&[range(0, 0)]), Err(RamError::BadRange { .. })));
        assert!(matches!(GuestRam::new(&[range(1, 4096)]), Err(RamError::BadRange { .. })));
        assert!(matches!(GuestRam::new(&[range(0, !4095)]), Err(RamError::BadRange { .. })));
        assert!(matches!(
            GuestRam::new(&[range(0x1000, 0x2000), range(0x2000, 0x1000)]),
            Err(RamError::Overlap { gpa: 0x2000 })
        ));
    }

    #[test]
    fn holes_are_not_ram() {
        let ram = GuestRam::new(&RamRange::pc(2 << 20, 3 << 30)).expect("ram");
        assert_eq!(ram.size(), (2 << 20) - 0x2_0000);
        assert!(ram.host_ptr(0x9_FFFF).is_some());
        assert!(ram.host_ptr(0xA_0000).is_none());
        assert!(ram.host_ptr(0xB_FFFF).is_none());
        assert!(ram.host_ptr(0xC_0000).is_some());
        assert!(ram.host_ptr(2 << 20).is_none());
        assert!(ram.host_ptr(u64::MAX).is_none());
        assert!(ram.write(0x9_FFFE, &[1, 2]).is_ok());
        assert!(matches!(ram.write(0x9_FFFE, &[1, 2, 3]), Err(RamError::NotRam { .. })));
        assert!(ram.read(u64::MAX, &mut [0; 2]).is_err());
    }

    #[test]
    fn the_view_is_the_same_memory_also_above_4_gib() {
        let ram = GuestRam::new(&RamRange::pc(3 << 20, 2 << 20)).expect("ram");
        let view = ram.guest_memory().expect("view");
        let high = (1u64 << 32) + 0x1234;
        view.write_obj(0x55AAu16, GuestAddress(high)).expect("write");
        let mut bytes = [0; 2];
        ram.read(high, &mut bytes).expect("read");
        assert_eq!(bytes, [0xAA, 0x55]);
        assert!(view.find_region(GuestAddress(0xA_0000)).is_none());
    }
}
