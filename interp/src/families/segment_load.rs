//! Loads of segment registers: MOV and POP to one, LDS, LES, LFS, LGS and LSS (SDM vol. 2).
//! MOV and POP are registered with their general forms, which ask for [`mov`] and [`pop`].

use super::far_transfer::far_pointer;
use crate::access;
use crate::flow::{Flow, Handler, undefined};
use crate::segmentation::load;
use crate::sync;
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::Mmu;
use x86::cpu::Shadow;
use x86::{Cpu, Fault, SegReg, Segment};

/// The segment register that operand 0 names; none for CS, which no move loads.
fn destination(insn: &Insn) -> Option<SegReg> {
    SegReg::from_number(insn.op[0].reg).filter(|&register| register != SegReg::CS)
}

/// Loads a register as MOV does, and opens the shadow behind a load of SS, which keeps interrupts and debug
/// traps out until the stack pointer is loaded too (SDM vol. 3A, section 6.8.3).
fn load_with_shadow(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    register: SegReg,
    selector: u16,
) -> Result<Flow, Fault> {
    let segment = load::checked(cpu, mmu, register, selector)?;
    Ok(commit(cpu, mmu, register, segment))
}

fn commit(cpu: &mut Cpu, mmu: &mut Mmu, register: SegReg, segment: Segment) -> Flow {
    cpu.seg[register as usize] = segment;
    sync::mode_changed(cpu, mmu);
    if register == SegReg::SS {
        cpu.shadow = Shadow::MovSs;
    } else if cpu.is_long() {
        return Flow::Next;
    }
    Flow::Sync
}

/// The handler of MOV to a segment register.
pub fn mov(insn: &Insn) -> Handler {
    if destination(insn).is_none() {
        return undefined;
    }
    |cpu, mmu, insn| {
        let Some(register) = destination(insn) else { return Err(Fault::UD) };
        let selector: u16 = access::read_operand(cpu, mmu, insn, 1)?;
        load_with_shadow(cpu, mmu, register, selector)
    }
}

/// The handler of POP to a segment register. The stack pointer moves by the operand size; only
/// two bytes of it are the selector.
pub fn pop(insn: &Insn) -> Handler {
    if destination(insn).is_none() {
        return undefined;
    }
    |cpu, mmu, insn| {
        let Some(register) = destination(insn) else { return Err(Fault::UD) };
        // The whole slot is read, whatever of it counts.
        let selector = match insn.op_size {
            2 => access::peek::<u16>(cpu, mmu, 0)?,
            4 => access::peek::<u32>(cpu, mmu, 0)? as u16,
            _ => access::peek::<u64>(cpu, mmu, 0)? as u16,
        };
        let size = u64::from(insn.op_size);
        // Checked first, then the stack pointer, then SS: POP SS counts in the old stack's width.
        let segment = load::checked(cpu, mmu, register, selector)?;
        access::release_stack(cpu, size);
        Ok(commit(cpu, mmu, register, segment))
    }
}

fn far_load(register: SegReg) -> impl Fn(&mut Cpu, &mut Mmu, &Insn) -> Result<Flow, Fault> {
    move |cpu, mmu, insn| {
        let (selector, offset) = far_pointer(cpu, mmu, insn, insn.op_size)?;
        load::load(cpu, mmu, register, selector)?;
        let number = insn.op[0].reg;
        match insn.op_size {
            2 => access::write_reg(cpu, number, offset as u16),
            4 => access::write_reg(cpu, number, offset as u32),
            _ => access::write_reg(cpu, number, offset),
        }
        Ok(Flow::Sync)
    }
}

/// Registration lines.
pub const FAMILY: &[Line] = &[
    (Mnemonic::Lds, |_| |cpu, mmu, insn| far_load(SegReg::DS)(cpu, mmu, insn)),
    (Mnemonic::Les, |_| |cpu, mmu, insn| far_load(SegReg::ES)(cpu, mmu, insn)),
    (Mnemonic::Lfs, |_| |cpu, mmu, insn| far_load(SegReg::FS)(cpu, mmu, insn)),
    (Mnemonic::Lgs, |_| |cpu, mmu, insn| far_load(SegReg::GS)(cpu, mmu, insn)),
    (Mnemonic::Lss, |_| |cpu, mmu, insn| far_load(SegReg::SS)(cpu, mmu, insn)),
];

#[cfg(test)]
mod tests;
