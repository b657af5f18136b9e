//! The guest's memory map, as firmware hands it to a kernel (e820).

/// What a region is. The values are those of ACPI 6.5, table 15.2, which the
/// e820 call, Multiboot and PVH share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RegionKind {
    /// Free RAM.
    Ram = 1,
    /// Not for the kernel's use.
    Reserved = 2,
    /// RAM that holds ACPI tables, free once they are read.
    Acpi = 3,
    /// RAM that firmware needs across sleep.
    Nvs = 4,
}

/// A region of guest-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Size in bytes, never 0.
    pub size: u64,
    /// What it is.
    pub kind: RegionKind,
}

impl Region {
    /// First address after the region.
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// The size of conventional memory in a PC without an extended BIOS data area.
const CONVENTIONAL_END: u64 = 0xA_0000;
/// Where the extended BIOS data area starts: the last KiB below 640 KiB, where
/// kernels look for the ACPI RSDP first (ACPI 6.5, 5.2.5.1).
pub const EBDA_START: u64 = 0x9_FC00;
const BIOS_START: u64 = 0xF_0000;
const HIGH_START: u64 = 0x10_0000;
const FOUR_GIB: u64 = 1 << 32;

/// The guest's memory map: sorted, disjoint regions, neighbours of one kind
/// joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryMap {
    regions: Vec<Region>,
}

impl MemoryMap {
    /// The map of a PC with `ram_size` bytes of RAM, of which what does not fit
    /// below `mmio_start` continues at 4 GiB. The window from 0xA0000 to
    /// 0xFFFFF is no RAM to a kernel; the EBDA and the BIOS area, where the
    /// board may put tables, are reserved.
    ///
    /// `mmio_start` is where PCI and APIC windows begin, at most 4 GiB.
    pub fn pc(ram_size: u64, mmio_start: u64) -> Self {
        let mmio_start = mmio_start.min(FOUR_GIB);
        let mut map = Self::default();
        for (start, size) in Self::ram_ranges(ram_size, mmio_start) {
            map.set(start, size, RegionKind::Ram);
        }
        let low_end = ram_size.min(mmio_start);
        map.clear(CONVENTIONAL_END, HIGH_START - CONVENTIONAL_END);
        if low_end > EBDA_START {
            map.set(EBDA_START, CONVENTIONAL_END - EBDA_START, RegionKind::Reserved);
        }
        map.set(BIOS_START, HIGH_START - BIOS_START, RegionKind::Reserved);
        map
    }

    /// Where `ram_size` bytes of RAM lie, as (start, size): below `mmio_start`,
    /// and from 4 GiB on. The window at 0xA0000 is not cut out.
    pub fn ram_ranges(ram_size: u64, mmio_start: u64) -> Vec<(u64, u64)> {
        let low = ram_size.min(mmio_start).min(FOUR_GIB);
        let mut ranges = vec![(0, low)];
        if ram_size > low {
            ranges.push((FOUR_GIB, (ram_size - low).min(u64::MAX - FOUR_GIB)));
        }
        ranges
    }

    /// Gives `size` bytes from `start` the kind `kind`, whatever they were.
    /// What would run past the top of the address space is cut off.
    pub fn set(&mut self, start: u64, size: u64, kind: RegionKind) {
        let size = size.min(u64::MAX - start);
        if size == 0 {
            return;
        }
        self.clear(start, size);
        let at = self.regions.partition_point(|region| region.start < start);
        self.regions.insert(at, Region { start, size, kind });
        self.regions.dedup_by(|next, previous| {
            let joined = previous.kind == next.kind && previous.end() == next.start;
            if joined {
                previous.size += next.size;
            }
            joined
        });
    }

    /// Takes `size` bytes from `start` out of the map.
    fn clear(&mut self, start: u64, size: u64) {
        let end = start.saturating_add(size);
        let mut kept = Vec::with_capacity(self.regions.len() + 1);
        for region in self.regions.drain(..) {
            let mut keep = |from: u64, to: u64| {
                if from < to {
                    kept.push(Region { start: from, size: to - from, kind: region.kind });
                }
            };
            keep(region.start, region.end().min(start));
            keep(region.start.max(end), region.end());
        }
        self.regions = kept;
    }

    /// The regions in ascending order.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The regions of free RAM in ascending order.
    pub(super) fn ram(&self) -> impl DoubleEndedIterator<Item = &Region> {
        self.regions.iter().filter(|region| region.kind == RegionKind::Ram)
    }

    /// Whether `size` bytes from `start` lie in one region of free RAM.
    pub(super) fn is_ram(&self, start: u64, size: u64) -> bool {
        start.checked_add(size).is_some_and(|end| {
            self.ram().any(|region| region.start <= start && end <= region.end())
        })
    }

    /// Bytes of free RAM from `start` up to the first gap.
    pub(super) fn ram_from(&self, start: u64) -> u64 {
        self.ram()
            .find(|region| region.start <= start && start < region.end())
            .map_or(0, |region| region.end() - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn region(start: u64, end: u64, kind: RegionKind) -> Region {
        Region { start, size: end - start, kind }
    }

    #[test]
    fn a_pc_with_six_gib_has_the_holes_of_a_pc() {
        let map = MemoryMap::pc(6 << 30, 0xC000_0000);
        assert_eq!(
            map.regions(),
            [
                region(0, 0x9_FC00, RegionKind::Ram),
                region(0x9_FC00, 0xA_0000, RegionKind::Reserved),
                region(0xF_0000, 0x10_0000, RegionKind::Reserved),
                region(0x10_0000, 0xC000_0000, RegionKind::Ram),
                region(1 << 32, (1 << 32) + (3 << 30), RegionKind::Ram),
            ]
        );
    }

    #[test]
    fn a_pc_with_little_memory_reports_no_more_than_it_has() {
        let map = MemoryMap::pc(0x8_0000, 0xC000_0000);
        assert_eq!(map.regions()[0], region(0, 0x8_0000, RegionKind::Ram));
        assert_eq!(map.regions()[1], region(0xF_0000, 0x10_0000, RegionKind::Reserved));
        assert_eq!(map.regions().len(), 2);
        assert!(MemoryMap::pc(0, 0xC000_0000).ram().next().is_none());
    }

    #[test]
    fn tables_are_cut_out_of_ram_and_neighbours_are_joined() {
        let mut map = MemoryMap::pc(64 << 20, 0xC000_0000);
        map.set(0x3FF_0000, 0x8000, RegionKind::Acpi);
        map.set(0x3FF_8000, 0x8000, RegionKind::Acpi);
        assert_eq!(
            *map.regions().last().unwrap(),
            region(0x3FF_0000, 0x400_0000, RegionKind::Acpi)
        );
        assert!(map.is_ram(0x3FE_F000, 0x1000) && !map.is_ram(0x3FE_F000, 0x1001));
        assert_eq!(map.ram_from(0x3FE_F000), 0x1000);
    }

    proptest! {
        #[test]
        fn a_map_stays_sorted_and_disjoint(
            ram in any::<u64>(),
            mmio in any::<u64>(),
            sets in prop::collection::vec((any::<u64>(), any::<u64>(), 0..4), 0..12),
        ) {
            let mut map = MemoryMap::pc(ram, mmio);
            for (start, size, kind) in sets {
                let kind = [RegionKind::Ram, RegionKind::Reserved, RegionKind::Acpi,
                    RegionKind::Nvs][kind as usize];
                map.set(start, size, kind);
            }
            for pair in map.regions().windows(2) {
                prop_assert!(pair[0].end() <= pair[1].start);
                prop_assert!(pair[0].end() < pair[1].start || pair[0].kind != pair[1].kind);
            }
            prop_assert!(map.regions().iter().all(|region| region.size > 0));
        }
    }
}
