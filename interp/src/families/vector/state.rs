//! Instructions on vector state as a whole: MXCSR, VZEROUPPER, VZEROALL.

use super::available::check_unit;
use crate::access;
use crate::flow::Flow;
use decoder::Insn;
use native::Unit;
use softmmu::Mmu;
use x86::cpuid::Feature;
use x86::fpu::{MXCSR_MASK, VectorReg};
use x86::{Cpu, Fault};

/// LDMXCSR and VLDMXCSR.
fn load_mxcsr(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let value = access::load::<u32>(cpu, mmu, insn)?;
    if value & !MXCSR_MASK != 0 {
        return Err(Fault::GP0);
    }
    cpu.mxcsr = value;
    Ok(Flow::Next)
}

/// STMXCSR and VSTMXCSR.
fn store_mxcsr(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    access::store(cpu, mmu, insn, cpu.mxcsr)?;
    Ok(Flow::Next)
}

pub(super) fn ldmxcsr(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_unit(cpu, Feature::Sse, Unit::Sse)?;
    load_mxcsr(cpu, mmu, insn)
}

pub(super) fn stmxcsr(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_unit(cpu, Feature::Sse, Unit::Sse)?;
    store_mxcsr(cpu, mmu, insn)
}

pub(super) fn vldmxcsr(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_unit(cpu, Feature::Avx, Unit::Vex)?;
    load_mxcsr(cpu, mmu, insn)
}

pub(super) fn vstmxcsr(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_unit(cpu, Feature::Avx, Unit::Vex)?;
    store_mxcsr(cpu, mmu, insn)
}

/// Registers that VZEROUPPER and VZEROALL reach: 16 in 64-bit mode, else 8.
fn reachable(cpu: &mut Cpu) -> &mut [VectorReg] {
    let count = if cpu.is_long() { 16 } else { 8 };
    &mut cpu.vector[..count]
}

pub(super) fn vzeroupper(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    check_unit(cpu, Feature::Avx, Unit::Vex)?;
    for register in reachable(cpu) {
        register.0[2..].fill(0);
    }
    Ok(Flow::Next)
}

pub(super) fn vzeroall(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    check_unit(cpu, Feature::Avx, Unit::Vex)?;
    reachable(cpu).fill(VectorReg::default());
    Ok(Flow::Next)
}
