//! The second-level TLB: set-associative, for all address spaces, every page size.
//!
//! It refills the first level after a change of address space or a conflict without a walk.
//! Entries hold the page's attributes, not one privilege's rights, and stay valid when CR0.WP,
//! SMEP, SMAP or protection keys change.
//!
//! Each PCID has an address-space number, and so have the global translations. Flushing a PCID
//! gives it a fresh number, which costs nothing however much is cached; entries under the old
//! number can never match again. When the numbers run out everything is cleared.

use crate::paging::Leaf;
use hashbrown::HashMap;

const WAYS: usize = 4;
/// Sets for 4 KiB pages: 16,384 entries.
const SMALL_SETS: usize = 4096;
/// Sets for 2 MiB, 4 MiB (as two halves) and 1 GiB pages: 1,024 entries.
const LARGE_SETS: usize = 256;

/// Bits of an address-space number in a tag.
const SPACE_BITS: u32 = 19;
/// Linear-address bits that can matter: 12 to 56.
const LINEAR: u64 = 0x01FF_FFFF_FFFF_F000;

const PCIDS: usize = 4096;

/// Translations kept beyond the sets in strict mode, before all of those are forgotten.
const MAX_KEPT: usize = 1 << 22;

/// log2 of the region in which INVLPG of a 2 MiB or 4 MiB page may have effects.
const LARGE_REGION: u32 = 22;
/// log2 of a 1 GiB page.
const HUGE_REGION: u32 = 30;

#[derive(Clone, Copy, Default)]
struct Entry {
    /// Linear page and address-space number; 0 is empty, since numbers start at 1.
    tag: u64,
    leaf: Leaf,
}

/// A set of regions that errs on the side of membership.
#[derive(Default)]
struct Filter {
    bits: [u64; 16],
    any: bool,
}

impl Filter {
    fn position(region: u64) -> (usize, u64) {
        (region as usize / 64 % 16, 1 << (region % 64))
    }
    fn insert(&mut self, region: u64) {
        let (word, bit) = Self::position(region);
        self.bits[word] |= bit;
        self.any = true;
    }
    fn contains(&self, region: u64) -> bool {
        let (word, bit) = Self::position(region);
        self.bits[word] & bit != 0
    }
}

/// The second-level TLB of a vCPU.
pub(crate) struct SecondLevel {
    small: Box<[[Entry; WAYS]]>,
    large: Box<[[Entry; WAYS]]>,
    /// Address-space number of each PCID, 0 for none.
    spaces: Box<[u32]>,
    /// The number of global translations.
    global: u32,
    /// The number of the current PCID.
    current: u32,
    pcid: u16,
    /// The next number to hand out.
    next: u32,
    /// The way that the next conflict replaces.
    victim: usize,
    /// Counts invalidations that are not a fresh number for one address space.
    epoch: u64,
    /// Regions of large pages cached, here or as fragments in the first level, since
    /// everything was flushed.
    large_regions: Filter,
    huge_regions: Filter,
    /// In strict mode, what the sets had no room for, by tag and log2 of the page size.
    kept: Option<HashMap<(u64, u32), Leaf>>,
}

fn tag(linear: u64, space: u32) -> u64 {
    (linear & LINEAR) << (SPACE_BITS - 12) | u64::from(space)
}

fn small_set(linear: u64) -> usize {
    // Folding higher bits in spreads stacks and heaps that lie at equal offsets.
    (linear >> 12 ^ linear >> 24) as usize % SMALL_SETS
}

fn large_set(linear: u64, shift: u32) -> usize {
    (linear >> shift) as usize % LARGE_SETS
}

impl SecondLevel {
    pub(crate) fn new() -> SecondLevel {
        let mut new = SecondLevel {
            small: vec![[Entry::default(); WAYS]; SMALL_SETS].into_boxed_slice(),
            large: vec![[Entry::default(); WAYS]; LARGE_SETS].into_boxed_slice(),
            spaces: vec![0; PCIDS].into_boxed_slice(),
            global: 0,
            current: 0,
            pcid: 0,
            next: 1,
            victim: 0,
            epoch: 0,
            large_regions: Filter::default(),
            huge_regions: Filter::default(),
            kept: None,
        };
        new.flush_all();
        new
    }

    /// Keeps every translation until it is invalidated, however many there are.
    pub(crate) fn keep_everything(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// What the sets had no room for, of this size around `linear`.
    fn kept(&self, linear: u64, shift: u32) -> Option<Leaf> {
        let kept = self.kept.as_ref()?;
        let base = linear & !((1 << shift) - 1);
        [self.current, self.global].iter().find_map(|&s| kept.get(&(tag(base, s), shift)).copied())
    }

    /// A number that no entry carries.
    fn fresh(&mut self) -> u32 {
        if self.next >> SPACE_BITS != 0 {
            self.small.fill([Entry::default(); WAYS]);
            self.large.fill([Entry::default(); WAYS]);
            self.spaces.fill(0);
            if let Some(kept) = &mut self.kept {
                kept.clear();
            }
            // All numbers are free again; the two in use move along.
            self.epoch += 1;
            self.global = 1;
            self.current = 2;
            self.next = 3;
            if let Some(space) = self.spaces.get_mut(usize::from(self.pcid)) {
                *space = self.current;
            }
        }
        let number = self.next;
        self.next += 1;
        number
    }

    /// Makes a new [`SecondLevel::generation`] for every address space.
    pub(crate) fn new_epoch(&mut self) {
        self.epoch += 1;
    }

    /// A number that changes with every invalidation in the current address space.
    pub(crate) fn generation(&self) -> u64 {
        self.epoch << SPACE_BITS | u64::from(self.current)
    }

    fn space_of(&self, pcid: u16) -> u32 {
        self.spaces.get(usize::from(pcid)).copied().unwrap_or(0)
    }

    /// Changes the current PCID.
    pub(crate) fn select(&mut self, pcid: u16) {
        self.pcid = pcid;
        self.current = self.space_of(pcid);
        if self.current == 0 {
            self.renew_current();
        }
    }

    fn renew_current(&mut self) {
        self.current = self.fresh();
        if let Some(space) = self.spaces.get_mut(usize::from(self.pcid)) {
            *space = self.current;
        }
    }

    /// Invalidates what is not global of one PCID.
    pub(crate) fn flush_pcid(&mut self, pcid: u16) {
        if let Some(space) = self.spaces.get_mut(usize::from(pcid)) {
            *space = 0;
        }
        if pcid == self.pcid {
            self.renew_current();
        }
    }

    /// Invalidates what is not global of all PCIDs.
    pub(crate) fn flush_non_global(&mut self) {
        self.spaces.fill(0);
        self.renew_current();
    }

    /// Invalidates everything.
    pub(crate) fn flush_all(&mut self) {
        self.epoch += 1;
        self.global = self.fresh();
        self.flush_non_global();
        self.large_regions = Filter::default();
        self.huge_regions = Filter::default();
    }

    /// The translation of `linear` in the current PCID.
    pub(crate) fn lookup(&self, linear: u64) -> Option<Leaf> {
        let find = |set: &[Entry; WAYS], base: u64, size: u64| {
            let (own, global) = (tag(base, self.current), tag(base, self.global));
            let sizes = Leaf::LARGE | Leaf::HUGE;
            let hit = |entry: &&Entry| {
                (entry.tag == own || entry.tag == global) && entry.leaf.0 & sizes == size
            };
            set.iter().find(hit).map(|entry| entry.leaf)
        };
        if let Some(leaf) = find(&self.small[small_set(linear)], linear, 0) {
            return Some(leaf);
        }
        if self.large_regions.any {
            let set = &self.large[large_set(linear, 21)];
            if let Some(leaf) = find(set, linear & !0x1F_FFFF, Leaf::LARGE) {
                return Some(leaf);
            }
        }
        if self.huge_regions.any {
            let set = &self.large[large_set(linear, 30)];
            if let Some(leaf) = find(set, linear & !0x3FFF_FFFF, Leaf::HUGE) {
                return Some(leaf);
            }
        }
        [12, 21, 30].into_iter().find_map(|shift| self.kept(linear, shift))
    }

    /// Enters a translation for the current PCID.
    pub(crate) fn insert(&mut self, linear: u64, leaf: Leaf) {
        let space = if leaf.global() { self.global } else { self.current };
        let shift = leaf.size_shift();
        let base = linear & !((1 << shift) - 1);
        let set = match shift {
            12 => &mut self.small[small_set(linear)],
            21 => {
                self.large_regions.insert(linear >> LARGE_REGION);
                &mut self.large[large_set(linear, 21)]
            }
            _ => {
                self.huge_regions.insert(linear >> HUGE_REGION);
                &mut self.large[large_set(linear, 30)]
            }
        };
        let new = Entry { tag: tag(base, space), leaf };
        let same =
            |entry: &Entry| entry.tag == new.tag && entry.leaf.size_shift() == leaf.size_shift();
        let way = set.iter().position(same).or_else(|| set.iter().position(|e| e.tag == 0));
        let way = way.unwrap_or_else(|| {
            self.victim = (self.victim + 1) % WAYS;
            self.victim
        });
        let evicted = std::mem::replace(&mut set[way], new);
        if let Some(kept) = &mut self.kept {
            kept.remove(&(new.tag, shift));
            if evicted.tag != 0 && evicted.tag != new.tag {
                if kept.len() >= MAX_KEPT {
                    kept.clear();
                }
                kept.insert((evicted.tag, evicted.leaf.size_shift()), evicted.leaf);
            }
        }
    }

    /// Invalidates the page of `linear`, of any size, in `pcid`; with `globals` also a global
    /// translation of it. Returns the size in bytes of the region around `linear` that the
    /// page may have covered, for the first level.
    pub(crate) fn invalidate(&mut self, linear: u64, pcid: u16, globals: bool) -> u64 {
        let space = self.space_of(pcid);
        let global = if globals { self.global } else { space };
        if let Some(kept) = &mut self.kept {
            let half = (linear & !0x1F_FFFF) ^ 1 << 21;
            let pages =
                [(linear, 12), (linear & !0x1F_FFFF, 21), (half, 21), (linear & !0x3FFF_FFFF, 30)];
            for (base, shift) in pages {
                kept.remove(&(tag(base, space), shift));
                kept.remove(&(tag(base, global), shift));
            }
        }
        let wipe = |set: &mut [Entry; WAYS], base: u64| {
            for entry in set {
                if entry.tag == tag(base, space) || entry.tag == tag(base, global) {
                    *entry = Entry::default();
                }
            }
        };
        wipe(&mut self.small[small_set(linear)], linear);
        if self.huge_regions.contains(linear >> HUGE_REGION) {
            wipe(&mut self.large[large_set(linear, 30)], linear & !0x3FFF_FFFF);
        }
        if self.large_regions.contains(linear >> LARGE_REGION) {
            // Both halves of what may be a 4 MiB page.
            for half in [linear & !0x1F_FFFF, (linear & !0x1F_FFFF) ^ 1 << 21] {
                wipe(&mut self.large[large_set(half, 21)], half);
            }
        }
        if self.huge_regions.contains(linear >> HUGE_REGION) {
            1 << HUGE_REGION
        } else if self.large_regions.contains(linear >> LARGE_REGION) {
            1 << LARGE_REGION
        } else {
            4096
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(frame: u64, flags: u64) -> Leaf {
        Leaf(frame | flags)
    }

    #[test]
    fn pcids_do_not_see_each_other_but_share_globals() {
        let mut tlb = SecondLevel::new();
        tlb.select(1);
        tlb.insert(0x1234, leaf(0xA000, 0));
        tlb.insert(0x5000, leaf(0xB000, Leaf::GLOBAL));
        tlb.select(2);
        assert_eq!(tlb.lookup(0x1000), None);
        assert_eq!(tlb.lookup(0x5FFF).map(Leaf::frame), Some(0xB000));
        tlb.select(1);
        assert_eq!(tlb.lookup(0x1FFF).map(Leaf::frame), Some(0xA000));
    }

    #[test]
    fn flushes_hit_what_they_name() {
        let mut tlb = SecondLevel::new();
        let fill = |tlb: &mut SecondLevel| {
            for pcid in [1, 2] {
                tlb.select(pcid);
                tlb.insert(0x1000, leaf(0xA000, 0));
            }
            tlb.insert(0x2000, leaf(0xB000, Leaf::GLOBAL));
        };
        let seen = |tlb: &mut SecondLevel| {
            let mut pages = Vec::new();
            for pcid in [1, 2] {
                tlb.select(pcid);
                pages.push(tlb.lookup(0x1000).is_some());
            }
            pages.push(tlb.lookup(0x2000).is_some());
            pages
        };
        fill(&mut tlb);
        assert_eq!(seen(&mut tlb), [true, true, true]);
        tlb.flush_pcid(1);
        assert_eq!(seen(&mut tlb), [false, true, true]);
        tlb.flush_pcid(2);
        assert_eq!(seen(&mut tlb), [false, false, true]);
        fill(&mut tlb);
        tlb.flush_non_global();
        assert_eq!(seen(&mut tlb), [false, false, true]);
        fill(&mut tlb);
        tlb.flush_all();
        assert_eq!(seen(&mut tlb), [false, false, false]);
        fill(&mut tlb);
        tlb.invalidate(0x1000, 1, true);
        assert_eq!(seen(&mut tlb), [false, true, true]);
        tlb.invalidate(0x2000, 2, false);
        assert_eq!(seen(&mut tlb), [false, true, true]);
        tlb.invalidate(0x2000, 2, true);
        assert_eq!(seen(&mut tlb), [false, true, false]);
    }

    #[test]
    fn sizes_at_one_address_are_told_apart() {
        let mut tlb = SecondLevel::new();
        tlb.insert(0x4000_1000, leaf(0x8000_0000, Leaf::HUGE));
        assert_eq!(tlb.lookup(0x7FFF_FFFF).map(Leaf::size_shift), Some(30));
        tlb.insert(0x4000_1000, leaf(0x20_0000, Leaf::LARGE));
        assert_eq!(tlb.lookup(0x401F_FFFF).map(Leaf::size_shift), Some(21));
        assert_eq!(tlb.lookup(0x4020_0000).map(Leaf::size_shift), Some(30));
        assert_eq!(tlb.invalidate(0x5000_0000, 0, true), 1 << 30);
        assert_eq!(tlb.lookup(0x4020_0000), None);
    }

    #[test]
    fn running_out_of_numbers_clears_everything_and_goes_on() {
        let mut tlb = SecondLevel::new();
        tlb.select(3);
        for round in 0..(1u32 << SPACE_BITS) + 10 {
            tlb.insert(0x9000, leaf(0x1000, 0));
            tlb.insert(0xA000, leaf(0x2000, Leaf::GLOBAL));
            tlb.flush_pcid(3);
            assert_eq!(tlb.lookup(0x9000), None, "round {round}");
            assert!(tlb.current != tlb.global);
        }
        tlb.insert(0x9000, leaf(0x1000, 0));
        tlb.select(4);
        assert_eq!(tlb.lookup(0x9000), None);
        tlb.select(3);
        assert_eq!(tlb.lookup(0x9000).map(Leaf::frame), Some(0x1000));
    }
}
