//! What a far JMP or CALL names: a code segment, call gate, task gate or TSS (SDM vol. 3A, section
//! 5.8).

use super::descriptor::{Descriptor, SystemKind, fetch, fetch_upper};
use super::task_switch::{operand_accessible, target_of_gate};
use super::{error_code, is_null, rpl};
use crate::access::is_canonical;
use softmmu::Mmu;
use x86::{Cpu, Fault, Segment};

/// The operand of a far JMP or CALL in protected or IA-32e mode.
pub(crate) enum Target {
    /// A code segment, checked for a transfer at the present privilege level.
    Code(Descriptor),
    /// A call gate and its code segment.
    Gate(CallGate),
    /// A task, through a task gate or by its TSS.
    Task(Descriptor),
}

/// A call gate, checked for access, with the code segment behind it.
pub(crate) struct CallGate {
    /// The code segment: its type, privilege and L bit are checked, DPL ≤ CPL; its presence too.
    pub(crate) code: Descriptor,
    pub(crate) offset: u64,
    /// Size of what is pushed in bytes: 2, 4 or 8.
    pub(crate) size: u8,
    /// Parameters to copy, each of `size` bytes.
    pub(crate) parameters: u32,
}

impl CallGate {
    /// Whether the code segment raises the privilege of a CALL.
    pub(crate) fn is_inner(&self, cpu: &Cpu) -> bool {
        !self.code.is_conforming() && self.code.dpl() < cpu.cpl
    }
}

/// Resolves the operand of a far JMP or CALL.
///
/// # Errors
/// #GP(selector), #NP(selector) as in SDM vol. 2, JMP and CALL.
pub(crate) fn resolve(cpu: &Cpu, mmu: &mut Mmu, selector: u16) -> Result<Target, Fault> {
    if is_null(selector) {
        return Err(Fault::GP0);
    }
    let found = fetch(cpu, mmu, selector, Fault::gp)?;
    let code = error_code(selector);
    if found.is_code() {
        let level = if found.is_conforming() {
            found.dpl() <= cpu.cpl
        } else {
            rpl(selector) <= cpu.cpl && found.dpl() == cpu.cpl
        };
        if !level || has_bad_size(cpu, found) {
            return Err(Fault::gp(code));
        }
        if !found.present() {
            return Err(Fault::np(code));
        }
        return Ok(Target::Code(found));
    }
    let long = cpu.long_mode_active();
    let size = match found.system_kind() {
        SystemKind::CallGate if long => 8,
        SystemKind::CallGate => 4,
        SystemKind::CallGate16 if !long => 2,
        SystemKind::TaskGate if !long => 0,
        SystemKind::TssAvailable | SystemKind::Tss16Available if !long => 0,
        _ => return Err(Fault::gp(code)),
    };
    // TSS descriptors live in the GDT only.
    let tss_in_ldt = selector & 4 != 0
        && matches!(found.system_kind(), SystemKind::TssAvailable | SystemKind::Tss16Available);
    if tss_in_ldt || !operand_accessible(cpu, found) {
        return Err(Fault::gp(code));
    }
    if size != 0 {
        return call_gate(cpu, mmu, found, size).map(Target::Gate);
    }
    if !found.present() {
        return Err(Fault::np(code));
    }
    if found.system_kind() == SystemKind::TaskGate {
        return target_of_gate(cpu, mmu, found.gate_selector()).map(Target::Task);
    }
    Ok(Target::Task(found))
}

fn call_gate(cpu: &Cpu, mmu: &mut Mmu, gate: Descriptor, size: u8) -> Result<CallGate, Fault> {
    let upper = if size == 8 { fetch_upper(cpu, mmu, gate, Fault::gp)? } else { 0 };
    if !gate.present() {
        return Err(Fault::np(error_code(gate.selector)));
    }
    let selector = gate.gate_selector();
    if is_null(selector) {
        return Err(Fault::GP0);
    }
    let code = fetch(cpu, mmu, selector, Fault::gp)?;
    let bad_size = size == 8 && (!code.is_64bit() || code.is_32bit());
    if !code.is_code() || code.dpl() > cpu.cpl || bad_size {
        return Err(Fault::gp(error_code(selector)));
    }
    if !code.present() {
        return Err(Fault::np(error_code(selector)));
    }
    let low = u64::from(gate.gate_offset());
    Ok(CallGate {
        code,
        offset: match size {
            2 => low & 0xFFFF,
            4 => low,
            _ => low | upper << 32,
        },
        size,
        parameters: if size == 8 { 0 } else { gate.gate_parameters() },
    })
}

/// L and D both set, which IA-32e mode reserves.
pub(crate) fn has_bad_size(cpu: &Cpu, code: Descriptor) -> bool {
    cpu.long_mode_active() && code.is_64bit() && code.is_32bit()
}

/// The hidden part of CS for `code` at privilege level `cpl`, after the check of the new
/// instruction pointer, whose upper half counts against the limit too.
///
/// # Errors
/// #GP(0) when `offset` is not canonical (64-bit code) or outside the limit.
pub(crate) fn enter_code(
    cpu: &Cpu,
    code: Descriptor,
    cpl: u8,
    offset: u64,
) -> Result<(Segment, u64), Fault> {
    let mut segment = code.segment();
    segment.selector = error_code(code.selector) | u16::from(cpl);
    if cpu.long_mode_active() && code.is_64bit() {
        if !is_canonical(cpu, offset) {
            return Err(Fault::GP0);
        }
        return Ok((segment, offset));
    }
    if offset > u64::from(segment.limit) {
        return Err(Fault::GP0);
    }
    Ok((segment, offset))
}
