//! Whether control registers and CPUID allow an instruction (SDM vol. 3A, section 13.1; vol. 2A,
//! section 2.4).

use super::super::x87;
use native::{MemoryUse, Thunk, Unit};
use softmmu::Mmu;
use x86::control::{cr0, cr4, xcr0};
use x86::cpuid::Feature;
use x86::{Cpu, Fault};

/// Checks the conditions of a thunk: #UD, #NM, then a pending x87 error.
#[inline]
pub(crate) fn check(cpu: &mut Cpu, mmu: &mut Mmu, thunk: &Thunk) -> Result<(), Fault> {
    if !thunk.needs.iter().all(|&f| cpu.policy.has(f)) {
        return Err(Fault::UD);
    }
    unit(cpu, thunk.unit)?;
    // CVTPI2PS from memory uses no MMX register, and AMD processors do not report a pending error
    // there.
    let memory_only = thunk.unit == Unit::Sse && thunk.memory != MemoryUse::None;
    if thunk.uses_x87 && !(memory_only && cpu.policy.is_amd()) {
        x87::check_pending(cpu, mmu)?;
    }
    Ok(())
}

/// Checks the conditions of an instruction without a thunk, which needs `feature`.
pub(crate) fn check_unit(cpu: &Cpu, feature: Feature, unit_of: Unit) -> Result<(), Fault> {
    if !cpu.policy.has(feature) {
        return Err(Fault::UD);
    }
    unit(cpu, unit_of)
}

#[inline(always)]
fn unit(cpu: &Cpu, unit: Unit) -> Result<(), Fault> {
    match unit {
        Unit::X87 => {
            if cpu.cr0 & (cr0::EM | cr0::TS) != 0 {
                return Err(Fault::NM);
            }
            return Ok(());
        }
        Unit::Mmx => {
            if cpu.cr0 & cr0::EM != 0 {
                return Err(Fault::UD);
            }
        }
        Unit::Sse => {
            if cpu.cr0 & cr0::EM != 0 || cpu.cr4 & cr4::OSFXSR == 0 {
                return Err(Fault::UD);
            }
        }
        Unit::Vex => vector_extension(cpu, xcr0::SSE | xcr0::AVX)?,
        Unit::Opmask | Unit::Evex => vector_extension(cpu, xcr0::SSE | xcr0::AVX | xcr0::AVX512)?,
    }
    if cpu.cr0 & cr0::TS != 0 {
        return Err(Fault::NM);
    }
    Ok(())
}

#[inline(always)]
fn vector_extension(cpu: &Cpu, components: u64) -> Result<(), Fault> {
    let enabled =
        cpu.is_protected() && cpu.cr4 & cr4::OSXSAVE != 0 && cpu.xcr0 & components == components;
    if enabled { Ok(()) } else { Err(Fault::UD) }
}
