//! Condition codes (SDM vol. 1, appendix B): SETcc and CMOVcc. Jcc is in [`super::branch`].

use super::Answer;
use super::select::{by_wide_width, is_mem, width};
use crate::access;
use crate::flow::{Flow, Handler};
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::{Mmu, Width};
use x86::{Cpu, flags};

/// Whether condition `CC` holds, by the number in the low four bits of the opcode: O, NO, B, AE,
/// E, NE, BE, A, S, NS, P, NP, L, GE, LE, G.
#[inline(always)]
pub(crate) fn holds<const CC: u8>(rflags: u64) -> bool {
    let less = (rflags >> 7 ^ rflags >> 11) & 1 != 0;
    let met = match CC >> 1 {
        0 => rflags & flags::OF != 0,
        1 => rflags & flags::CF != 0,
        2 => rflags & flags::ZF != 0,
        3 => rflags & (flags::CF | flags::ZF) != 0,
        4 => rflags & flags::SF != 0,
        5 => rflags & flags::PF != 0,
        6 => less,
        _ => less | (rflags & flags::ZF != 0),
    };
    met != (CC & 1 != 0)
}

fn set_reg<const CC: u8>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    access::write_reg(cpu, insn.op[0].reg, u8::from(holds::<CC>(cpu.rflags)));
    Ok(Flow::Next)
}

fn set_mem<const CC: u8>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let value = u8::from(holds::<CC>(cpu.rflags));
    access::store(cpu, mmu, insn, value)?;
    Ok(Flow::Next)
}

fn setcc<const CC: u8>(insn: &Insn) -> Handler {
    if is_mem(insn, 0) { set_mem::<CC> } else { set_reg::<CC> }
}

/// A 32-bit move clears the upper half of the destination whether the condition holds or not.
#[inline(always)]
fn move_if<T: Width>(cpu: &mut Cpu, insn: &Insn, value: T, met: bool) -> Answer {
    let reg = insn.op[0].reg;
    let old = access::read_reg::<T>(cpu, reg);
    access::write_reg(cpu, reg, if met { value } else { old });
    Ok(Flow::Next)
}

/// A condition as a type, since macros that pick a width pass types.
struct Condition<const CC: u8>;
trait Holds {
    fn holds(rflags: u64) -> bool;
}
impl<const CC: u8> Holds for Condition<CC> {
    #[inline(always)]
    fn holds(rflags: u64) -> bool {
        holds::<CC>(rflags)
    }
}

fn cmov_reg<C: Holds, T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::read_reg::<T>(cpu, insn.op[1].reg);
    move_if(cpu, insn, value, C::holds(cpu.rflags))
}

fn cmov_mem<C: Holds, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::load::<T>(cpu, mmu, insn)?;
    move_if(cpu, insn, value, C::holds(cpu.rflags))
}

fn cmovcc<const CC: u8>(insn: &Insn) -> Handler {
    if is_mem(insn, 1) {
        by_wide_width!(width(insn, 0), cmov_mem, Condition<CC>)
    } else {
        by_wide_width!(width(insn, 0), cmov_reg, Condition<CC>)
    }
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Seto, |i| setcc::<0>(i)),
    (Mnemonic::Setno, |i| setcc::<1>(i)),
    (Mnemonic::Setb, |i| setcc::<2>(i)),
    (Mnemonic::Setae, |i| setcc::<3>(i)),
    (Mnemonic::Sete, |i| setcc::<4>(i)),
    (Mnemonic::Setne, |i| setcc::<5>(i)),
    (Mnemonic::Setbe, |i| setcc::<6>(i)),
    (Mnemonic::Seta, |i| setcc::<7>(i)),
    (Mnemonic::Sets, |i| setcc::<8>(i)),
    (Mnemonic::Setns, |i| setcc::<9>(i)),
    (Mnemonic::Setp, |i| setcc::<10>(i)),
    (Mnemonic::Setnp, |i| setcc::<11>(i)),
    (Mnemonic::Setl, |i| setcc::<12>(i)),
    (Mnemonic::Setge, |i| setcc::<13>(i)),
    (Mnemonic::Setle, |i| setcc::<14>(i)),
    (Mnemonic::Setg, |i| setcc::<15>(i)),
    (Mnemonic::Cmovo, |i| cmovcc::<0>(i)),
    (Mnemonic::Cmovno, |i| cmovcc::<1>(i)),
    (Mnemonic::Cmovb, |i| cmovcc::<2>(i)),
    (Mnemonic::Cmovae, |i| cmovcc::<3>(i)),
    (Mnemonic::Cmove, |i| cmovcc::<4>(i)),
    (Mnemonic::Cmovne, |i| cmovcc::<5>(i)),
    (Mnemonic::Cmovbe, |i| cmovcc::<6>(i)),
    (Mnemonic::Cmova, |i| cmovcc::<7>(i)),
    (Mnemonic::Cmovs, |i| cmovcc::<8>(i)),
    (Mnemonic::Cmovns, |i| cmovcc::<9>(i)),
    (Mnemonic::Cmovp, |i| cmovcc::<10>(i)),
    (Mnemonic::Cmovnp, |i| cmovcc::<11>(i)),
    (Mnemonic::Cmovl, |i| cmovcc::<12>(i)),
    (Mnemonic::Cmovge, |i| cmovcc::<13>(i)),
    (Mnemonic::Cmovle, |i| cmovcc::<14>(i)),
    (Mnemonic::Cmovg, |i| cmovcc::<15>(i)),
];
