//! Flag operations: CLC STC CMC CLD STD LAHF SAHF SALC STAC CLAC. (CLI, STI, PUSHF and POPF depend on
//! privilege and are with the events.)

use super::Answer;
use super::status;
use crate::access::write_reg;
use crate::flow::Flow;
use crate::sync;
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::Mmu;
use x86::cpuid::Feature;
use x86::regs::{HIGH_BYTE, gpr};
use x86::{Cpu, Fault, Mode, flags};

fn clc(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    cpu.rflags &= !flags::CF;
    Ok(Flow::Next)
}

fn stc(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    cpu.rflags |= flags::CF;
    Ok(Flow::Next)
}

fn cmc(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    cpu.rflags ^= flags::CF;
    Ok(Flow::Next)
}

fn cld(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    cpu.rflags &= !flags::DF;
    Ok(Flow::Next)
}

fn std(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    cpu.rflags |= flags::DF;
    Ok(Flow::Next)
}

/// The flags in RFLAGS' low byte.
const LOW: u64 = flags::ARITHMETIC & 0xFF;

fn lahf(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    let low = (cpu.rflags & LOW | flags::FIXED_ONE) as u8;
    write_reg(cpu, HIGH_BYTE, low);
    Ok(Flow::Next)
}

fn sahf(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    let ah = cpu.gpr[gpr::RAX] >> 8;
    cpu.rflags = cpu.rflags & !LOW | ah & LOW;
    Ok(Flow::Next)
}

/// AL = CF in every bit (undocumented; not in 64-bit mode).
fn salc(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    let value = if cpu.rflags & flags::CF != 0 { 0xFFu8 } else { 0 };
    write_reg(cpu, gpr::RAX as u8, value);
    Ok(Flow::Next)
}

/// STAC and CLAC: RFLAGS.AC, by which the kernel suspends SMAP. What follows in the block is
/// decoded the same either way.
#[inline(always)]
fn set_access_override(cpu: &mut Cpu, mmu: &mut Mmu, on: bool) -> Answer {
    if cpu.cpl != 0 || cpu.mode == Mode::Virtual8086 || !cpu.policy.has(Feature::Smap) {
        return Err(Fault::UD);
    }
    cpu.rflags = cpu.rflags & !flags::AC | status::flag(on, flags::AC);
    sync::mode_changed(cpu, mmu);
    Ok(Flow::Next)
}

fn stac(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Answer {
    set_access_override(cpu, mmu, true)
}

fn clac(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Answer {
    set_access_override(cpu, mmu, false)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Clc, |_| clc),
    (Mnemonic::Stc, |_| stc),
    (Mnemonic::Cmc, |_| cmc),
    (Mnemonic::Cld, |_| cld),
    (Mnemonic::Std, |_| std),
    (Mnemonic::Lahf, |_| lahf),
    (Mnemonic::Sahf, |_| sahf),
    (Mnemonic::Salc, |_| salc),
    (Mnemonic::Stac, |_| stac),
    (Mnemonic::Clac, |_| clac),
];
