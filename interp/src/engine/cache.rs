//! Decoded blocks by physical address and code size.

use super::block::{Block, decode_block};
use hashbrown::HashMap;
use softmmu::{CodeWrite, Mmu};
use x86::Fault;
use x86::cpuid::Policy;

/// Entries of the direct-mapped first-level cache.
const FRONT: usize = 1 << 14;
/// Blocks kept before everything is dropped: about 100 MB would be too much for a small guest, and
/// a Linux boot with a login uses under 40,000.
const MAX_BLOCKS: usize = 1 << 16;

#[derive(Clone, Copy)]
struct Front {
    gpa: u64,
    bits: u32,
    index: u32,
}

const EMPTY: Front = Front { gpa: u64::MAX, bits: 0, index: 0 };

pub(crate) struct BlockCache {
    front: Box<[Front]>,
    slots: Vec<Option<Block>>,
    free: Vec<u32>,
    by_address: HashMap<(u64, u32), u32>,
    by_page: HashMap<u64, Vec<u32>>,
}

impl Default for BlockCache {
    fn default() -> BlockCache {
        BlockCache {
            front: vec![EMPTY; FRONT].into(),
            slots: Vec::new(),
            free: Vec::new(),
            by_address: HashMap::new(),
            by_page: HashMap::new(),
        }
    }
}

#[inline(always)]
fn front_slot(gpa: u64) -> usize {
    (gpa ^ gpa >> 13) as usize & (FRONT - 1)
}

impl BlockCache {
    /// The index of the block at `gpa`.
    #[inline(always)]
    pub(crate) fn find(&mut self, gpa: u64, bits: u32) -> Option<u32> {
        let front = &mut self.front[front_slot(gpa)];
        if front.gpa == gpa && front.bits == bits {
            return Some(front.index);
        }
        let index = *self.by_address.get(&(gpa, bits))?;
        *front = Front { gpa, bits, index };
        Some(index)
    }

    /// The block at `index`, which [`BlockCache::find`] or [`BlockCache::decode`] gave.
    #[inline(always)]
    pub(crate) fn get(&self, index: u32) -> &Block {
        match &self.slots[index as usize] {
            Some(block) => block,
            None => unreachable!("an index found in the cache has a block"),
        }
    }

    /// Decodes and caches the block at `linear`, physical address `gpa`.
    pub(crate) fn decode(
        &mut self,
        policy: &Policy,
        mmu: &mut Mmu,
        linear: u64,
        gpa: u64,
        bits: u32,
    ) -> Result<u32, Fault> {
        let block = decode_block(policy, mmu, linear, gpa, bits)?;
        if self.by_address.len() >= MAX_BLOCKS {
            self.clear();
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        for page in pages(&block) {
            self.by_page.entry(page).or_default().push(index);
        }
        self.by_address.insert((gpa, bits), index);
        self.front[front_slot(gpa)] = Front { gpa, bits, index };
        self.slots[index as usize] = Some(block);
        Ok(index)
    }

    /// Removes the blocks whose bytes the guest (or a device) wrote. Returns their number.
    pub(crate) fn invalidate(&mut self, writes: &[CodeWrite]) -> u64 {
        let mut removed = 0;
        for &write in writes {
            if write == CodeWrite::EVERYTHING {
                removed += self.by_address.len() as u64;
                self.clear();
                continue;
            }
            let first = write.gpa & !0xFFF;
            let last = write.gpa.saturating_add(write.len.saturating_sub(1)) & !0xFFF;
            for page in (first..=last).step_by(0x1000) {
                for index in self.by_page.get(&page).cloned().unwrap_or_default() {
                    if self.touched(index, &write) {
                        self.remove(index);
                        removed += 1;
                    }
                }
            }
        }
        removed
    }

    fn touched(&self, index: u32, write: &CodeWrite) -> bool {
        let block = self.get(index);
        let len = u64::from(block.len);
        match block.second_page {
            None => write.touches(block.gpa, len),
            Some(second) => {
                let first = 0x1000 - (block.gpa & 0xFFF);
                write.touches(block.gpa, first) || write.touches(second, len - first)
            }
        }
    }

    /// Removes a block.
    pub(crate) fn remove(&mut self, index: u32) {
        let Some(block) = self.slots[index as usize].take() else { return };
        self.by_address.remove(&(block.gpa, block.bits));
        let front = &mut self.front[front_slot(block.gpa)];
        if front.index == index {
            *front = EMPTY;
        }
        for page in pages(&block) {
            if let Some(list) = self.by_page.get_mut(&page) {
                list.retain(|&i| i != index);
            }
        }
        self.free.push(index);
    }

    /// Removes every block.
    pub(crate) fn clear(&mut self) {
        *self = BlockCache::default();
    }
}

fn pages(block: &Block) -> impl Iterator<Item = u64> + use<> {
    [Some(block.gpa & !0xFFF), block.second_page].into_iter().flatten()
}
