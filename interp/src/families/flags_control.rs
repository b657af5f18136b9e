//! PUSHF, POPF, CLI and STI (SDM vol. 2A and 2B; vol. 3B, sections 21.2.7 and 21.3 for VME and
//! PVI).

use crate::access;
use crate::events::iret::{check_virtual_flags, merge_flags, set_virtual_if};
use crate::flow::{Flow, Handler};
use crate::segmentation::far_call::peek_sized;
use crate::sync;
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::Mmu;
use x86::control::cr4;
use x86::cpu::Shadow;
use x86::{Cpu, Fault, Mode, flags};

/// Whether V86 code below IOPL 3 works on VIF in place of IF, with an operand of `size` bytes.
///
/// # Errors
/// #GP(0) where the monitor must emulate the instruction.
fn uses_virtual_if(cpu: &Cpu, size: u8) -> Result<bool, Fault> {
    if cpu.mode != Mode::Virtual8086 || cpu.iopl() == 3 {
        return Ok(false);
    }
    if size == 2 && cpu.cr4 & cr4::VME != 0 { Ok(true) } else { Err(Fault::GP0) }
}

fn pushf(_: &Insn) -> Handler {
    |cpu, mmu, insn| {
        let mut image = cpu.rflags & !(flags::RF | flags::VM);
        if uses_virtual_if(cpu, insn.op_size)? {
            image = image & !flags::IF | flags::IOPL;
            if cpu.rflags & flags::VIF != 0 {
                image |= flags::IF;
            }
        }
        match insn.op_size {
            2 => access::push(cpu, mmu, image as u16)?,
            4 => access::push(cpu, mmu, image as u32)?,
            _ => access::push(cpu, mmu, image)?,
        }
        Ok(Flow::Next)
    }
}

fn popf(_: &Insn) -> Handler {
    |cpu, mmu, insn| {
        let size = insn.op_size;
        let virtual_if = uses_virtual_if(cpu, size)?;
        let image = peek_sized(cpu, mmu, size, 0)?;
        if virtual_if {
            check_virtual_flags(cpu, image)?;
        }
        access::release_stack(cpu, u64::from(size));
        let before = cpu.rflags;
        let mut mask = flags::ARITHMETIC | flags::TF | flags::DF | flags::NT;
        if size != 2 {
            mask |= flags::AC | flags::ID;
        }
        if cpu.cpl <= cpu.iopl() && !virtual_if {
            mask |= flags::IF;
        }
        if cpu.cpl == 0 {
            mask |= flags::IOPL;
        }
        merge_flags(cpu, image, mask);
        if virtual_if {
            set_virtual_if(cpu, image & flags::IF != 0);
        }
        if size != 2 {
            cpu.rflags &= !flags::RF;
        }
        after_change(cpu, mmu, before)
    }
}

/// Brings what depends on flags up to date, if it must be.
fn after_change(cpu: &mut Cpu, mmu: &mut Mmu, before: u64) -> Result<Flow, Fault> {
    let changed = before ^ cpu.rflags;
    if changed & (flags::TF | flags::AC) != 0 {
        sync::mode_changed(cpu, mmu);
        return Ok(Flow::Sync);
    }
    Ok(if changed & cpu.rflags & flags::IF != 0 { Flow::Sync } else { Flow::Next })
}

/// Which flag CLI and STI work on.
enum Target {
    Interrupt,
    Virtual,
}

fn interrupt_flag(cpu: &Cpu) -> Result<Target, Fault> {
    if cpu.cpl <= cpu.iopl() {
        return Ok(Target::Interrupt);
    }
    let virtual_if = match cpu.mode {
        Mode::Virtual8086 => cpu.cr4 & cr4::VME != 0,
        _ => cpu.cpl == 3 && cpu.cr4 & cr4::PVI != 0,
    };
    if virtual_if { Ok(Target::Virtual) } else { Err(Fault::GP0) }
}

fn cli(_: &Insn) -> Handler {
    |cpu, _, _| {
        match interrupt_flag(cpu)? {
            Target::Interrupt => cpu.rflags &= !flags::IF,
            Target::Virtual => cpu.rflags &= !flags::VIF,
        }
        Ok(Flow::Next)
    }
}

/// Interrupts stay shut for one more instruction when STI opens them.
fn sti(_: &Insn) -> Handler {
    |cpu, _, _| match interrupt_flag(cpu)? {
        Target::Interrupt if cpu.rflags & flags::IF != 0 => Ok(Flow::Next),
        Target::Interrupt => {
            cpu.rflags |= flags::IF;
            cpu.shadow = Shadow::Sti;
            Ok(Flow::Sync)
        }
        Target::Virtual if cpu.rflags & flags::VIP != 0 => Err(Fault::GP0),
        Target::Virtual => {
            cpu.rflags |= flags::VIF;
            Ok(Flow::Next)
        }
    }
}

/// Registration lines.
pub const FAMILY: &[Line] = &[
    (Mnemonic::Cli, cli),
    (Mnemonic::Popf, popf),
    (Mnemonic::Popfd, popf),
    (Mnemonic::Popfq, popf),
    (Mnemonic::Pushf, pushf),
    (Mnemonic::Pushfd, pushf),
    (Mnemonic::Pushfq, pushf),
    (Mnemonic::Sti, sti),
];

#[cfg(test)]
mod tests;
