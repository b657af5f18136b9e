//! CALL to another segment (SDM vol. 2A, CALL; vol. 3A, section 5.8.5).

use super::descriptor::set_accessed;
use super::far_jump::real_target;
use super::gate::{CallGate, Target, enter_code, resolve};
use super::stack::{NewStack, null_stack};
use super::task_switch::{Cause, switch_and_check};
use super::{load, tss};
use crate::access::{self, is_canonical};
use crate::sync;
use softmmu::Mmu;
use x86::regs::gpr;
use x86::{Cpu, Fault, SegReg, Segment};

/// Calls `selector:offset`, pushing CS and RIP in `size` bytes each (2, 4 or 8), or in the size
/// of the call gate. `offset` is already truncated to the operand size.
///
/// # Errors
/// See [`resolve`]; #SS(0) for the present stack, #TS and #SS(selector) for the inner one; #GP(0)
/// for an offset outside the segment.
pub(crate) fn call(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    selector: u16,
    offset: u64,
    size: u8,
) -> Result<(), Fault> {
    if !cpu.is_protected() {
        let target = real_target(cpu, selector, offset)?;
        return call_same(cpu, mmu, size, target);
    }
    match resolve(cpu, mmu, selector)? {
        Target::Code(code) => {
            let target = enter_code(cpu, code, cpu.cpl, offset)?;
            set_accessed(cpu, mmu, code)?;
            call_same(cpu, mmu, size, target)
        }
        Target::Gate(gate) if gate.is_inner(cpu) => call_inner(cpu, mmu, &gate),
        Target::Gate(gate) => {
            let target = enter_code(cpu, gate.code, cpu.cpl, gate.offset)?;
            set_accessed(cpu, mmu, gate.code)?;
            call_same(cpu, mmu, gate.size, target)
        }
        Target::Task(tss) => switch_and_check(cpu, mmu, tss, Cause::Call),
    }
}

/// Pushes the return address to the stack in use and enters `target`.
fn call_same(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    size: u8,
    (segment, rip): (Segment, u64),
) -> Result<(), Fault> {
    let mut stack = NewStack::current(cpu);
    stack.push_sized(cpu, mmu, size, u64::from(cpu.cs().selector))?;
    stack.push_sized(cpu, mmu, size, cpu.rip)?;
    stack.commit(cpu);
    cpu.seg[SegReg::CS as usize] = segment;
    cpu.rip = rip;
    sync::mode_changed(cpu, mmu);
    Ok(())
}

/// Through a call gate to more privilege: to the stack in the TSS, with the parameters.
fn call_inner(cpu: &mut Cpu, mmu: &mut Mmu, gate: &CallGate) -> Result<(), Fault> {
    let cpl = gate.code.dpl();
    let size = gate.size;
    let mut stack = if size == 8 {
        let pointer = tss::stack_long(cpu, mmu, cpl)?;
        if !is_canonical(cpu, pointer) {
            return Err(Fault::SS0);
        }
        NewStack::long(null_stack(cpl), pointer, cpl)
    } else {
        let (selector, pointer) = tss::stack(cpu, mmu, cpl)?;
        let segment = load::stack_segment(cpu, mmu, selector, cpl, Fault::ts)?;
        NewStack::legacy(segment, u64::from(pointer), cpl)
    };
    let (segment, rip) = enter_code(cpu, gate.code, cpl, gate.offset)?;
    set_accessed(cpu, mmu, gate.code)?;
    stack.push_sized(cpu, mmu, size, u64::from(cpu.ss().selector))?;
    stack.push_sized(cpu, mmu, size, cpu.gpr[gpr::RSP])?;
    for n in (0..gate.parameters).rev() {
        let value = peek_sized(cpu, mmu, size, u64::from(n) * u64::from(size))?;
        stack.push_sized(cpu, mmu, size, value)?;
    }
    stack.push_sized(cpu, mmu, size, u64::from(cpu.cs().selector))?;
    stack.push_sized(cpu, mmu, size, cpu.rip)?;
    stack.commit(cpu);
    cpu.seg[SegReg::CS as usize] = segment;
    cpu.rip = rip;
    sync::mode_changed(cpu, mmu);
    Ok(())
}

/// Reads `size` bytes (2, 4 or 8) at `depth` above the stack pointer.
pub(crate) fn peek_sized(cpu: &mut Cpu, mmu: &mut Mmu, size: u8, depth: u64) -> Result<u64, Fault> {
    Ok(match size {
        2 => u64::from(access::peek::<u16>(cpu, mmu, depth)?),
        4 => u64::from(access::peek::<u32>(cpu, mmu, depth)?),
        _ => access::peek::<u64>(cpu, mmu, depth)?,
    })
}
