//! Which arithmetic flags an instruction reads, writes and makes irrelevant (from iced's facts),
//! and which are live at each instruction of a block.

use decoder::ARITHMETIC_BITS;
use iced_x86::{FlowControl, Instruction, OpKind, Register};

/// An instruction's relation to the arithmetic flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Effects {
    /// Read.
    pub(crate) reads: u32,
    /// Changed, perhaps.
    pub(crate) writes: u32,
    /// Changed for certain or undefined afterwards: what was before does not matter.
    pub(crate) kills: u32,
}

/// The effects of one instruction. `precise`: CPUs keep some of the flags that the manual calls
/// undefined (AMD's keep CF over DIV, and all but ZF over BSF), so those are not killed.
pub(crate) fn effects(insn: &Instruction, precise: bool) -> Effects {
    let reads = insn.rflags_read() & ARITHMETIC_BITS;
    let writes = insn.rflags_modified() & ARITHMETIC_BITS;
    let kept = if precise { insn.rflags_undefined() } else { 0 };
    let kills = if is_conditional(insn) { 0 } else { writes & !kept };
    Effects { reads, writes, kills }
}

/// Whether it depends on a value, a count, whether flags change at all.
fn is_conditional(insn: &Instruction) -> bool {
    use iced_x86::Mnemonic::*;
    if insn.has_rep_prefix() || insn.has_repne_prefix() {
        return true;
    }
    let shifts =
        matches!(insn.mnemonic(), Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd);
    if !shifts {
        return false;
    }
    let last = insn.op_count() - 1;
    match insn.op_kind(last) {
        OpKind::Register => insn.op_register(last) == Register::CL,
        // A masked count of zero changes nothing; one beyond the operand leaves CF undefined.
        _ => insn.immediate(last) & 0x1F == 0,
    }
}

/// The flags live before each instruction and behind the last one; all of them if `precise`.
pub(crate) fn analyze(insns: &[Instruction], effects: &[Effects], precise: bool) -> Vec<u32> {
    let mut live = vec![ARITHMETIC_BITS; insns.len() + 1];
    for i in (0..insns.len()).rev() {
        let mut after = live[i + 1];
        if precise || insns[i].flow_control() != FlowControl::Next {
            after = ARITHMETIC_BITS;
        }
        let before = effects[i].reads | after & !effects[i].kills;
        live[i] = if precise { ARITHMETIC_BITS } else { before };
    }
    live
}
