//! Instructions that become nothing.

use super::Unit;
use iced_x86::{Code, Instruction, OpKind};
use interp::engine::block::Op;

impl Unit<'_> {
    /// Hints, and NOPs with operands: they neither access memory nor fault. (Of the opcodes kept
    /// for more of them, 0F 0D with a register is undefined on some processors: the interpreter
    /// knows.)
    pub(crate) fn nothing(&mut self, _: &Op, insn: &Instruction) -> bool {
        use Code::*;
        let undefined = matches!(
            insn.code(),
            Reservednop_rm16_r16_0F0D | Reservednop_rm32_r32_0F0D | Reservednop_rm64_r64_0F0D
        );
        if undefined && insn.op0_kind() == OpKind::Register {
            return false;
        }
        self.keep_pointer();
        true
    }
}
