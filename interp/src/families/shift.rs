//! Shifts: SHL SHR SAR, SHLD SHRD, and the flagless SHLX SHRX SARX.
//!
//! Flags that the SDM leaves undefined are AMD Zen's: AF is set by every shift by more than zero;
//! OF is as the rule for a shift by one gives it.

use super::Answer;
use super::select::{by_wide_width, by_width, is_imm, is_mem, width};
use super::status::{self, bits, msb, sign_extend, sign_zero_parity};
use crate::access;
use crate::flow::{Flow, Handler};
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::{Mmu, Width};
use x86::regs::gpr;
use x86::{Cpu, flags};

/// The count of a shift or rotate: modulo 64 for 64-bit operands, else modulo 32.
#[inline(always)]
pub(crate) fn mask_count<T: Width>(count: u64) -> u32 {
    count as u32 & if bits::<T>() == 64 { 63 } else { 31 }
}

/// OF after a left shift or rotate: the sign changed with the last bit.
#[inline(always)]
pub(crate) fn overflow_left<T: Width>(result: u64, carry: u64) -> u64 {
    (carry ^ msb::<T>(result)) << 11
}

/// OF after a right shift or rotate: the two highest bits differ.
#[inline(always)]
pub(crate) fn overflow_right<T: Width>(result: u64) -> u64 {
    msb::<T>(result ^ result << 1) << 11
}

/// A shift or rotate by a count that is masked and not zero.
pub(crate) trait Shift {
    /// The status flags it replaces.
    const FLAGS: u64;
    /// Result and status flags; `carry` is CF before.
    fn apply<T: Width>(value: T, count: u32, carry: u64) -> (T, u64);
}

struct Shl;
impl Shift for Shl {
    const FLAGS: u64 = flags::ARITHMETIC;
    #[inline(always)]
    fn apply<T: Width>(value: T, count: u32, _: u64) -> (T, u64) {
        let v = value.to_u64();
        let result = T::from_u64(v << count);
        let carry =
            if bits::<T>() == 64 { v >> (64 - count) & 1 } else { v << count >> bits::<T>() & 1 };
        let overflow = overflow_left::<T>(result.to_u64(), carry);
        (result, sign_zero_parity(result) | flags::AF | carry | overflow)
    }
}

/// The flags of SHR and SAR: `before_last` has the last bit that left at bit 0.
#[inline(always)]
fn right_flags<T: Width>(result: T, before_last: u64) -> u64 {
    let overflow = overflow_right::<T>(result.to_u64());
    sign_zero_parity(result) | flags::AF | before_last & 1 | overflow
}

struct Shr;
impl Shift for Shr {
    const FLAGS: u64 = flags::ARITHMETIC;
    #[inline(always)]
    fn apply<T: Width>(value: T, count: u32, _: u64) -> (T, u64) {
        let v = value.to_u64();
        let result = T::from_u64(v >> count);
        (result, right_flags(result, v >> (count - 1)))
    }
}

struct Sar;
impl Shift for Sar {
    const FLAGS: u64 = flags::ARITHMETIC;
    #[inline(always)]
    fn apply<T: Width>(value: T, count: u32, _: u64) -> (T, u64) {
        let v = sign_extend(value) as i64;
        let result = T::from_u64((v >> count) as u64);
        (result, right_flags(result, (v >> (count - 1)) as u64))
    }
}

#[inline(always)]
fn shift_reg<O: Shift, T: Width>(cpu: &mut Cpu, insn: &Insn, count: u64) -> Answer {
    let reg = insn.op[0].reg;
    let value = access::read_reg::<T>(cpu, reg);
    let count = mask_count::<T>(count);
    if count == 0 {
        // A 32-bit register loses its upper half even so.
        access::write_reg(cpu, reg, value);
        return Ok(Flow::Next);
    }
    let (result, status) = O::apply(value, count, cpu.rflags & flags::CF);
    access::write_reg(cpu, reg, result);
    status::set_masked(cpu, O::FLAGS, status);
    Ok(Flow::Next)
}

#[inline(always)]
fn shift_mem<O: Shift, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn, count: u64) -> Answer {
    let count = mask_count::<T>(count);
    if count == 0 {
        access::modify::<T>(cpu, mmu, insn, false, |value| value)?;
        return Ok(Flow::Next);
    }
    let carry = cpu.rflags & flags::CF;
    let mut status = 0;
    access::modify::<T>(cpu, mmu, insn, false, |value| {
        let (result, flags) = O::apply(value, count, carry);
        status = flags;
        result
    })?;
    status::set_masked(cpu, O::FLAGS, status);
    Ok(Flow::Next)
}

fn reg_imm<O: Shift, T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    shift_reg::<O, T>(cpu, insn, insn.imm)
}

fn reg_cl<O: Shift, T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let count = cpu.gpr[gpr::RCX];
    shift_reg::<O, T>(cpu, insn, count)
}

fn mem_imm<O: Shift, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    shift_mem::<O, T>(cpu, mmu, insn, insn.imm)
}

fn mem_cl<O: Shift, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let count = cpu.gpr[gpr::RCX];
    shift_mem::<O, T>(cpu, mmu, insn, count)
}

/// Picks the form of a shift or rotate with the count in an immediate or CL.
pub(crate) fn shift<O: Shift>(insn: &Insn) -> Handler {
    let width = width(insn, 0);
    match (is_mem(insn, 0), is_imm(insn, 1)) {
        (true, true) => by_width!(width, mem_imm, O),
        (true, false) => by_width!(width, mem_cl, O),
        (false, true) => by_width!(width, reg_imm, O),
        (false, false) => by_width!(width, reg_cl, O),
    }
}

/// A shift of the destination that fills from a second register.
trait DoubleShift {
    /// Result and status flags for a masked count that is not zero.
    fn apply<T: Width>(value: T, fill: T, count: u32) -> (T, u64);
}

/// The last bit that left; 0 for a 16-bit operand shifted by more than its width (undefined).
#[inline(always)]
fn last_out<T: Width>(bit: u128, count: u32) -> u64 {
    if count > bits::<T>() { 0 } else { bit as u64 & 1 }
}

/// A 16-bit operand shifted by more than 16 is undefined: AMD Zen fills from the second register
/// again, and so does this.
struct Shld;
impl DoubleShift for Shld {
    #[inline(always)]
    fn apply<T: Width>(value: T, fill: T, count: u32) -> (T, u64) {
        let (v, f) = (u128::from(value.to_u64()), u128::from(fill.to_u64()));
        let n = bits::<T>();
        // The value, and below it the fill: twice for narrow operands.
        let (chain, low) =
            if n == 64 { (v << 64 | f, 64) } else { (v << (2 * n) | f << n | f, 2 * n) };
        let result = T::from_u64((chain << count >> low) as u64);
        let carry = last_out::<T>(chain >> (low + n - count), count);
        let overflow = if count > n { 0 } else { overflow_left::<T>(result.to_u64(), carry) };
        (result, sign_zero_parity(result) | flags::AF | carry | overflow)
    }
}

struct Shrd;
impl DoubleShift for Shrd {
    #[inline(always)]
    fn apply<T: Width>(value: T, fill: T, count: u32) -> (T, u64) {
        let (v, f) = (u128::from(value.to_u64()), u128::from(fill.to_u64()));
        let n = bits::<T>();
        let chain = if n == 64 { f << 64 | v } else { f << (2 * n) | f << n | v };
        let result = T::from_u64((chain >> count) as u64);
        let carry = last_out::<T>(chain >> (count - 1), count);
        let overflow = overflow_right::<T>(result.to_u64());
        (result, sign_zero_parity(result) | flags::AF | carry | overflow)
    }
}

fn double<O: DoubleShift, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let count = if is_imm(insn, 2) { insn.imm } else { cpu.gpr[gpr::RCX] };
    let count = mask_count::<T>(count);
    let fill = access::read_reg::<T>(cpu, insn.op[1].reg);
    let mut status = None;
    let mut shift = |value: T| {
        if count == 0 {
            return value;
        }
        let (result, flags) = O::apply(value, fill, count);
        status = Some(flags);
        result
    };
    if is_mem(insn, 0) {
        access::modify(cpu, mmu, insn, false, shift)?;
    } else {
        let result = shift(access::read_reg(cpu, insn.op[0].reg));
        access::write_reg(cpu, insn.op[0].reg, result);
    }
    if let Some(status) = status {
        status::set(cpu, status);
    }
    Ok(Flow::Next)
}

/// SHLX, SHRX, SARX: the count in a register, no flags.
fn flagless<O: Shift, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::read_operand::<T>(cpu, mmu, insn, 1)?;
    let count = mask_count::<T>(access::read_reg::<T>(cpu, insn.op[2].reg).to_u64());
    let result = if count == 0 { value } else { O::apply(value, count, 0).0 };
    access::write_reg(cpu, insn.op[0].reg, result);
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Shl, |i| shift::<Shl>(i)),
    (Mnemonic::Sal, |i| shift::<Shl>(i)),
    (Mnemonic::Shr, |i| shift::<Shr>(i)),
    (Mnemonic::Sar, |i| shift::<Sar>(i)),
    (Mnemonic::Shld, |i| by_wide_width!(width(i, 0), double, Shld)),
    (Mnemonic::Shrd, |i| by_wide_width!(width(i, 0), double, Shrd)),
    (Mnemonic::Shlx, |i| by_wide_width!(width(i, 0), flagless, Shl)),
    (Mnemonic::Shrx, |i| by_wide_width!(width(i, 0), flagless, Shr)),
    (Mnemonic::Sarx, |i| by_wide_width!(width(i, 0), flagless, Sar)),
];
