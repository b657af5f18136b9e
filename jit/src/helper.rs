//! The Helper strategy: translated code calls the interpreter's definition of an instruction.

use crate::emit::Strategy;
use crate::key::Key;
use crate::profile::Mix;
use crate::runtime::{Leave, Runtime};
use crate::segments::CodeSegment;
use crate::stats::Counts;
use interp::Flow;
use interp::engine::block::Op;
use interp::engine::needs_single_step;
use softmmu::Mmu;
use x86::{Cpu, flags};

/// A place in translated code that calls a helper.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    pub(crate) op: Op,
    /// RIP of the instruction and of the next one.
    pub(crate) rip: u64,
    pub(crate) next: u64,
    /// Instructions of the block from this one to the end, this one included.
    pub(crate) rest: u32,
    /// The key that the code behind the call was emitted for.
    pub(crate) key: Key,
    /// The instruction may change parts of the key that take long to compare.
    pub(crate) changes_key: bool,
    /// A memory access that missed, not an instruction without emission of its own.
    pub(crate) slow: bool,
    /// The code behind it relies on what the instruction did not find.
    pub(crate) leaves: bool,
    /// Linear address of the block.
    pub(crate) block: u64,
    /// How it is emitted where it is not slow, and those behind it in the block.
    pub(crate) strategy: Strategy,
    pub(crate) behind: Mix,
}

/// How often a merged check may fail before its block does without merging: a structure or a stack
/// frame may lie across two pages for good.
const UNMERGE_AFTER: u64 = 32;

/// Continue in translated code.
const CONTINUE: u32 = 0;
/// Leave it: `Runtime::leave` says why.
pub(crate) const LEAVE: u32 = 1;
/// Jump to the code at `Runtime::argument`, whose block is entered with flags saved.
pub(crate) const JUMP: u32 = 2;
/// The same under another key: the returns that are expected are not those of this code.
pub(crate) const JUMP_AWAY: u32 = 3;

/// LAHF's byte and SETO's byte as RFLAGS bits.
pub(crate) fn unpack_flags(saved: u64) -> u64 {
    saved >> 8 & 0xD5 | (saved & 1) << 11
}

/// The inverse of [`unpack_flags`].
pub(crate) fn pack_flags(rflags: u64) -> u64 {
    (rflags & 0xD5 | 2) << 8 | rflags >> 11 & 1
}

/// Takes the saved flags over into RFLAGS.
pub(crate) fn load_flags(cpu: &mut Cpu, saved: u64) {
    cpu.rflags = cpu.rflags & !flags::ARITHMETIC | unpack_flags(saved);
}

/// Whether translated code may go on behind an instruction that said that anything may have
/// changed: it did not, and nobody waits for what the instruction may have allowed.
#[inline]
fn nothing_changed(runtime: &Runtime, site: &Site, cpu: &Cpu, mmu: &Mmu) -> bool {
    cpu.rip == site.next
        && !site.leaves
        && !mmu.code_dirty
        && !mmu.mapping_changes.any
        && mmu.exit_request.load() == 0
        && (runtime.interrupt_waits == 0 || !cpu.interrupts_open())
        && !needs_single_step(cpu)
        && Key::of(cpu, mmu) == Some(site.key)
        && CodeSegment::of(cpu) == runtime.code_segment
}

/// Executes the instruction of site number `number`. Translated code has spilled the guest's
/// registers.
///
/// # Safety
/// Only translated code may call this, within [`crate::Engine::run`], which keeps what the
/// runtime points to alive and untouched.
pub(crate) unsafe extern "sysv64" fn execute(number: u32, runtime: *mut Runtime) -> u32 {
    // SAFETY: the caller's; the run loop holds no reference to these while translated code runs.
    let (runtime, cpu, mmu, site, counts) = unsafe {
        let runtime = &mut *runtime;
        let (cpu, mmu) = (&mut *runtime.cpu, &mut *runtime.mmu);
        let site = &*runtime.sites.add(number as usize);
        let counts = &mut *runtime.counts;
        (runtime, cpu, mmu, site, counts)
    };
    let count = &mut counts.by_site[number as usize];
    if site.slow {
        counts.slow += 1;
        counts.slow_done += Mix::of(&[site.strategy]);
        count.slow += 1;
        if site.leaves && count.slow == UNMERGE_AFTER {
            runtime.unmerge = number + 1;
        }
    } else {
        counts.helpers += 1;
        count.helpers += 1;
    }
    load_flags(cpu, runtime.flags);
    loop {
        cpu.rip = site.next;
        match (site.op.exec)(cpu, mmu, &site.op.insn) {
            Ok(Flow::Next) => {
                let stay = !site.leaves
                    && !mmu.code_dirty
                    && !mmu.mapping_changes.any
                    && !needs_single_step(cpu)
                    && site.key.has_mode_of(cpu, mmu)
                    && (!site.changes_key || Key::of(cpu, mmu) == Some(site.key));
                if stay {
                    runtime.flags = pack_flags(cpu.rflags);
                    return CONTINUE;
                }
                return go_on(runtime, counts, (cpu, mmu), site, number);
            }
            Ok(Flow::Sync) if nothing_changed(runtime, site, cpu, mmu) => {
                runtime.flags = pack_flags(cpu.rflags);
                return CONTINUE;
            }
            Ok(Flow::Branch | Flow::Sync) => {
                return go_on(runtime, counts, (cpu, mmu), site, number);
            }
            Ok(Flow::Again) => {
                cpu.rip = site.rip;
                if mmu.code_dirty || mmu.exit_request.load() != 0 {
                    return leave(runtime, counts, site, number, Leave::Resync, 0, 0);
                }
            }
            Ok(Flow::Stop) => return leave(runtime, counts, site, number, Leave::Stop, 0, 1),
            Err(fault) => {
                if !fault.is_trap() {
                    cpu.rip = site.rip;
                }
                return leave(runtime, counts, site, number, Leave::Fault, fault.to_bits(), 0);
            }
        }
    }
}

/// Leaves translated code; `executed` tells whether the instruction counts.
fn leave(
    runtime: &mut Runtime,
    counts: &mut Counts,
    site: &Site,
    number: u32,
    leave: Leave,
    argument: u64,
    executed: u32,
) -> u32 {
    runtime.leave = leave as u32;
    runtime.argument = argument;
    counts.by_site[number as usize].exits += 1;
    give_back(runtime, counts, site, executed);
    LEAVE
}

/// Takes back what was counted at the block's entry and is not executed.
fn give_back(runtime: &mut Runtime, counts: &mut Counts, site: &Site, executed: u32) {
    runtime.budget += i64::from(site.rest - executed);
    counts.given_back += site.behind;
    if executed == 0 {
        let this = Mix::of(&[site.strategy]);
        counts.given_back += this;
        if site.slow {
            counts.slow_done = counts.slow_done - this;
        }
    }
}

/// Behind an instruction that went elsewhere or changed the mode: to the block there, if it is in
/// the indirect cache and nothing else wants attention, or to the engine.
fn go_on(
    runtime: &mut Runtime,
    counts: &mut Counts,
    (cpu, mmu): (&mut Cpu, &mut Mmu),
    site: &Site,
    number: u32,
) -> u32 {
    let attention = runtime.unmerge != 0
        || mmu.code_dirty
        || mmu.mapping_changes.any
        || mmu.exit_request.load() != 0
        || runtime.interrupt_waits != 0
        || needs_single_step(cpu);
    let segment = CodeSegment::of(cpu);
    // SAFETY: the engine's tables, which nobody changes while translated code runs.
    let (targets, segments) = unsafe { (&*runtime.targets, &*runtime.segments) };
    if !attention
        && let Some(key) = Key::of(cpu, mmu)
        && let Some(number) = segments.known(segment)
        && let tag = u64::from(number) << 32
        && let Some((table, code)) = targets.probe(key, cpu.rip | tag, segment.linear(cpu.rip))
    {
        give_back(runtime, counts, site, 1);
        runtime.flags = pack_flags(cpu.rflags);
        runtime.argument = code;
        if runtime.indirect == table && runtime.code_segment == segment {
            return JUMP;
        }
        (runtime.indirect, runtime.code_tag) = (table, tag);
        runtime.code_segment = segment;
        return JUMP_AWAY;
    }
    leave(runtime, counts, site, number, Leave::Resync, 0, 1)
}
