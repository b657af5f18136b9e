//! Into translated code, and what follows from how it was left.

use super::{Engine, Next};
use crate::cache::Place;
use crate::helper::{load_flags, pack_flags};
use crate::profile::Mix;
use crate::runtime::Leave;
use crate::segments::CodeSegment;
use interp::Exit;
use interp::access::is_canonical;
use softmmu::Mmu;
use x86::{Cpu, Fault};

impl Engine {
    /// Runs translated code from `code` on.
    pub(super) fn execute(
        &mut self,
        cpu: &mut Cpu,
        mmu: &mut Mmu,
        code: u64,
        end: u64,
        next: &mut Next,
    ) -> Option<Exit> {
        self.stats.entries += 1;
        let before = cpu.instructions;
        let exact = self.config.exact_limit;
        let budget = if exact { i64::try_from(end - before).unwrap_or(i64::MAX) } else { 0 };
        let stubs = self.stubs?;
        let runtime = self.low.as_ptr();
        // SAFETY: the runtime is the engine's own, and no reference to it is alive. Translated code
        // at `code` was emitted for this CPU and MMU (see `attach`) and uses only them, the
        // runtime and guest RAM. While it runs, the references that were passed in are not used
        // but through the pointers made from them here.
        let (leave, argument) = unsafe {
            (*runtime).budget = budget;
            (*runtime).flags = pack_flags(cpu.rflags);
            (*runtime).cpu = cpu;
            (*runtime).mmu = mmu;
            (*runtime).sites = self.sites.as_ptr();
            (*runtime).counts = &raw mut self.counts;
            (*runtime).targets = &raw const self.indirect;
            (*runtime).segments = &raw const self.segments;
            let enter: extern "sysv64" fn(u64) = std::mem::transmute(stubs.enter);
            enter(code);
            let executed = budget.wrapping_sub((*runtime).budget) as u64;
            if exact {
                cpu.instructions = before.wrapping_add(executed);
                self.stats.translated += executed;
            }
            ((*runtime).leave, (*runtime).argument)
        };
        let unmerge = std::mem::take(&mut self.low.get().unmerge);
        if unmerge != 0 {
            self.unmerge(mmu, unmerge - 1);
        }
        let saved = self.low.get().flags;
        match Leave::from_bits(leave) {
            Leave::Resync => {
                self.stats.exits_resync += 1;
                *next = Next::Indirect;
            }
            Leave::Link => {
                self.stats.exits_link += 1;
                load_flags(cpu, saved);
                let link = argument as u32;
                let left = self.cache.links.get(link as usize)?;
                cpu.rip = left.target;
                let from = self.cache.blocks[left.from as usize].place.linear;
                self.counts.by_block.entry(from).or_default().exits += 1;
                *next = Next::Link(link);
            }
            Leave::Poll => {
                self.stats.exits_poll += 1;
                let linear = CodeSegment::of(cpu).linear(argument);
                self.counts.by_block.entry(linear).or_default().exits += 1;
                load_flags(cpu, saved);
                cpu.rip = argument;
                *next = Next::Step;
            }
            Leave::Fault => {
                self.stats.exits_fault += 1;
                return self.interp.deliver(cpu, mmu, Fault::from_bits(argument));
            }
            Leave::Stop => return Some(Exit::Stopped),
            Leave::Return => {
                self.stats.exits_return += 1;
                let site = self.low.get().return_site as usize;
                if let Some(left) = self.counts.by_site.get_mut(site) {
                    left.exits += 1;
                }
                load_flags(cpu, saved);
                cpu.rip = argument;
                *next = Next::Indirect;
                let reachable = if cpu.is_long() {
                    is_canonical(cpu, argument)
                } else {
                    argument <= u64::from(cpu.cs().limit)
                };
                if !reachable {
                    return self.fault_return(cpu, mmu);
                }
            }
        }
        None
    }

    /// Has the block of a site translated anew, without merged checks.
    fn unmerge(&mut self, mmu: &mut Mmu, site: u32) {
        let Some(site) = self.sites.get(site as usize) else { return };
        // Only code in flat segments has merged checks.
        let (linear, key) = (site.block, site.key);
        let Ok(found) = mmu.fetch_translate(linear) else { return };
        let place = Place { rip: linear, gpa: found.gpa, linear, key, segment: 0 };
        if let Some(index) = self.cache.find(&place) {
            self.unmerged.insert(place);
            self.cache.remove(&mut self.arena, &mut self.indirect, index);
        }
    }

    /// #GP(0) of a near return to an address that is not canonical or beyond CS's limit: undoes it.
    fn fault_return(&mut self, cpu: &mut Cpu, mmu: &mut Mmu) -> Option<Exit> {
        let site = self.sites.get(self.low.get().return_site as usize)?;
        let released = if site.op.insn.op_count > 0 { site.op.insn.imm & 0xFFFF } else { 0 };
        cpu.rip = site.rip;
        // It was counted.
        self.counts.given_back += Mix::of(&[site.strategy]);
        if self.config.exact_limit {
            cpu.instructions = cpu.instructions.wrapping_sub(1);
            self.stats.translated = self.stats.translated.wrapping_sub(1);
        }
        let popped = u64::from(site.op.insn.op_size) + released;
        interp::access::release_stack(cpu, popped.wrapping_neg());
        self.interp.deliver(cpu, mmu, Fault::GP0)
    }
}
