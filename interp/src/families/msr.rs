//! RDMSR and WRMSR (SDM vol. 4; AMD APM vol. 2, appendix A). One line per register; those of the
//! platform (local APIC, TSC deadline, paravirtual clock) are asked of the bus.

use super::control_register::require_cpl0;
use super::system::guest_tsc;
use crate::access::is_canonical;
use crate::flow::Flow;
use crate::sync;
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::{Mmu, MsrResult};
use x86::control::{cr0, efer};
use x86::cpuid::Feature;
use x86::regs::gpr;
use x86::{Cpu, Fault, SegReg, msr};

type Read = fn(&Cpu, &Mmu) -> Result<u64, Fault>;
type Write = fn(&mut Cpu, &mut Mmu, u64) -> Result<(), Fault>;

/// One model-specific register.
struct Msr {
    number: u32,
    read: Read,
    write: Write,
}

/// A write that is ignored.
fn ignore(_: &mut Cpu, _: &mut Mmu, _: u64) -> Result<(), Fault> {
    Ok(())
}

/// A write to a read-only register.
fn read_only(_: &mut Cpu, _: &mut Mmu, _: u64) -> Result<(), Fault> {
    Err(Fault::GP0)
}

/// A read of a write-only register.
fn write_only(_: &Cpu, _: &Mmu) -> Result<u64, Fault> {
    Err(Fault::GP0)
}

/// Immunities reported in IA32_ARCH_CAPABILITIES (SDM vol. 4, table 2-2): RDCL_NO, IBRS_ALL,
/// SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO,
/// BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO. A guest's kernel shares no host address space with what it
/// could leak from: its mitigations would cost and give nothing.
const ARCH_CAPABILITIES: u64 = 1 << 0
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 20
    | 1 << 24
    | 1 << 26
    | 1 << 27
    | 1 << 62;

/// IA32_MTRRCAP: 8 variable ranges, fixed ranges, write combining.
const MTRRCAP: u64 = 8 | 1 << 8 | 1 << 10;

fn read_arch_capabilities(cpu: &Cpu, _: &Mmu) -> Result<u64, Fault> {
    if cpu.policy.has(Feature::ArchCapabilities) { Ok(ARCH_CAPABILITIES) } else { Err(Fault::GP0) }
}

fn write_efer(cpu: &mut Cpu, mmu: &mut Mmu, value: u64) -> Result<(), Fault> {
    let bit = |feature, mask| if cpu.policy.has(feature) { mask } else { 0 };
    let known = bit(Feature::Syscall, efer::SCE)
        | bit(Feature::LongMode, efer::LME | efer::LMA)
        | bit(Feature::Nx, efer::NXE);
    // AUTOIBRS (bit 21) is accepted where CPUID offers it, on AMD.
    let auto_ibrs = if cpu.policy.is_amd() { 1 << 21 } else { 0 };
    if value & !(known | auto_ibrs) != 0 {
        return Err(Fault::GP0);
    }
    if (value ^ cpu.efer) & efer::LME != 0 && cpu.cr0 & cr0::PG != 0 {
        return Err(Fault::GP0);
    }
    let value = value & !efer::LMA | cpu.efer & efer::LMA;
    sync::try_paging(cpu, mmu, cpu.cr0, cpu.cr4, value)
}

fn write_tsc(cpu: &mut Cpu, mmu: &mut Mmu, value: u64) -> Result<(), Fault> {
    let delta = value.wrapping_sub(guest_tsc(cpu, mmu));
    shift_tsc(cpu, mmu, delta);
    Ok(())
}

fn write_tsc_adjust(cpu: &mut Cpu, mmu: &mut Mmu, value: u64) -> Result<(), Fault> {
    let delta = value.wrapping_sub(cpu.tsc_adjust);
    shift_tsc(cpu, mmu, delta);
    Ok(())
}

/// Moves the TSC and IA32_TSC_ADJUST together (SDM vol. 3B, section 18.17.3).
fn shift_tsc(cpu: &mut Cpu, mmu: &mut Mmu, delta: u64) {
    cpu.tsc_offset = cpu.tsc_offset.wrapping_add(delta);
    cpu.tsc_adjust = cpu.tsc_adjust.wrapping_add(delta);
    mmu.bus.tsc_offset_changed(cpu.tsc_offset);
}

fn write_pat(cpu: &mut Cpu, _: &mut Mmu, value: u64) -> Result<(), Fault> {
    if value.to_le_bytes().iter().any(|&t| !matches!(t, 0 | 1 | 4 | 5 | 6 | 7)) {
        return Err(Fault::GP0);
    }
    cpu.pat = value;
    Ok(())
}

fn valid_memory_type(t: u64) -> bool {
    matches!(t & 0xFF, 0 | 1 | 4 | 5 | 6)
}

fn write_mtrr_def_type(cpu: &mut Cpu, _: &mut Mmu, value: u64) -> Result<(), Fault> {
    if value & !0xCFF != 0 || !valid_memory_type(value) {
        return Err(Fault::GP0);
    }
    cpu.mtrr_def_type = value;
    Ok(())
}

fn write_canonical(cpu: &Cpu, value: u64) -> Result<u64, Fault> {
    if is_canonical(cpu, value) { Ok(value) } else { Err(Fault::GP0) }
}

fn write_spec_ctrl(cpu: &mut Cpu, _: &mut Mmu, value: u64) -> Result<(), Fault> {
    // IBRS, STIBP, SSBD; BHI_DIS_S, which only Intel has.
    let known = if cpu.policy.is_amd() { 7 } else { 7 | 1 << 10 };
    if value & !known != 0 || !cpu.policy.has(Feature::SpecCtrl) {
        return Err(Fault::GP0);
    }
    cpu.spec_ctrl = value;
    Ok(())
}

fn write_pred_cmd(_: &mut Cpu, _: &mut Mmu, value: u64) -> Result<(), Fault> {
    if value & !1 != 0 { Err(Fault::GP0) } else { Ok(()) }
}

fn write_xss(cpu: &mut Cpu, _: &mut Mmu, value: u64) -> Result<(), Fault> {
    // No supervisor state component is offered.
    if value != 0 || !cpu.policy.has(Feature::Xsaves) {
        return Err(Fault::GP0);
    }
    cpu.xss = value;
    Ok(())
}

/// Intel's platform registers, which Linux reads without care on Intel processors only.
fn intel_zero(cpu: &Cpu, _: &Mmu) -> Result<u64, Fault> {
    if cpu.policy.is_amd() { Err(Fault::GP0) } else { Ok(0) }
}

fn amd_only(cpu: &Cpu, value: u64) -> Result<u64, Fault> {
    if cpu.policy.is_amd() { Ok(value) } else { Err(Fault::GP0) }
}

fn amd_ignore(cpu: &mut Cpu, _: &mut Mmu, _: u64) -> Result<(), Fault> {
    if cpu.policy.is_amd() { Ok(()) } else { Err(Fault::GP0) }
}

const SYSCFG: u32 = 0xC001_0010;
const HWCR: u32 = 0xC001_0015;
const PATCH_LOADER: u32 = 0xC001_0020;
const NB_CFG: u32 = 0xC001_001F;
const LS_CFG: u32 = 0xC001_1020;
const DE_CFG: u32 = 0xC001_1029;

/// Every register that the CPU itself has, one line each.
const MSRS: &[Msr] = &[
    Msr { number: msr::IA32_TSC, read: |c, m| Ok(guest_tsc(c, m)), write: write_tsc },
    Msr { number: msr::IA32_TSC_ADJUST, read: |c, _| Ok(c.tsc_adjust), write: write_tsc_adjust },
    Msr { number: msr::IA32_PLATFORM_ID, read: intel_zero, write: read_only },
    Msr { number: msr::IA32_FEATURE_CONTROL, read: |_, _| Ok(1), write: read_only },
    Msr { number: msr::IA32_SPEC_CTRL, read: |c, _| Ok(c.spec_ctrl), write: write_spec_ctrl },
    Msr { number: msr::IA32_PRED_CMD, read: write_only, write: write_pred_cmd },
    Msr { number: msr::IA32_BIOS_SIGN_ID, read: |_, _| Ok(0x0100_0065 << 32), write: ignore },
    Msr { number: msr::IA32_MTRRCAP, read: |_, _| Ok(MTRRCAP), write: read_only },
    Msr { number: msr::IA32_ARCH_CAPABILITIES, read: read_arch_capabilities, write: read_only },
    Msr {
        number: msr::IA32_SYSENTER_CS,
        read: |c, _| Ok(c.sysenter_cs),
        write: |c, _, v| {
            c.sysenter_cs = v & 0xFFFF_FFFF;
            Ok(())
        },
    },
    Msr {
        number: msr::IA32_SYSENTER_ESP,
        read: |c, _| Ok(c.sysenter_esp),
        write: |c, _, v| {
            c.sysenter_esp = write_canonical(c, v)?;
            Ok(())
        },
    },
    Msr {
        number: msr::IA32_SYSENTER_EIP,
        read: |c, _| Ok(c.sysenter_eip),
        write: |c, _, v| {
            c.sysenter_eip = write_canonical(c, v)?;
            Ok(())
        },
    },
    Msr { number: msr::IA32_MCG_CAP, read: |_, _| Ok(0), write: read_only },
    Msr { number: msr::IA32_MCG_STATUS, read: |_, _| Ok(0), write: ignore },
    Msr {
        number: msr::IA32_MISC_ENABLE,
        read: |c, _| Ok(c.misc_enable),
        write: |c, _, v| {
            c.misc_enable = v;
            Ok(())
        },
    },
    Msr {
        number: msr::IA32_DEBUGCTL,
        read: |c, _| Ok(c.debugctl),
        write: |c, _, v| {
            // BTF is kept but has no effect: single-stepping on branches is not offered.
            if v & !3 != 0 {
                return Err(Fault::GP0);
            }
            c.debugctl = v;
            Ok(())
        },
    },
    Msr { number: msr::IA32_PAT, read: |c, _| Ok(c.pat), write: write_pat },
    Msr {
        number: msr::IA32_MTRR_DEF_TYPE,
        read: |c, _| Ok(c.mtrr_def_type),
        write: write_mtrr_def_type,
    },
    Msr { number: msr::IA32_XSS, read: |c, _| Ok(c.xss), write: write_xss },
    Msr { number: msr::IA32_EFER, read: |c, _| Ok(c.efer), write: write_efer },
    Msr {
        number: msr::IA32_STAR,
        read: |c, _| Ok(c.star),
        write: |c, _, v| {
            c.star = v;
            Ok(())
        },
    },
    Msr {
        number: msr::IA32_LSTAR,
        read: |c, _| Ok(c.lstar),
        write: |c, _, v| {
            c.lstar = write_canonical(c, v)?;
            Ok(())
        },
    },
    Msr {
        number: msr::IA32_CSTAR,
        read: |c, _| Ok(c.cstar),
        write: |c, _, v| {
            c.cstar = write_canonical(c, v)?;
            Ok(())
        },
    },
    Msr {
        number: msr::IA32_FMASK,
        read: |c, _| Ok(c.fmask),
        write: |c, _, v| {
            c.fmask = v & 0xFFFF_FFFF;
            Ok(())
        },
    },
    Msr {
        number: msr::IA32_FS_BASE,
        read: |c, _| Ok(c.seg[SegReg::FS as usize].base),
        write: |c, _, v| {
            c.seg[SegReg::FS as usize].base = write_canonical(c, v)?;
            Ok(())
        },
    },
    Msr {
        number: msr::IA32_GS_BASE,
        read: |c, _| Ok(c.seg[SegReg::GS as usize].base),
        write: |c, _, v| {
            c.seg[SegReg::GS as usize].base = write_canonical(c, v)?;
            Ok(())
        },
    },
    Msr {
        number: msr::IA32_KERNEL_GS_BASE,
        read: |c, _| Ok(c.kernel_gs_base),
        write: |c, _, v| {
            c.kernel_gs_base = write_canonical(c, v)?;
            Ok(())
        },
    },
    Msr {
        number: msr::IA32_TSC_AUX,
        read: |c, _| Ok(u64::from(c.tsc_aux)),
        write: |c, _, v| {
            if v >> 32 != 0 {
                return Err(Fault::GP0);
            }
            c.tsc_aux = v as u32;
            Ok(())
        },
    },
    // AMD: HWCR reports that the TSC runs at the P0 frequency; DE_CFG that LFENCE serialises.
    Msr { number: HWCR, read: |c, _| amd_only(c, 1 << 24), write: amd_ignore },
    Msr { number: SYSCFG, read: |c, _| amd_only(c, 0), write: amd_ignore },
    Msr { number: NB_CFG, read: |c, _| amd_only(c, 0), write: amd_ignore },
    Msr { number: LS_CFG, read: |c, _| amd_only(c, 0), write: amd_ignore },
    Msr { number: DE_CFG, read: |c, _| amd_only(c, 2), write: amd_ignore },
    Msr { number: PATCH_LOADER, read: write_only, write: amd_ignore },
];

/// PerfEvtSel0 to 3 and PerfCtr0 to 3, which every AMD processor has, without a CPUID bit (APM
/// vol. 2, section 13.2.2). No events are counted: as under KVM without a virtual PMU, they read as
/// zero and ignore writes.
fn is_amd_counter(cpu: &Cpu, number: u32) -> bool {
    cpu.policy.is_amd() && matches!(number, 0xC001_0000..=0xC001_0007)
}

/// The features of which one brings the register; none for what is there in any case, or decides
/// for itself (SDM vol. 4, table 2-2).
fn brought_by(number: u32) -> &'static [Feature] {
    match number {
        msr::IA32_TSC_ADJUST => &[Feature::TscAdjust],
        msr::IA32_SYSENTER_CS | msr::IA32_SYSENTER_ESP | msr::IA32_SYSENTER_EIP => &[Feature::Sep],
        msr::IA32_PAT => &[Feature::Pat],
        msr::IA32_MTRRCAP | msr::IA32_MTRR_DEF_TYPE => &[Feature::Mtrr],
        msr::IA32_EFER => &[Feature::Syscall, Feature::LongMode, Feature::Nx],
        msr::IA32_STAR => &[Feature::Syscall],
        msr::IA32_LSTAR
        | msr::IA32_CSTAR
        | msr::IA32_FMASK
        | msr::IA32_FS_BASE
        | msr::IA32_GS_BASE
        | msr::IA32_KERNEL_GS_BASE => &[Feature::LongMode],
        msr::IA32_TSC_AUX => &[Feature::Rdtscp, Feature::Rdpid],
        _ if fixed_mtrr(number).or(variable_mtrr(number)).is_some() => &[Feature::Mtrr],
        _ => &[],
    }
}

/// #GP(0) where the guest's CPUID does not report the register.
fn check_reported(cpu: &Cpu, number: u32) -> Result<(), Fault> {
    let features = brought_by(number);
    let there = features.is_empty() || features.iter().any(|&feature| cpu.policy.has(feature));
    if there { Ok(()) } else { Err(Fault::GP0) }
}

/// Index into `mtrr_fixed` for a fixed-range MTRR.
fn fixed_mtrr(number: u32) -> Option<usize> {
    match number {
        0x250 => Some(0),
        0x258 | 0x259 => Some((number - 0x257) as usize),
        0x268..=0x26F => Some((number - 0x265) as usize),
        _ => None,
    }
}

/// Index into `mtrr_variable`.
fn variable_mtrr(number: u32) -> Option<usize> {
    let n = number.wrapping_sub(msr::IA32_MTRR_PHYSBASE0) as usize;
    (n < 16).then_some(n)
}

/// Reads MSR `number`.
///
/// # Errors
/// #GP(0) where the CPU has no such register or it cannot be read.
pub fn read(cpu: &Cpu, mmu: &mut Mmu, number: u32) -> Result<u64, Fault> {
    check_reported(cpu, number)?;
    if let Some(line) = MSRS.iter().find(|m| m.number == number) {
        return (line.read)(cpu, mmu);
    }
    if let Some(n) = fixed_mtrr(number) {
        return Ok(cpu.mtrr_fixed[n]);
    }
    if let Some(n) = variable_mtrr(number) {
        return Ok(cpu.mtrr_variable[n]);
    }
    if is_amd_counter(cpu, number) {
        return Ok(0);
    }
    match mmu.bus.read_msr(number) {
        MsrResult::Ok(value) => Ok(value),
        MsrResult::Unknown | MsrResult::Fault => Err(Fault::GP0),
    }
}

/// Writes MSR `number`.
///
/// # Errors
/// #GP(0) where the CPU has no such register or it does not take the value.
pub fn write(cpu: &mut Cpu, mmu: &mut Mmu, number: u32, value: u64) -> Result<(), Fault> {
    check_reported(cpu, number)?;
    if let Some(line) = MSRS.iter().find(|m| m.number == number) {
        return (line.write)(cpu, mmu, value);
    }
    if let Some(n) = fixed_mtrr(number) {
        if !value.to_le_bytes().iter().all(|&t| valid_memory_type(u64::from(t))) {
            return Err(Fault::GP0);
        }
        cpu.mtrr_fixed[n] = value;
        return Ok(());
    }
    if let Some(n) = variable_mtrr(number) {
        // Base: type and address. Mask: valid bit and address.
        let allowed = if n % 2 == 0 { 0xFF } else { 0x800 };
        let address = ((1u64 << cpu.policy.physical_bits) - 1) & !0xFFF;
        if value & !(address | allowed) != 0 || n % 2 == 0 && !valid_memory_type(value) {
            return Err(Fault::GP0);
        }
        cpu.mtrr_variable[n] = value;
        return Ok(());
    }
    if is_amd_counter(cpu, number) {
        return Ok(());
    }
    match mmu.bus.write_msr(number, value) {
        MsrResult::Ok(()) => Ok(()),
        MsrResult::Unknown | MsrResult::Fault => Err(Fault::GP0),
    }
}

fn rdmsr(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    require_cpl0(cpu)?;
    let value = read(cpu, mmu, cpu.gpr[gpr::RCX] as u32)?;
    cpu.gpr[gpr::RAX] = value & 0xFFFF_FFFF;
    cpu.gpr[gpr::RDX] = value >> 32;
    Ok(Flow::Next)
}

fn wrmsr(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    require_cpl0(cpu)?;
    let value = cpu.gpr[gpr::RDX] << 32 | cpu.gpr[gpr::RAX] & 0xFFFF_FFFF;
    write(cpu, mmu, cpu.gpr[gpr::RCX] as u32, value)?;
    Ok(Flow::Sync)
}

/// Registration lines.
pub const FAMILY: &[Line] = &[(Mnemonic::Rdmsr, |_| rdmsr), (Mnemonic::Wrmsr, |_| wrmsr)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_register_has_one_line() {
        for (i, a) in MSRS.iter().enumerate() {
            assert!(MSRS[..i].iter().all(|b| b.number != a.number), "{:#x} twice", a.number);
            assert!(fixed_mtrr(a.number).is_none() && variable_mtrr(a.number).is_none());
        }
    }
}
