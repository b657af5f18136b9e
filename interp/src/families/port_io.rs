//! IN and OUT (SDM vol. 2A and 2B).

use crate::access::{read_reg, write_reg};
use crate::flow::{Flow, Handler};
use crate::io;
use crate::table::Line;
use decoder::{Insn, Mnemonic, OpKind};
use softmmu::{Mmu, Width};
use x86::regs::gpr;
use x86::{Cpu, Fault};

fn port(cpu: &Cpu, insn: &Insn, operand: usize) -> u16 {
    match insn.op[operand].kind {
        OpKind::Imm => insn.imm as u8 as u16,
        _ => cpu.gpr[gpr::RDX] as u16,
    }
}

fn input<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let port = port(cpu, insn, 1);
    io::check_permission(cpu, mmu, port, T::SIZE)?;
    let value = io::input(cpu, mmu, port, T::SIZE);
    write_reg(cpu, 0, T::from_u64(u64::from(value)));
    Ok(Flow::Next)
}

fn output<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let port = port(cpu, insn, 0);
    io::check_permission(cpu, mmu, port, T::SIZE)?;
    let value: T = read_reg(cpu, 0);
    io::output(cpu, mmu, port, T::SIZE, value.to_u64() as u32);
    // The write may have raised an interrupt, or ended the machine: look before going on.
    Ok(Flow::Sync)
}

fn select_in(insn: &Insn) -> Handler {
    match insn.op[0].kind {
        OpKind::Gpr8 => input::<u8>,
        OpKind::Gpr16 => input::<u16>,
        _ => input::<u32>,
    }
}

fn select_out(insn: &Insn) -> Handler {
    match insn.op[1].kind {
        OpKind::Gpr8 => output::<u8>,
        OpKind::Gpr16 => output::<u16>,
        _ => output::<u32>,
    }
}

/// Registration lines.
pub const FAMILY: &[Line] = &[(Mnemonic::In, select_in), (Mnemonic::Out, select_out)];
