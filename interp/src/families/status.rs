//! Status flags of integer results (SDM vol. 1, section 3.4.3.1), without branches.
//!
//! Flags come as the bits of RFLAGS at their places. Carries are taken from the vector of carries
//! out of every bit, so that one formula serves every width.

use softmmu::Width;
use x86::{Cpu, flags};

/// Width in bits.
#[inline(always)]
pub(crate) const fn bits<T: Width>() -> u32 {
    size_of::<T>() as u32 * 8
}

/// Width in bytes.
#[inline(always)]
pub(crate) const fn bytes<T: Width>() -> u32 {
    size_of::<T>() as u32
}

/// The most significant bit of a `T` within `value`, 0 or 1.
#[inline(always)]
pub(crate) fn msb<T: Width>(value: u64) -> u64 {
    value >> (bits::<T>() - 1) & 1
}

/// Sign-extends from the width of `T` to 64 bits.
#[inline(always)]
pub(crate) fn sign_extend<T: Width>(value: T) -> u64 {
    let unused = 64 - bits::<T>();
    ((value.to_u64() << unused) as i64 >> unused) as u64
}

/// PF of a result: set when its low byte has an even number of ones.
#[inline(always)]
pub(crate) fn parity(result: u64) -> u64 {
    // Bit n of the constant tells whether the 4-bit number n has even parity.
    let nibble = (result ^ result >> 4) & 0xF;
    0x9669u64 >> nibble << 2 & flags::PF
}

/// SF, ZF and PF of a result.
#[inline(always)]
pub(crate) fn sign_zero_parity<T: Width>(result: T) -> u64 {
    let r = result.to_u64();
    msb::<T>(r) << 7 | u64::from(r == 0) << 6 | parity(r)
}

/// `a + b + carry` with its six flags; `carry` is 0 or 1.
#[inline(always)]
pub(crate) fn add<T: Width>(a: T, b: T, carry: u64) -> (T, u64) {
    let (x, y) = (a.to_u64(), b.to_u64());
    let result = T::from_u64(x.wrapping_add(y).wrapping_add(carry));
    let r = result.to_u64();
    let carries = x & y | (x | y) & !r;
    let overflow = (x ^ r) & (y ^ r);
    let status = msb::<T>(carries) | (x ^ y ^ r) & flags::AF | msb::<T>(overflow) << 11;
    (result, status | sign_zero_parity(result))
}

/// `a - b - borrow` with its six flags; `borrow` is 0 or 1.
#[inline(always)]
pub(crate) fn subtract<T: Width>(a: T, b: T, borrow: u64) -> (T, u64) {
    let (x, y) = (a.to_u64(), b.to_u64());
    let result = T::from_u64(x.wrapping_sub(y).wrapping_sub(borrow));
    let r = result.to_u64();
    let borrows = !x & y | (!x | y) & r;
    let overflow = (x ^ y) & (x ^ r);
    let status = msb::<T>(borrows) | (x ^ y ^ r) & flags::AF | msb::<T>(overflow) << 11;
    (result, status | sign_zero_parity(result))
}

/// The six flags of a logical result: CF, OF and AF clear.
#[inline(always)]
pub(crate) fn logic<T: Width>(result: T) -> (T, u64) {
    (result, sign_zero_parity(result))
}

/// Replaces the six status flags.
#[inline(always)]
pub(crate) fn set(cpu: &mut Cpu, status: u64) {
    cpu.rflags = cpu.rflags & !flags::ARITHMETIC | status;
}

/// Replaces the status flags in `mask`.
#[inline(always)]
pub(crate) fn set_masked(cpu: &mut Cpu, mask: u64, status: u64) {
    cpu.rflags = cpu.rflags & !mask | status & mask;
}

/// `bit` where `on`, else 0.
#[inline(always)]
pub(crate) fn flag(on: bool, bit: u64) -> u64 {
    u64::from(on) * bit
}
