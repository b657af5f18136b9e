//! Mnemonics with forms in two families.
//!
//! A mnemonic has one registration line, so the family that owns it asks here for the forms that
//! belong to another.

use crate::flow::Handler;
use decoder::Insn;

/// MOVSD and CMPSD on XMM registers.
pub(crate) fn scalar_double(insn: &Insn) -> Handler {
    super::vector::select(insn)
}
