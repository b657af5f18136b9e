//! Descriptors: SDM vol. 3A, chapters 3, 5 and 7.

use super::world::{
    CODE_DESCRIPTOR, CODE64_DESCRIPTOR, DATA, DATA_DESCRIPTOR, DPL3, GDT, Mode, PRESENT, World,
    selector,
};
use super::{Check, check};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::Fault;

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;

const FREE: u16 = selector::FREE;
/// S: code or data.
const S: u64 = 1 << 44;
/// Readable or writable.
const RW: u64 = 1 << 41;
const CODE: u64 = 1 << 43;
const CONFORMING: u64 = 1 << 42;
const L: u64 = 1 << 53;
const DB: u64 = 1 << 54;

/// Code that uses the descriptor at [`FREE`], by AX, with a good and a bad descriptor there.
fn row(name: &'static str, mode: Mode, code: Code, good: u64, bad: u64, fault: Fault) -> Check {
    check(name, mode, code, move |w| w.descriptor(bad), fault).detail(format!("{bad:016x}")).good(
        move |w| {
            w.descriptor(good);
            w.cpu.gpr[0] = FREE.into();
        },
    )
}

/// The same with a good and a bad selector.
fn selector(
    name: &'static str,
    mode: Mode,
    code: Code,
    good: u64,
    bad: u16,
    fault: Fault,
) -> Check {
    check(name, mode, code, move |w| w.cpu.gpr[0] = bad.into(), fault)
        .detail(format!("selector {bad:#x}"))
        .good(move |w| {
            w.descriptor(good);
            w.cpu.gpr[0] = FREE.into();
        })
}

/// The null selector. The null descriptor is not looked at, though it holds a good one.
fn null(name: &'static str, mode: Mode, code: Code, good: u64) -> Check {
    let bad = move |w: &mut World| {
        w.put(GDT, good);
        w.cpu.gpr[0] = 0;
    };
    Check { bad: Box::new(bad), ..selector(name, mode, code, good, 0, Fault::GP0) }
}

fn data(checks: &mut Vec<Check>) {
    let loads: [(&str, Code); 5] = [
        ("DS", |a| a.mov(ds, ax)),
        ("ES", |a| a.mov(es, ax)),
        ("FS", |a| a.mov(fs, ax)),
        ("GS", |a| a.mov(gs, ax)),
        ("POP", |a| {
            a.push(eax)?;
            a.pop(ds)
        }),
    ];
    for (what, code) in loads {
        for mode in [Mode::Protected, Mode::Long] {
            if mode == Mode::Long && what == "POP" {
                continue;
            }
            let row = |bad, fault| {
                row("data segments", mode, code, DATA_DESCRIPTOR, bad, fault)
                    .detail(format!("{what} {bad:016x}"))
            };
            checks.push(row(DATA_DESCRIPTOR & !S, Fault::gp(FREE)));
            checks.push(row((DATA_DESCRIPTOR | CODE) & !RW, Fault::gp(FREE)));
            checks.push(row(DATA_DESCRIPTOR & !PRESENT, Fault::np(FREE)));
            let selector =
                |bad, fault| selector("selectors", mode, code, DATA_DESCRIPTOR, bad, fault);
            checks
                .push(selector(0x100, Fault::gp(0x100)).detail(format!("{what} beyond the limit")));
            checks
                .push(selector(FREE | 3, Fault::gp(FREE)).detail(format!("{what}, RPL 3, DPL 0")));
            checks.push(selector(0x0C, Fault::gp(0x0C)).detail(format!("{what}, no LDT")));
            let cut = move |w: &mut World| w.cpu.gdtr.limit = FREE + 6;
            checks.push(Check {
                bad: Box::new(cut),
                ..selector(FREE, Fault::gp(FREE)).detail(format!("{what} across the limit"))
            });
        }
        if what != "POP" {
            let bad = DATA_DESCRIPTOR;
            let check =
                row("DPL", Mode::PagedUser, code, DATA_DESCRIPTOR | DPL3, bad, Fault::gp(FREE));
            checks.push(check.detail(what));
        }
    }
}

fn stack(checks: &mut Vec<Check>) {
    let code: Code = |a| a.mov(ss, ax);
    for mode in [Mode::Protected, Mode::Long] {
        let row = |bad, fault| row("stack segments", mode, code, DATA_DESCRIPTOR, bad, fault);
        checks.push(row(DATA_DESCRIPTOR & !RW, Fault::gp(FREE)));
        checks.push(row(DATA_DESCRIPTOR | CODE, Fault::gp(FREE)));
        checks.push(row(DATA_DESCRIPTOR & !S, Fault::gp(FREE)));
        checks.push(row(DATA_DESCRIPTOR | DPL3, Fault::gp(FREE)));
        checks.push(row(DATA_DESCRIPTOR & !PRESENT, Fault::ss(FREE)));
        checks.push(selector(
            "stack segments",
            mode,
            code,
            DATA_DESCRIPTOR,
            FREE | 1,
            Fault::gp(FREE),
        ));
    }
    checks.push(null("stack segments", Mode::Protected, code, DATA_DESCRIPTOR));
}

fn code(checks: &mut Vec<Check>) {
    // A far return to the next instruction.
    let far32: Code = |a| {
        a.push(eax)?;
        a.mov(ecx, super::world::CODE as u32 + 8)?;
        a.push(ecx)?;
        a.retf()
    };
    let far64: Code = |a| {
        let mut next = a.create_label();
        a.push(rax)?;
        a.lea(rcx, qword_ptr(next))?;
        a.push(rcx)?;
        a.db(&[0x48, 0xCB])?;
        a.set_label(&mut next)?;
        a.zero_bytes()
    };
    for (mode, code, good) in
        [(Mode::Protected, far32, CODE_DESCRIPTOR), (Mode::Long, far64, CODE64_DESCRIPTOR)]
    {
        let row = |bad, fault| row("code segments", mode, code, good, bad, fault);
        checks.push(row(good & !CODE, Fault::gp(FREE)));
        checks.push(row(good & !S, Fault::gp(FREE)));
        checks.push(row(good & !PRESENT, Fault::np(FREE)));
        checks.push(row(good | DPL3, Fault::gp(FREE)));
        if mode == Mode::Long {
            checks.push(row(good | L | DB, Fault::gp(FREE)).detail("L and D"));
        }
        checks.push(null("code segments", mode, code, good));
        checks.push(selector("code segments", mode, code, good, 0x100, Fault::gp(0x100)));
    }
    // A far jump through a pointer at [EBX].
    let jump: Code = |a| {
        a.mov(ecx, super::world::CODE as u32 + 13)?;
        a.mov(dword_ptr(ebx), ecx)?;
        a.mov(word_ptr(ebx + 4), ax)?;
        a.jmp(fword_ptr(ebx))
    };
    let with = |check: Check| {
        let good = check.good;
        Check {
            good: Box::new(move |w| {
                good(w);
                w.cpu.gpr[3] = DATA;
            }),
            ..check
        }
    };
    let far =
        |bad, fault| with(row("far jumps", Mode::Protected, jump, CODE_DESCRIPTOR, bad, fault));
    checks.push(far(DATA_DESCRIPTOR, Fault::gp(FREE)));
    checks.push(far(CODE_DESCRIPTOR & !PRESENT, Fault::np(FREE)));
    checks.push(far(CODE_DESCRIPTOR | DPL3, Fault::gp(FREE)));
    checks.push(far(CODE_DESCRIPTOR | CONFORMING | DPL3, Fault::gp(FREE)));
    checks.push(with(null("far jumps", Mode::Protected, jump, CODE_DESCRIPTOR)));
    checks.push(far(TSS & !PRESENT, Fault::np(FREE)).detail("a task not present"));
    // A call gate to CODE32.
    let gate =
        0x0000_8C00_0000_0000 | u64::from(selector::CODE32) << 16 | (super::world::CODE + 13);
    checks.push(far(gate & !PRESENT, Fault::np(FREE)).detail("a gate not present"));
    // A system type that is nothing to jump to: a reserved one, an LDT.
    for kind in [0u64, 2, 8, 0xA, 0xD, 0xE] {
        checks.push(
            far(CODE_DESCRIPTOR & !(S | 15 << 40) | kind << 40, Fault::gp(FREE))
                .detail(format!("type {kind}")),
        );
    }
}

const TSS: u64 = 0x0000_8911_2000_0067;
const LDT: u64 = 0x0000_8211_1000_00FF;

fn system(checks: &mut Vec<Check>) {
    let loads: [(&'static str, Code, u64, &[u64]); 2] = [
        ("task state segments", |a| a.ltr(ax), TSS, &[0, 2, 3, 4, 5, 8, 0xA, 0xB, 0xC]),
        ("local descriptor tables", |a| a.lldt(ax), LDT, &[0, 1, 3, 9, 0xB, 0xC]),
    ];
    for (name, code, good, kinds) in loads {
        for mode in [Mode::Protected, Mode::Long] {
            for kind in kinds {
                let bad = good & !(15 << 40) | kind << 40;
                checks.push(
                    row(name, mode, code, good, bad, Fault::gp(FREE))
                        .detail(format!("type {kind}")),
                );
            }
            checks.push(row(name, mode, code, good, good | S, Fault::gp(FREE)).detail("S"));
            checks.push(row(name, mode, code, good, good & !PRESENT, Fault::np(FREE)).detail("P"));
            // A good descriptor in the LDT.
            let local = move |w: &mut World| {
                w.cpu.ldtr = w.segment(selector::LDT);
                w.put(super::world::LDT + u64::from(FREE), good);
                w.cpu.gpr[0] = u64::from(FREE | 4);
            };
            checks.push(Check {
                bad: Box::new(local),
                ..selector(name, mode, code, good, FREE | 4, Fault::gp(FREE | 4))
            });
            checks.push(selector(name, mode, code, good, 0x100, Fault::gp(0x100)));
        }
        for bit in 40..45 {
            let bad = move |w: &mut World| w.put(GDT + u64::from(FREE) + 8, 1 << bit);
            let check =
                check("upper half of a system descriptor", Mode::Long, code, bad, Fault::gp(FREE));
            checks.push(check.detail(format!("{name}, bit {bit}")).good(move |w| {
                w.descriptor(good);
                w.cpu.gpr[0] = FREE.into();
            }));
        }
        let bad = |w: &mut World| w.cpu.gdtr.limit = FREE + 14;
        let row =
            check("upper half of a system descriptor", Mode::Long, code, bad, Fault::gp(FREE));
        checks.push(row.detail(format!("{name}, across the limit")).good(move |w| {
            w.descriptor(good);
            w.cpu.gdtr.limit = FREE + 15;
            w.cpu.gpr[0] = FREE.into();
        }));
        let bad = |w: &mut World| w.put(GDT + u64::from(FREE) + 8, 0x8000);
        let check =
            check("canonical base of a system descriptor", Mode::Long, code, bad, Fault::gp(FREE));
        checks.push(check.detail(name).good(move |w| {
            w.descriptor(good);
            w.cpu.gpr[0] = FREE.into();
        }));
    }
    checks.push(null("task state segments", Mode::Protected, |a| a.ltr(ax), TSS));
}

/// Gates of the IDT: INT 20H to an IRET behind the end.
fn gates(checks: &mut Vec<Check>) {
    const IDT: u64 = DATA;
    let vector = 0x20u64;
    let code = u64::from(vector as u16 * 8 + 2);
    for mode in [Mode::Protected, Mode::Long] {
        let long = mode == Mode::Long;
        let target = if long { selector::CODE64 } else { selector::CODE32 };
        let at = IDT + vector * if long { 16 } else { 8 };
        let gate = 0x8E00u64 << 32 | u64::from(target) << 16 | 0x9000;
        let good = move |w: &mut World| {
            w.cpu.idtr = x86::DescriptorTable { base: IDT, limit: 0x300 };
            w.put(at, gate);
            w.put(at + 8, 0);
            w.write(0x9000, if long { &[0x48, 0xCF] } else { &[0xCF] });
        };
        let int: Code = |a| a.int(0x20);
        let row = |what: String, bad: Box<dyn Fn(&mut World)>, fault| {
            check("gates of the IDT", mode, int, bad, fault).detail(what).good(good)
        };
        let kinds: &[u64] = if long {
            &[0, 1, 2, 4, 5, 6, 7, 8, 9, 0xB, 0xC, 0xD]
        } else {
            &[0, 1, 2, 3, 4, 8, 9, 0xA, 0xB, 0xC, 0xD]
        };
        for &kind in kinds {
            let bad = gate & !(15 << 40) | kind << 40;
            checks.push(row(
                format!("type {kind}"),
                Box::new(move |w| w.put(at, bad)),
                Fault::gp(code as u16),
            ));
        }
        checks.push(row(
            "S".into(),
            Box::new(move |w| w.put(at, gate | S)),
            Fault::gp(code as u16),
        ));
        checks.push(row(
            "P".into(),
            Box::new(move |w| w.put(at, gate & !PRESENT)),
            Fault::np(code as u16),
        ));
        checks.push(row(
            "null CS".into(),
            Box::new(move |w| {
                // The null descriptor is not looked at, whatever it holds.
                w.put(GDT, if long { CODE64_DESCRIPTOR } else { CODE_DESCRIPTOR });
                w.put(at, gate & !0xFFFF_0000);
            }),
            Fault::GP0,
        ));
        let good_code = if long { CODE64_DESCRIPTOR } else { CODE_DESCRIPTOR };
        let mut codes = vec![
            ("CS of data", DATA_DESCRIPTOR, Fault::gp(FREE)),
            ("CS not present", good_code & !PRESENT, Fault::np(FREE)),
            ("CS of level 3", good_code | DPL3, Fault::gp(FREE)),
        ];
        if long {
            codes.extend([
                ("CS of data with L", DATA_DESCRIPTOR & !DB | L, Fault::gp(FREE)),
                ("CS of 32 bits", CODE_DESCRIPTOR, Fault::gp(FREE)),
                ("CS of 16 bits", CODE_DESCRIPTOR & !DB, Fault::gp(FREE)),
                ("CS with L and D", CODE64_DESCRIPTOR | DB, Fault::gp(FREE)),
            ]);
        } else {
            codes.push(("CS that ends before the handler", 0x0040_9B00_0000_8FFF, Fault::GP0));
        }
        if !long {
            let task = move |selector: u16| {
                gate & 0xFFFF_F0FF_0000_FFFF | u64::from(selector) << 16 | 5 << 40
            };
            let absent = move |w: &mut World| {
                w.descriptor(TSS & !PRESENT);
                w.put(at, task(FREE));
            };
            let local = move |w: &mut World| {
                w.cpu.ldtr = w.segment(selector::LDT);
                w.put(super::world::LDT + u64::from(FREE), TSS);
                w.put(at, task(FREE | 4));
            };
            checks.push(row("task not present".into(), Box::new(absent), Fault::np(FREE)));
            checks.push(row("task in the LDT".into(), Box::new(local), Fault::gp(FREE | 4)));
        }
        for (what, descriptor, fault) in codes {
            let bad = move |w: &mut World| {
                w.descriptor(descriptor);
                w.put(at, gate & !0xFFFF_0000 | u64::from(FREE) << 16);
            };
            checks.push(row(what.into(), Box::new(bad), fault));
        }
        checks.push(row(
            "limit of the IDT".into(),
            Box::new(move |w| w.cpu.idtr.limit = vector as u16 * if long { 16 } else { 8 } + 6),
            Fault::gp(code as u16),
        ));
        if long {
            checks.push(row(
                "canonical handler".into(),
                Box::new(move |w| w.put(at + 8, 0x8000)),
                Fault::GP0,
            ));
        }
    }
}

/// A gate's DPL, for INT 20H at level 3 to an IRET of the same level.
fn gate_level(checks: &mut Vec<Check>) {
    for (mode, target, shift, handler) in [
        (Mode::User, selector::USER_CODE64, 4, &[0x48, 0xCF][..]),
        (Mode::PagedUser, selector::USER_CODE32, 3, &[0xCF]),
    ] {
        let at = DATA + (0x20 << shift);
        let gate = 0x8E00u64 << 32 | u64::from(target) << 16 | 0x9000;
        let int: Code = |a| a.int(0x20);
        let bad = move |w: &mut World| w.put(at, gate);
        let check = check("gates of the IDT", mode, int, bad, Fault::gp(0x20 * 8 + 2));
        checks.push(check.detail("DPL").good(move |w| {
            w.cpu.idtr = x86::DescriptorTable { base: DATA, limit: 0x300 };
            w.put(at, gate | DPL3);
            w.write(0x9000, handler);
        }));
    }
}

pub(crate) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    data(&mut checks);
    stack(&mut checks);
    code(&mut checks);
    system(&mut checks);
    gates(&mut checks);
    gate_level(&mut checks);
    checks
}
