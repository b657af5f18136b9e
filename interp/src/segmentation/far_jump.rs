//! JMP to another segment (SDM vol. 2A, JMP).

use super::descriptor::set_accessed;
use super::error_code;
use super::gate::{Target, enter_code, resolve};
use super::load::{real_segment, v86_segment};
use super::task_switch::{Cause, switch_and_check};
use crate::sync;
use softmmu::Mmu;
use x86::{Cpu, Fault, Mode, SegReg, Segment};

/// Jumps to `selector:offset`; `offset` is already truncated to the operand size.
///
/// # Errors
/// See [`resolve`]; #GP(0) for an offset outside the segment.
pub(crate) fn jump(cpu: &mut Cpu, mmu: &mut Mmu, selector: u16, offset: u64) -> Result<(), Fault> {
    if !cpu.is_protected() {
        let (segment, rip) = real_target(cpu, selector, offset)?;
        cpu.seg[SegReg::CS as usize] = segment;
        cpu.rip = rip;
        sync::mode_changed(cpu, mmu);
        return Ok(());
    }
    let (code, offset) = match resolve(cpu, mmu, selector)? {
        Target::Code(code) => (code, offset),
        Target::Gate(gate) if gate.is_inner(cpu) => {
            return Err(Fault::gp(error_code(gate.code.selector)));
        }
        Target::Gate(gate) => (gate.code, gate.offset),
        Target::Task(tss) => return switch_and_check(cpu, mmu, tss, Cause::Jump),
    };
    let (segment, rip) = enter_code(cpu, code, cpu.cpl, offset)?;
    set_accessed(cpu, mmu, code)?;
    cpu.seg[SegReg::CS as usize] = segment;
    cpu.rip = rip;
    sync::mode_changed(cpu, mmu);
    Ok(())
}

/// CS and RIP of a far transfer in real or V86 mode.
///
/// # Errors
/// #GP(0) when `offset` lies outside the limit, which real mode keeps.
pub(crate) fn real_target(cpu: &Cpu, selector: u16, offset: u64) -> Result<(Segment, u64), Fault> {
    let segment = match cpu.mode {
        Mode::Virtual8086 => v86_segment(selector),
        _ => real_segment(cpu.cs(), selector),
    };
    if offset > u64::from(segment.limit) {
        return Err(Fault::GP0);
    }
    Ok((segment, offset))
}
