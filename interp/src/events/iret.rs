//! IRET in every mode (SDM vol. 2A, IRET/IRETD/IRETQ).

use crate::access::{release_stack, set_stack_pointer};
use crate::segmentation::descriptor::set_accessed;
use crate::segmentation::far_call::peek_sized;
use crate::segmentation::far_jump::real_target;
use crate::segmentation::far_return::{close_segments, return_code, return_stack};
use crate::segmentation::gate::enter_code;
use crate::segmentation::load::v86_segment;
use crate::segmentation::{rpl, task_switch};
use crate::sync;
use softmmu::Mmu;
use x86::control::cr4;
use x86::regs::gpr;
use x86::{Cpu, Fault, Mode, SegReg, flags};

/// Flags that every IRET loads from a 16-bit image.
const IMAGE_16: u64 = flags::ARITHMETIC | flags::TF | flags::DF | flags::NT;
/// Flags that every IRET with a 32- or 64-bit operand loads besides.
const IMAGE_32: u64 = flags::RF | flags::AC | flags::ID;

/// Returns from an event handler, with an operand size of 2, 4 or 8 bytes.
///
/// NMIs are unblocked even if the instruction faults (SDM vol. 3A, section 6.7.1).
///
/// # Errors
/// #GP, #NP, #SS as for a far return, #TS for a bad back link; nothing else has changed.
pub(crate) fn iret(cpu: &mut Cpu, mmu: &mut Mmu, size: u8) -> Result<(), Fault> {
    cpu.nmi_blocked = false;
    let result = match cpu.mode {
        Mode::Real => iret_real(cpu, mmu, size),
        Mode::Virtual8086 => iret_in_v86(cpu, mmu, size),
        Mode::Protected if cpu.rflags & flags::NT != 0 => task_switch::return_to_previous(cpu, mmu),
        Mode::Compatibility | Mode::Long if cpu.rflags & flags::NT != 0 => Err(Fault::GP0),
        Mode::Protected | Mode::Compatibility | Mode::Long => iret_protected(cpu, mmu, size),
    };
    if result.is_ok() && !cpu.stepping {
        // The return from every fault sets RF, for one instruction. Where no breakpoint is enabled
        // it holds nothing back, and that instruction need not be executed by itself. (What shows is
        // the frame of an interrupt that comes before it: RF is clear there.)
        cpu.rflags &= !flags::RF;
    }
    result
}

/// Replaces the bits of RFLAGS in `mask` by those of `image`.
pub(crate) fn merge_flags(cpu: &mut Cpu, image: u64, mask: u64) {
    cpu.rflags = cpu.rflags & !mask | image & mask | flags::FIXED_ONE;
}

/// Pops IP, CS and FLAGS and checks IP, without loading anything.
fn peek_frame(cpu: &mut Cpu, mmu: &mut Mmu, size: u8) -> Result<(u64, u16, u64), Fault> {
    let slot = u64::from(size);
    let offset = peek_sized(cpu, mmu, size, 0)?;
    let selector = peek_sized(cpu, mmu, size, slot)? as u16;
    let image = peek_sized(cpu, mmu, size, 2 * slot)?;
    Ok((offset, selector, image))
}

fn iret_real(cpu: &mut Cpu, mmu: &mut Mmu, size: u8) -> Result<(), Fault> {
    let (offset, selector, image) = peek_frame(cpu, mmu, size)?;
    let (segment, rip) = real_target(cpu, selector, offset)?;
    release_stack(cpu, 3 * u64::from(size));
    cpu.seg[SegReg::CS as usize] = segment;
    cpu.rip = rip;
    let wide = if size == 2 { 0 } else { IMAGE_32 };
    merge_flags(cpu, image, IMAGE_16 | flags::IF | flags::IOPL | wide);
    sync::mode_changed(cpu, mmu);
    Ok(())
}

/// From V86 code: with IOPL 3 like real mode, but IOPL, VM, VIF and VIP stay; below it only with
/// VME and 16 bits, where VIF stands in for IF.
fn iret_in_v86(cpu: &mut Cpu, mmu: &mut Mmu, size: u8) -> Result<(), Fault> {
    let virtual_if = cpu.iopl() < 3;
    if virtual_if && (size != 2 || cpu.cr4 & cr4::VME == 0) {
        return Err(Fault::GP0);
    }
    let (offset, selector, image) = peek_frame(cpu, mmu, size)?;
    let (segment, rip) = real_target(cpu, selector, offset)?;
    if virtual_if {
        check_virtual_flags(cpu, image)?;
    }
    release_stack(cpu, 3 * u64::from(size));
    cpu.seg[SegReg::CS as usize] = segment;
    cpu.rip = rip;
    let wide = if size == 2 { 0 } else { IMAGE_32 };
    if virtual_if {
        merge_flags(cpu, image, IMAGE_16);
        set_virtual_if(cpu, image & flags::IF != 0);
    } else {
        merge_flags(cpu, image, IMAGE_16 | flags::IF | wide);
    }
    sync::mode_changed(cpu, mmu);
    Ok(())
}

/// With VME, an image that sets TF, or IF while an interrupt is pending, goes to the monitor.
pub(crate) fn check_virtual_flags(cpu: &Cpu, image: u64) -> Result<(), Fault> {
    let pending = cpu.rflags & flags::VIP != 0 && image & flags::IF != 0;
    if pending || image & flags::TF != 0 {
        return Err(Fault::GP0);
    }
    Ok(())
}

/// Sets or clears VIF.
pub(crate) fn set_virtual_if(cpu: &mut Cpu, on: bool) {
    merge_flags(cpu, if on { flags::VIF } else { 0 }, flags::VIF);
}

fn iret_protected(cpu: &mut Cpu, mmu: &mut Mmu, size: u8) -> Result<(), Fault> {
    let slot = u64::from(size);
    let (offset, selector, image) = peek_frame(cpu, mmu, size)?;
    let to_v86 = image & flags::VM != 0 && size == 4 && cpu.mode == Mode::Protected;
    if to_v86 && cpu.cpl == 0 {
        return iret_to_v86(cpu, mmu, offset, selector, image);
    }
    let code = return_code(cpu, mmu, selector)?;
    let cpl = rpl(selector);
    let outer = cpl != cpu.cpl;
    // 64-bit mode always has SS:RSP in the frame.
    let stack = if outer || cpu.mode == Mode::Long {
        let pointer = peek_sized(cpu, mmu, size, 3 * slot)?;
        let stack_selector = peek_sized(cpu, mmu, size, 4 * slot)? as u16;
        Some((return_stack(cpu, mmu, stack_selector, code, cpl)?, pointer))
    } else {
        None
    };
    let (segment, rip) = enter_code(cpu, code, cpl, offset)?;
    set_accessed(cpu, mmu, code)?;

    let mut mask = IMAGE_16;
    if size != 2 {
        mask |= IMAGE_32;
    }
    if cpu.cpl <= cpu.iopl() {
        mask |= flags::IF;
    }
    if cpu.cpl == 0 {
        mask |= flags::IOPL;
        if size != 2 {
            mask |= flags::VIF | flags::VIP;
        }
    }
    merge_flags(cpu, image, mask);
    cpu.seg[SegReg::CS as usize] = segment;
    cpu.rip = rip;
    match stack {
        Some((segment, pointer)) => {
            cpu.seg[SegReg::SS as usize] = segment;
            if outer {
                close_segments(cpu, cpl);
            }
            sync::mode_changed(cpu, mmu);
            // A 16-bit stack takes over SP alone.
            set_stack_pointer(cpu, pointer);
        }
        None => {
            release_stack(cpu, 3 * slot);
            sync::mode_changed(cpu, mmu);
        }
    }
    Ok(())
}

/// From privilege level 0 to a V86 task: ESP, SS, ES, DS, FS and GS follow in the frame.
fn iret_to_v86(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    offset: u64,
    selector: u16,
    image: u64,
) -> Result<(), Fault> {
    const ORDER: [SegReg; 5] = [SegReg::SS, SegReg::ES, SegReg::DS, SegReg::FS, SegReg::GS];
    let pointer = peek_sized(cpu, mmu, 4, 12)?;
    let mut selectors = [0; ORDER.len()];
    for (n, value) in (0..).zip(&mut selectors) {
        *value = peek_sized(cpu, mmu, 4, 16 + 4 * n)? as u16;
    }
    if offset > 0xFFFF {
        return Err(Fault::GP0);
    }
    cpu.seg[SegReg::CS as usize] = v86_segment(selector);
    for (register, value) in ORDER.into_iter().zip(selectors) {
        cpu.seg[register as usize] = v86_segment(value);
    }
    cpu.rip = offset;
    cpu.gpr[gpr::RSP] = pointer;
    merge_flags(cpu, image, flags::ALL);
    sync::mode_changed(cpu, mmu);
    Ok(())
}
