//! Delivery through the interrupt vector table of real mode (SDM vol. 3B, section 21.1.4).

use super::frame::Event;
use crate::segmentation::descriptor::wrap_linear;
use crate::segmentation::load::real_segment;
use crate::segmentation::stack::NewStack;
use softmmu::Mmu;
use x86::{Cpu, Fault, SegReg, flags};

/// Pushes FLAGS, CS and IP and jumps to the vector. Error codes do not exist in real mode.
///
/// # Errors
/// #GP outside the table; #SS where the frame crosses the stack segment's limit.
pub(super) fn deliver(cpu: &mut Cpu, mmu: &mut Mmu, event: Event) -> Result<(), Fault> {
    let offset = u64::from(event.vector) * 4;
    if offset + 3 > u64::from(cpu.idtr.limit) {
        return Err(Fault::gp(event.idt_code()));
    }
    let address = wrap_linear(cpu, cpu.idtr.base.wrapping_add(offset));
    let target: u32 = mmu.load_system(address)?;
    let mut stack = NewStack::current(cpu);
    stack.push(cpu, mmu, event.saved_flags(cpu) as u16)?;
    stack.push(cpu, mmu, cpu.cs().selector)?;
    stack.push(cpu, mmu, cpu.rip as u16)?;
    stack.commit(cpu);
    let code = &mut cpu.seg[SegReg::CS as usize];
    *code = real_segment(code, (target >> 16) as u16);
    cpu.rip = u64::from(target & 0xFFFF);
    cpu.rflags &= !(flags::IF | flags::TF | flags::AC | flags::RF);
    Ok(())
}
