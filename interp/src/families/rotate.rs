//! Rotates: ROL ROR RCL RCR, and the flagless RORX.

use super::Answer;
use super::select::{by_wide_width, width};
use super::shift::{Shift, mask_count, overflow_left, overflow_right, shift};
use super::status::{bits, msb};
use crate::access;
use crate::flow::Flow;
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::{Mmu, Width};
use x86::{Cpu, flags};

const CARRY_AND_OVERFLOW: u64 = flags::CF | flags::OF;

/// Rotates left within the width by `count` modulo the width.
#[inline(always)]
fn rotate_left<T: Width>(value: T, count: u32) -> u64 {
    let (v, n) = (value.to_u64(), bits::<T>());
    if n == 64 {
        return v.rotate_left(count);
    }
    let count = count % n;
    T::from_u64(v << count | v >> (n - count)).to_u64()
}

struct Rol;
impl Shift for Rol {
    const FLAGS: u64 = CARRY_AND_OVERFLOW;
    #[inline(always)]
    fn apply<T: Width>(value: T, count: u32, _: u64) -> (T, u64) {
        let result = rotate_left(value, count);
        let carry = result & 1;
        (T::from_u64(result), carry | overflow_left::<T>(result, carry))
    }
}

struct Ror;
impl Shift for Ror {
    const FLAGS: u64 = CARRY_AND_OVERFLOW;
    #[inline(always)]
    fn apply<T: Width>(value: T, count: u32, _: u64) -> (T, u64) {
        let n = bits::<T>();
        let result = rotate_left(value, n - count % n);
        (T::from_u64(result), msb::<T>(result) | overflow_right::<T>(result))
    }
}

/// Rotates CF and the value, as one word of width + 1 bits, left by `count` (0 to the width).
#[inline(always)]
fn rotate_with_carry<T: Width>(value: T, count: u32, carry: u64) -> (u64, u64) {
    let n = bits::<T>() + 1;
    let wide = u128::from(carry) << (n - 1) | u128::from(value.to_u64());
    let turned = wide << count | wide >> (n - count);
    (T::from_u64(turned as u64).to_u64(), (turned >> (n - 1)) as u64 & 1)
}

struct Rcl;
impl Shift for Rcl {
    const FLAGS: u64 = CARRY_AND_OVERFLOW;
    #[inline(always)]
    fn apply<T: Width>(value: T, count: u32, carry: u64) -> (T, u64) {
        let count = count % (bits::<T>() + 1);
        let (result, carry) = rotate_with_carry(value, count, carry);
        (T::from_u64(result), carry | overflow_left::<T>(result, carry))
    }
}

struct Rcr;
impl Shift for Rcr {
    const FLAGS: u64 = CARRY_AND_OVERFLOW;
    #[inline(always)]
    fn apply<T: Width>(value: T, count: u32, carry: u64) -> (T, u64) {
        let n = bits::<T>() + 1;
        let (result, carry) = rotate_with_carry(value, (n - count % n) % n, carry);
        (T::from_u64(result), carry | overflow_right::<T>(result))
    }
}

fn rorx<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::read_operand::<T>(cpu, mmu, insn, 1)?;
    let count = mask_count::<T>(insn.imm);
    let result = rotate_left(value, bits::<T>() - count);
    access::write_reg(cpu, insn.op[0].reg, T::from_u64(result));
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Rol, |i| shift::<Rol>(i)),
    (Mnemonic::Ror, |i| shift::<Ror>(i)),
    (Mnemonic::Rcl, |i| shift::<Rcl>(i)),
    (Mnemonic::Rcr, |i| shift::<Rcr>(i)),
    (Mnemonic::Rorx, |i| by_wide_width!(width(i, 0), rorx)),
];
