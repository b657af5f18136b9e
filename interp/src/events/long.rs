//! Delivery through the IDT of IA-32e mode (SDM vol. 3A, section 6.14).

use super::CLEARED_BY_GATE;
use super::Source;
use super::frame::Event;
use crate::access::is_canonical;
use crate::segmentation::descriptor::{Descriptor, SystemKind, fetch, set_accessed};
use crate::segmentation::stack::{NewStack, null_stack};
use crate::segmentation::{error_code, is_null, tss};
use softmmu::Mmu;
use x86::regs::gpr;
use x86::{Cpu, Fault, SegReg, flags};

/// Pushes SS, RSP, RFLAGS, CS and RIP, always, on a 16-byte-aligned stack, and enters the 64-bit
/// handler.
pub(super) fn deliver(cpu: &mut Cpu, mmu: &mut Mmu, event: Event) -> Result<(), Fault> {
    let gate = Gate::read(cpu, mmu, event)?;
    if is_null(gate.selector) {
        return Err(Fault::GP0);
    }
    let code = fetch(cpu, mmu, gate.selector, Fault::gp)?;
    let selector = error_code(gate.selector);
    if !code.is_code() || code.dpl() > cpu.cpl || !code.is_64bit() || code.is_32bit() {
        return Err(Fault::gp(selector));
    }
    if !code.present() {
        return Err(Fault::np(selector));
    }
    let inner = !code.is_conforming() && code.dpl() < cpu.cpl;
    let cpl = if inner { code.dpl() } else { cpu.cpl };
    let pointer = match (gate.ist, inner) {
        (0, false) => cpu.gpr[gpr::RSP],
        (0, true) => tss::stack_long(cpu, mmu, cpl)?,
        (index, _) => tss::interrupt_stack(cpu, mmu, index)?,
    };
    // A stack of the TSS must be canonical even where aligning and pushing would make it so.
    if !is_canonical(cpu, pointer) {
        return Err(Fault::SS0);
    }
    if !is_canonical(cpu, gate.offset) {
        return Err(Fault::GP0);
    }
    let segment = if inner { null_stack(cpl) } else { *cpu.ss() };
    let mut stack = NewStack::long(segment, pointer & !0xF, cpl);
    set_accessed(cpu, mmu, code)?;
    stack.push(cpu, mmu, u64::from(cpu.ss().selector))?;
    stack.push(cpu, mmu, cpu.gpr[gpr::RSP])?;
    stack.push(cpu, mmu, event.saved_flags(cpu))?;
    stack.push(cpu, mmu, u64::from(cpu.cs().selector))?;
    stack.push(cpu, mmu, cpu.rip)?;
    if let Some(error) = event.error_code {
        stack.push(cpu, mmu, u64::from(error))?;
    }
    stack.commit(cpu);
    let mut segment = code.segment();
    segment.selector = selector | u16::from(cpl);
    cpu.seg[SegReg::CS as usize] = segment;
    cpu.rip = gate.offset;
    cpu.rflags &= !CLEARED_BY_GATE;
    if gate.masks_interrupts {
        cpu.rflags &= !flags::IF;
    }
    Ok(())
}

/// A 16-byte interrupt or trap gate.
struct Gate {
    selector: u16,
    offset: u64,
    /// Index into the interrupt-stack table, 0 for none.
    ist: u8,
    masks_interrupts: bool,
}

impl Gate {
    /// Reads and checks the event's gate.
    fn read(cpu: &Cpu, mmu: &mut Mmu, event: Event) -> Result<Gate, Fault> {
        let code = event.idt_code();
        let offset = u64::from(event.vector) * 16;
        if offset + 15 > u64::from(cpu.idtr.limit) {
            return Err(Fault::gp(code));
        }
        let address = cpu.idtr.base.wrapping_add(offset);
        let low = Descriptor { selector: 0, raw: mmu.load_system(address)?, address };
        let high: u64 = mmu.load_system(address.wrapping_add(8))?;
        let masks_interrupts = match low.system_kind() {
            SystemKind::InterruptGate => true,
            SystemKind::TrapGate => false,
            _ => return Err(Fault::gp(code)),
        };
        if event.source == Source::Software && low.dpl() < cpu.cpl {
            return Err(Fault::gp(code));
        }
        if !low.present() {
            return Err(Fault::np(code));
        }
        Ok(Gate {
            selector: low.gate_selector(),
            offset: u64::from(low.gate_offset()) | high << 32,
            ist: (low.raw >> 32) as u8 & 7,
            masks_interrupts,
        })
    }
}
