//! RET to another segment, and the part of IRET that is the same (SDM vol. 2B, RET; vol. 2A,
//! IRET).

use super::descriptor::{Descriptor, fetch, set_accessed};
use super::far_call::peek_sized;
use super::far_jump::real_target;
use super::gate::{enter_code, has_bad_size};
use super::stack::null_stack;
use super::{error_code, is_null, load, rpl};
use crate::{access, sync};
use softmmu::Mmu;
use x86::segment::ar;
use x86::{Cpu, Fault, SegReg, Segment};

/// Returns to the CS:RIP on the stack (`size` bytes each: 2, 4 or 8) and releases `release` bytes
/// of parameters, on the outer stack too when the privilege level changes.
///
/// # Errors
/// #SS(0) outside the stack's limit, else as [`return_code`] and [`return_stack`].
pub(crate) fn far_return(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    size: u8,
    release: u16,
) -> Result<(), Fault> {
    let slot = u64::from(size);
    let release = u64::from(release);
    let offset = peek_sized(cpu, mmu, size, 0)?;
    let selector = peek_sized(cpu, mmu, size, slot)? as u16;
    if !cpu.is_protected() {
        let (segment, rip) = real_target(cpu, selector, offset)?;
        access::release_stack(cpu, 2 * slot + release);
        cpu.seg[SegReg::CS as usize] = segment;
        cpu.rip = rip;
        sync::mode_changed(cpu, mmu);
        return Ok(());
    }
    let code = return_code(cpu, mmu, selector)?;
    let cpl = rpl(selector);
    if cpl == cpu.cpl {
        let (segment, rip) = enter_code(cpu, code, cpl, offset)?;
        set_accessed(cpu, mmu, code)?;
        access::release_stack(cpu, 2 * slot + release);
        cpu.seg[SegReg::CS as usize] = segment;
        cpu.rip = rip;
        sync::mode_changed(cpu, mmu);
        return Ok(());
    }
    let pointer = peek_sized(cpu, mmu, size, 2 * slot + release)?;
    let stack_selector = peek_sized(cpu, mmu, size, 3 * slot + release)? as u16;
    let stack = return_stack(cpu, mmu, stack_selector, code, cpl)?;
    let (segment, rip) = enter_code(cpu, code, cpl, offset)?;
    set_accessed(cpu, mmu, code)?;
    cpu.seg[SegReg::CS as usize] = segment;
    cpu.seg[SegReg::SS as usize] = stack;
    cpu.rip = rip;
    close_segments(cpu, cpl);
    sync::mode_changed(cpu, mmu);
    access::set_stack_pointer(cpu, pointer.wrapping_add(release));
    Ok(())
}

/// Checks the code segment that RET or IRET returns to; its RPL is the new privilege level.
///
/// # Errors
/// #GP(selector) for another type, a level inside the present one or a DPL that does not fit it;
/// #NP(selector).
pub(crate) fn return_code(cpu: &Cpu, mmu: &mut Mmu, selector: u16) -> Result<Descriptor, Fault> {
    if is_null(selector) {
        return Err(Fault::GP0);
    }
    let found = fetch(cpu, mmu, selector, Fault::gp)?;
    let level = rpl(selector);
    let fits = if found.is_conforming() { found.dpl() <= level } else { found.dpl() == level };
    if !found.is_code() || level < cpu.cpl || !fits || has_bad_size(cpu, found) {
        return Err(Fault::gp(error_code(selector)));
    }
    if !found.present() {
        return Err(Fault::np(error_code(selector)));
    }
    Ok(found)
}

/// Checks the stack segment that RET or IRET returns to, at privilege level `cpl` of `code`. Null
/// is allowed for 64-bit code inside level 3.
///
/// # Errors
/// #GP(selector), #SS(selector) when not present.
pub(crate) fn return_stack(
    cpu: &Cpu,
    mmu: &mut Mmu,
    selector: u16,
    code: Descriptor,
    cpl: u8,
) -> Result<Segment, Fault> {
    if is_null(selector) && cpu.long_mode_active() && code.is_64bit() && cpl != 3 {
        if rpl(selector) != cpl {
            return Err(Fault::GP0);
        }
        return Ok(null_stack(cpl));
    }
    load::stack_segment(cpu, mmu, selector, cpl, Fault::gp)
}

/// Makes the data segments null that privilege level `cpl` must not use (SDM vol. 3A, section
/// 5.8.6). They keep their base, which matters for FS and GS of 64-bit code.
pub(crate) fn close_segments(cpu: &mut Cpu, cpl: u8) {
    for register in [SegReg::ES, SegReg::DS, SegReg::FS, SegReg::GS] {
        let segment = &mut cpu.seg[register as usize];
        let conforming = segment.access & (ar::CODE | ar::DC) == ar::CODE | ar::DC;
        if segment.present() && !conforming && cpl > segment.dpl() {
            *segment = Segment { base: segment.base, ..Segment::null(0) };
        }
    }
}
