//! Control and debug registers, XCR0, INVPCID: SDM vol. 3A, sections 2.5, 2.6, 4.1 and 18.2.

use super::world::{CODE, DATA, Mode, PML4, World, selector};
use super::{Check, check};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::control::{cr0, cr4, dr7, efer, xcr0};
use x86::cpuid::{Feature, Policy};
use x86::{Fault, SegReg, Vector};

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// MOV to a control or debug register of RAX, which the good setting takes from the register.
fn moved(
    name: &'static str,
    mode: Mode,
    code: Code,
    good: fn(&World) -> u64,
    bad: impl Fn(u64) -> u64 + 'static,
    fault: Fault,
) -> Check {
    check(name, mode, code, move |w| w.cpu.gpr[0] = bad(w.cpu.gpr[0]), fault)
        .good(move |w| w.cpu.gpr[0] = good(w))
}

/// A row for each of `bits`: set in RAX, which the good setting takes from `good`, in 64-bit mode.
fn each_bit(
    name: &'static str,
    code: Code,
    good: fn(&World) -> u64,
    bits: impl Iterator<Item = u32>,
) -> impl Iterator<Item = Check> {
    bits.map(move |bit| {
        moved(name, Mode::Long, code, good, move |v| v | 1 << bit, Fault::GP0)
            .detail(format!("bit {bit}"))
    })
}

fn cr0_of(w: &World) -> u64 {
    w.cpu.cr0
}
fn cr3_of(w: &World) -> u64 {
    w.cpu.cr3
}
fn cr4_of(w: &World) -> u64 {
    w.cpu.cr4
}

const CR0_64: Code = |a| a.mov(cr0, rax);
const CR0_32: Code = |a| a.mov(cr0, eax);
const CR3_64: Code = |a| a.mov(cr3, rax);
const CR4_64: Code = |a| a.mov(cr4, rax);
const CR4_32: Code = |a| a.mov(cr4, eax);

fn control(checks: &mut Vec<Check>) {
    checks.extend(each_bit("CR0 63:32", CR0_64, cr0_of, 32..64));
    checks.push(moved(
        "CR0.PG without PE",
        Mode::Protected,
        CR0_32,
        cr0_of,
        |v| v & !cr0::PE | cr0::PG,
        Fault::GP0,
    ));
    checks.push(moved(
        "CR0.NW without CD",
        Mode::Protected,
        CR0_32,
        cr0_of,
        |v| v | cr0::NW,
        Fault::GP0,
    ));
    checks.push(moved(
        "CR0.PG cleared in 64-bit mode",
        Mode::Long,
        CR0_64,
        cr0_of,
        |v| v & !cr0::PG,
        Fault::GP0,
    ));
    let bad = |w: &mut World| {
        w.cpu.efer |= efer::LME;
        w.cpu.gpr[0] |= cr0::PG;
    };
    checks.push(
        check("CR0.PG with EFER.LME and without CR4.PAE", Mode::Protected, CR0_32, bad, Fault::GP0)
            .good(|w| w.cpu.gpr[0] = w.cpu.cr0),
    );

    let beyond = u32::from(Policy::host(1).physical_bits)..64;
    checks.extend(each_bit("CR3 bits from MAXPHYADDR", CR3_64, cr3_of, beyond));
    let allowed = Policy::host(1).cr4_mask();
    let missing = (0..64).filter(|bit| allowed >> bit & 1 == 0);
    checks.extend(each_bit("CR4 bits that CPUID does not offer", CR4_64, cr4_of, missing));
    for (bit, feature) in [
        (cr4::SMEP, Feature::Smep),
        (cr4::SMAP, Feature::Smap),
        (cr4::PCIDE, Feature::Pcid),
        (cr4::UMIP, Feature::Umip),
        (cr4::FSGSBASE, Feature::FsGsBase),
        (cr4::OSXSAVE, Feature::Xsave),
        (cr4::PKE, Feature::Pku),
    ] {
        if !Policy::host(1).has(feature) {
            continue;
        }
        let bad = move |w: &mut World| {
            let mut policy = Policy::host(1);
            policy.remove(feature);
            w.cpu.policy = policy.into();
        };
        let row = check("CR4 bits that CPUID does not offer", Mode::Long, CR4_64, bad, Fault::GP0);
        checks.push(row.detail(format!("{feature:?}")).good(move |w| {
            w.supervisor_code();
            w.cpu.gpr[0] = w.cpu.cr4 | bit;
        }));
    }
    checks.push(moved(
        "CR4.PAE cleared in long mode",
        Mode::Long,
        CR4_64,
        cr4_of,
        |v| v & !cr4::PAE,
        Fault::GP0,
    ));
    if Policy::host(1).has(Feature::La57) {
        checks.push(moved(
            "CR4.LA57 changed in long mode",
            Mode::Long,
            CR4_64,
            cr4_of,
            |v| v | cr4::LA57,
            Fault::GP0,
        ));
    }
    checks.push(moved(
        "CR4.PCIDE outside long mode",
        Mode::Pae,
        CR4_32,
        cr4_of,
        |v| v | cr4::PCIDE,
        Fault::GP0,
    ));
    let bad = |w: &mut World| w.cpu.cr3 |= 1;
    checks.push(
        check("CR4.PCIDE with a PCID in CR3", Mode::Long, CR4_64, bad, Fault::GP0)
            .good(|w| w.cpu.gpr[0] = w.cpu.cr4 | cr4::PCIDE),
    );
    let code: Code = |a| a.mov(cr3, rax);
    checks.push(
        check(
            "CR3 bit 63 without CR4.PCIDE",
            Mode::Long,
            code,
            |w| w.cpu.cr4 &= !cr4::PCIDE,
            Fault::GP0,
        )
        .good(move |w| {
            w.cpu.cr4 |= cr4::PCIDE;
            w.cpu.gpr[0] = w.cpu.cr3 | 1 << 63;
        }),
    );
    checks.extend(each_bit("CR8 63:4", |a| a.mov(cr8, rax), |_| 0, 4..64));
    // In 32-bit code of a 64-bit kernel.
    let leaves_paging: Code = |a| a.mov(cr0, rax);
    checks.push(
        check(
            "CR0.PG cleared with CR4.PCIDE",
            Mode::Long,
            leaves_paging,
            |w| w.cpu.cr4 |= cr4::PCIDE,
            Fault::GP0,
        )
        .good(|w| {
            w.cpu.seg[SegReg::CS as usize] = w.segment(selector::CODE32);
            w.cpu.gpr[0] = w.cpu.cr0 & !cr0::PG;
        }),
    );
    checks.push(
        check(
            "CR0.PG with EFER.LME and CS.L",
            Mode::Protected,
            CR0_32,
            |w| w.cpu.seg[SegReg::CS as usize] = w.segment(selector::CODE64),
            Fault::GP0,
        )
        .good(|w| {
            w.cpu.cr4 |= cr4::PAE;
            w.cpu.cr3 = PML4;
            w.cpu.efer |= efer::LME;
            w.cpu.gpr[0] = w.cpu.cr0 | cr0::PG;
        }),
    );
    let stores: [(&str, Code); 5] = [
        ("SGDT", |a| a.sgdt(ptr(rbx))),
        ("SIDT", |a| a.sidt(ptr(rbx))),
        ("SLDT", |a| a.sldt(eax)),
        ("STR", |a| a.str(eax)),
        ("SMSW", |a| a.smsw(eax)),
    ];
    for (what, code) in stores {
        let bad = |w: &mut World| w.cpu.cr4 |= cr4::UMIP;
        let row = check("CR4.UMIP at level 3", Mode::User, code, bad, Fault::GP0);
        checks.push(row.detail(what).good(|w| w.cpu.gpr[3] = DATA));
    }
    let clocks: [(&str, Code); 2] = [("RDTSC", |a| a.rdtsc()), ("RDTSCP", |a| a.rdtscp())];
    for (what, code) in clocks {
        if what == "RDTSCP" && !Policy::host(1).has(Feature::Rdtscp) {
            continue;
        }
        let bad = |w: &mut World| w.cpu.cr4 |= cr4::TSD;
        checks.push(check("CR4.TSD at level 3", Mode::User, code, bad, Fault::GP0).detail(what));
    }
    for (name, code) in [
        ("control registers belong to level 0", (|a| a.mov(rax, cr0)) as Code),
        ("control registers belong to level 0", |a| a.mov(cr3, rax)),
        ("control registers belong to level 0", |a| a.clts()),
        ("control registers belong to level 0", |a| a.lmsw(ax)),
        ("debug registers belong to level 0", |a| a.mov(rax, dr0)),
        ("debug registers belong to level 0", |a| a.mov(dr7, rax)),
    ] {
        checks.push(super::level_3(name, code));
    }
}

fn debug(checks: &mut Vec<Check>) {
    checks.extend(each_bit("DR6 63:32", |a| a.mov(dr6, rax), |w| w.cpu.dr6, 32..64));
    checks.extend(each_bit("DR7 63:32", |a| a.mov(dr7, rax), |w| w.cpu.dr7, 32..64));
    let four: Code = |a| a.mov(rax, dr4);
    let five: Code = |a| a.mov(dr5, rax);
    for code in [four, five] {
        checks.push(check(
            "DR4 and DR5 with CR4.DE",
            Mode::Long,
            code,
            |w| w.cpu.cr4 |= cr4::DE,
            Fault::UD,
        ));
    }
    let guarded: Code = |a| a.mov(rax, dr0);
    checks.push(check(
        "DR7.GD",
        Mode::Long,
        guarded,
        |w| w.cpu.dr7 |= dr7::GD,
        Fault::new(Vector::DB),
    ));
}

fn extended(checks: &mut Vec<Check>) {
    let code: Code = |a| a.xsetbv();
    let mask = Policy::host(1).xcr0_mask();
    let row = |name, bad: Box<dyn Fn(u64) -> u64>| {
        check(
            name,
            Mode::Long,
            code,
            move |w| {
                let value = bad(w.cpu.gpr[0] | w.cpu.gpr[2] << 32);
                (w.cpu.gpr[0], w.cpu.gpr[2]) = (value & 0xFFFF_FFFF, value >> 32);
            },
            Fault::GP0,
        )
        .good(|w| w.cpu.gpr[0] = w.cpu.xcr0)
    };
    for bit in (0..64).filter(|bit| mask >> bit & 1 == 0) {
        checks.push(
            row("XCR0 bits that CPUID does not offer", Box::new(move |v| v | 1 << bit))
                .detail(format!("bit {bit}")),
        );
    }
    checks.push(row("XCR0 without x87", Box::new(|v| v & !xcr0::X87)));
    checks.push(row("XCR0 with AVX and without SSE", Box::new(|v| v & !xcr0::SSE)));
    if mask & xcr0::AVX512 != 0 {
        for part in [xcr0::OPMASK, xcr0::ZMM_HI256, xcr0::HI16_ZMM] {
            checks.push(
                row("XCR0 with a part of AVX-512", Box::new(move |v| v | part))
                    .detail(format!("{part:#x}")),
            );
        }
        checks.push(row(
            "XCR0 with AVX-512 and without AVX",
            Box::new(|v| (v | xcr0::AVX512) & !xcr0::AVX),
        ));
    }
    let good = |w: &mut World| w.cpu.gpr[0] = w.cpu.xcr0;
    checks.push(
        check("XSETBV of another register", Mode::Long, code, |w| w.cpu.gpr[1] = 1, Fault::GP0)
            .good(good),
    );
    checks.push(
        check(
            "XSETBV without CR4.OSXSAVE",
            Mode::Long,
            code,
            |w| w.cpu.cr4 &= !cr4::OSXSAVE,
            Fault::UD,
        )
        .good(good),
    );
    for bit in 16..32 {
        let load: Code = |a| a.ldmxcsr(dword_ptr(rbx));
        let bad = move |w: &mut World| w.put(DATA, 0x1F80 | 1 << bit);
        checks.push(
            check("MXCSR 31:16", Mode::Long, load, bad, Fault::GP0)
                .detail(format!("LDMXCSR, bit {bit}"))
                .good(|w| {
                    w.put(DATA, 0x1F80);
                    w.cpu.gpr[3] = DATA;
                }),
        );
        let load: Code = |a| a.fxrstor(ptr(rbx));
        let bad = move |w: &mut World| w.put(DATA + 24, 0x1F80 | 1 << bit);
        // Bit 17 (misaligned exceptions) is one that AMD's processors have.
        checks.push(
            check("MXCSR 31:16", Mode::Long, load, bad, Fault::GP0)
                .detail(format!("FXRSTOR, bit {bit}"))
                .good(|w| {
                    w.put(DATA + 24, 0x1F80);
                    w.cpu.gpr[3] = DATA;
                }),
        );
    }
    for (what, at, value) in [
        ("XSTATE_BV outside XCR0", 512, 1u64 << 62),
        ("XCOMP_BV of the standard form", 520, 1),
        ("bytes 63:16", 528, 1),
    ] {
        let load: Code = |a| a.xrstor(ptr(rbx));
        let bad = move |w: &mut World| w.put(DATA + at, value);
        checks.push(
            check("header of XRSTOR", Mode::Long, load, bad, Fault::GP0).detail(what).good(|w| {
                w.put(DATA + 24, 0x1F80);
                (w.cpu.gpr[0], w.cpu.gpr[3]) = (3, DATA);
            }),
        );
    }
}

fn invpcid(checks: &mut Vec<Check>) {
    if !Policy::host(1).has(Feature::Invpcid) {
        return;
    }
    let row = |kind: u64, what: &str, bad: Box<dyn Fn(&mut World)>| {
        let code: Code = |a| a.invpcid(rax, xmmword_ptr(rbx));
        check("operands of INVPCID", Mode::Long, code, bad, Fault::GP0)
            .detail(format!("{what}, type {kind}"))
            .good(move |w| {
                w.cpu.cr4 |= cr4::PCIDE;
                (w.cpu.gpr[0], w.cpu.gpr[3]) = (kind, DATA);
                w.put(DATA, 1);
            })
    };
    let bad = |w: &mut World| {
        let mut policy = Policy::host(1);
        policy.remove(Feature::Invpcid);
        w.cpu.policy = policy.into();
    };
    checks.push(Check { fault: Fault::UD, ..row(0, "CPUID does not offer it", Box::new(bad)) });
    checks.push(row(0, "type above 3", Box::new(|w| w.cpu.gpr[0] = 4)));
    for kind in 0..4 {
        for bit in [12, 31, 32, 63] {
            checks.push(row(
                kind,
                &format!("bit {bit}"),
                Box::new(move |w| w.put(DATA, 1 | 1 << bit)),
            ));
        }
    }
    checks.push(row(0, "canonical address", Box::new(|w| w.put(DATA + 8, 1 << 47))));
    for kind in 0..2 {
        checks.push(row(kind, "a PCID without CR4.PCIDE", Box::new(|w| w.cpu.cr4 &= !cr4::PCIDE)));
    }
    let code: Code = |a| a.invpcid(eax, xmmword_ptr(bx));
    let bad = |w: &mut World| w.cpu.gpr[0] = 4;
    let real = check("operands of INVPCID", Mode::Real, code, bad, Fault::GP0);
    checks.push(real.detail("type above 3, real mode").good(|w| {
        (w.cpu.gpr[0], w.cpu.gpr[3]) = (2, 0x7000);
    }));
}

/// What CPUID takes away while the control registers still have it, and protection keys.
fn by_cpuid(checks: &mut Vec<Check>) {
    let without = |feature| {
        move |w: &mut World| {
            let mut policy = Policy::host(1);
            policy.remove(feature);
            w.cpu.policy = policy.into();
        }
    };
    let rows: [(&str, Feature, Code); 8] = [
        ("RDTSCP", Feature::Rdtscp, |a| a.rdtscp()),
        ("RDPID", Feature::Rdpid, |a| a.rdpid(rax)),
        ("VMCALL", Feature::Hypervisor, |a| a.vmcall()),
        ("XSAVE", Feature::Xsave, |a| a.xsave(ptr(rbx))),
        ("XRSTOR", Feature::Xsave, |a| a.xrstor(ptr(rbx))),
        ("XGETBV", Feature::Xsave, |a| a.xgetbv()),
        ("FXSAVE", Feature::Fxsr, |a| a.fxsave(ptr(rbx))),
        ("FXRSTOR", Feature::Fxsr, |a| a.fxrstor(ptr(rbx))),
    ];
    for (what, feature, code) in rows {
        if !Policy::host(1).has(feature) {
            continue;
        }
        let name = "instructions that CPUID does not offer";
        let row = check(name, Mode::Long, code, without(feature), Fault::UD);
        checks.push(row.detail(what).good(|w| {
            w.put(DATA + 24, 0x1F80);
            w.cpu.gpr[3] = DATA;
        }));
    }
    if Policy::host(1).has(Feature::Hypervisor) {
        let name = "VMCALL outside protected mode";
        for mode in [Mode::Real, Mode::Virtual8086] {
            let bad = |w: &mut World| w.write(CODE, &[0x0F, 0x01, 0xC1]);
            checks.push(super::bytes(name, mode, &[0x90; 3], bad, Fault::UD));
        }
    }
    // The value is a good one.
    let bad = |w: &mut World| w.write(CODE, &[0x0F, 0x01, 0xD1]);
    checks.push(
        super::bytes("XSETBV at level 3", Mode::User, &[0x90; 3], bad, Fault::GP0)
            .good(|w| w.cpu.gpr[0] = w.cpu.xcr0),
    );
    if !Policy::host(1).has(Feature::Pku) {
        return;
    }
    let codes: [(&str, Code); 2] = [("RDPKRU", |a| a.rdpkru()), ("WRPKRU", |a| a.wrpkru())];
    for (what, code) in codes {
        for mode in [Mode::Long, Mode::User] {
            let row = |how: &str, bad: Box<dyn Fn(&mut World)>, fault| {
                check("RDPKRU and WRPKRU", mode, code, bad, fault)
                    .detail(format!("{what}, {how}"))
                    .good(|w| w.cpu.cr4 |= cr4::PKE)
            };
            checks.push(row("CR4.PKE", Box::new(|w| w.cpu.cr4 &= !cr4::PKE), Fault::UD));
            checks.push(row("CPUID", Box::new(without(Feature::Pku)), Fault::UD));
            checks.push(row("ECX", Box::new(|w| w.cpu.gpr[1] = 1 << 31), Fault::GP0));
            if what == "WRPKRU" {
                checks.push(row("EDX", Box::new(|w| w.cpu.gpr[2] = 1 << 31), Fault::GP0));
            }
        }
    }
}

pub(crate) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    control(&mut checks);
    debug(&mut checks);
    extended(&mut checks);
    invpcid(&mut checks);
    by_cpuid(&mut checks);
    checks
}
