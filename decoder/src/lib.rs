//! Bytes to a compact decoded instruction, on top of iced-x86.
//!
//! iced knows the instruction set; [`Insn`] holds what the engines ask for at every execution,
//! already worked out: operand kinds and register numbers, address components relative to the
//! instruction (so that a block can be shared by every address space that maps its physical
//! page), immediate, prefixes and sizes. Facts asked for rarely come from iced by [`Insn::code`]
//! and [`Insn::to_iced`].
#![forbid(unsafe_code)]

mod flags;
mod insn;
mod offered;
mod operand;

pub use flags::{ARITHMETIC_BITS, rflags_of};
pub use iced_x86::{Code, Mnemonic};
pub use insn::{
    DecodeError, Insn, MAX_LENGTH, Prefixes, decode, decode_for, decode_offered, options,
};
pub use operand::{MemOperand, OpKind, Operand, reg};
