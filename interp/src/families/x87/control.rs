//! x87 control instructions, which work on the control, status and tag words (SDM vol. 1, section
//! 8.3.9).

use super::{ERROR, check_available, check_pending, update_error};
use crate::access;
use crate::flow::Flow;
use decoder::{Insn, OpKind};
use softmmu::Mmu;
use x86::control::cr0;
use x86::fpu::X87;
use x86::regs::gpr;
use x86::{Cpu, Fault};

/// Control word bits that software can change; bit 6 reads as one.
const FCW_WRITABLE: u16 = 0x1F3F;
const FCW_FIXED: u16 = 0x40;

/// Loads the control word, and with it what counts as an unmasked error.
pub(crate) fn set_control(x87: &mut X87, value: u16) {
    x87.fcw = value & FCW_WRITABLE | FCW_FIXED;
    update_error(x87);
}

/// Changes TOP. Registers stay where they are, so the area, which is in stack order, rotates.
pub(super) fn set_top(x87: &mut X87, top: u8) {
    let by = top.wrapping_sub(x87.top()) & 7;
    x87.st.rotate_left(usize::from(by));
    x87.fsw = x87.fsw & !0x3800 | u16::from(top & 7) << 11;
}

/// FNINIT's effect. The registers keep their contents, tagged empty.
pub(super) fn initialize(x87: &mut X87) {
    set_top(x87, 0);
    (x87.fcw, x87.fsw, x87.ftw) = (X87::INIT.fcw, X87::INIT.fsw, X87::INIT.ftw);
    (x87.fop, x87.fip, x87.fdp) = (0, 0, 0);
}

/// FNINIT.
pub(super) fn fninit(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    check_available(cpu)?;
    initialize(&mut cpu.x87);
    Ok(Flow::Next)
}

/// FNCLEX.
pub(super) fn fnclex(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    check_available(cpu)?;
    // The exception flags, SF, ES and B.
    cpu.x87.fsw &= !(ERROR | 0x7F);
    Ok(Flow::Next)
}

/// FLDCW.
pub(super) fn fldcw(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_available(cpu)?;
    check_pending(cpu, mmu)?;
    let value = access::load::<u16>(cpu, mmu, insn)?;
    set_control(&mut cpu.x87, value);
    Ok(Flow::Next)
}

/// FNSTCW.
pub(super) fn fnstcw(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_available(cpu)?;
    access::store(cpu, mmu, insn, cpu.x87.fcw)?;
    Ok(Flow::Next)
}

/// FNSTSW, to memory or AX.
pub(super) fn fnstsw(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_available(cpu)?;
    let value = cpu.x87.fsw;
    if insn.op[0].kind == OpKind::Mem {
        access::store(cpu, mmu, insn, value)?;
    } else {
        access::write_reg(cpu, gpr::RAX as u8, value);
    }
    Ok(Flow::Next)
}

/// FWAIT: #NM needs both CR0.MP and CR0.TS.
pub(super) fn fwait(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    if cpu.cr0 & (cr0::MP | cr0::TS) == cr0::MP | cr0::TS {
        return Err(Fault::NM);
    }
    check_pending(cpu, mmu)?;
    Ok(Flow::Next)
}

/// FNENI, FNDISI, FNSETPM: instructions of the 8087 and 80287, without effect since the 80387.
pub(super) fn obsolete(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    check_available(cpu)?;
    Ok(Flow::Next)
}

/// EMMS: leaves MMX state, all tags empty.
pub(crate) fn emms(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    let (mmx, unit) = (x86::cpuid::Feature::Mmx, native::Unit::Mmx);
    super::available::check_unit(cpu, mmx, unit)?;
    check_pending(cpu, mmu)?;
    if cpu.policy.is_amd() {
        // Like every MMX instruction there, it makes TOP zero (AMD APM vol. 5, EMMS).
        set_top(&mut cpu.x87, 0);
    }
    cpu.x87.ftw = 0;
    Ok(Flow::Next)
}
