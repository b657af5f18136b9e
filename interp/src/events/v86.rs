//! INT n in virtual-8086 mode (SDM vol. 3B, section 21.3, table 21-2).

use super::{Source, interrupt};
use crate::segmentation::load::v86_segment;
use crate::segmentation::stack::NewStack;
use crate::segmentation::tss;
use crate::sync;
use softmmu::Mmu;
use x86::control::cr4;
use x86::{Cpu, Fault, SegReg, flags};

/// INT n of V86 code: through the task's own vector table where the VME redirection bitmap says
/// so, else through the IDT if IOPL is 3.
///
/// # Errors
/// #GP(0) for the monitor to emulate the instruction; the faults of delivery.
pub(crate) fn software_interrupt(cpu: &mut Cpu, mmu: &mut Mmu, vector: u8) -> Result<(), Fault> {
    if cpu.cr4 & cr4::VME != 0 && tss::redirects_to_v86(cpu, mmu, vector)? {
        return enter_v86_handler(cpu, mmu, vector);
    }
    if cpu.iopl() < 3 {
        return Err(Fault::GP0);
    }
    interrupt(cpu, mmu, vector, Source::Software)
}

/// Methods 5 and 6: as the 8086 does, through the vector table at linear address 0. Below IOPL 3
/// the virtual interrupt flag stands in for IF.
fn enter_v86_handler(cpu: &mut Cpu, mmu: &mut Mmu, vector: u8) -> Result<(), Fault> {
    let target: u32 = mmu.load_as(3, u64::from(vector) * 4)?;
    let virtual_if = cpu.iopl() < 3;
    let mut image = cpu.rflags;
    if virtual_if {
        image = image & !flags::IF | flags::IOPL;
        if cpu.rflags & flags::VIF != 0 {
            image |= flags::IF;
        }
    }
    let mut stack = NewStack::current(cpu);
    stack.push(cpu, mmu, image as u16)?;
    stack.push(cpu, mmu, cpu.cs().selector)?;
    stack.push(cpu, mmu, cpu.rip as u16)?;
    stack.commit(cpu);
    cpu.seg[SegReg::CS as usize] = v86_segment((target >> 16) as u16);
    cpu.rip = u64::from(target & 0xFFFF);
    cpu.rflags &= !(flags::TF | if virtual_if { flags::VIF } else { flags::IF });
    sync::mode_changed(cpu, mmu);
    Ok(())
}
