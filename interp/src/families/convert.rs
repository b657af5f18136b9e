//! Sign extension within the accumulator: CBW CWDE CDQE, CWD CDQ CQO.

use super::Answer;
use super::status::{bits, sign_extend};
use crate::access::{read_reg, write_reg};
use crate::flow::Flow;
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::{Mmu, Width};
use x86::Cpu;
use x86::regs::gpr;

const ACCUMULATOR: u8 = gpr::RAX as u8;
const HIGH: u8 = gpr::RDX as u8;

/// The accumulator's low half to the whole.
fn widen<S: Width, D: Width>(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    let value = sign_extend(read_reg::<S>(cpu, ACCUMULATOR));
    write_reg(cpu, ACCUMULATOR, D::from_u64(value));
    Ok(Flow::Next)
}

/// The accumulator's sign to every bit of rDX.
fn spread<T: Width>(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Answer {
    let value = sign_extend(read_reg::<T>(cpu, ACCUMULATOR)) as i64;
    write_reg(cpu, HIGH, T::from_u64((value >> (bits::<T>() - 1)) as u64));
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Cbw, |_| widen::<u8, u16>),
    (Mnemonic::Cwde, |_| widen::<u16, u32>),
    (Mnemonic::Cdqe, |_| widen::<u32, u64>),
    (Mnemonic::Cwd, |_| spread::<u16>),
    (Mnemonic::Cdq, |_| spread::<u32>),
    (Mnemonic::Cqo, |_| spread::<u64>),
];
