//! MOV to and from control and debug registers, LMSW, SMSW, CLTS (SDM vol. 2 and vol. 3A,
//! sections 2.5, 4.1 and 9.8).

use crate::access::{read_operand, read_reg, write_operand, write_reg};
use crate::flow::{Flow, Handler, undefined};
use crate::sync;
use crate::table::Line;
use decoder::{Insn, Mnemonic, OpKind};
use softmmu::Mmu;
use x86::control::{cr0, cr3, cr4, dr6, dr7, efer};
use x86::{Cpu, Fault, Mode, Vector};

/// #GP(0) above CPL 0.
pub(crate) fn require_cpl0(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.cpl == 0 { Ok(()) } else { Err(Fault::GP0) }
}

fn operand(cpu: &Cpu, insn: &Insn, i: usize) -> u64 {
    if cpu.mode == Mode::Long {
        read_reg(cpu, insn.op[i].reg)
    } else {
        u64::from(read_reg::<u32>(cpu, insn.op[i].reg))
    }
}

fn from_cr(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let value = match insn.op[1].reg {
        0 => cpu.cr0,
        2 => cpu.cr2,
        3 => cpu.cr3,
        4 => cpu.cr4,
        8 => u64::from(mmu.bus.task_priority()),
        _ => return Err(Fault::UD),
    };
    require_cpl0(cpu)?;
    if cpu.mode == Mode::Long {
        write_reg(cpu, insn.op[0].reg, value);
    } else {
        write_reg(cpu, insn.op[0].reg, value as u32);
    }
    Ok(Flow::Next)
}

fn to_cr(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let value = operand(cpu, insn, 1);
    let n = insn.op[0].reg;
    if !matches!(n, 0 | 2 | 3 | 4 | 8) {
        return Err(Fault::UD);
    }
    require_cpl0(cpu)?;
    match n {
        0 => write_cr0(cpu, mmu, value)?,
        2 => cpu.cr2 = value,
        3 => write_cr3(cpu, mmu, value)?,
        4 => write_cr4(cpu, mmu, value)?,
        _ => {
            if value & !0xF != 0 {
                return Err(Fault::GP0);
            }
            mmu.bus.set_task_priority(value as u8);
        }
    }
    Ok(Flow::Sync)
}

/// MOV to CR0 (and LMSW, with the bits merged).
///
/// # Errors
/// #GP(0) for a combination of bits that the SDM forbids.
pub fn write_cr0(cpu: &mut Cpu, mmu: &mut Mmu, value: u64) -> Result<(), Fault> {
    if value >> 32 != 0
        || value & (cr0::PG | cr0::PE) == cr0::PG
        || value & (cr0::NW | cr0::CD) == cr0::NW
    {
        return Err(Fault::GP0);
    }
    let value = value & cr0::ALL | cr0::ET;
    let changed = value ^ cpu.cr0;
    let mut new_efer = cpu.efer;
    if changed & cr0::PG != 0 {
        if value & cr0::PG != 0 {
            if cpu.efer & efer::LME != 0 {
                if cpu.cr4 & cr4::PAE == 0 || cpu.cs().is_64bit() {
                    return Err(Fault::GP0);
                }
                new_efer |= efer::LMA;
            }
        } else {
            if cpu.mode == Mode::Long || cpu.cr4 & cr4::PCIDE != 0 {
                return Err(Fault::GP0);
            }
            new_efer &= !efer::LMA;
        }
    }
    sync::try_paging(cpu, mmu, value, cpu.cr4, new_efer)
}

/// MOV to CR3.
///
/// # Errors
/// #GP(0) for reserved bits, in CR3 or (with PAE paging) in the PDPTEs.
pub fn write_cr3(cpu: &mut Cpu, mmu: &mut Mmu, value: u64) -> Result<(), Fault> {
    let mut no_flush = false;
    let mut value = value;
    if cpu.mode == Mode::Long {
        if cpu.cr4 & cr4::PCIDE != 0 {
            no_flush = value & cr3::NO_FLUSH != 0;
            value &= !cr3::NO_FLUSH;
        }
        if value >> cpu.policy.physical_bits != 0 {
            return Err(Fault::GP0);
        }
    }
    mmu.load_cr3(value, no_flush)?;
    cpu.cr3 = value;
    Ok(())
}

/// MOV to CR4.
///
/// # Errors
/// #GP(0) for bits that the CPU does not have and combinations that the SDM forbids.
pub fn write_cr4(cpu: &mut Cpu, mmu: &mut Mmu, value: u64) -> Result<(), Fault> {
    if value & !cpu.policy.cr4_mask() != 0 {
        return Err(Fault::GP0);
    }
    let changed = value ^ cpu.cr4;
    let long = cpu.efer & efer::LMA != 0;
    if long && (value & cr4::PAE == 0 || changed & cr4::LA57 != 0) {
        return Err(Fault::GP0);
    }
    let sets_pcide = changed & value & cr4::PCIDE != 0;
    if sets_pcide && (!long || cpu.cr3 & cr3::PCID != 0) {
        return Err(Fault::GP0);
    }
    sync::try_paging(cpu, mmu, cpu.cr0, value, cpu.efer)
}

fn smsw(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    if cpu.cr4 & cr4::UMIP != 0 && cpu.cpl > 0 {
        return Err(Fault::GP0);
    }
    let value = cpu.cr0;
    match insn.op[0].kind {
        OpKind::Mem | OpKind::Gpr16 => write_operand(cpu, mmu, insn, 0, value as u16)?,
        OpKind::Gpr32 => write_operand(cpu, mmu, insn, 0, value as u32)?,
        _ => write_operand(cpu, mmu, insn, 0, value)?,
    }
    Ok(Flow::Next)
}

fn lmsw(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    require_cpl0(cpu)?;
    let source = u64::from(read_operand::<u16>(cpu, mmu, insn, 0)?);
    // PE can be set but not cleared.
    let bits = cr0::PE | cr0::MP | cr0::EM | cr0::TS;
    let value = cpu.cr0 & !(bits & !cr0::PE) | source & bits;
    write_cr0(cpu, mmu, value)?;
    Ok(Flow::Sync)
}

fn clts(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    require_cpl0(cpu)?;
    cpu.cr0 &= !cr0::TS;
    Ok(Flow::Sync)
}

/// The debug register that number `n` names: 4 and 5 are 6 and 7 unless CR4.DE is set.
fn debug_number(cpu: &Cpu, n: u8) -> Result<u8, Fault> {
    match n {
        0..=3 | 6 | 7 => Ok(n),
        4 | 5 if cpu.cr4 & cr4::DE == 0 => Ok(n + 2),
        _ => Err(Fault::UD),
    }
}

fn check_debug_access(cpu: &mut Cpu) -> Result<(), Fault> {
    if cpu.dr7 & dr7::GD != 0 {
        cpu.pending_debug |= dr6::BD;
        return Err(Fault::new(Vector::DB));
    }
    Ok(())
}

fn from_dr(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    require_cpl0(cpu)?;
    let n = debug_number(cpu, insn.op[1].reg)?;
    check_debug_access(cpu)?;
    let value = match n {
        6 => cpu.dr6,
        7 => cpu.dr7,
        _ => cpu.dr[usize::from(n)],
    };
    if cpu.mode == Mode::Long {
        write_reg(cpu, insn.op[0].reg, value);
    } else {
        write_reg(cpu, insn.op[0].reg, value as u32);
    }
    Ok(Flow::Next)
}

fn to_dr(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let value = operand(cpu, insn, 1);
    require_cpl0(cpu)?;
    let n = debug_number(cpu, insn.op[0].reg)?;
    check_debug_access(cpu)?;
    if n >= 6 && value >> 32 != 0 {
        return Err(Fault::GP0);
    }
    match n {
        // Bits 0 to 3, BD, BS and BT can be written; the others read as fixed.
        6 => cpu.dr6 = value & (dr6::B | dr6::BD | dr6::BS | dr6::BT) | dr6::FIXED,
        7 => cpu.dr7 = value & 0xFFFF_23FF | dr7::FIXED,
        _ => cpu.dr[usize::from(n)] = value,
    }
    cpu.update_stepping();
    Ok(Flow::Sync)
}

/// The handler of a MOV to or from a control or debug register; `None` for other MOVs. The one
/// registration line of MOV asks here first.
pub(crate) fn mov_special(insn: &Insn) -> Option<Handler> {
    match (insn.op[0].kind, insn.op[1].kind) {
        (OpKind::Cr, _) => Some(to_cr),
        (_, OpKind::Cr) => Some(from_cr),
        (OpKind::Dr, _) => Some(to_dr),
        (_, OpKind::Dr) => Some(from_dr),
        // Test registers, on the 386 and 486 only.
        (OpKind::OtherReg, _) | (_, OpKind::OtherReg) => Some(undefined),
        _ => None,
    }
}

/// Registration lines.
pub const FAMILY: &[Line] =
    &[(Mnemonic::Smsw, |_| smsw), (Mnemonic::Lmsw, |_| lmsw), (Mnemonic::Clts, |_| clts)];
