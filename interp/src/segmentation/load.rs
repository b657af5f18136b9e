//! Loads of segment registers, LDTR and TR (SDM vol. 2, MOV, LLDT, LTR; vol. 3A, section 5.6).

use super::descriptor::{BUSY, Descriptor, SystemKind, fetch, fetch_upper, set_accessed};
use super::stack::null_stack;
use super::{descriptor, error_code, is_null, rpl};
use crate::access::is_canonical;
use crate::sync;
use softmmu::Mmu;
use x86::segment::ar;
use x86::{Cpu, Fault, Mode, SegReg, Segment};

/// Access rights of a V86-mode segment: present, writable, accessed data of DPL 3.
const V86_RIGHTS: u32 = ar::P | 3 << ar::DPL_SHIFT | ar::S | ar::RW | ar::ACCESSED;
/// Access rights that a real-mode load gives to a register that held a null selector.
const REAL_RIGHTS: u32 = ar::P | ar::S | ar::RW | ar::ACCESSED;

/// A segment as V86 mode loads it (SDM vol. 3B, section 21.2.1).
pub(crate) fn v86_segment(selector: u16) -> Segment {
    Segment::real(selector, 0xFFFF, V86_RIGHTS)
}

/// A segment as real mode loads it over `old`: limit and rights stay, so that a larger limit
/// survives ("unreal" mode).
pub(crate) fn real_segment(old: &Segment, selector: u16) -> Segment {
    if old.present() {
        Segment::real(selector, old.limit, old.access)
    } else {
        Segment::real(selector, 0xFFFF, REAL_RIGHTS)
    }
}

/// Checks a selector for DS, ES, FS or GS in protected and IA-32e mode and gives the hidden part.
///
/// # Errors
/// #GP(selector) and #NP(selector) as in SDM vol. 2, MOV; faults of the table accesses.
pub(crate) fn data_segment(cpu: &Cpu, mmu: &mut Mmu, selector: u16) -> Result<Segment, Fault> {
    if is_null(selector) {
        return Ok(Segment::null(selector));
    }
    let found = fetch(cpu, mmu, selector, Fault::gp)?;
    let code = error_code(selector);
    if !found.is_readable() || !is_accessible(found, cpu.cpl, rpl(selector)) {
        return Err(Fault::gp(code));
    }
    if !found.present() {
        return Err(Fault::np(code));
    }
    set_accessed(cpu, mmu, found)?;
    Ok(found.segment())
}

/// The privilege check of a data access (SDM vol. 3A, section 5.6): conforming code segments are
/// open to everybody.
pub(crate) fn is_accessible(descriptor: Descriptor, cpl: u8, rpl: u8) -> bool {
    descriptor.is_conforming() || cpl.max(rpl) <= descriptor.dpl()
}

/// Checks a selector for SS at privilege level `cpl`, which it shall become usable at. `error`
/// makes the fault of a bad selector: #GP for MOV, #TS for a stack from a TSS.
pub(crate) fn stack_segment(
    cpu: &Cpu,
    mmu: &mut Mmu,
    selector: u16,
    cpl: u8,
    error: impl Fn(u16) -> Fault,
) -> Result<Segment, Fault> {
    if is_null(selector) {
        return Err(error(0));
    }
    let found = fetch(cpu, mmu, selector, &error)?;
    let code = error_code(selector);
    if rpl(selector) != cpl || !found.is_writable_data() || found.dpl() != cpl {
        return Err(error(code));
    }
    if !found.present() {
        return Err(Fault::ss(code));
    }
    set_accessed(cpu, mmu, found)?;
    Ok(found.segment())
}

/// The hidden part that loading `selector` into `register` (not CS) gives, checked for the
/// present mode.
///
/// # Errors
/// As in SDM vol. 2, MOV to a segment register.
pub fn checked(
    cpu: &Cpu,
    mmu: &mut Mmu,
    register: SegReg,
    selector: u16,
) -> Result<Segment, Fault> {
    match cpu.mode {
        Mode::Real => Ok(real_segment(cpu.seg(register), selector)),
        Mode::Virtual8086 => Ok(v86_segment(selector)),
        Mode::Long if register == SegReg::SS && is_null(selector) => {
            if cpu.cpl == 3 || rpl(selector) != cpu.cpl {
                return Err(Fault::GP0);
            }
            Ok(null_stack(cpu.cpl))
        }
        Mode::Protected | Mode::Compatibility | Mode::Long => {
            if register == SegReg::SS {
                stack_segment(cpu, mmu, selector, cpu.cpl, Fault::gp)
            } else {
                data_segment(cpu, mmu, selector)
            }
        }
    }
}

/// Loads `register` (not CS) as MOV does.
///
/// A null selector clears the base of FS and GS too, as Intel processors do (AMD ones before
/// Zen 2 leave it).
///
/// # Errors
/// See [`checked`]; nothing changes then.
pub fn load(cpu: &mut Cpu, mmu: &mut Mmu, register: SegReg, selector: u16) -> Result<(), Fault> {
    let segment = checked(cpu, mmu, register, selector)?;
    cpu.seg[register as usize] = segment;
    sync::mode_changed(cpu, mmu);
    Ok(())
}

/// LLDT at CPL 0: loads LDTR.
///
/// # Errors
/// #GP(selector) outside the GDT or not an LDT; #NP(selector).
pub fn load_ldtr(cpu: &mut Cpu, mmu: &mut Mmu, selector: u16) -> Result<(), Fault> {
    cpu.ldtr = checked_ldtr(cpu, mmu, selector, Fault::gp, Fault::np)?;
    Ok(())
}

/// The hidden part of LDTR for `selector`; `error` and `absent` make the faults of a bad selector
/// and a descriptor that is not present (both #TS in a task switch).
pub(crate) fn checked_ldtr(
    cpu: &Cpu,
    mmu: &mut Mmu,
    selector: u16,
    error: impl Fn(u16) -> Fault,
    absent: impl Fn(u16) -> Fault,
) -> Result<Segment, Fault> {
    if is_null(selector) {
        return Ok(Segment::null(selector));
    }
    let code = error_code(selector);
    if selector & 4 != 0 {
        return Err(error(code));
    }
    let found = fetch(cpu, mmu, selector, &error)?;
    if found.system_kind() != SystemKind::Ldt {
        return Err(error(code));
    }
    let base_high = if cpu.long_mode_active() { fetch_upper(cpu, mmu, found, &error)? } else { 0 };
    if !found.present() {
        return Err(absent(code));
    }
    system_segment(cpu, found, base_high)
}

/// LTR at CPL 0: loads TR and marks the TSS busy.
///
/// # Errors
/// #GP(0) for null; #GP(selector) outside the GDT or not an available TSS; #NP(selector).
pub fn load_tr(cpu: &mut Cpu, mmu: &mut Mmu, selector: u16) -> Result<(), Fault> {
    if is_null(selector) {
        return Err(Fault::GP0);
    }
    let code = error_code(selector);
    if selector & 4 != 0 {
        return Err(Fault::gp(code));
    }
    let found = fetch(cpu, mmu, selector, Fault::gp)?;
    match found.system_kind() {
        SystemKind::TssAvailable => {}
        SystemKind::Tss16Available if !cpu.long_mode_active() => {}
        _ => return Err(Fault::gp(code)),
    }
    let long = cpu.long_mode_active();
    let base_high = if long { fetch_upper(cpu, mmu, found, Fault::gp)? } else { 0 };
    if !found.present() {
        return Err(Fault::np(code));
    }
    let mut segment = system_segment(cpu, found, base_high)?;
    descriptor::update_type(cpu, mmu, found.address, |byte| byte | BUSY)?;
    segment.access |= u32::from(BUSY) << 8;
    cpu.tr = segment;
    Ok(())
}

/// The hidden part of LDTR or TR, with the upper half of its base.
fn system_segment(cpu: &Cpu, found: Descriptor, upper: u64) -> Result<Segment, Fault> {
    let mut segment = found.segment();
    if cpu.long_mode_active() {
        segment.base |= upper << 32;
        if !is_canonical(cpu, segment.base) {
            return Err(Fault::gp(error_code(found.selector)));
        }
    }
    Ok(segment)
}
