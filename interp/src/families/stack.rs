//! The stack: PUSH POP PUSHA POPA ENTER LEAVE.
//!
//! The operand size of the instruction and the width of the stack pointer are independent (SDM
//! vol. 1, section 6.2.3); [`access`] takes care of the latter.

use super::select::{by_wide_width, width};
use super::status::bytes;
use super::{Answer, segment_load};
use crate::access::{self, Intent};
use crate::flow::{Flow, Handler};
use crate::table::Line;
use decoder::{Insn, Mnemonic, OpKind};
use softmmu::{Access, Mmu, Width};
use x86::regs::gpr;
use x86::{Cpu, Fault, SegReg};

fn push_reg<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::read_reg::<T>(cpu, insn.op[0].reg);
    access::push(cpu, mmu, value)?;
    Ok(Flow::Next)
}

fn push_imm<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    access::push(cpu, mmu, T::from_u64(insn.imm))?;
    Ok(Flow::Next)
}

fn push_mem<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::load::<T>(cpu, mmu, insn)?;
    access::push(cpu, mmu, value)?;
    Ok(Flow::Next)
}

/// The selector, zero-extended (recent Intel CPUs write its 16 bits only; both are allowed).
fn push_segment<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let selector = cpu.seg[usize::from(insn.op[0].reg) % 6].selector;
    access::push(cpu, mmu, T::from_u64(u64::from(selector)))?;
    Ok(Flow::Next)
}

fn push(insn: &Insn) -> Handler {
    let width = insn.op_size;
    match insn.op[0].kind {
        OpKind::Mem => by_wide_width!(width, push_mem),
        OpKind::Imm => by_wide_width!(width, push_imm),
        OpKind::Seg => by_wide_width!(width, push_segment),
        _ => by_wide_width!(width, push_reg),
    }
}

fn pop_reg<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::pop::<T>(cpu, mmu)?;
    access::write_reg(cpu, insn.op[0].reg, value);
    Ok(Flow::Next)
}

/// An address based on rSP is computed with its incremented value.
fn pop_mem<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let rsp = cpu.gpr[gpr::RSP];
    let value = access::pop::<T>(cpu, mmu)?;
    if let Err(fault) = access::store(cpu, mmu, insn, value) {
        cpu.gpr[gpr::RSP] = rsp;
        return Err(fault);
    }
    Ok(Flow::Next)
}

fn pop(insn: &Insn) -> Handler {
    match insn.op[0].kind {
        OpKind::Mem => by_wide_width!(width(insn, 0), pop_mem),
        OpKind::Seg => segment_load::pop(insn),
        _ => by_wide_width!(width(insn, 0), pop_reg),
    }
}

fn pusha<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Answer {
    let rsp = cpu.gpr[gpr::RSP];
    let registers = cpu.gpr;
    for value in &registers[..8] {
        if let Err(fault) = access::push(cpu, mmu, T::from_u64(*value)) {
            cpu.gpr[gpr::RSP] = rsp;
            return Err(fault);
        }
    }
    Ok(Flow::Next)
}

fn popa<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Answer {
    let size = u64::from(bytes::<T>());
    let mut values = [T::default(); 8];
    for (depth, value) in (0..).zip(&mut values) {
        *value = access::peek(cpu, mmu, depth * size)?;
    }
    access::release_stack(cpu, 8 * size);
    for (reg, value) in (0..8u8).rev().zip(values) {
        if usize::from(reg) != gpr::RSP {
            access::write_reg(cpu, reg, value);
        }
    }
    Ok(Flow::Next)
}

/// Sets the bits of rBP that the operand size has.
#[inline(always)]
fn set_frame_pointer<T: Width>(cpu: &mut Cpu, value: u64) {
    access::write_reg(cpu, gpr::RBP as u8, T::from_u64(value));
}

/// Pushes the display of an outer procedure's frame pointers and makes a frame.
fn enter_frame<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<(), Fault> {
    let size = u64::from(bytes::<T>());
    let level = insn.imm2 & 31;
    let mut outer = cpu.gpr[gpr::RBP];
    access::push(cpu, mmu, T::from_u64(outer))?;
    let frame = cpu.gpr[gpr::RSP];
    if level > 0 {
        for _ in 1..level {
            outer = access::wrap_stack(cpu, outer.wrapping_sub(size));
            let address = access::linear(cpu, SegReg::SS as u8, outer, bytes::<T>(), Intent::Read)?;
            let pointer = access::load_at::<T>(cpu, mmu, address)?;
            access::push(cpu, mmu, pointer)?;
        }
        access::push(cpu, mmu, T::from_u64(frame))?;
    }
    let top = access::stack_pointer(cpu).wrapping_sub(insn.imm & 0xFFFF);
    let top = access::wrap_stack(cpu, top);
    // The final stack pointer must be writable (SDM vol. 2A, ENTER).
    let address = access::linear(cpu, SegReg::SS as u8, top, bytes::<T>(), Intent::Write)?;
    mmu.probe(address, size_of::<T>(), Access::Write)?;
    access::set_stack_pointer(cpu, top);
    set_frame_pointer::<T>(cpu, frame);
    Ok(())
}

fn enter<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let rsp = cpu.gpr[gpr::RSP];
    if let Err(fault) = enter_frame::<T>(cpu, mmu, insn) {
        cpu.gpr[gpr::RSP] = rsp;
        return Err(fault);
    }
    Ok(Flow::Next)
}

fn leave<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Answer {
    let frame = access::wrap_stack(cpu, cpu.gpr[gpr::RBP]);
    let address = access::linear(cpu, SegReg::SS as u8, frame, bytes::<T>(), Intent::Read)?;
    let outer = access::load_at::<T>(cpu, mmu, address)?;
    access::set_stack_pointer(cpu, frame.wrapping_add(u64::from(bytes::<T>())));
    set_frame_pointer::<T>(cpu, outer.to_u64());
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Push, push),
    (Mnemonic::Pop, pop),
    (Mnemonic::Pusha, |_| pusha::<u16>),
    (Mnemonic::Pushad, |_| pusha::<u32>),
    (Mnemonic::Popa, |_| popa::<u16>),
    (Mnemonic::Popad, |_| popa::<u32>),
    (Mnemonic::Enter, |i| by_wide_width!(i.op_size, enter)),
    (Mnemonic::Leave, |i| by_wide_width!(i.op_size, leave)),
];
