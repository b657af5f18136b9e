//! INT n, INT3, INTO, INT1 and IRET (SDM vol. 2A).

use crate::events::{self, Source, iret, v86};
use crate::flow::{Flow, Handler};
use crate::segmentation::task_switch::report_trap;
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::Mmu;
use x86::{Cpu, Fault, Mode, Vector, flags};

fn software(cpu: &mut Cpu, mmu: &mut Mmu, vector: u8, source: Source) -> Result<Flow, Fault> {
    events::interrupt(cpu, mmu, vector, source)?;
    report_trap(cpu)?;
    Ok(Flow::Sync)
}

fn int(_: &Insn) -> Handler {
    |cpu, mmu, insn| {
        let vector = insn.imm as u8;
        if cpu.mode == Mode::Virtual8086 {
            v86::software_interrupt(cpu, mmu, vector)?;
            report_trap(cpu)?;
            return Ok(Flow::Sync);
        }
        software(cpu, mmu, vector, Source::Software)
    }
}

/// INT3 (CC) goes to the IDT in V86 mode whatever IOPL is, unlike INT 3 (CD 03).
fn int3(_: &Insn) -> Handler {
    |cpu, mmu, _| software(cpu, mmu, Vector::BP as u8, Source::Software)
}

fn into(_: &Insn) -> Handler {
    |cpu, mmu, _| {
        if cpu.rflags & flags::OF == 0 {
            return Ok(Flow::Next);
        }
        software(cpu, mmu, Vector::OF as u8, Source::Software)
    }
}

/// INT1 leaves DR6 alone.
fn int1(_: &Insn) -> Handler {
    |cpu, mmu, _| software(cpu, mmu, Vector::DB as u8, Source::Icebp)
}

fn iret(_: &Insn) -> Handler {
    |cpu, mmu, insn| {
        iret::iret(cpu, mmu, insn.op_size)?;
        Ok(Flow::Sync)
    }
}

/// Registration lines.
pub const FAMILY: &[Line] = &[
    (Mnemonic::Int, int),
    (Mnemonic::Int1, int1),
    (Mnemonic::Int3, int3),
    (Mnemonic::Into, into),
    (Mnemonic::Iret, iret),
    (Mnemonic::Iretd, iret),
    (Mnemonic::Iretq, iret),
];

#[cfg(test)]
mod tests;
