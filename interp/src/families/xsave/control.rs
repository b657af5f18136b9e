//! XGETBV and XSETBV, RDPKRU and WRPKRU (SDM vol. 2D; RDPKRU: vol. 2B).

use super::component::in_use;
use crate::flow::Flow;
use crate::sync;
use decoder::Insn;
use softmmu::Mmu;
use x86::control::{cr4, xcr0};
use x86::cpuid::Feature;
use x86::regs::gpr;
use x86::{Cpu, Fault};

fn check(cpu: &Cpu) -> Result<(), Fault> {
    let have = cpu.policy.has(Feature::Xsave) && cpu.cr4 & cr4::OSXSAVE != 0;
    if have { Ok(()) } else { Err(Fault::UD) }
}

/// XGETBV: XCR0, or with ECX = 1 the components in use.
pub(super) fn xgetbv(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    check(cpu)?;
    let value = match cpu.gpr[gpr::RCX] as u32 {
        0 => cpu.xcr0,
        1 if cpu.policy.has(Feature::Xgetbv1) => cpu.xcr0 & in_use(cpu),
        _ => return Err(Fault::GP0),
    };
    cpu.gpr[gpr::RAX] = value & 0xFFFF_FFFF;
    cpu.gpr[gpr::RDX] = value >> 32;
    Ok(Flow::Next)
}

/// Whether software may set XCR0 to `value`: x87 always, AVX with SSE, AVX-512 whole and with AVX.
fn is_valid(cpu: &Cpu, value: u64) -> bool {
    let with = |part: u64, needs: u64| value & part == 0 || value & needs == needs;
    value & !cpu.policy.xcr0_mask() == 0
        && value & xcr0::X87 != 0
        && with(xcr0::AVX, xcr0::SSE)
        && with(xcr0::AVX512, xcr0::AVX512 | xcr0::AVX)
}

/// XSETBV.
pub(super) fn xsetbv(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    check(cpu)?;
    let value = cpu.gpr[gpr::RDX] << 32 | cpu.gpr[gpr::RAX] & 0xFFFF_FFFF;
    if cpu.cpl != 0 || cpu.gpr[gpr::RCX] as u32 != 0 || !is_valid(cpu, value) {
        return Err(Fault::GP0);
    }
    cpu.xcr0 = value;
    Ok(Flow::Next)
}

fn check_pkru(cpu: &Cpu) -> Result<(), Fault> {
    if !cpu.policy.has(Feature::Pku) || cpu.cr4 & cr4::PKE == 0 {
        return Err(Fault::UD);
    }
    if cpu.gpr[gpr::RCX] as u32 != 0 { Err(Fault::GP0) } else { Ok(()) }
}

/// RDPKRU.
pub(super) fn rdpkru(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    check_pkru(cpu)?;
    cpu.gpr[gpr::RAX] = u64::from(cpu.pkru);
    cpu.gpr[gpr::RDX] = 0;
    Ok(Flow::Next)
}

/// WRPKRU.
pub(super) fn wrpkru(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    check_pkru(cpu)?;
    if cpu.gpr[gpr::RDX] as u32 != 0 {
        return Err(Fault::GP0);
    }
    cpu.pkru = cpu.gpr[gpr::RAX] as u32;
    sync::paging_changed(cpu, mmu)?;
    Ok(Flow::Sync)
}
