//! Multiplication and division: MUL IMUL MULX DIV IDIV.
//!
//! Undefined flags are what the hosts leave: AMD's Zen family keeps SF, ZF, AF and PF over a
//! multiplication; over a division it keeps CF and OF, sets AF and clears the rest.

use super::Answer;
use super::select::{by_wide_width, by_width, is_imm, width};
use super::status::{self, bits, sign_extend};
use crate::access::{read_operand, read_reg, write_reg};
use crate::flow::Flow;
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::{Mmu, Width};
use x86::regs::gpr;
use x86::{Cpu, Fault, flags};

/// The accumulator pair: AH:AL (the word AX), DX:AX, EDX:EAX or RDX:RAX.
#[inline(always)]
fn read_pair<T: Width>(cpu: &Cpu) -> u128 {
    if bits::<T>() == 8 {
        return u128::from(cpu.gpr[gpr::RAX] as u16);
    }
    let low = read_reg::<T>(cpu, gpr::RAX as u8).to_u64();
    let high = read_reg::<T>(cpu, gpr::RDX as u8).to_u64();
    u128::from(high) << bits::<T>() | u128::from(low)
}

#[inline(always)]
fn write_pair<T: Width>(cpu: &mut Cpu, low: T, high: T) {
    if bits::<T>() == 8 {
        write_reg(cpu, gpr::RAX as u8, (high.to_u64() << 8 | low.to_u64()) as u16);
    } else {
        write_reg(cpu, gpr::RAX as u8, low);
        write_reg(cpu, gpr::RDX as u8, high);
    }
}

/// CF and OF together: whether the product does not fit the lower half.
#[inline(always)]
fn set_overflow(cpu: &mut Cpu, overflow: bool) {
    let both = flags::CF | flags::OF;
    status::set_masked(cpu, both, status::flag(overflow, both));
}

#[inline(always)]
fn multiply_unsigned<T: Width>(a: T, b: T) -> (T, T) {
    if bits::<T>() == 64 {
        let product = u128::from(a.to_u64()) * u128::from(b.to_u64());
        (T::from_u64(product as u64), T::from_u64((product >> 64) as u64))
    } else {
        let product = a.to_u64() * b.to_u64();
        (T::from_u64(product), T::from_u64(product >> bits::<T>()))
    }
}

/// Low half, high half, and whether the product does not fit the low half.
#[inline(always)]
fn multiply_signed<T: Width>(a: T, b: T) -> (T, T, bool) {
    let (x, y) = (sign_extend(a) as i64, sign_extend(b) as i64);
    if bits::<T>() == 64 {
        let product = i128::from(x) * i128::from(y);
        let low = product as i64;
        let high = T::from_u64((product >> 64) as u64);
        (T::from_u64(low as u64), high, i128::from(low) != product)
    } else {
        let product = x * y;
        let low = T::from_u64(product as u64);
        let high = T::from_u64((product >> bits::<T>()) as u64);
        (low, high, sign_extend(low) as i64 != product)
    }
}

fn mul<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let b = read_operand::<T>(cpu, mmu, insn, 0)?;
    let (low, high) = multiply_unsigned(read_reg::<T>(cpu, gpr::RAX as u8), b);
    write_pair(cpu, low, high);
    set_overflow(cpu, high.to_u64() != 0);
    Ok(Flow::Next)
}

fn imul_pair<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let b = read_operand::<T>(cpu, mmu, insn, 0)?;
    let (low, high, overflow) = multiply_signed(read_reg::<T>(cpu, gpr::RAX as u8), b);
    write_pair(cpu, low, high);
    set_overflow(cpu, overflow);
    Ok(Flow::Next)
}

/// IMUL with an explicit destination: `r *= r/m`, or `r = r/m * imm`.
fn imul_reg<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let b = read_operand::<T>(cpu, mmu, insn, 1)?;
    let a =
        if is_imm(insn, 2) { T::from_u64(insn.imm) } else { read_reg::<T>(cpu, insn.op[0].reg) };
    let (low, _, overflow) = multiply_signed(a, b);
    write_reg(cpu, insn.op[0].reg, low);
    set_overflow(cpu, overflow);
    Ok(Flow::Next)
}

/// MULX: both halves to registers, no flags. The high half wins where both are one register.
fn mulx<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let b = read_operand::<T>(cpu, mmu, insn, 2)?;
    let (low, high) = multiply_unsigned(read_reg::<T>(cpu, gpr::RDX as u8), b);
    write_reg(cpu, insn.op[1].reg, low);
    write_reg(cpu, insn.op[0].reg, high);
    Ok(Flow::Next)
}

#[inline(always)]
fn set_division_flags(cpu: &mut Cpu) {
    let mask = flags::SF | flags::ZF | flags::AF | flags::PF;
    status::set_masked(cpu, mask, flags::AF);
}

fn div<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let divisor = read_operand::<T>(cpu, mmu, insn, 0)?.to_u64();
    if divisor == 0 {
        return Err(Fault::DE);
    }
    let dividend = read_pair::<T>(cpu);
    let (quotient, remainder) = if let Ok(small) = u64::try_from(dividend) {
        (small / divisor, small % divisor)
    } else if (dividend >> bits::<T>()) as u64 >= divisor {
        return Err(Fault::DE);
    } else {
        let wide = u128::from(divisor);
        ((dividend / wide) as u64, (dividend % wide) as u64)
    };
    if T::from_u64(quotient).to_u64() != quotient {
        return Err(Fault::DE);
    }
    write_pair(cpu, T::from_u64(quotient), T::from_u64(remainder));
    set_division_flags(cpu);
    Ok(Flow::Next)
}

fn idiv<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let divisor = i128::from(sign_extend(read_operand::<T>(cpu, mmu, insn, 0)?) as i64);
    if divisor == 0 {
        return Err(Fault::DE);
    }
    let unused = 128 - 2 * bits::<T>();
    let dividend = (read_pair::<T>(cpu) << unused) as i128 >> unused;
    let (quotient, remainder) = match (i64::try_from(dividend), divisor as i64) {
        (Ok(a), b) if b != -1 => (i128::from(a / b), i128::from(a % b)),
        _ => (dividend.wrapping_div(divisor), dividend.wrapping_rem(divisor)),
    };
    let narrow = T::from_u64(quotient as u64);
    if i128::from(sign_extend(narrow) as i64) != quotient {
        return Err(Fault::DE);
    }
    write_pair(cpu, narrow, T::from_u64(remainder as u64));
    set_division_flags(cpu);
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Mul, |i| by_width!(width(i, 0), mul)),
    (Mnemonic::Imul, |i| match i.op_count {
        1 => by_width!(width(i, 0), imul_pair),
        _ => by_wide_width!(width(i, 0), imul_reg),
    }),
    (Mnemonic::Mulx, |i| by_wide_width!(width(i, 0), mulx)),
    (Mnemonic::Div, |i| by_width!(width(i, 0), div)),
    (Mnemonic::Idiv, |i| by_width!(width(i, 0), idiv)),
];
