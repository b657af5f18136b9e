//! Exchanges: XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B.

use super::Answer;
use super::select::{by_width, is_mem, width};
use super::status;
use crate::access::{self, Intent, read_reg, write_reg};
use crate::flow::{Flow, Handler};
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::{Mmu, Width};
use x86::regs::gpr;
use x86::{Cpu, Fault, flags};

fn xchg_reg<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let (x, y) = (insn.op[0].reg, insn.op[1].reg);
    let (a, b) = (read_reg::<T>(cpu, x), read_reg::<T>(cpu, y));
    write_reg(cpu, x, b);
    write_reg(cpu, y, a);
    Ok(Flow::Next)
}

/// Locked with or without the prefix (SDM vol. 3A, section 9.1.2.1).
fn xchg_mem<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let reg = insn.op[usize::from(is_mem(insn, 0))].reg;
    let new = read_reg::<T>(cpu, reg);
    let old = access::modify(cpu, mmu, insn, true, |_| new)?;
    write_reg(cpu, reg, old);
    Ok(Flow::Next)
}

fn xchg(insn: &Insn) -> Handler {
    if is_mem(insn, 0) || is_mem(insn, 1) {
        by_width!(width(insn, 0), xchg_mem)
    } else {
        by_width!(width(insn, 0), xchg_reg)
    }
}

fn xadd_reg<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let (x, y) = (insn.op[0].reg, insn.op[1].reg);
    let (a, b) = (read_reg::<T>(cpu, x), read_reg::<T>(cpu, y));
    let (sum, status) = status::add(a, b, 0);
    // In this order: where both are one register, the sum stays.
    write_reg(cpu, y, a);
    write_reg(cpu, x, sum);
    status::set(cpu, status);
    Ok(Flow::Next)
}

fn xadd_mem<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let reg = insn.op[1].reg;
    let b = read_reg::<T>(cpu, reg);
    let locked = insn.prefixes.lock();
    let old = access::modify(cpu, mmu, insn, locked, |a| status::add(a, b, 0).0)?;
    write_reg(cpu, reg, old);
    status::set(cpu, status::add(old, b, 0).1);
    Ok(Flow::Next)
}

/// Where the comparison fails, the register destination stays as it is, upper half included, as on
/// AMD hosts.
fn cmpxchg_reg<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let accumulator = read_reg::<T>(cpu, gpr::RAX as u8);
    let new = read_reg::<T>(cpu, insn.op[1].reg);
    let old = read_reg::<T>(cpu, insn.op[0].reg);
    if old == accumulator {
        write_reg(cpu, insn.op[0].reg, new);
    } else {
        write_reg(cpu, gpr::RAX as u8, old);
    }
    status::set(cpu, status::subtract(accumulator, old, 0).1);
    Ok(Flow::Next)
}

/// The destination is written even where the comparison fails, with what it held.
fn cmpxchg_mem<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let accumulator = read_reg::<T>(cpu, gpr::RAX as u8);
    let new = read_reg::<T>(cpu, insn.op[1].reg);
    let locked = insn.prefixes.lock();
    let old =
        access::modify(cpu, mmu, insn, locked, |old| if old == accumulator { new } else { old })?;
    if old != accumulator {
        write_reg(cpu, gpr::RAX as u8, old);
    }
    status::set(cpu, status::subtract(accumulator, old, 0).1);
    Ok(Flow::Next)
}

#[inline(always)]
fn pair(cpu: &Cpu, high: usize, low: usize) -> u64 {
    cpu.gpr[high] << 32 | cpu.gpr[low] & 0xFFFF_FFFF
}

fn cmpxchg8b(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let expected = pair(cpu, gpr::RDX, gpr::RAX);
    let new = pair(cpu, gpr::RCX, gpr::RBX);
    let locked = insn.prefixes.lock();
    let old =
        access::modify(cpu, mmu, insn, locked, |old| if old == expected { new } else { old })?;
    if old != expected {
        cpu.gpr[gpr::RAX] = old & 0xFFFF_FFFF;
        cpu.gpr[gpr::RDX] = old >> 32;
    }
    status::set_masked(cpu, flags::ZF, status::flag(old == expected, flags::ZF));
    Ok(Flow::Next)
}

/// Always locked here: the host has no other 16-byte exchange.
///
/// #GP(0) for an operand that is not 16-byte aligned.
fn cmpxchg16b(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
    let expected = wide(cpu.gpr[gpr::RDX], cpu.gpr[gpr::RAX]);
    let new = wide(cpu.gpr[gpr::RCX], cpu.gpr[gpr::RBX]);
    let address = access::mem_linear(cpu, insn, 16, Intent::Write)?;
    if address % 16 != 0 {
        return Err(Fault::GP0);
    }
    let old = mmu.compare_exchange16(address, expected, new)?;
    access::data_breakpoint(cpu, address, 16, Intent::Write);
    if old != expected {
        cpu.gpr[gpr::RAX] = old as u64;
        cpu.gpr[gpr::RDX] = (old >> 64) as u64;
    }
    status::set_masked(cpu, flags::ZF, status::flag(old == expected, flags::ZF));
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Xchg, xchg),
    (Mnemonic::Xadd, |i| match is_mem(i, 0) {
        true => by_width!(width(i, 0), xadd_mem),
        false => by_width!(width(i, 0), xadd_reg),
    }),
    (Mnemonic::Cmpxchg, |i| match is_mem(i, 0) {
        true => by_width!(width(i, 0), cmpxchg_mem),
        false => by_width!(width(i, 0), cmpxchg_reg),
    }),
    (Mnemonic::Cmpxchg8b, |_| cmpxchg8b),
    (Mnemonic::Cmpxchg16b, |_| cmpxchg16b),
];
