//! From the CPU's state to translated code: found, or made where the code is hot.

use super::{Engine, Next};
use crate::cache::Place;
use crate::emit::{Emitted, Environment, emit_block};
use crate::explain::BlockNotes;
use crate::key::Key;
use crate::profile::Profile;
use crate::segments::CodeSegment;
use crate::stats::Left;
use decoder::Mnemonic;
use interp::engine::block::{Block as DecodedBlock, Op, decode_block};
use softmmu::Mmu;
use x86::Cpu;

/// Room that one block can need at most.
const MAX_BLOCK_BYTES: usize = 64 << 10;
/// Counters of executions of cold code, by a hash of its address.
pub(super) const HEAT: usize = 1 << 16;

impl Engine {
    /// Where the code at the CPU's state is; none where it must be interpreted.
    pub(crate) fn locate(
        &mut self,
        cpu: &Cpu,
        mmu: &mut Mmu,
        key: Key,
    ) -> Option<(Place, CodeSegment)> {
        let rip = cpu.rip;
        let code = CodeSegment::of(cpu);
        if rip > code.limit {
            return None;
        }
        let linear = code.linear(rip);
        let found = mmu.fetch_translate(linear).ok().filter(|found| found.ram)?;
        let Some(segment) = self.segments.number(code) else {
            self.segments.clear();
            self.flush_translations();
            return None;
        };
        Some((Place { rip, gpa: found.gpa, linear, key, segment }, code))
    }

    /// The code to enter at the CPU's state, translated if it is hot.
    pub(super) fn find_code(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, next: &Next) -> Option<u64> {
        let key = Key::of(cpu, mmu)?;
        if !self.indirect.has_room(key) {
            self.flush_translations();
            self.indirect.drop_tables();
        }
        let (place, code_segment) = self.locate(cpu, mmu, key)?;
        let linear = place.linear;
        let index = match self.find_block(mmu, &place) {
            Some(index) => index,
            None => {
                let heat = &mut self.heat[heat_index(place.gpa)];
                if *heat < self.config.threshold {
                    *heat += 1;
                    return None;
                }
                self.translate(cpu, mmu, place)?
            }
        };
        let (direct_link, indirect) = match *next {
            Next::Link(link) => (Some(link), false),
            Next::Indirect => (None, true),
            Next::Lookup | Next::Step => (None, false),
        };
        if let Some(link) = direct_link
            && (link as usize) < self.cache.links.len()
        {
            let global = mmu.fetch_is_global(linear);
            self.stats.links += u64::from(self.cache.link(&mut self.arena, link, index, global));
        }
        let table = self.indirect.address(key).ok()? as u64;
        let tag = u64::from(place.segment) << 32;
        let runtime = self.low.get();
        if (table, tag, code_segment) != (runtime.indirect, runtime.code_tag, runtime.code_segment)
        {
            (runtime.indirect, runtime.code_tag) = (table, tag);
            runtime.code_segment = code_segment;
            self.reset_returns();
        }
        let code = self.cache.blocks[index as usize].saved;
        if indirect {
            // A block in two pages is looked up each time.
            if self.cache.blocks[index as usize].second_page.is_none() {
                self.indirect.insert(&place, mmu.fetch_is_global(linear), code);
            }
        }
        Some(code)
    }

    /// The block at `place`, if it is still mapped as it was.
    fn find_block(&mut self, mmu: &mut Mmu, place: &Place) -> Option<u32> {
        let index = self.cache.find(place)?;
        let Some(second) = self.cache.blocks[index as usize].second_page else {
            return Some(index);
        };
        if mmu.fetch_translate(place.second_page()).is_ok_and(|found| found.gpa == second) {
            return Some(index);
        }
        self.cache.remove(&mut self.arena, &mut self.indirect, index);
        None
    }

    /// Translates the block at `place`; none where it must be interpreted.
    pub(crate) fn translate(&mut self, cpu: &Cpu, mmu: &mut Mmu, place: Place) -> Option<u32> {
        let profiled = self.profile.as_ref().is_none_or(Profile::has_room);
        if self.arena.room() < MAX_BLOCK_BYTES || !profiled {
            self.flush_translations();
        }
        let bits = place.key.mode().bits();
        let decoded = decode_block(&cpu.policy, mmu, place.linear, place.gpa, bits).ok()?;
        let segment = CodeSegment::of(cpu);
        // Flat code outside 64-bit mode has a limit, too: 4 GiB.
        let limit = if place.key.is_long() { u64::MAX } else { segment.limit.min(0xFFFF_FFFF) };
        let count =
            loop_end(&decoded, self.block_limit).min(within_limit(&decoded, place.rip, limit));
        if count == 0 {
            return None;
        }
        let ops = &decoded.ops[..count];
        let len: u64 = match ops.last() {
            // Bytes behind it may make it an instruction.
            Some(last) if last.is_invalid() => decoded.len.into(),
            Some(_) | None => ops.iter().map(|op| u64::from(op.insn.len)).sum(),
        };
        let first = len.min(0x1000 - (place.gpa & 0xFFF));
        mmu.mark_code_range(place.gpa, first);
        if let Some(second) = decoded.second_page {
            mmu.mark_code_range(second, len - first);
        }
        mmu.wait_for_code_sync();
        // Another vCPU may have written between the decoding and the marking.
        let mut now = vec![0; len as usize];
        let (head, tail) = now.split_at_mut(first as usize);
        mmu.phys_read(place.gpa, head);
        mmu.phys_read(decoded.second_page.unwrap_or(0), tail);
        let bytes = decoded.ops[..count].iter().flat_map(|op| op.insn.as_bytes());
        if decoded.ops[..count].iter().all(|op| !op.is_invalid()) && !bytes.eq(now.iter()) {
            return None;
        }
        let indirect = self.indirect.address(place.key).ok()?;
        let behind = match decoded.ops[..count].last().map(|op| op.insn.mnemonic()) {
            Some(Mnemonic::Stac) => place.key.with_access_override(true),
            Some(Mnemonic::Clac) => place.key.with_access_override(false),
            _ => None,
        };
        let indirect_behind = self.indirect.address(behind.unwrap_or(place.key)).ok()?;
        let stubs = self.stubs?;
        let spot = self.arena.next();
        let environment = Environment {
            addresses: &self.addresses,
            stubs: &stubs,
            indirect,
            indirect_behind,
            segment,
            sites: &mut self.sites,
            exact: self.config.exact_limit,
            merge: !self.unmerged.contains(&place),
            first_link: self.cache.links.len() as u32,
            policy: &cpu.policy,
            host: self.host,
            helpers_only: self.config.helpers_only,
            precise_flags: self.config.precise_flags,
            counter: self.profile.as_ref().map(Profile::next),
        };
        let emitted = emit_block(spot, place.rip, place.key, &decoded.ops[..count], environment);
        let Some(Emitted { hot, cold, direct, saved, exits, notes }) = emitted else {
            self.sites.truncate(self.counts.by_site.len());
            return None;
        };
        let at = self.arena.append(&hot, &cold)?;
        debug_assert_eq!(at, spot);
        self.stats.blocks_translated += 1;
        self.stats.instructions_translated += count as u64;
        self.stats.guest_bytes += len;
        self.stats.host_bytes += (hot.len() + cold.len()) as u64;
        self.counts.by_site.resize(self.sites.len(), Left::default());
        if let Some(profile) = &mut self.profile {
            profile.add(place.linear, &notes);
        }
        let second_page = decoded.second_page;
        let index = self.cache.insert(place, (len, second_page), (direct, saved), &exits);
        if let Some((rip, block)) = &mut self.watch
            && rip.wrapping_sub(place.linear) < len
        {
            *block = Some(index);
        }
        if self.config.notes {
            let ops = decoded.ops[..count].into();
            let (hot, cold) = (hot.len(), cold.len());
            self.notes.insert(index, BlockNotes { notes, ops, spot, hot, cold });
        }
        Some(index)
    }
}

/// How many of the instructions, the first at `rip`, lie within CS's limit.
fn within_limit(decoded: &DecodedBlock, rip: u64, limit: u64) -> usize {
    let mut end = rip;
    let inside = decoded.ops.iter().take_while(|op| {
        end = end.saturating_add(u64::from(op.insn.len));
        end - 1 <= limit
    });
    inside.count()
}

pub(super) fn heat_index(gpa: u64) -> usize {
    (gpa ^ gpa >> 16) as usize & (HEAT - 1)
}

/// How many of the instructions belong into one translated block: a branch backwards, which
/// probably closes a loop, ends it, and so does a change of SMAP's suspension. No more of them than
/// `limit` bytes hold, but one.
fn loop_end(decoded: &DecodedBlock, limit: u64) -> usize {
    let ends = |op: &Op| {
        let backwards = op.insn.op[0].kind == decoder::OpKind::Near && (op.insn.imm as i64) < 0;
        backwards || matches!(op.insn.mnemonic(), Mnemonic::Stac | Mnemonic::Clac)
    };
    let count = decoded.ops.iter().position(ends).map_or(decoded.ops.len(), |i| i + 1);
    let mut len = 0;
    let inside = decoded.ops[..count].iter().take_while(|op| {
        len += u64::from(op.insn.len);
        len <= limit
    });
    inside.count().max(1)
}
