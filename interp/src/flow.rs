//! What a handler is, and what it answers.

use decoder::Insn;
use softmmu::Mmu;
use x86::{Cpu, Fault};

/// How execution goes on after an instruction that did not fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Flow {
    /// With the next instruction in memory. `Cpu::rip` is as the engine set it: behind this one.
    Next,
    /// At `Cpu::rip`, which the handler changed. Nothing that a decoded block depends on changed.
    Branch,
    /// At `Cpu::rip`, and anything may have changed: mode, paging, interrupt flag, code bytes.
    /// The engine looks everything up again and polls for interrupts.
    Sync,
    /// With this same instruction again: a string instruction that did part of its iterations.
    /// The engine sets `Cpu::rip` back and polls for interrupts.
    Again,
    /// `Cpu::activity` changed: the CPU stops executing.
    Stop,
}

/// The definition of an instruction, for certain operand kinds and sizes.
///
/// On entry `Cpu::rip` points behind the instruction. A handler that returns a fault has changed
/// no guest state (string instructions: none of the faulting iteration); the engine sets
/// `Cpu::rip` back to the instruction unless [`Fault::is_trap`].
pub type Handler = fn(&mut Cpu, &mut Mmu, &Insn) -> Result<Flow, Fault>;

/// Picks the handler for a decoded instruction.
pub type Select = fn(&Insn) -> Handler;

/// Raises #UD: the handler of everything that has no registration line.
pub fn undefined(_: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    Err(Fault::UD)
}
