//! The one definition of what each instruction does.
//!
//! A [`Handler`] is `fn(&mut Cpu, &mut Mmu, &Insn) -> Result<Flow, Fault>`. Each family of the
//! SDM has a file with a table of registration lines, mnemonic to [`Select`]; a selector picks
//! the handler for an instruction's operand kinds and sizes once, when it is decoded. [`Engine`]
//! runs decoded blocks.
#![forbid(unsafe_code)]

pub mod access;
pub mod engine;
pub mod events;
pub mod families;
pub mod flow;
pub mod io;
pub mod segmentation;
pub mod sync;
pub mod table;
#[cfg(test)]
pub(crate) mod testkit;

pub use engine::{Engine, Exit};
pub use flow::{Flow, Handler, Select};
