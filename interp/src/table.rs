//! Mnemonic to handler.

use crate::families;
use crate::flow::{Flow, Handler, Select, undefined};
use decoder::{Code, Insn, Mnemonic};
use iced_x86::{CpuidFeature, EncodingKind};
use softmmu::Mmu;
use std::sync::OnceLock;
use x86::{Cpu, Fault};

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
    if insn.bits != 64 && is_integer_vex(insn.code) { protected_only } else { registered(insn) }
}

/// Whether this is a VEX encoding of an instruction on general-purpose registers (BMI1, BMI2).
pub fn is_integer_vex(code: Code) -> bool {
    matches!(code.cpuid_features(), [CpuidFeature::BMI1 | CpuidFeature::BMI2])
        && code.encoding() == EncodingKind::VEX
}

/// VEX prefixes are undefined in real-address and virtual-8086 mode (SDM vol. 2A, section 2.5.1,
/// "Exceptions Type 13"). (For vector instructions, `vector::available` says so.)
fn protected_only(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    if cpu.is_protected() { registered(insn)(cpu, mmu, insn) } else { Err(Fault::UD) }
}

fn registered(insn: &Insn) -> Handler {
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
