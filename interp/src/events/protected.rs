//! Delivery through the IDT of protected mode, from V86 mode too (SDM vol. 3A, section 6.12; vol.
//! 3B, section 21.3.1).

use super::frame::Event;
use super::{CLEARED_BY_GATE, Source};
use crate::segmentation::descriptor::{Descriptor, SystemKind, fetch, set_accessed, wrap_linear};
use crate::segmentation::stack::NewStack;
use crate::segmentation::task_switch::{self, Cause};
use crate::segmentation::{error_code, is_null, load, tss};
use softmmu::Mmu;
use x86::regs::gpr;
use x86::{Cpu, Fault, Mode, SegReg, Segment, flags};

/// Enters the handler of `event` through its gate.
pub(super) fn deliver(cpu: &mut Cpu, mmu: &mut Mmu, event: Event) -> Result<(), Fault> {
    let gate = read_gate(cpu, mmu, event)?;
    let (size, masks_interrupts) = match gate.system_kind() {
        SystemKind::TaskGate => return enter_task(cpu, mmu, event, gate),
        SystemKind::InterruptGate16 => (2, true),
        SystemKind::TrapGate16 => (2, false),
        SystemKind::InterruptGate => (4, true),
        _ => (4, false),
    };
    let selector = gate.gate_selector();
    if is_null(selector) {
        return Err(Fault::GP0);
    }
    let code = fetch(cpu, mmu, selector, Fault::gp)?;
    let code_error = error_code(selector);
    if !code.is_code() || code.dpl() > cpu.cpl {
        return Err(Fault::gp(code_error));
    }
    if !code.present() {
        return Err(Fault::np(code_error));
    }
    let v86 = cpu.mode == Mode::Virtual8086;
    let inner = !code.is_conforming() && code.dpl() < cpu.cpl;
    // A V86 task is left for privilege level 0 and no other.
    if v86 && (!inner || code.dpl() != 0) {
        return Err(Fault::gp(code_error));
    }
    let cpl = if inner { code.dpl() } else { cpu.cpl };
    let mut stack = if inner { inner_stack(cpu, mmu, cpl)? } else { NewStack::current(cpu) };
    let offset = if size == 2 { gate.gate_offset() & 0xFFFF } else { gate.gate_offset() };
    let mut segment = code.segment();
    if offset > segment.limit {
        return Err(Fault::GP0);
    }
    set_accessed(cpu, mmu, code)?;
    push_frame(cpu, mmu, &mut stack, event, size, inner)?;

    stack.commit(cpu);
    segment.selector = code_error | u16::from(cpl);
    cpu.seg[SegReg::CS as usize] = segment;
    cpu.rip = u64::from(offset);
    cpu.rflags &= !CLEARED_BY_GATE;
    if masks_interrupts {
        cpu.rflags &= !flags::IF;
    }
    if v86 {
        for register in [SegReg::ES, SegReg::DS, SegReg::FS, SegReg::GS] {
            cpu.seg[register as usize] = Segment::null(0);
        }
    }
    Ok(())
}

fn push_frame(
    cpu: &Cpu,
    mmu: &mut Mmu,
    stack: &mut NewStack,
    event: Event,
    size: u8,
    inner: bool,
) -> Result<(), Fault> {
    let mut push = |value: u64| stack.push_sized(cpu, mmu, size, value);
    if cpu.mode == Mode::Virtual8086 {
        for register in [SegReg::GS, SegReg::FS, SegReg::DS, SegReg::ES] {
            push(u64::from(cpu.seg(register).selector))?;
        }
    }
    if inner {
        push(u64::from(cpu.ss().selector))?;
        push(cpu.gpr[gpr::RSP])?;
    }
    push(event.saved_flags(cpu))?;
    push(u64::from(cpu.cs().selector))?;
    push(cpu.rip)?;
    match event.error_code {
        Some(error) => push(u64::from(error)),
        None => Ok(()),
    }
}

/// The event's gate, of a type that an IDT may hold, present, and open to software interrupts.
fn read_gate(cpu: &Cpu, mmu: &mut Mmu, event: Event) -> Result<Descriptor, Fault> {
    let code = event.idt_code();
    let offset = u64::from(event.vector) * 8;
    if offset + 7 > u64::from(cpu.idtr.limit) {
        return Err(Fault::gp(code));
    }
    let address = wrap_linear(cpu, cpu.idtr.base.wrapping_add(offset));
    let gate = Descriptor { selector: 0, raw: mmu.load_system(address)?, address };
    let usable = matches!(
        gate.system_kind(),
        SystemKind::TaskGate
            | SystemKind::InterruptGate16
            | SystemKind::TrapGate16
            | SystemKind::InterruptGate
            | SystemKind::TrapGate
    );
    if !usable || event.source == Source::Software && gate.dpl() < cpu.cpl {
        return Err(Fault::gp(code));
    }
    if !gate.present() {
        return Err(Fault::np(code));
    }
    Ok(gate)
}

/// The stack that the TSS holds for privilege level `cpl`.
///
/// # Errors
/// #TS for a bad TSS or selector, #SS(selector) for a stack that is not present.
fn inner_stack(cpu: &Cpu, mmu: &mut Mmu, cpl: u8) -> Result<NewStack, Fault> {
    let (selector, pointer) = tss::stack(cpu, mmu, cpl)?;
    let segment = load::stack_segment(cpu, mmu, selector, cpl, Fault::ts)?;
    Ok(NewStack::legacy(segment, u64::from(pointer), cpl))
}

/// Switches to the task of a task gate; an error code goes to the new task's stack.
fn enter_task(cpu: &mut Cpu, mmu: &mut Mmu, event: Event, gate: Descriptor) -> Result<(), Fault> {
    let target = task_switch::target_of_gate(cpu, mmu, gate.gate_selector())?;
    let wide = target.system_kind() == SystemKind::TssAvailable;
    // The old task's flags image carries RF like a frame would.
    let saved = cpu.rflags;
    cpu.rflags = event.saved_flags(cpu);
    if let Err(fault) = task_switch::switch(cpu, mmu, target, Cause::Interrupt) {
        if cpu.tr.selector != target.selector {
            cpu.rflags = saved;
        }
        return Err(fault);
    }
    if let Some(error) = event.error_code {
        let mut stack = NewStack::current(cpu);
        let size = if wide { 4 } else { 2 };
        let pushed = stack.push_sized(cpu, mmu, size, u64::from(error));
        pushed.map_err(task_switch::in_new_task)?;
        stack.commit(cpu);
    }
    if cpu.rip > u64::from(cpu.cs().limit) {
        return Err(task_switch::in_new_task(Fault::GP0));
    }
    Ok(())
}
