//! Hardware task switches (SDM vol. 3A, sections 7.2 and 7.3). They exist outside IA-32e mode.

use super::descriptor::{
    BUSY, Descriptor, SystemKind, fetch, set_accessed, update_type, wrap_linear,
};
use super::{error_code, is_null, load, rpl};
use crate::sync;
use softmmu::{Mmu, Width};
use x86::control::{cr0, dr6};
use x86::segment::ar;
use x86::{Cpu, Fault, SegReg, Segment, Vector, flags};

/// What caused a task switch: decides about busy bits, the back link and NT (SDM vol. 3A, table
/// 7-2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    Jump,
    Call,
    /// Exception, interrupt or INT n through a task gate: nests like CALL.
    Interrupt,
    /// IRET with NT set.
    Return,
}

impl Cause {
    const fn nests(self) -> bool {
        matches!(self, Cause::Call | Cause::Interrupt)
    }
}

/// Segment registers in the order of a TSS.
const SEGMENTS: [SegReg; 6] =
    [SegReg::ES, SegReg::CS, SegReg::SS, SegReg::DS, SegReg::FS, SegReg::GS];
/// Local breakpoint enables of DR7 (L0 to L3, LE), cleared by every task switch.
const LOCAL_BREAKPOINTS: u64 = 0x155;

/// Where a TSS keeps things (SDM vol. 3A, figures 7-2 and 7-10).
struct Layout {
    /// Size of a general slot in bytes.
    slot: u8,
    /// Offset of EIP; EFLAGS and the general registers follow.
    ip: u64,
    /// Offset of ES; the other segment registers follow.
    segments: u64,
    /// Number of segment registers: no FS and GS in a 16-bit TSS.
    segment_count: usize,
    ldt: u64,
    /// The least limit.
    limit: u32,
}

const LAYOUT_32: Layout =
    Layout { slot: 4, ip: 0x20, segments: 0x48, segment_count: 6, ldt: 0x60, limit: 0x67 };
const LAYOUT_16: Layout =
    Layout { slot: 2, ip: 0x0E, segments: 0x22, segment_count: 4, ldt: 0x2A, limit: 0x2B };
const CR3_OFFSET: u64 = 0x1C;
const TRAP_OFFSET: u64 = 0x64;

fn layout(is_32bit: bool) -> &'static Layout {
    if is_32bit { &LAYOUT_32 } else { &LAYOUT_16 }
}

/// The registers of a task as its TSS holds them.
struct Image {
    ip: u32,
    flags: u32,
    gpr: [u32; 8],
    segments: [u16; 6],
    ldt: u16,
    cr3: Option<u32>,
    trap: bool,
}

/// Checks the selector of a task gate and gives the TSS descriptor.
///
/// # Errors
/// #GP(selector) when it is not an available TSS in the GDT, #NP(selector).
pub(crate) fn target_of_gate(cpu: &Cpu, mmu: &mut Mmu, selector: u16) -> Result<Descriptor, Fault> {
    let code = error_code(selector);
    if selector & 4 != 0 {
        return Err(Fault::gp(code));
    }
    let target = fetch(cpu, mmu, selector, Fault::gp)?;
    let available =
        matches!(target.system_kind(), SystemKind::TssAvailable | SystemKind::Tss16Available);
    if !available {
        return Err(Fault::gp(code));
    }
    if !target.present() {
        return Err(Fault::np(code));
    }
    Ok(target)
}

/// IRET with NT set: returns to the task in the back link of the current TSS.
///
/// # Errors
/// #TS(selector) when that is not a busy TSS in the GDT, #NP(selector), and what [`switch`] gives.
pub(crate) fn return_to_previous(cpu: &mut Cpu, mmu: &mut Mmu) -> Result<(), Fault> {
    let link: u16 = mmu.load_system(wrap_linear(cpu, cpu.tr.base))?;
    let code = error_code(link);
    if link & 4 != 0 {
        return Err(Fault::ts(code));
    }
    let target = fetch(cpu, mmu, link, Fault::ts)?;
    if !matches!(target.system_kind(), SystemKind::TssBusy | SystemKind::Tss16Busy) {
        return Err(Fault::ts(code));
    }
    if !target.present() {
        return Err(Fault::np(code));
    }
    switch_and_check(cpu, mmu, target, Cause::Return)
}

/// [`switch`] for an instruction: afterwards checks EIP against the new CS and reports the T bit.
pub(crate) fn switch_and_check(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    target: Descriptor,
    cause: Cause,
) -> Result<(), Fault> {
    switch(cpu, mmu, target, cause)?;
    if cpu.rip > u64::from(cpu.cs().limit) {
        return Err(in_new_task(Fault::GP0));
    }
    report_trap(cpu)
}

/// #DB when the new task's TSS has its T bit set.
pub(crate) fn report_trap(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.pending_debug & dr6::BT != 0 { Err(Fault::trap(Vector::DB)) } else { Ok(()) }
}

/// Marks a fault that happens after the switch, so that `Cpu::rip`, which is the new task's, is
/// not set back to the instruction that switched.
pub(crate) fn in_new_task(fault: Fault) -> Fault {
    let trap = Fault::trap(Vector::DB).to_bits() & !0xFF;
    Fault::from_bits(fault.to_bits() | trap)
}

/// Switches to the task of `target`, a TSS descriptor that the caller has checked for type,
/// privilege and presence. `Cpu::rip` is what the old task resumes at.
///
/// # Errors
/// #TS(TSS) for a short TSS and page faults: nothing has changed. Later faults (#TS, #NP, #SS of
/// LDT and segment registers) happen in the new task; `Cpu::tr` tells.
pub(crate) fn switch(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    target: Descriptor,
    cause: Cause,
) -> Result<(), Fault> {
    let wide = matches!(target.system_kind(), SystemKind::TssAvailable | SystemKind::TssBusy);
    let mut tr = target.segment();
    if tr.limit < layout(wide).limit {
        return Err(Fault::ts(error_code(target.selector)));
    }
    save(cpu, mmu, cause)?;
    let image = read(cpu, mmu, tr.base, wide)?;
    if cause.nests() {
        mmu.store_system(wrap_linear(cpu, tr.base), cpu.tr.selector)?;
    }
    if cause != Cause::Return {
        update_type(cpu, mmu, target.address, |byte| byte | BUSY)?;
    }
    if !cause.nests() {
        let old = fetch(cpu, mmu, cpu.tr.selector & !7, Fault::ts)?;
        // IRET into the task itself leaves it busy.
        if old.address != target.address {
            update_type(cpu, mmu, old.address, |byte| byte & !BUSY)?;
        }
    }

    tr.access |= u32::from(BUSY) << 8;
    cpu.tr = tr;
    let result = enter(cpu, mmu, &image, cause);
    sync::mode_changed(cpu, mmu);
    result.map_err(in_new_task)
}

/// Writes the old task's registers to its TSS.
fn save(cpu: &Cpu, mmu: &mut Mmu, cause: Cause) -> Result<(), Fault> {
    let layout = layout(super::tss::is_32bit(cpu));
    let slot = u64::from(layout.slot);
    let at = |offset: u64| wrap_linear(cpu, cpu.tr.base.wrapping_add(offset));
    let mut flags_image = cpu.rflags;
    if cause == Cause::Return {
        flags_image &= !flags::NT;
    }
    let general = [cpu.rip, flags_image].into_iter().chain(cpu.gpr[..8].iter().copied());
    for (n, value) in (0..).zip(general) {
        if slot == 4 {
            mmu.store_system(at(layout.ip + n * slot), value as u32)?;
        } else {
            mmu.store_system(at(layout.ip + n * slot), value as u16)?;
        }
    }
    for (n, &register) in (0..).zip(&SEGMENTS[..layout.segment_count]) {
        mmu.store_system(at(layout.segments + n * slot), cpu.seg(register).selector)?;
    }
    Ok(())
}

/// Reads the new task's registers.
fn read(cpu: &Cpu, mmu: &mut Mmu, base: u64, wide: bool) -> Result<Image, Fault> {
    fn at<T: Width>(cpu: &Cpu, mmu: &mut Mmu, base: u64, offset: u64) -> Result<T, Fault> {
        mmu.load_system(wrap_linear(cpu, base.wrapping_add(offset)))
    }
    let layout = layout(wide);
    let slot = u64::from(layout.slot);
    let mut general = [0; 10];
    for (n, value) in (0..).zip(&mut general) {
        let offset = layout.ip + n * slot;
        *value = if wide {
            at(cpu, mmu, base, offset)?
        } else {
            u32::from(at::<u16>(cpu, mmu, base, offset)?)
        };
    }
    let mut segments = [0; 6];
    for (n, selector) in (0..).zip(&mut segments[..layout.segment_count]) {
        *selector = at(cpu, mmu, base, layout.segments + n * slot)?;
    }
    let paging = cpu.cr0 & cr0::PG != 0;
    let [ip, flags, gpr @ ..] = general;
    Ok(Image {
        ip,
        flags,
        gpr,
        segments,
        ldt: at(cpu, mmu, base, layout.ldt)?,
        cr3: if wide && paging { Some(at(cpu, mmu, base, CR3_OFFSET)?) } else { None },
        trap: wide && at::<u16>(cpu, mmu, base, TRAP_OFFSET)? & 1 != 0,
    })
}

/// Loads the registers of the new task. From here on faults are the new task's.
fn enter(cpu: &mut Cpu, mmu: &mut Mmu, image: &Image, cause: Cause) -> Result<(), Fault> {
    cpu.cr0 |= cr0::TS;
    cpu.dr7 &= !LOCAL_BREAKPOINTS;
    cpu.rip = u64::from(image.ip);
    for (register, &value) in cpu.gpr.iter_mut().zip(&image.gpr) {
        *register = u64::from(value);
    }
    cpu.rflags = u64::from(image.flags) & flags::ALL | flags::FIXED_ONE;
    if cause.nests() {
        cpu.rflags |= flags::NT;
    }
    if image.trap {
        cpu.pending_debug |= dr6::BT;
    }
    // Until they are checked, the segments are selectors without descriptors; SS tells the CPL.
    let v86 = cpu.rflags & flags::VM != 0;
    let cpl = if v86 { 3 } else { rpl(image.segments[SegReg::CS as usize]) };
    for register in SEGMENTS {
        cpu.seg[register as usize] = Segment::null(image.segments[register as usize]);
    }
    cpu.seg[SegReg::SS as usize].access = u32::from(cpl) << ar::DPL_SHIFT;
    cpu.ldtr = Segment::null(image.ldt);
    sync::mode_changed(cpu, mmu);
    if let Some(cr3) = image.cr3 {
        mmu.load_cr3(u64::from(cr3), false)?;
        cpu.cr3 = u64::from(cr3);
    }

    cpu.ldtr = load::checked_ldtr(cpu, mmu, image.ldt, Fault::ts, Fault::ts)?;
    if v86 {
        for register in SEGMENTS {
            cpu.seg[register as usize] = load::v86_segment(image.segments[register as usize]);
        }
        return Ok(());
    }
    let selector = |register: SegReg| image.segments[register as usize];
    cpu.seg[SegReg::CS as usize] = code_segment(cpu, mmu, selector(SegReg::CS))?;
    cpu.seg[SegReg::SS as usize] =
        load::stack_segment(cpu, mmu, selector(SegReg::SS), cpl, Fault::ts)?;
    for register in [SegReg::DS, SegReg::ES, SegReg::FS, SegReg::GS] {
        cpu.seg[register as usize] = data_segment(cpu, mmu, selector(register))?;
    }
    Ok(())
}

/// Checks the new task's CS: the RPL, which becomes the CPL, must fit the DPL.
fn code_segment(cpu: &Cpu, mmu: &mut Mmu, selector: u16) -> Result<Segment, Fault> {
    if is_null(selector) {
        return Err(Fault::ts(0));
    }
    let code = error_code(selector);
    let found = fetch(cpu, mmu, selector, Fault::ts)?;
    let level = if found.is_conforming() {
        found.dpl() <= rpl(selector)
    } else {
        found.dpl() == rpl(selector)
    };
    if !found.is_code() || !level {
        return Err(Fault::ts(code));
    }
    if !found.present() {
        return Err(Fault::np(code));
    }
    set_accessed(cpu, mmu, found)?;
    Ok(found.segment())
}

/// A data segment with #TS in the place of #GP.
fn data_segment(cpu: &Cpu, mmu: &mut Mmu, selector: u16) -> Result<Segment, Fault> {
    load::data_segment(cpu, mmu, selector).map_err(|fault| match fault.error_code() {
        Some(code) if fault.is(Vector::GP) => Fault::ts(code as u16),
        _ => fault,
    })
}

/// Checks for a TSS or task gate as the operand of JMP or CALL: both its DPL and the selector's
/// RPL count.
pub(crate) fn operand_accessible(cpu: &Cpu, target: Descriptor) -> bool {
    cpu.cpl.max(rpl(target.selector)) <= target.dpl()
}

#[cfg(test)]
mod tests;
