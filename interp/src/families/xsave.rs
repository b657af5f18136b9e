//! Saving and restoring processor state: FXSAVE, the XSAVE family, XCR0 (SDM vol. 1, chapters 10.5
//! and 13).

mod area;
mod component;
mod control;
mod legacy;

use crate::access::{self, Intent};
use crate::flow::Flow;
use crate::sync;
use crate::table::Line;
use area::{Area, Header};
use component::{Layout, in_use};
use decoder::{Insn, Mnemonic};
use softmmu::{Access, Mmu};
use x86::control::{cr0, cr4, xcr0};
use x86::cpuid::Feature;
use x86::fpu::MXCSR_INIT;
use x86::regs::gpr;
use x86::{Cpu, Fault};

/// Length of legacy region and header; extended components follow.
const EXTENDED: usize = 576;
/// XCOMP_BV: the compacted format.
const COMPACTED: u64 = 1 << 63;

/// #UD, #GP and #NM that do not depend on memory.
fn check(cpu: &Cpu, feature: Feature, supervisor: bool) -> Result<(), Fault> {
    if !cpu.policy.has(feature) || cpu.cr4 & cr4::OSXSAVE == 0 {
        return Err(Fault::UD);
    }
    if supervisor && cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    if cpu.cr0 & cr0::TS != 0 { Err(Fault::NM) } else { Ok(()) }
}

/// The requested-feature bitmap: EDX:EAX, masked by what is enabled.
fn requested(cpu: &Cpu, supervisor: bool) -> u64 {
    let mask = cpu.gpr[gpr::RDX] << 32 | cpu.gpr[gpr::RAX] & 0xFFFF_FFFF;
    mask & (cpu.xcr0 | if supervisor { cpu.xss } else { 0 })
}

/// The linear address of an area of `size` bytes, which must be 64-byte aligned.
fn area_address(cpu: &Cpu, insn: &Insn, size: usize, intent: Intent) -> Result<u64, Fault> {
    let address = access::mem_linear(cpu, insn, size as u32, intent)?;
    if address & 63 != 0 { Err(Fault::GP0) } else { Ok(address) }
}

/// Whether the instruction has REX.W: 64-bit x87 pointers instead of selectors and offsets.
fn wide_pointers(insn: &Insn) -> bool {
    use Mnemonic::*;
    matches!(
        insn.mnemonic(),
        Fxsave64 | Fxrstor64 | Xsave64 | Xsaveopt64 | Xsavec64 | Xsaves64 | Xrstor64 | Xrstors64
    )
}

/// XSAVE; XSAVEOPT, which leaves out components in their initial state.
fn standard(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    feature: Feature,
    skip_initial: bool,
) -> Result<Flow, Fault> {
    check(cpu, feature, false)?;
    let mask = requested(cpu, false);
    let used = in_use(cpu);
    let layout = Layout::standard();
    let address = area_address(cpu, insn, layout.size(mask), Intent::Write)?;
    mmu.probe(address, layout.size(mask), Access::Write)?;
    let old = Header::read(mmu, address)?.xstate_bv;
    let mut area = Area::default();
    let written = if skip_initial { mask & used } else { mask };
    area.save(cpu, &layout, written, wide_pointers(insn));
    if mask & (xcr0::SSE | xcr0::AVX) != 0 {
        area.save_mxcsr(cpu);
    }
    area.put(512, &(old & !mask | used & mask).to_le_bytes());
    area.store(cpu, mmu, address, layout.size(mask))?;
    Ok(Flow::Next)
}

/// XSAVEC and XSAVES: the compacted format, without components in their initial state.
fn compacted(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    feature: Feature,
    supervisor: bool,
) -> Result<Flow, Fault> {
    check(cpu, feature, supervisor)?;
    let mask = requested(cpu, supervisor);
    let mut used = in_use(cpu) & mask;
    // Here MXCSR belongs to the SSE component.
    if cpu.mxcsr != MXCSR_INIT {
        used |= mask & xcr0::SSE;
    }
    let layout = Layout::compacted(mask);
    let address = area_address(cpu, insn, layout.size(mask), Intent::Write)?;
    let mut area = Area::default();
    area.save(cpu, &layout, used, wide_pointers(insn));
    if used & xcr0::SSE != 0 {
        area.save_mxcsr(cpu);
    }
    area.put(512, &used.to_le_bytes());
    area.put(520, &(mask | COMPACTED).to_le_bytes());
    area.store(cpu, mmu, address, layout.size(mask))?;
    Ok(Flow::Next)
}

/// XRSTOR and XRSTORS.
fn restore(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    feature: Feature,
    supervisor: bool,
) -> Result<Flow, Fault> {
    check(cpu, feature, supervisor)?;
    let enabled = cpu.xcr0 | if supervisor { cpu.xss } else { 0 };
    let mask = requested(cpu, supervisor);
    let address = area_address(cpu, insn, EXTENDED, Intent::Read)?;
    let header = Header::read(mmu, address)?;
    let is_compacted = header.xcomp_bv & COMPACTED != 0;
    let valid = if is_compacted {
        let present = header.xcomp_bv & !COMPACTED;
        present & !enabled == 0 && header.xstate_bv & !present == 0 && !header.reserved_set
    } else {
        !supervisor
            && header.xstate_bv & !enabled == 0
            && header.xcomp_bv == 0
            && !header.third_word_set
    };
    if !valid {
        return Err(Fault::GP0);
    }
    let layout = if is_compacted {
        Layout::compacted(header.xcomp_bv & !COMPACTED)
    } else {
        Layout::standard()
    };
    let loaded = mask & header.xstate_bv;
    let size = layout.size(loaded);
    let address = area_address(cpu, insn, size, Intent::Read)?;
    let area = Area::load(cpu, mmu, address, size)?;
    let mxcsr = match is_compacted {
        false if mask & (xcr0::SSE | xcr0::AVX) != 0 => Some(area.mxcsr()),
        true if loaded & xcr0::SSE != 0 => Some(area.mxcsr()),
        true if mask & xcr0::SSE != 0 => Some(MXCSR_INIT),
        _ => None,
    };
    if let Some(value) = mxcsr {
        legacy::set_mxcsr(cpu, value)?;
    }
    area.restore(cpu, &layout, loaded, wide_pointers(insn));
    component::initialize(cpu, mask & !header.xstate_bv);
    if mask & xcr0::PKRU != 0 {
        sync::paging_changed(cpu, mmu)?;
        return Ok(Flow::Sync);
    }
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Fxsave, |_| legacy::fxsave),
    (Mnemonic::Fxsave64, |_| legacy::fxsave),
    (Mnemonic::Fxrstor, |_| legacy::fxrstor),
    (Mnemonic::Fxrstor64, |_| legacy::fxrstor),
    (Mnemonic::Xsave, |_| |c, m, i| standard(c, m, i, Feature::Xsave, false)),
    (Mnemonic::Xsave64, |_| |c, m, i| standard(c, m, i, Feature::Xsave, false)),
    (Mnemonic::Xsaveopt, |_| |c, m, i| standard(c, m, i, Feature::Xsaveopt, true)),
    (Mnemonic::Xsaveopt64, |_| |c, m, i| standard(c, m, i, Feature::Xsaveopt, true)),
    (Mnemonic::Xsavec, |_| |c, m, i| compacted(c, m, i, Feature::Xsavec, false)),
    (Mnemonic::Xsavec64, |_| |c, m, i| compacted(c, m, i, Feature::Xsavec, false)),
    (Mnemonic::Xsaves, |_| |c, m, i| compacted(c, m, i, Feature::Xsaves, true)),
    (Mnemonic::Xsaves64, |_| |c, m, i| compacted(c, m, i, Feature::Xsaves, true)),
    (Mnemonic::Xrstor, |_| |c, m, i| restore(c, m, i, Feature::Xsave, false)),
    (Mnemonic::Xrstor64, |_| |c, m, i| restore(c, m, i, Feature::Xsave, false)),
    (Mnemonic::Xrstors, |_| |c, m, i| restore(c, m, i, Feature::Xsaves, true)),
    (Mnemonic::Xrstors64, |_| |c, m, i| restore(c, m, i, Feature::Xsaves, true)),
    (Mnemonic::Xgetbv, |_| control::xgetbv),
    (Mnemonic::Xsetbv, |_| control::xsetbv),
    (Mnemonic::Rdpkru, |_| control::rdpkru),
    (Mnemonic::Wrpkru, |_| control::wrpkru),
];

#[cfg(test)]
mod tests;
