//! Translated blocks, found by address, invalidated by page, linked to one another.

use crate::arena::Arena;
use crate::emit::Exit;
use crate::indirect::IndirectCache;
use crate::key::Key;
use crate::pages::ByPage;
use hashbrown::HashMap;
use softmmu::{CodeWrite, MappingChanges};

/// Entries of the direct-mapped front of the block table.
const FRONT: usize = 1 << 13;

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
    incoming: Vec<u32>,
    /// Links that leave: first and number.
    outgoing: (u32, u32),
    alive: bool,
}

impl Block {
    fn touched_by(&self, write: &CodeWrite) -> bool {
        let first = self.len.min(0x1000 - (self.place.gpa & 0xFFF));
        write.touches(self.place.gpa, first)
            || self.second_page.is_some_and(|page| write.touches(page, self.len - first))
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
            incoming: Vec::new(),
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
        if exit.to.is_some() || !from.alive || !target.alive || !same_place {
            return false;
        }
        if from.place.linear & !0xFFF != target.place.linear & !0xFFF {
            self.cross_page.insert(target.place.linear, global, link);
        }
        if target.second_page.is_some() {
            self.cross_page.insert(target.place.second_page(), false, link);
        }
        exit.to = Some(to);
        arena.patch(exit.site, if exit.saved { target.saved } else { target.direct });
        self.blocks[to as usize].incoming.push(link);
        true
    }

    fn unlink(&mut self, arena: &mut Arena, link: u32) {
        let exit = &mut self.links[link as usize];
        if let Some(to) = exit.to.take() {
            arena.patch(exit.site, exit.trampoline);
            self.blocks[to as usize].incoming.retain(|&other| other != link);
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
            for index in hit {
                removed.push(self.blocks[index as usize].place.gpa);
                self.remove(arena, indirect, index);
            }
        }
        removed
    }

    /// Removes a block.
    pub(crate) fn remove(&mut self, arena: &mut Arena, indirect: &mut IndirectCache, index: u32) {
        let block = &mut self.blocks[index as usize];
        block.alive = false;
        let place = block.place;
        let pages = [Some(place.gpa & !0xFFF), block.second_page];
        let (first, count) = block.outgoing;
        let incoming = std::mem::take(&mut block.incoming);
        for link in incoming {
            self.unlink(arena, link);
        }
        for link in first..first + count {
            self.unlink(arena, link);
        }
        self.by_place.remove(&place);
        for page in pages.into_iter().flatten() {
            if let Some(list) = self.by_page.get_mut(&page) {
                list.retain(|&other| other != index);
            }
        }
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
