//! Far JMP, CALL and RET (SDM vol. 2A and 2B). Iced files near and far JMP and CALL under one
//! mnemonic each: the lines are with the near ones, which ask [`jmp`] and [`call`] for these.

use crate::access::{self, Intent};
use crate::flow::{Flow, Handler};
use crate::segmentation::{far_call, far_jump, far_return};
use crate::table::Line;
use decoder::{Insn, Mnemonic, OpKind};
use softmmu::Mmu;
use x86::{Cpu, Fault};

/// Whether a JMP or CALL is a far one: to a pointer in the instruction or in memory.
pub fn is_far(insn: &Insn) -> bool {
    use decoder::Code;
    matches!(
        insn.code,
        Code::Jmp_ptr1616
            | Code::Jmp_ptr1632
            | Code::Jmp_m1616
            | Code::Jmp_m1632
            | Code::Jmp_m1664
            | Code::Call_ptr1616
            | Code::Call_ptr1632
            | Code::Call_m1616
            | Code::Call_m1632
            | Code::Call_m1664
    )
}

/// The handler of a far JMP.
pub fn jmp(_: &Insn) -> Handler {
    |cpu, mmu, insn| {
        let (selector, offset) = pointer(cpu, mmu, insn)?;
        far_jump::jump(cpu, mmu, selector, offset)?;
        Ok(Flow::Sync)
    }
}

/// The handler of a far CALL.
pub fn call(_: &Insn) -> Handler {
    |cpu, mmu, insn| {
        let (selector, offset) = pointer(cpu, mmu, insn)?;
        far_call::call(cpu, mmu, selector, offset, call_slot(insn))?;
        Ok(Flow::Sync)
    }
}

/// Bytes of each push of a far CALL. On AMD processors REX.W widens the pushes, though the pointer
/// in memory keeps a 32-bit offset.
fn call_slot(insn: &Insn) -> u8 {
    let is_prefix = |b: &&u8| matches!(**b, 0x26 | 0x2E | 0x36 | 0x3E | 0x64..=0x67 | 0xF2 | 0xF3);
    let first = insn.as_bytes().iter().find(|b| !is_prefix(b)).copied().unwrap_or(0);
    if insn.bits == 64 && first & 0xF8 == 0x48 { 8 } else { insn.op_size }
}

fn retf(_: &Insn) -> Handler {
    |cpu, mmu, insn| {
        let release = if insn.op[0].kind == OpKind::Imm { insn.imm as u16 } else { 0 };
        far_return::far_return(cpu, mmu, insn.op_size, release)?;
        Ok(Flow::Sync)
    }
}

/// The far pointer of a JMP or CALL: selector and offset, the latter in the operand size.
fn pointer(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<(u16, u64), Fault> {
    if insn.op[0].kind == OpKind::Far {
        return Ok((insn.imm2, access::truncate(insn.imm, insn.op_size)));
    }
    far_pointer(cpu, mmu, insn, insn.op_size)
}

/// Reads a far pointer from the memory operand: `size` bytes of offset, then the selector.
pub(super) fn far_pointer(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    size: u8,
) -> Result<(u16, u64), Fault> {
    let base = access::mem_linear(cpu, insn, u32::from(size) + 2, Intent::Read)?;
    let offset = match size {
        2 => u64::from(access::load_at::<u16>(cpu, mmu, base)?),
        4 => u64::from(access::load_at::<u32>(cpu, mmu, base)?),
        _ => access::load_at::<u64>(cpu, mmu, base)?,
    };
    // The first byte of the selector may have wrapped to address 0 outside 64-bit mode.
    let address = base.wrapping_add(u64::from(size));
    let address = if cpu.is_long() { address } else { address & 0xFFFF_FFFF };
    let selector = access::load_at(cpu, mmu, address)?;
    Ok((selector, offset))
}

/// Registration lines.
pub const FAMILY: &[Line] = &[(Mnemonic::Retf, retf)];

#[cfg(test)]
mod tests;
