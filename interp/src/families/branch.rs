//! Near control flow: JMP CALL RET Jcc LOOPcc JCXZ, BOUND.
//!
//! Targets are checked before the stack changes. A 16- or 32-bit operand size truncates the
//! target.

use super::condition::holds;
use super::select::{by_wide_width, is_mem};
use super::status::{bytes, sign_extend};
use super::{Answer, far_transfer};
use crate::access::{self, Intent};
use crate::flow::{Flow, Handler};
use crate::table::Line;
use decoder::{Insn, Mnemonic, OpKind};
use softmmu::{Mmu, Width};
use x86::regs::gpr;
use x86::{Cpu, Fault, flags};

/// Branches by the displacement in the instruction.
#[inline(always)]
fn branch_relative<T: Width>(cpu: &mut Cpu, insn: &Insn) -> Result<(), Fault> {
    let target = T::from_u64(cpu.rip.wrapping_add(insn.imm));
    access::branch_to(cpu, target.to_u64())
}

/// The target of an indirect branch.
#[inline(always)]
fn indirect_target<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<u64, Fault> {
    Ok(if is_mem(insn, 0) {
        access::load::<T>(cpu, mmu, insn)?.to_u64()
    } else {
        access::read_reg::<T>(cpu, insn.op[0].reg).to_u64()
    })
}

fn jmp_relative<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    branch_relative::<T>(cpu, insn)?;
    Ok(Flow::Branch)
}

fn jmp_indirect<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let target = indirect_target::<T>(cpu, mmu, insn)?;
    access::branch_to(cpu, target)?;
    Ok(Flow::Branch)
}

fn jmp(insn: &Insn) -> Handler {
    match insn.op[0].kind {
        _ if far_transfer::is_far(insn) => far_transfer::jmp(insn),
        OpKind::Near => by_wide_width!(insn.op_size, jmp_relative),
        _ => by_wide_width!(insn.op_size, jmp_indirect),
    }
}

fn call_relative<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let back = T::from_u64(cpu.rip);
    branch_relative::<T>(cpu, insn)?;
    access::push(cpu, mmu, back)?;
    Ok(Flow::Branch)
}

fn call_indirect<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let target = indirect_target::<T>(cpu, mmu, insn)?;
    let back = T::from_u64(cpu.rip);
    access::branch_to(cpu, target)?;
    access::push(cpu, mmu, back)?;
    Ok(Flow::Branch)
}

fn call(insn: &Insn) -> Handler {
    match insn.op[0].kind {
        _ if far_transfer::is_far(insn) => far_transfer::call(insn),
        OpKind::Near => by_wide_width!(insn.op_size, call_relative),
        _ => by_wide_width!(insn.op_size, call_indirect),
    }
}

/// RET, with the number of bytes to release behind the return address (0 without an operand).
fn ret<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let target = access::peek::<T>(cpu, mmu, 0)?;
    access::branch_to(cpu, target.to_u64())?;
    access::release_stack(cpu, u64::from(bytes::<T>()) + (insn.imm & 0xFFFF));
    Ok(Flow::Branch)
}

fn jump_if<const CC: u8, const SIZE: u8>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    if !holds::<CC>(cpu.rflags) {
        return Ok(Flow::Next);
    }
    match SIZE {
        2 => branch_relative::<u16>(cpu, insn)?,
        4 => branch_relative::<u32>(cpu, insn)?,
        _ => branch_relative::<u64>(cpu, insn)?,
    }
    Ok(Flow::Branch)
}

fn jcc<const CC: u8>(insn: &Insn) -> Handler {
    match insn.op_size {
        2 => jump_if::<CC, 2>,
        4 => jump_if::<CC, 4>,
        _ => jump_if::<CC, 8>,
    }
}

/// rCX by the address size.
fn counter(cpu: &Cpu, insn: &Insn) -> u64 {
    access::truncate(cpu.gpr[gpr::RCX], insn.mem.addr_size)
}

/// LOOP, LOOPE, LOOPNE: `wanted` is the value that ZF must have, if any.
#[inline(always)]
fn count_down<T: Width>(cpu: &mut Cpu, insn: &Insn, wanted: Option<bool>) -> Answer {
    let count = access::truncate(counter(cpu, insn).wrapping_sub(1), insn.mem.addr_size);
    let zero = cpu.rflags & flags::ZF != 0;
    let taken = count != 0 && wanted.is_none_or(|wanted| wanted == zero);
    if taken {
        branch_relative::<T>(cpu, insn)?;
    }
    super::string::set_index(cpu, gpr::RCX, count, insn.mem.addr_size);
    Ok(if taken { Flow::Branch } else { Flow::Next })
}

fn loop_always<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    count_down::<T>(cpu, insn, None)
}

fn loop_equal<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    count_down::<T>(cpu, insn, Some(true))
}

fn loop_not_equal<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    count_down::<T>(cpu, insn, Some(false))
}

fn jump_if_counter_zero<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    if counter(cpu, insn) != 0 {
        return Ok(Flow::Next);
    }
    branch_relative::<T>(cpu, insn)?;
    Ok(Flow::Branch)
}

/// #BR unless the register, signed, lies within the pair of bounds in memory.
fn bound<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let size = bytes::<T>();
    let lower_at = access::effective_address(cpu, insn);
    let upper_at = access::truncate(lower_at.wrapping_add(u64::from(size)), insn.mem.addr_size);
    let lower_at = access::linear(cpu, insn.mem.seg, lower_at, size, Intent::Read)?;
    let upper_at = access::linear(cpu, insn.mem.seg, upper_at, size, Intent::Read)?;
    let lower = access::load_at::<T>(cpu, mmu, lower_at)?;
    let upper = access::load_at::<T>(cpu, mmu, upper_at)?;
    let signed = |value: T| sign_extend(value) as i64;
    let index = signed(access::read_reg::<T>(cpu, insn.op[0].reg));
    if index < signed(lower) || index > signed(upper) {
        return Err(Fault::BR);
    }
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Jmp, jmp),
    (Mnemonic::Call, call),
    (Mnemonic::Ret, |i| by_wide_width!(i.op_size, ret)),
    (Mnemonic::Jo, |i| jcc::<0>(i)),
    (Mnemonic::Jno, |i| jcc::<1>(i)),
    (Mnemonic::Jb, |i| jcc::<2>(i)),
    (Mnemonic::Jae, |i| jcc::<3>(i)),
    (Mnemonic::Je, |i| jcc::<4>(i)),
    (Mnemonic::Jne, |i| jcc::<5>(i)),
    (Mnemonic::Jbe, |i| jcc::<6>(i)),
    (Mnemonic::Ja, |i| jcc::<7>(i)),
    (Mnemonic::Js, |i| jcc::<8>(i)),
    (Mnemonic::Jns, |i| jcc::<9>(i)),
    (Mnemonic::Jp, |i| jcc::<10>(i)),
    (Mnemonic::Jnp, |i| jcc::<11>(i)),
    (Mnemonic::Jl, |i| jcc::<12>(i)),
    (Mnemonic::Jge, |i| jcc::<13>(i)),
    (Mnemonic::Jle, |i| jcc::<14>(i)),
    (Mnemonic::Jg, |i| jcc::<15>(i)),
    (Mnemonic::Loop, |i| by_wide_width!(i.op_size, loop_always)),
    (Mnemonic::Loope, |i| by_wide_width!(i.op_size, loop_equal)),
    (Mnemonic::Loopne, |i| by_wide_width!(i.op_size, loop_not_equal)),
    (Mnemonic::Jcxz, |i| by_wide_width!(i.op_size, jump_if_counter_zero)),
    (Mnemonic::Jecxz, |i| by_wide_width!(i.op_size, jump_if_counter_zero)),
    (Mnemonic::Jrcxz, |i| by_wide_width!(i.op_size, jump_if_counter_zero)),
    (Mnemonic::Bound, |i| by_wide_width!(i.op_size, bound)),
];
