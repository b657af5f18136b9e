//! Model-specific registers: SDM vol. 4.

use super::world::{Mode, World};
use super::{Check, check};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use x86::Fault;
use x86::control::efer;
use x86::cpuid::{Feature, Policy, Vendor};

/// WRMSR of `good`, and of `bad`.
fn row(name: &'static str, number: u32, good: u64, bad: u64) -> Check {
    let set = move |w: &mut World, value: u64| {
        (w.cpu.gpr[0], w.cpu.gpr[2]) = (value & 0xFFFF_FFFF, value >> 32);
    };
    check(name, Mode::Long, |a| a.wrmsr(), move |w| set(w, bad), Fault::GP0)
        .detail(format!("MSR {number:#x}, {bad:#x}"))
        .good(move |w| {
            w.cpu.gpr[1] = number.into();
            set(w, good);
        })
}

fn host_has(feature: Feature) -> bool {
    Policy::host(1).has(feature)
}

/// Registers that CPUID takes away: a feature, or the other vendor.
fn by_cpuid(checks: &mut Vec<Check>) {
    type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let name = "registers that CPUID does not offer";
    let (read, write): (Code, Code) = (|a| a.rdmsr(), |a| a.wrmsr());
    for (feature, code, number) in [
        (Feature::SpecCtrl, write, 0x48),
        (Feature::Xsaves, write, 0xDA0),
        (Feature::ArchCapabilities, read, 0x10A),
    ] {
        if !host_has(feature) {
            continue;
        }
        let bad = move |w: &mut World| {
            let mut policy = Policy::host(1);
            policy.remove(feature);
            w.cpu.policy = policy.into();
        };
        let row = check(name, Mode::Long, code, bad, Fault::GP0);
        checks.push(row.detail(format!("{feature:?}")).good(move |w| w.cpu.gpr[1] = number));
    }
    for (what, code, number, owner) in [
        ("RDMSR", read, 0x17, Vendor::Intel),
        ("RDMSR", read, 0xC001_0015, Vendor::Amd),
        ("WRMSR", write, 0xC001_0015, Vendor::Amd),
        ("RDMSR", read, 0xC001_0004, Vendor::Amd),
        ("WRMSR", write, 0xC001_0000, Vendor::Amd),
    ] {
        let of = |w: &mut World, vendor| {
            let mut policy = Policy::host(1);
            policy.set_vendor(vendor);
            w.cpu.policy = policy.into();
        };
        let other = if owner == Vendor::Amd { Vendor::Intel } else { Vendor::Amd };
        let row = check(name, Mode::Long, code, move |w| of(w, other), Fault::GP0);
        checks.push(row.detail(format!("{what} {number:#x}, {owner:?}'s")).good(move |w| {
            of(w, owner);
            w.cpu.gpr[1] = number;
        }));
    }
}

pub(crate) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    by_cpuid(&mut checks);
    let long = efer::LME | efer::LMA;
    // Auto-IBRS (bit 21) is AMD's.
    let known = efer::SCE | long | efer::NXE | if Policy::host(1).is_amd() { 1 << 21 } else { 0 };
    for bit in (0..64).filter(|bit| known >> bit & 1 == 0) {
        checks.push(row(
            "EFER, reserved bits",
            0xC000_0080,
            long | efer::NXE,
            long | efer::NXE | 1 << bit,
        ));
    }
    checks.push(row("EFER.LME under CR0.PG", 0xC000_0080, long | efer::NXE, efer::NXE));
    for number in [0x175, 0x176, 0xC000_0082, 0xC000_0083, 0xC000_0100, 0xC000_0101, 0xC000_0102] {
        checks.push(row("canonical values", number, 0xFFFF_8000_0000_0000, 0x8000_0000_0000));
        checks.push(row("canonical values", number, 0x7FFF_FFFF_FFFF, 0x7FFF_0000_0000_0000));
    }
    for byte in 0..8 {
        for kind in [2u64, 3, 8, 0x10, 0x80] {
            checks.push(row("IA32_PAT types", 0x277, 0x0007_0406_0007_0406, kind << (8 * byte)));
        }
        for kind in [2u64, 3, 7, 8] {
            checks.push(row("fixed MTRR types", 0x26F, 0x0606_0606_0606_0606, kind << (8 * byte)));
        }
    }
    for kind in [2u64, 3, 7] {
        checks.push(row("IA32_MTRR_DEF_TYPE", 0x2FF, 0xC06, 0xC00 | kind));
        checks.push(row("variable MTRR types", 0x200, 6, kind));
    }
    for bit in [8, 9, 12, 32, 63] {
        checks.push(row("IA32_MTRR_DEF_TYPE", 0x2FF, 0xC06, 0xC06 | 1 << bit));
    }
    for bit in [8, 11, u32::from(Policy::host(1).physical_bits), 63] {
        checks.push(row("variable MTRR addresses", 0x200, 0x8000_0006, 0x8000_0006 | 1 << bit));
    }
    for bit in [0, 10, u32::from(Policy::host(1).physical_bits), 63] {
        checks.push(row("variable MTRR addresses", 0x201, 0x8000_0800, 0x8000_0800 | 1 << bit));
    }
    checks.push(row("IA32_TSC_AUX 63:32", 0xC000_0103, 7, 1 << 32));
    for bit in [2, 6, 15, 63] {
        checks.push(row("IA32_DEBUGCTL, reserved bits", 0x1D9, 1, 1 << bit));
    }
    if host_has(Feature::SpecCtrl) {
        for bit in [3, 11, 32, 63] {
            checks.push(row("IA32_SPEC_CTRL, reserved bits", 0x48, 1, 1 << bit));
        }
        for bit in [1, 7, 63] {
            checks.push(row("IA32_PRED_CMD, reserved bits", 0x49, 1, 1 << bit));
        }
    }
    if host_has(Feature::Xsaves) {
        for bit in [0, 8, 11, 63] {
            checks.push(row("IA32_XSS, reserved bits", 0xDA0, 0, 1 << bit));
        }
    }
    for number in [0xFE, 0x179, 0x3FF_FFFF, 0xC0FF_FFFF] {
        // Good: another register, with the same value.
        let bad = move |w: &mut World| w.cpu.gpr[1] = number;
        checks.push(
            check(
                "registers that are read-only or not there",
                Mode::Long,
                |a| a.wrmsr(),
                bad,
                Fault::GP0,
            )
            .detail(format!("WRMSR {number:#x}"))
            .good(|w| w.cpu.gpr[1] = 0xC000_0081),
        );
    }
    for number in [0x49, 0x3FF_FFFF, 0xC0FF_FFFF] {
        let bad = move |w: &mut World| w.cpu.gpr[1] = number;
        checks.push(
            check(
                "registers that are write-only or not there",
                Mode::Long,
                |a| a.rdmsr(),
                bad,
                Fault::GP0,
            )
            .detail(format!("RDMSR {number:#x}"))
            .good(|w| w.cpu.gpr[1] = 0xC000_0081),
        );
    }
    checks
}
