//! Mnemonic to handler.

use crate::families;
use crate::flow::{Handler, Select, undefined};
use decoder::{Insn, Mnemonic};
use std::sync::OnceLock;

/// One registration line: an instruction and how its handler is picked.
pub type Line = (Mnemonic, Select);

/// Number of mnemonics that iced knows.
const MNEMONICS: usize = 2048;

fn table() -> &'static [Option<Select>] {
    static TABLE: OnceLock<Vec<Option<Select>>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = vec![None; MNEMONICS];
        for family in families::ALL {
            for &(mnemonic, select) in *family {
                table[mnemonic as usize] = Some(select);
            }
        }
        table
    })
}

/// The handler of `insn`; [`undefined`] where no family has a line for it.
pub fn handler(insn: &Insn) -> Handler {
    match table().get(insn.mnemonic() as usize).copied().flatten() {
        Some(select) => select(insn),
        None => undefined,
    }
}

/// Whether some family has a line for this mnemonic.
pub fn is_registered(mnemonic: Mnemonic) -> bool {
    table().get(mnemonic as usize).copied().flatten().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn each_mnemonic_has_one_line() {
        let mut seen = HashMap::new();
        for family in families::ALL {
            for &(mnemonic, _) in *family {
                assert!((mnemonic as usize) < MNEMONICS);
                assert_eq!(seen.insert(mnemonic as usize, ()), None, "{mnemonic:?} twice");
            }
        }
    }
}
