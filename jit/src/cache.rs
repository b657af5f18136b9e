//! Translated blocks, found by address, invalidated by page, linked to one another.

use crate::arena::Arena;
use crate::emit::Exit;
use crate::indirect::IndirectCache;
use crate::key::Key;
use crate::pages::{ByPage, everything};
use hashbrown::{HashMap, HashSet};
use softmmu::{CodeWrite, MappingChanges};

/// Entries of the direct-mapped front of the block table.
const FRONT: usize = 1 << 13;
/// Links between pages that are made before all of them are undone: some may be noted twice.
const MAX_CROSS_PAGE: usize = 1 << 20;

/// What a block is found by. RIP belongs to it because it is part of the code: return addresses,
/// RIP-relative operands. So does the code segment, for its limit, and for its base, without which
/// RIP does not tell the page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Place {
    pub(crate) rip: u64,
    /// Physical address of the first byte.
    pub(crate) gpa: u64,
    /// Linear address of the first byte.
    pub(crate) linear: u64,
    pub(crate) key: Key,
    /// Number of the code segment.
    pub(crate) segment: u32,
}

impl Place {
    /// What the cache of indirect branches knows it by: the code segment above RIP.
    pub(crate) fn tag(&self) -> u64 {
        self.rip | u64::from(self.segment) << 32
    }

    /// Linear address of the page behind this one.
    pub(crate) fn second_page(&self) -> u64 {
        self.key.wrap((self.linear & !0xFFF).wrapping_add(0x1000))
    }
}

/// A translated block.
pub(crate) struct Block {
    pub(crate) place: Place,
    /// Bytes of guest code.
    pub(crate) len: u64,
    /// Physical address of the second page, where the block is one instruction that crosses.
    pub(crate) second_page: Option<u64>,
    /// Code addresses of the entries with flags in EFLAGS and in the slot.
    pub(crate) direct: u64,
    pub(crate) saved: u64,
    /// Links that lead here.
    incoming: HashSet<u32>,
    /// Links that leave: first and number.
    outgoing: (u32, u32),
    alive: bool,
}

impl Block {
    fn touched_by(&self, write: &CodeWrite) -> bool {
        let first = self.len.min(0x1000 - (self.place.gpa & 0xFFF));
        let second = |page| write.touches(page, self.len - first);
        self.alive && (write.touches(self.place.gpa, first) || self.second_page.is_some_and(second))
    }
}

/// A direct exit.
pub(crate) struct Link {
    /// Address of the displacement, and of the code that leaves to the engine.
    pub(crate) site: u64,
    pub(crate) trampoline: u64,
    pub(crate) target: u64,
    key: Key,
    saved: bool,
    pub(crate) from: u32,
    pub(crate) to: Option<u32>,
}

/// All blocks of an engine.
pub(crate) struct BlockCache {
    pub(crate) blocks: Vec<Block>,
    pub(crate) links: Vec<Link>,
    by_place: HashMap<Place, u32>,
    /// By physical page; blocks that were removed may be among them.
    by_page: HashMap<u64, Vec<u32>>,
    /// Patched links whose target is in another page than their block.
    cross_page: ByPage<u32>,
    front: Box<[(Place, u32)]>,
}

const NOWHERE: Place =
    Place { rip: u64::MAX, gpa: u64::MAX, linear: u64::MAX, key: Key(0), segment: 0 };

fn slot(place: &Place) -> usize {
    (place.linear ^ place.linear >> 12 ^ u64::from(place.key.0)) as usize & (FRONT - 1)
}

impl Default for BlockCache {
    fn default() -> BlockCache {
        BlockCache {
            blocks: Vec::new(),
            links: Vec::new(),
            by_place: HashMap::new(),
            by_page: HashMap::new(),
            cross_page: ByPage::default(),
            front: vec![(NOWHERE, 0); FRONT].into(),
        }
    }
}

impl BlockCache {
    /// The block at a place.
    #[inline]
    pub(crate) fn find(&mut self, place: &Place) -> Option<u32> {
        let front = &mut self.front[slot(place)];
        if front.0 == *place {
            return Some(front.1);
        }
        let index = *self.by_place.get(place)?;
        *front = (*place, index);
        Some(index)
    }

    /// Adds a block with its entries' addresses: with flags in EFLAGS, and in the slot.
    pub(crate) fn insert(
        &mut self,
        place: Place,
        (len, second_page): (u64, Option<u64>),
        (direct, saved): (u64, u64),
        exits: &[Exit],
    ) -> u32 {
        let index = self.blocks.len() as u32;
        let first = self.links.len() as u32;
        for exit in exits {
            self.links.push(Link {
                site: exit.site,
                trampoline: exit.trampoline,
                target: exit.request.target,
                key: exit.request.key,
                saved: exit.request.saved,
                from: index,
                to: None,
            });
        }
        self.blocks.push(Block {
            place,
            len,
            second_page,
            direct,
            saved,
            incoming: HashSet::new(),
            outgoing: (first, exits.len() as u32),
            alive: true,
        });
        self.by_place.insert(place, index);
        for page in [Some(place.gpa & !0xFFF), second_page].into_iter().flatten() {
            self.by_page.entry(page).or_default().push(index);
        }
        index
    }

    /// Whether a block was not removed.
    pub(crate) fn is_alive(&self, index: u32) -> bool {
        self.blocks.get(index as usize).is_some_and(|block| block.alive)
    }

    /// The links that leave a block.
    pub(crate) fn links_of(&self, index: u32) -> &[Link] {
        let (first, count) = self.blocks[index as usize].outgoing;
        &self.links[first as usize..(first + count) as usize]
    }

    /// The live block whose entries are at this code address, and whether it is the one with flags
    /// in the slot.
    pub(crate) fn entered_at(&self, code: u64) -> Option<(&Block, bool)> {
        let at = |block: &&Block| block.alive && (block.direct == code || block.saved == code);
        self.blocks.iter().find(at).map(|block| (block, block.saved == code))
    }

    /// The live block that begins at a linear address, or else one that covers it.
    pub(crate) fn at_linear(&self, linear: u64) -> Option<u32> {
        let find = |wanted: &dyn Fn(&Block) -> bool| {
            self.blocks.iter().position(|block| block.alive && wanted(block))
        };
        find(&|block| block.place.linear == linear)
            .or_else(|| find(&|block| linear.wrapping_sub(block.place.linear) < block.len))
            .map(|index| index as u32)
    }

    /// Links an exit to its target's block. `global`: the target's page is a global one.
    pub(crate) fn link(&mut self, arena: &mut Arena, link: u32, to: u32, global: bool) -> bool {
        let exit = &mut self.links[link as usize];
        let (from, target) = (&self.blocks[exit.from as usize], &self.blocks[to as usize]);
        let same_segment = from.place.segment == target.place.segment;
        let same_place =
            same_segment && exit.target == target.place.rip && exit.key == target.place.key;
        let page = |address: u64| address & !0xFFF;
        let same_page = page(from.place.linear) == page(target.place.linear);
        // The page has been mapped elsewhere while the block ran. It will only be entered again where
        // that is undone, and then the target is another one.
        let moved = same_page && page(from.place.gpa) != page(target.place.gpa);
        if exit.to.is_some() || !from.alive || !target.alive || !same_place || moved {
            return false;
        }
        if self.cross_page.added() >= MAX_CROSS_PAGE {
            self.unlink_pages(arena, &everything());
            return false;
        }
        if !same_page {
            self.cross_page.insert(target.place.linear, global, link);
        }
        if target.second_page.is_some() {
            self.cross_page.insert(target.place.second_page(), false, link);
        }
        exit.to = Some(to);
        arena.patch(exit.site, if exit.saved { target.saved } else { target.direct });
        self.blocks[to as usize].incoming.insert(link);
        true
    }

    fn unlink(&mut self, arena: &mut Arena, link: u32) {
        let exit = &mut self.links[link as usize];
        if let Some(to) = exit.to.take() {
            arena.patch(exit.site, exit.trampoline);
            self.blocks[to as usize].incoming.remove(&link);
        }
    }

    /// Undoes the cross-page links whose target's translation may have changed.
    pub(crate) fn unlink_pages(&mut self, arena: &mut Arena, changes: &MappingChanges) {
        let mut cross_page = std::mem::take(&mut self.cross_page);
        cross_page.take(changes, |link| self.unlink(arena, link));
        self.cross_page = cross_page;
    }

    /// Removes the blocks whose bytes were written. Returns their physical addresses.
    pub(crate) fn invalidate(
        &mut self,
        arena: &mut Arena,
        indirect: &mut IndirectCache,
        write: &CodeWrite,
    ) -> Vec<u64> {
        let mut removed = Vec::new();
        let first = write.gpa & !0xFFF;
        let last = write.gpa.saturating_add(write.len.saturating_sub(1)) & !0xFFF;
        for page in (first..=last).step_by(0x1000) {
            let Some(list) = self.by_page.get(&page) else { continue };
            let hit: Vec<u32> = (list.iter().copied())
                .filter(|&index| self.blocks[index as usize].touched_by(write))
                .collect();
            for &index in &hit {
                removed.push(self.blocks[index as usize].place.gpa);
                self.remove(arena, indirect, index);
            }
            // Once for all of them: they may be many.
            if let Some(list) = self.by_page.get_mut(&page).filter(|_| !hit.is_empty()) {
                list.retain(|&index| self.blocks[index as usize].alive);
            }
        }
        removed
    }

    /// Removes a block.
    pub(crate) fn remove(&mut self, arena: &mut Arena, indirect: &mut IndirectCache, index: u32) {
        let block = &mut self.blocks[index as usize];
        block.alive = false;
        let place = block.place;
        let (first, count) = block.outgoing;
        let incoming = std::mem::take(&mut block.incoming);
        for link in incoming {
            self.unlink(arena, link);
        }
        for link in first..first + count {
            self.unlink(arena, link);
        }
        self.by_place.remove(&place);
        let front = &mut self.front[slot(&place)];
        if front.1 == index {
            *front = (NOWHERE, 0);
        }
        indirect.remove(&place);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = BlockCache::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::LinkRequest;

    fn place(linear: u64) -> Place {
        Place { rip: linear, gpa: linear, linear, key: Key::default(), segment: 0 }
    }

    /// An arena, a block with one exit, and a block of two pages that the exit leads to.
    fn two_blocks() -> (Arena, BlockCache, u32, u32) {
        let mut arena = Arena::new(1 << 20).unwrap();
        let code = arena.append(&[0; 64], &[]).unwrap().hot;
        let mut cache = BlockCache::default();
        let target = place(0x2FFE);
        let (saved, key) = (false, Key::default());
        let request = LinkRequest { site: 0, trampoline: 0, target: target.rip, saved, key };
        let exit = Exit { request, site: code, trampoline: code + 16 };
        let from = cache.insert(place(0x1000), (5, None), (code, code), &[exit]);
        let entries = (code + 32, code + 48);
        let to = cache.insert(target, (4, Some(0x3000)), entries, &[]);
        (arena, cache, from, to)
    }

    fn leads_to(arena: &Arena, cache: &BlockCache) -> u64 {
        let site = cache.links[0].site;
        let bytes = arena.read(site, 4).unwrap();
        let relative = i32::from_le_bytes(bytes.try_into().unwrap());
        (site + 4).wrapping_add_signed(relative.into())
    }

    #[test]
    fn links_that_come_and_go_do_not_pile_up() {
        let (mut arena, mut cache, _, to) = two_blocks();
        let first_page =
            MappingChanges { any: true, regions: vec![(0x2000, 0x1000)], ..Default::default() };
        for _ in 0..MAX_CROSS_PAGE {
            cache.link(&mut arena, 0, to, false);
            cache.unlink_pages(&mut arena, &first_page);
        }
        assert!(cache.cross_page.added() <= MAX_CROSS_PAGE + 1);
        assert_eq!(leads_to(&arena, &cache), cache.links[0].trampoline);
        assert!(cache.blocks[to as usize].incoming.is_empty());
    }

    #[test]
    fn a_page_that_was_mapped_elsewhere_is_not_linked_to_what_it_was() {
        let mut arena = Arena::new(1 << 20).unwrap();
        let code = arena.append(&[0; 64], &[]).unwrap().hot;
        let mut cache = BlockCache::default();
        let (saved, key, target) = (false, Key::default(), 0x1020);
        let request = LinkRequest { site: 0, trampoline: 0, target, saved, key };
        let exit = Exit { request, site: code, trampoline: code + 16 };
        cache.insert(place(0x1000), (5, None), (code, code), &[exit]);
        let moved = Place { gpa: 0x7020, ..place(target) };
        let there = cache.insert(moved, (4, None), (code + 32, code + 48), &[]);
        let here = cache.insert(place(target), (4, None), (code + 32, code + 48), &[]);
        assert!(!cache.link(&mut arena, 0, there, false));
        assert!(cache.link(&mut arena, 0, here, false));
    }

    #[test]
    fn removed_blocks_are_led_to_no_more() {
        for (at, len, hits) in [(0x2FFD, 1, 0), (0x2FFF, 1, 1), (0x3001, 1, 1), (0x2F00, 0x200, 1)]
        {
            let (mut arena, mut cache, from, to) = two_blocks();
            assert!(cache.link(&mut arena, 0, to, false));
            assert_eq!(leads_to(&arena, &cache), cache.blocks[to as usize].direct);
            let write = CodeWrite { gpa: at, len };
            let mut indirect = IndirectCache::default();
            let removed = cache.invalidate(&mut arena, &mut indirect, &write);
            assert_eq!(removed, vec![0x2FFE; hits], "{at:#x}");
            assert_eq!(cache.is_alive(to), hits == 0);
            assert_eq!(leads_to(&arena, &cache) == cache.links[0].trampoline, hits != 0);
            assert!(cache.invalidate(&mut arena, &mut indirect, &write).is_empty());
            assert!(cache.is_alive(from) && cache.find(&place(0x1000)) == Some(from));
            assert_eq!(cache.find(&place(0x2FFE)).is_some(), hits == 0);
        }
    }
}
