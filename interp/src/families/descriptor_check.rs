//! LLDT, LTR, SLDT, STR, and the instructions that look at descriptors without loading them:
//! VERR, VERW, LAR, LSL, ARPL (SDM vol. 2).

use crate::access;
use crate::flow::{Flow, Handler};
use crate::segmentation::descriptor::{self, Descriptor, SystemKind};
use crate::segmentation::load::{self, is_accessible};
use crate::segmentation::{is_null, rpl};
use crate::table::Line;
use decoder::{Insn, Mnemonic, OpKind};
use softmmu::Mmu;
use x86::control::cr4;
use x86::{Cpu, Fault, Vector, flags};

/// None of these exists in real and V86 mode.
fn check_protected(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.is_protected() { Ok(()) } else { Err(Fault::UD) }
}

fn check_privileged(cpu: &Cpu) -> Result<(), Fault> {
    check_protected(cpu)?;
    if cpu.cpl == 0 { Ok(()) } else { Err(Fault::GP0) }
}

fn lldt(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_privileged(cpu)?;
    let selector = access::read_operand(cpu, mmu, insn, 0)?;
    load::load_ldtr(cpu, mmu, selector)?;
    Ok(Flow::Next)
}

fn ltr(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_privileged(cpu)?;
    let selector = access::read_operand(cpu, mmu, insn, 0)?;
    load::load_tr(cpu, mmu, selector)?;
    Ok(Flow::Next)
}

/// Stores a selector: 16 bits to memory, zero-extended to a register.
fn store_selector(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn, selector: u16) -> Result<Flow, Fault> {
    check_protected(cpu)?;
    if cpu.cr4 & cr4::UMIP != 0 && cpu.cpl > 0 {
        return Err(Fault::GP0);
    }
    let number = insn.op[0].reg;
    match insn.op[0].kind {
        OpKind::Mem => access::store(cpu, mmu, insn, selector)?,
        OpKind::Gpr16 => access::write_reg(cpu, number, selector),
        _ => access::write_reg(cpu, number, u64::from(selector)),
    }
    Ok(Flow::Next)
}

fn sldt(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    store_selector(cpu, mmu, insn, cpu.ldtr.selector)
}

fn str(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    store_selector(cpu, mmu, insn, cpu.tr.selector)
}

fn set_zf(cpu: &mut Cpu, on: bool) {
    cpu.rflags = cpu.rflags & !flags::ZF | if on { flags::ZF } else { 0 };
}

/// The descriptor that `selector` names, `None` for null and outside the table. Page faults stay
/// faults.
fn look_up(cpu: &Cpu, mmu: &mut Mmu, selector: u16) -> Result<Option<Descriptor>, Fault> {
    if is_null(selector) {
        return Ok(None);
    }
    absent_if_gp(descriptor::fetch(cpu, mmu, selector, Fault::gp))
}

fn absent_if_gp<T>(result: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.is(Vector::GP) => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn verify(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    usable: fn(Descriptor) -> bool,
) -> Result<Flow, Fault> {
    check_protected(cpu)?;
    let selector: u16 = access::read_operand(cpu, mmu, insn, 0)?;
    let found = look_up(cpu, mmu, selector)?;
    let ok = found.is_some_and(|d| usable(d) && is_accessible(d, cpu.cpl, rpl(selector)));
    set_zf(cpu, ok);
    Ok(Flow::Next)
}

fn verr(_: &Insn) -> Handler {
    |cpu, mmu, insn| verify(cpu, mmu, insn, Descriptor::is_readable)
}

fn verw(_: &Insn) -> Handler {
    |cpu, mmu, insn| verify(cpu, mmu, insn, Descriptor::is_writable_data)
}

/// System types that LAR and LSL accept; LSL no gates. In IA-32e mode the 16-bit types and task
/// gates do not exist.
fn is_visible_system(cpu: &Cpu, kind: SystemKind, gates: bool) -> bool {
    let long = cpu.long_mode_active();
    match kind {
        SystemKind::Ldt | SystemKind::TssAvailable | SystemKind::TssBusy => true,
        SystemKind::Tss16Available | SystemKind::Tss16Busy => !long,
        SystemKind::CallGate => gates,
        SystemKind::CallGate16 | SystemKind::TaskGate => gates && !long,
        SystemKind::Reserved
        | SystemKind::InterruptGate16
        | SystemKind::TrapGate16
        | SystemKind::InterruptGate
        | SystemKind::TrapGate => false,
    }
}

/// The descriptor that LAR or LSL may tell about.
fn visible(
    cpu: &Cpu,
    mmu: &mut Mmu,
    selector: u16,
    gates: bool,
) -> Result<Option<Descriptor>, Fault> {
    let Some(found) = look_up(cpu, mmu, selector)? else { return Ok(None) };
    if found.is_system() {
        if !is_visible_system(cpu, found.system_kind(), gates) {
            return Ok(None);
        }
        if cpu.long_mode_active() {
            let upper = descriptor::fetch_upper(cpu, mmu, found, Fault::gp);
            if absent_if_gp(upper)?.is_none() {
                return Ok(None);
            }
        }
    }
    Ok(Some(found).filter(|&d| is_accessible(d, cpu.cpl, rpl(selector))))
}

/// Writes the result in the operand size and sets ZF; without a result clears ZF alone.
fn answer(cpu: &mut Cpu, insn: &Insn, value: Option<u32>) -> Flow {
    if let Some(value) = value {
        let number = insn.op[0].reg;
        match insn.op[0].kind {
            OpKind::Gpr16 => access::write_reg(cpu, number, value as u16),
            _ => access::write_reg(cpu, number, u64::from(value)),
        }
    }
    set_zf(cpu, value.is_some());
    Flow::Next
}

fn lar(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_protected(cpu)?;
    let selector = access::read_operand(cpu, mmu, insn, 1)?;
    let found = visible(cpu, mmu, selector, true)?;
    let rights = found.map(|d| (d.raw >> 32) as u32 & 0x00FF_FF00);
    Ok(answer(cpu, insn, rights))
}

fn lsl(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_protected(cpu)?;
    let selector = access::read_operand(cpu, mmu, insn, 1)?;
    let found = visible(cpu, mmu, selector, false)?;
    Ok(answer(cpu, insn, found.map(|d| d.segment().limit)))
}

/// Raises the RPL of the first operand to that of the second.
fn arpl(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_protected(cpu)?;
    let source: u16 = access::read_reg(cpu, insn.op[1].reg);
    let raised = |selector: u16| {
        if rpl(selector) < rpl(source) { selector & !3 | source & 3 } else { selector }
    };
    let old: u16 = if insn.op[0].kind == OpKind::Mem {
        // Written only where the RPL changes: else the operand need not be writable.
        let old = access::load(cpu, mmu, insn)?;
        if raised(old) != old {
            access::store(cpu, mmu, insn, raised(old))?;
        }
        old
    } else {
        let old = access::read_reg(cpu, insn.op[0].reg);
        access::write_reg(cpu, insn.op[0].reg, raised(old));
        old
    };
    set_zf(cpu, raised(old) != old);
    Ok(Flow::Next)
}

/// Registration lines.
pub const FAMILY: &[Line] = &[
    (Mnemonic::Arpl, |_| arpl),
    (Mnemonic::Lar, |_| lar),
    (Mnemonic::Lldt, |_| lldt),
    (Mnemonic::Lsl, |_| lsl),
    (Mnemonic::Ltr, |_| ltr),
    (Mnemonic::Sldt, |_| sldt),
    (Mnemonic::Str, |_| str),
    (Mnemonic::Verr, verr),
    (Mnemonic::Verw, verw),
];

#[cfg(test)]
mod tests;
