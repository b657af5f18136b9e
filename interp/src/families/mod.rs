//! Instruction families, as the SDM groups them. Each file ends in one table of registration
//! lines.

use crate::flow::Flow;
use crate::table::Line;
use x86::Fault;

mod binary;
mod bit;
mod bmi;
mod branch;
mod condition;
pub mod control_register;
mod convert;
mod decimal;
mod delegate;
pub mod descriptor_check;
mod exchange;
pub mod far_transfer;
pub mod fast_syscall;
mod flag;
pub mod flags_control;
mod hint;
pub mod interrupt_flow;
mod mov;
pub mod msr;
mod multiply;
pub mod port_io;
mod random;
mod rotate;
pub mod segment_load;
mod select;
mod shift;
#[cfg(test)]
mod silicon;
mod stack;
mod status;
mod string;
pub mod system;
#[cfg(test)]
mod tests;
mod unary;
pub(crate) mod vector;
pub(crate) mod x87;
mod xsave;

/// What a handler returns.
pub(crate) type Answer = Result<Flow, Fault>;

/// Every family's registration lines.
pub const ALL: &[&[Line]] = &[
    mov::FAMILY,
    convert::FAMILY,
    exchange::FAMILY,
    stack::FAMILY,
    binary::FAMILY,
    unary::FAMILY,
    multiply::FAMILY,
    decimal::FAMILY,
    shift::FAMILY,
    rotate::FAMILY,
    bit::FAMILY,
    bmi::FAMILY,
    condition::FAMILY,
    branch::FAMILY,
    string::FAMILY,
    flag::FAMILY,
    hint::FAMILY,
    random::FAMILY,
    control_register::FAMILY,
    descriptor_check::FAMILY,
    far_transfer::FAMILY,
    fast_syscall::FAMILY,
    flags_control::FAMILY,
    interrupt_flow::FAMILY,
    msr::FAMILY,
    port_io::FAMILY,
    segment_load::FAMILY,
    system::FAMILY,
    xsave::FAMILY,
    x87::CONTROL,
    x87::ARITHMETIC,
    vector::SOFTWARE,
    vector::VECTOR_INDEX,
    vector::MMX,
    vector::SSE,
    vector::SSE2,
    vector::SSE3,
    vector::SSSE3,
    vector::SSE4_1,
    vector::SSE4_2,
    vector::SSE4A,
    vector::CRYPTO,
    vector::AVX,
    vector::AVX2,
    vector::F16C,
    vector::FMA,
    vector::OPMASK,
    vector::AVX512,
    vector::RECENT,
];
