//! The commonest moves between memory and registers, without a call of the host's instruction:
//! they only copy bits.

use super::{available, cached, memory, operand_address};
use crate::access::Intent;
use crate::flow::{Flow, Handler};
use decoder::{Insn, Mnemonic, OpKind};
use softmmu::Mmu;
use x86::{Cpu, Fault};

/// The handler of a move that is defined here.
pub(super) fn select(insn: &Insn) -> Option<Handler> {
    use Mnemonic::*;
    let to_memory = insn.op[0].kind == OpKind::Mem;
    Some(match (insn.mnemonic(), to_memory) {
        (Movaps | Movapd | Movdqa | Movups | Movupd | Movdqu | Lddqu, false) => load::<16, false>,
        (Movaps | Movapd | Movdqa | Movups | Movupd | Movdqu, true) => store::<16>,
        (Vmovaps | Vmovapd | Vmovdqa | Vmovups | Vmovupd | Vmovdqu, _) => {
            match (insn.op, to_memory) {
                (op, false) if op[0].kind == OpKind::Xmm => load::<16, true>,
                (op, false) if op[0].kind == OpKind::Ymm => load::<32, true>,
                (op, true) if op[1].kind == OpKind::Xmm => store::<16>,
                (op, true) if op[1].kind == OpKind::Ymm => store::<32>,
                _ => return None,
            }
        }
        (Movntps | Movntpd | Movntdq, true) => store::<16>,
        (Movsd, true) if insn.op[1].kind == OpKind::Xmm => store::<8>,
        (Movq, true) if insn.op[1].kind == OpKind::Xmm => store::<8>,
        (Movss | Movd, true) if insn.op[1].kind == OpKind::Xmm => store::<4>,
        (Movlps | Movlpd, true) => store::<8>,
        _ => return None,
    })
}

/// Loads `SIZE` bytes; VEX forms clear the rest of the register.
fn load<const SIZE: usize, const VEX: bool>(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
) -> Result<Flow, Fault> {
    let thunk = cached(insn)?;
    available::check(cpu, mmu, thunk)?;
    let address = operand_address(cpu, insn, thunk, Intent::Read)?;
    let mut bytes = [0; SIZE];
    memory::read(cpu, mmu, address, &mut bytes)?;
    let register = &mut cpu.vector[usize::from(insn.op[0].reg & 31)].0;
    for (word, chunk) in register.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        *word = u64::from_le_bytes(eight);
    }
    if VEX {
        register[SIZE / 8..].fill(0);
    }
    Ok(Flow::Next)
}

/// Stores the low `SIZE` bytes.
fn store<const SIZE: usize>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let thunk = cached(insn)?;
    available::check(cpu, mmu, thunk)?;
    let address = operand_address(cpu, insn, thunk, Intent::Write)?;
    let register = &cpu.vector[usize::from(insn.op[1].reg & 31)].0;
    let mut bytes = [0; SIZE];
    for (chunk, word) in bytes.chunks_mut(8).zip(register) {
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    memory::write(cpu, mmu, address, &bytes)?;
    Ok(Flow::Next)
}
