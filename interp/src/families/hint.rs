//! No-operations, hints, fences and cache control, and the instructions that are undefined on
//! purpose.

use super::Answer;
use crate::access::{self, Intent};
use crate::flow::{Flow, undefined};
use crate::table::Line;
use decoder::{Code, Insn, Mnemonic};
use softmmu::Mmu;
use std::sync::atomic::{Ordering, fence};
use x86::regs::gpr;
use x86::{Cpu, Fault, Mode};

/// A memory operand is not accessed, whatever its address.
fn nop(_: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    Ok(Flow::Next)
}

/// 0F 0D with reserved operands: AMD's prefetch group has no register form (AMD APM vol. 3,
/// PREFETCH), elsewhere it is a NOP.
fn prefetch_group(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    if cpu.policy.is_amd() && !insn.has_mem() { Err(Fault::UD) } else { Ok(Flow::Next) }
}

fn pause(_: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Answer {
    mmu.bus.pause();
    Ok(Flow::Next)
}

/// LFENCE, SFENCE, MFENCE: guest accesses are host accesses in program order, so only the store
/// buffer is left to order.
fn memory_fence(_: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    fence(Ordering::SeqCst);
    Ok(Flow::Next)
}

/// CLFLUSH, CLFLUSHOPT, CLWB: caches are coherent, so only the checks of a byte load remain.
fn flush_line(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    access::load::<u8>(cpu, mmu, insn)?;
    Ok(Flow::Next)
}

/// Cache line size in bytes.
const LINE: u64 = 64;

/// CLZERO (AMD APM vol. 3): zeroes the cache line that rAX points into.
fn clzero(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let offset = access::truncate(cpu.gpr[gpr::RAX], insn.mem.addr_size);
    // The line is one of linear addresses: FS and GS may have any base.
    let address = access::linear(cpu, insn.mem.seg, offset, 1, Intent::Write)? & !(LINE - 1);
    if cpu.mode != Mode::Long {
        // All of it must be inside the limit.
        access::linear(cpu, insn.mem.seg, offset & !(LINE - 1), LINE as u32, Intent::Write)?;
    }
    // The line lies in one page: only the first store can fault.
    for word in 0..LINE / 8 {
        access::store_at(cpu, mmu, address.wrapping_add(8 * word), 0u64)?;
    }
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Nop, |_| nop),
    (Mnemonic::Reservednop, |i| match i.code {
        Code::Reservednop_rm16_r16_0F0D
        | Code::Reservednop_rm32_r32_0F0D
        | Code::Reservednop_rm64_r64_0F0D => prefetch_group,
        _ => nop,
    }),
    (Mnemonic::Endbr32, |_| nop),
    (Mnemonic::Endbr64, |_| nop),
    (Mnemonic::Pause, |_| pause),
    (Mnemonic::Prefetch, |_| nop),
    (Mnemonic::Prefetchw, |_| nop),
    (Mnemonic::Prefetchwt1, |_| nop),
    (Mnemonic::Prefetchnta, |_| nop),
    (Mnemonic::Prefetcht0, |_| nop),
    (Mnemonic::Prefetcht1, |_| nop),
    (Mnemonic::Prefetcht2, |_| nop),
    (Mnemonic::Lfence, |_| memory_fence),
    (Mnemonic::Mfence, |_| memory_fence),
    (Mnemonic::Sfence, |_| memory_fence),
    (Mnemonic::Clflush, |_| flush_line),
    (Mnemonic::Clflushopt, |_| flush_line),
    (Mnemonic::Clwb, |_| flush_line),
    (Mnemonic::Clzero, |_| clzero),
    (Mnemonic::Ud0, |_| undefined),
    (Mnemonic::Ud1, |_| undefined),
    (Mnemonic::Ud2, |_| undefined),
];
