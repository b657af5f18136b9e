//! Instructions that become nothing.

use super::Unit;
use iced_x86::Instruction;
use interp::engine::block::Op;

impl Unit<'_> {
    /// Hints, and NOPs with operands: they neither access memory nor fault.
    pub(crate) fn nothing(&mut self, _: &Op, _: &Instruction) -> bool {
        true
    }
}
