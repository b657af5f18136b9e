//! Decimal adjustment: DAA DAS AAA AAS AAM AAD (not in 64-bit mode).

use super::Answer;
use super::status::{self, sign_zero_parity};
use crate::flow::Flow;
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::Mmu;
use x86::regs::gpr;
use x86::{Cpu, Fault, flags};

fn al(cpu: &Cpu) -> u8 {
    cpu.gpr[gpr::RAX] as u8
}

fn ax(cpu: &Cpu) -> u16 {
    cpu.gpr[gpr::RAX] as u16
}

fn set_ax(cpu: &mut Cpu, value: u16) {
    let rax = &mut cpu.gpr[gpr::RAX];
    *rax = *rax & !0xFFFF | u64::from(value);
}

fn set_al(cpu: &mut Cpu, value: u8) {
    let rax = &mut cpu.gpr[gpr::RAX];
    *rax = *rax & !0xFF | u64::from(value);
}

/// DAA and DAS; OF is undefined and cleared.
#[inline(always)]
fn adjust_packed(cpu: &mut Cpu, adjust: fn(u8, u8) -> u8) -> Answer {
    let old = al(cpu);
    let carry = cpu.rflags & flags::CF != 0;
    let low = old & 0xF > 9 || cpu.rflags & flags::AF != 0;
    let high = old > 0x99 || carry;
    let mut value = old;
    let mut borrow = false;
    if low {
        value = adjust(value, 6);
        // DAS also sets CF where the low digit's adjustment borrows (SDM vol. 2A, DAS).
        borrow = adjust(0, 1) != 1 && old < 6;
    }
    if high {
        value = adjust(value, 0x60);
    }
    set_al(cpu, value);
    let status = status::flag(low, flags::AF) | status::flag(high || borrow, flags::CF);
    status::set(cpu, status | sign_zero_parity(value));
    Ok(Flow::Next)
}

fn daa(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    adjust_packed(cpu, u8::wrapping_add)
}

fn das(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    adjust_packed(cpu, u8::wrapping_sub)
}

/// AAA and AAS: `adjustment` is added to AX where the low digit needs it.
#[inline(always)]
fn adjust_unpacked(cpu: &mut Cpu, adjustment: u16) -> Answer {
    let needed = al(cpu) & 0xF > 9 || cpu.rflags & flags::AF != 0;
    let value = if needed { ax(cpu).wrapping_add(adjustment) } else { ax(cpu) };
    set_ax(cpu, value & 0xFF0F);
    let status = status::flag(needed, flags::AF | flags::CF);
    // The rest is undefined: the flags of AL.
    status::set(cpu, status | sign_zero_parity(value as u8 & 0xF));
    Ok(Flow::Next)
}

fn aaa(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    adjust_unpacked(cpu, 0x106)
}

fn aas(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    adjust_unpacked(cpu, 0u16.wrapping_sub(0x106))
}

/// AH = AL / imm8, AL = AL mod imm8; #DE for a zero immediate.
fn aam(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let base = insn.imm as u8;
    let (Some(high), Some(low)) = (al(cpu).checked_div(base), al(cpu).checked_rem(base)) else {
        return Err(Fault::DE);
    };
    set_ax(cpu, u16::from(high) << 8 | u16::from(low));
    status::set(cpu, sign_zero_parity(low));
    Ok(Flow::Next)
}

/// AL = AL + AH × imm8, AH = 0.
fn aad(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let high = (ax(cpu) >> 8) as u8;
    let value = al(cpu).wrapping_add(high.wrapping_mul(insn.imm as u8));
    set_ax(cpu, u16::from(value));
    status::set(cpu, sign_zero_parity(value));
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Daa, |_| daa),
    (Mnemonic::Das, |_| das),
    (Mnemonic::Aaa, |_| aaa),
    (Mnemonic::Aas, |_| aas),
    (Mnemonic::Aam, |_| aam),
    (Mnemonic::Aad, |_| aad),
];
