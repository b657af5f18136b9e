//! One-operand arithmetic and logic: INC DEC NEG NOT.

use super::Answer;
use super::select::{by_width, is_mem, width};
use super::status;
use crate::access;
use crate::flow::{Flow, Handler};
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::{Mmu, Width};
use x86::{Cpu, flags};

/// An operation on one operand.
trait Unary {
    /// The status flags it replaces.
    const FLAGS: u64;
    /// Result and status flags.
    fn apply<T: Width>(a: T) -> (T, u64);
}

macro_rules! unary {
    ($name:ident, flags: $flags:expr, |$a:ident| $body:expr) => {
        struct $name;
        impl Unary for $name {
            const FLAGS: u64 = $flags;
            #[inline(always)]
            fn apply<T: Width>($a: T) -> (T, u64) {
                $body
            }
        }
    };
}
const ALL_BUT_CARRY: u64 = flags::ARITHMETIC & !flags::CF;
unary!(Inc, flags: ALL_BUT_CARRY, |a| status::add(a, T::from_u64(1), 0));
unary!(Dec, flags: ALL_BUT_CARRY, |a| status::subtract(a, T::from_u64(1), 0));
unary!(Neg, flags: flags::ARITHMETIC, |a| status::subtract(T::from_u64(0), a, 0));
unary!(Not, flags: 0, |a| (T::from_u64(!a.to_u64()), 0));

fn reg<O: Unary, T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let (result, status) = O::apply(access::read_reg::<T>(cpu, insn.op[0].reg));
    access::write_reg(cpu, insn.op[0].reg, result);
    status::set_masked(cpu, O::FLAGS, status);
    Ok(Flow::Next)
}

fn mem<O: Unary, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let mut status = 0;
    access::modify::<T>(cpu, mmu, insn, insn.prefixes.lock(), |a| {
        let (result, flags) = O::apply(a);
        status = flags;
        result
    })?;
    status::set_masked(cpu, O::FLAGS, status);
    Ok(Flow::Next)
}

fn unary<O: Unary>(insn: &Insn) -> Handler {
    if is_mem(insn, 0) {
        by_width!(width(insn, 0), mem, O)
    } else {
        by_width!(width(insn, 0), reg, O)
    }
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Inc, |i| unary::<Inc>(i)),
    (Mnemonic::Dec, |i| unary::<Dec>(i)),
    (Mnemonic::Neg, |i| unary::<Neg>(i)),
    (Mnemonic::Not, |i| unary::<Not>(i)),
];
