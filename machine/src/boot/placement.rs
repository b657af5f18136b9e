//! Deciding where things go in guest memory, and writing them there.

use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::{ImageError, MemoryMap};

/// A page of memory, to which most things are aligned.
pub(super) const PAGE: u64 = 4096;

/// Where boot structures go: below the EBDA and the highest place of Linux's
/// own real-mode trampoline (0x9F000 less two pages), with room to spare.
const LOW_LIMIT: u64 = 0x9_0000;
/// The page of the interrupt vectors and the BIOS data area stays free.
const LOW_START: u64 = PAGE;

/// Something that was put in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What it is, in words.
    pub what: String,
    /// Guest-physical address.
    pub start: u64,
    /// Size in bytes, never 0.
    pub size: u64,
}

impl Placed {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// Guest memory with a record of what is taken.
pub(super) struct Loader<'a, M: ?Sized> {
    memory: &'a M,
    map: &'a MemoryMap,
    placed: Vec<Placed>,
}

impl<'a, M: GuestMemory + ?Sized> Loader<'a, M> {
    pub(super) fn new(memory: &'a M, map: &'a MemoryMap) -> Self {
        Self { memory, map, placed: Vec::new() }
    }

    pub(super) fn map(&self) -> &'a MemoryMap {
        self.map
    }

    pub(super) fn into_placed(self) -> Vec<Placed> {
        self.placed
    }

    /// Takes `size` bytes at the fixed address `start`.
    pub(super) fn claim(&mut self, what: &str, start: u64, size: u64) -> Result<(), ImageError> {
        if size == 0 {
            return Ok(());
        }
        if !self.map.is_ram(start, size) {
            return Err(ImageError::OutsideRam { what: what.into(), start, size });
        }
        if let Some(other) = self.overlapping(start, size) {
            return Err(ImageError::Overlap {
                what: what.into(),
                start,
                size,
                other: other.what.clone(),
                other_start: other.start,
                other_size: other.size,
            });
        }
        self.placed.push(Placed { what: what.into(), start, size });
        Ok(())
    }

    /// Takes the highest free `size` bytes that end at or below `limit`, at an
    /// address that is a multiple of `align`, a power of two.
    pub(super) fn take_highest(
        &mut self,
        what: &str,
        size: u64,
        align: u64,
        limit: u64,
    ) -> Result<u64, ImageError> {
        let start = self.highest(size, align, 0, limit);
        self.take(what, size, limit, start)
    }

    /// As [`take_highest`](Self::take_highest), in conventional memory: for
    /// the tables and strings of a boot protocol.
    pub(super) fn take_low(
        &mut self,
        what: &str,
        size: u64,
        align: u64,
    ) -> Result<u64, ImageError> {
        let start = self.highest(size, align, LOW_START, LOW_LIMIT);
        self.take(what, size, LOW_LIMIT, start)
    }

    /// Takes the lowest free `size` bytes at or above `from`, ending at or
    /// below `limit`.
    pub(super) fn take_lowest(
        &mut self,
        what: &str,
        size: u64,
        align: u64,
        from: u64,
        limit: u64,
    ) -> Result<u64, ImageError> {
        let start = self.lowest(size, align, from, limit);
        self.take(what, size, limit, start)
    }

    fn take(
        &mut self,
        what: &str,
        size: u64,
        limit: u64,
        start: Option<u64>,
    ) -> Result<u64, ImageError> {
        let start = start.ok_or_else(|| ImageError::NoRoom { what: what.into(), size, limit })?;
        self.claim(what, start, size)?;
        Ok(start)
    }

    fn highest(&self, size: u64, align: u64, from: u64, limit: u64) -> Option<u64> {
        self.map.ram().rev().find_map(|region| {
            let floor = region.start.max(from);
            let mut top = region.end().min(limit);
            loop {
                let start = top.checked_sub(size)? & !(align - 1);
                if start < floor {
                    return None;
                }
                // Each round goes below one more placed item, so it ends.
                match self.overlapping(start, size) {
                    Some(other) => top = other.start,
                    None => return Some(start),
                }
            }
        })
    }

    fn lowest(&self, size: u64, align: u64, from: u64, limit: u64) -> Option<u64> {
        self.map.ram().find_map(|region| {
            let top = region.end().min(limit);
            let mut bottom = region.start.max(from);
            loop {
                let start = bottom.checked_next_multiple_of(align)?;
                if start.checked_add(size)? > top {
                    return None;
                }
                match self.overlapping(start, size) {
                    Some(other) => bottom = other.end(),
                    None => return Some(start),
                }
            }
        })
    }

    fn overlapping(&self, start: u64, size: u64) -> Option<&Placed> {
        let end = start.saturating_add(size);
        self.placed.iter().find(|other| start < other.end() && other.start < end)
    }

    /// Writes `bytes` at `start`, which was taken before.
    pub(super) fn write(&self, start: u64, bytes: &[u8]) -> Result<(), ImageError> {
        self.memory
            .write_slice(bytes, GuestAddress(start))
            .map_err(|source| ImageError::Memory { start, source })
    }

    /// Writes `size` zero bytes at `start`, which was taken before. The size is
    /// at most that of the guest's RAM.
    pub(super) fn clear(&self, start: u64, size: u64) -> Result<(), ImageError> {
        static ZEROES: [u8; 65536] = [0; 65536];
        let mut done = 0;
        while done < size {
            let count = (size - done).min(ZEROES.len() as u64);
            self.write(start + done, &ZEROES[..count as usize])?;
            done += count;
        }
        Ok(())
    }

    /// Puts a NUL-terminated string in conventional memory.
    pub(super) fn put_string(&mut self, what: &str, text: &str) -> Result<u64, ImageError> {
        let bytes = terminated(text)?;
        self.put_low(what, &bytes, 1)
    }

    /// Puts `bytes` in conventional memory.
    pub(super) fn put_low(
        &mut self,
        what: &str,
        bytes: &[u8],
        align: u64,
    ) -> Result<u64, ImageError> {
        let start = self.take_low(what, bytes.len() as u64, align)?;
        self.write(start, bytes)?;
        Ok(start)
    }
}

/// `text` with a NUL after it.
pub(super) fn terminated(text: &str) -> Result<Vec<u8>, ImageError> {
    if let Some(at) = text.bytes().position(|byte| byte == 0) {
        return Err(ImageError::CommandLineNul(at));
    }
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestMemoryMmap;

    #[test]
    fn free_memory_is_found_around_what_is_placed() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
        let map = MemoryMap::pc(4 << 20, 0xC000_0000);
        let mut loader = Loader::new(&memory, &map);
        assert_eq!(loader.take_highest("a", 0x1800, PAGE, u64::MAX).unwrap(), 0x3F_E000);
        assert_eq!(loader.take_highest("b", 0x1000, PAGE, u64::MAX).unwrap(), 0x3F_D000);
        assert_eq!(loader.take_low("c", 0x10, 8).unwrap(), 0x8_FFF0);
        assert_eq!(loader.take_lowest("d", 0x1000, PAGE, 0x10_0001, u64::MAX).unwrap(), 0x10_1000);
        assert_eq!(loader.take_lowest("e", 0x1000, PAGE, 0x10_0001, u64::MAX).unwrap(), 0x10_2000);
        // The whole of high memory is not free any more, nor is there any above.
        assert!(matches!(
            loader.take_highest("f", 3 << 20, PAGE, u64::MAX),
            Err(ImageError::NoRoom { .. })
        ));
        assert!(matches!(
            loader.take_lowest("g", 1, PAGE, u64::MAX, u64::MAX),
            Err(ImageError::NoRoom { .. })
        ));
        assert!(matches!(
            loader.claim("h", 0x3F_D800, 0x800),
            Err(ImageError::Overlap { other, .. }) if other == "b"
        ));
        assert!(matches!(loader.claim("i", u64::MAX, 2), Err(ImageError::OutsideRam { .. })));
        loader.claim("nothing", u64::MAX, 0).unwrap();
    }
}
