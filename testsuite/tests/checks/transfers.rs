//! Call gates, and returns to an outer level: SDM vol. 3A, section 5.8; vol. 2, CALL and RET.

use super::world::{
    CODE, CODE_DESCRIPTOR, CODE64_DESCRIPTOR, DATA, DATA_DESCRIPTOR, DPL3, GDT, LDT, Mode, PRESENT,
    STACK, World, selector,
};
use super::{Check, check};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::segment::ar;
use x86::{Fault, SegReg};

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// The limit in a descriptor, and its granularity.
const LIMIT: u64 = 0x008F_0000_0000_FFFF;
const FREE: u16 = selector::FREE;
const TARGET: u16 = selector::TARGET;
const SS: usize = SegReg::SS as usize;
/// A 32- or 64-bit call gate of DPL 0.
const GATE: u64 = 0x8C00_0000_0000;
/// The first address that is not canonical.
const HOLE: u64 = 1 << 47;
/// DPL 1 in a descriptor.
const DPL1: u64 = 0x2000_0000_0000;
/// D in a descriptor.
const DB: u64 = 1 << 54;
/// A task state segment that is zero at the beginning.
const TSS: u64 = DATA + 0x1000;

/// A call, by the gate at [`FREE`] to the code at [`TARGET`], of the instruction behind it.
fn call(mode: Mode) -> Code {
    if mode.bits() == 64 { |a| a.call(fword_ptr(rbx)) } else { |a| a.call(fword_ptr(ebx)) }
}

fn gate(code: u16) -> u64 {
    GATE | u64::from(code) << 16 | (CODE + 2)
}

fn code(mode: Mode) -> u64 {
    if mode.bits() == 64 { CODE64_DESCRIPTOR } else { CODE_DESCRIPTOR }
}

fn name(w: &mut World, selector: u16) {
    w.write(DATA + 4, &selector.to_le_bytes());
}

fn target(w: &mut World, descriptor: u64) {
    w.put(GDT + u64::from(TARGET), descriptor);
}

fn row(what: &str, mode: Mode, bad: impl Fn(&mut World) + 'static, fault: Fault) -> Check {
    check("call gates", mode, call(mode), bad, fault).detail(what).good(move |w| {
        let user = matches!(mode, Mode::User | Mode::PagedUser);
        w.descriptor(gate(TARGET) | if user { DPL3 } else { 0 });
        target(w, code(mode));
        name(w, FREE);
        w.cpu.gpr[3] = DATA;
        (w.cpu.tr.base, w.cpu.tr.limit) = (TSS, 0x67);
        w.put(TSS + 4, STACK);
        if mode == Mode::PagedUser {
            w.write(TSS + 8, &selector::DATA.to_le_bytes());
        }
    })
}

fn gates(checks: &mut Vec<Check>) {
    for mode in [Mode::Protected, Mode::Long, Mode::PagedUser, Mode::User] {
        let user = matches!(mode, Mode::User | Mode::PagedUser);
        let dpl = if user { DPL3 } else { 0 };
        let descriptor = move |value: u64| move |w: &mut World| w.descriptor(value | dpl);
        let to = |value: u64| move |w: &mut World| target(w, value);
        let good = code(mode);
        checks.push(row("P", mode, descriptor(gate(TARGET) & !PRESENT), Fault::np(FREE)));
        checks.push(row("null", mode, |w| name(w, 0), Fault::GP0));
        // The null descriptor is not looked at, though it holds a good one.
        let null = move |w: &mut World| {
            w.put(GDT, good);
            w.descriptor(gate(0) | dpl);
        };
        checks.push(row("null CS", mode, null, Fault::GP0));
        checks.push(row("CS not present", mode, to(good & !PRESENT), Fault::np(TARGET)));
        checks.push(row("CS of data", mode, to(DATA_DESCRIPTOR), Fault::gp(TARGET)));
        let bad = descriptor(gate(0x100));
        checks.push(row("CS beyond the limit", mode, bad, Fault::gp(0x100)));
        if user {
            let bad = |w: &mut World| w.descriptor(gate(TARGET));
            checks.push(row("DPL", mode, bad, Fault::gp(FREE)));
        } else {
            checks.push(row("RPL", mode, |w| name(w, FREE | 3), Fault::gp(FREE)));
            checks.push(row("CS of level 3", mode, to(good | DPL3), Fault::gp(TARGET)));
        }
        if mode.bits() == 64 {
            checks.push(row("CS with L and D", mode, to(good | DB), Fault::gp(TARGET)));
            checks.push(row("CS of 32 bits", mode, to(CODE_DESCRIPTOR), Fault::gp(TARGET)));
            let bad = |w: &mut World| w.put(GDT + u64::from(FREE) + 8, 0x8000);
            checks.push(row("canonical offset", mode, bad, Fault::GP0));
            for bit in 40..45 {
                let bad = move |w: &mut World| w.put(GDT + u64::from(FREE) + 8, 1 << bit);
                let what = format!("upper half, bit {bit}");
                checks.push(row(&what, mode, bad, Fault::gp(FREE)));
            }
            // Nothing lies behind the gate in this one, which holds the target before it.
            let cut = row("upper half across the limit", mode, |_| {}, Fault::gp(FREE));
            let good = cut.good;
            checks.push(Check {
                good: Box::new(move |w| {
                    good(w);
                    w.descriptor(gate(selector::CODE64) | dpl);
                    w.cpu.gdtr.limit = FREE + 15;
                }),
                bad: Box::new(|w| w.cpu.gdtr.limit = FREE + 14),
                ..cut
            });
        } else {
            let short = good & !LIMIT | (CODE + 1);
            checks.push(row("offset beyond the limit", mode, to(short), Fault::GP0));
        }
    }
    // A task of the LDT, though a good one is there.
    let local = |w: &mut World| {
        w.cpu.ldtr = w.segment(selector::LDT);
        w.put(LDT + u64::from(FREE), 0x0000_8901_1000_0067);
        name(w, FREE | 4);
    };
    checks.push(row("a task in the LDT", Mode::Protected, local, Fault::gp(FREE | 4)));
}

/// Stacks that a call by a gate writes to.
fn stacks(checks: &mut Vec<Check>) {
    let row = |what, mode, bad: Box<dyn Fn(&mut World)>, fault| Check {
        name: "stack of a call gate",
        ..row(what, mode, bad, fault)
    };
    // At the same level.
    let mode = Mode::Long;
    let bad = Box::new(|w: &mut World| w.cpu.gpr[4] = !HOLE + 1);
    checks.push(row("canonical, the same level", mode, bad, Fault::SS0));
    let mode = Mode::Protected;
    let bad = Box::new(|w: &mut World| w.cpu.seg[SS].limit = STACK as u32 - 2);
    checks.push(row("limit, the same level", mode, bad, Fault::SS0));
    let bad = Box::new(|w: &mut World| w.cpu.seg[SS].access &= !ar::RW);
    checks.push(row("read-only, the same level", mode, bad, Fault::SS0));
    // At an inner one.
    let mode = Mode::User;
    let bad = Box::new(|w: &mut World| w.put(TSS + 4, HOLE));
    checks.push(row("canonical", mode, bad, Fault::SS0));
    let bad = Box::new(|w: &mut World| w.put(TSS + 4, !HOLE + 1));
    checks.push(row("canonical push", mode, bad, Fault::SS0));
    let mode = Mode::PagedUser;
    let stacks = [
        ("limit", DATA_DESCRIPTOR & !LIMIT | (STACK - 2), Fault::ss(0x78)),
        ("P", DATA_DESCRIPTOR & !PRESENT, Fault::ss(0x78)),
        ("read-only", DATA_DESCRIPTOR & !(1 << 41), Fault::ts(0x78)),
        ("DPL", DATA_DESCRIPTOR | DPL3, Fault::ts(0x78)),
        ("code", CODE_DESCRIPTOR, Fault::ts(0x78)),
    ];
    for (what, descriptor, fault) in stacks {
        let bad = Box::new(move |w: &mut World| w.put(GDT + 0x78, descriptor));
        let row = row(what, mode, bad, fault);
        let good = row.good;
        checks.push(Check {
            good: Box::new(move |w| {
                good(w);
                w.put(GDT + 0x78, DATA_DESCRIPTOR);
                w.write(TSS + 8, &0x78u16.to_le_bytes());
            }),
            ..row
        });
    }
    for (what, selector, fault) in [
        ("null", 0, Fault::ts(0)),
        ("RPL", selector::DATA | 3, Fault::ts(selector::DATA)),
        ("beyond the limit of the table", 0x100, Fault::ts(0x100)),
    ] {
        let bad = Box::new(move |w: &mut World| {
            w.put(GDT, DATA_DESCRIPTOR);
            w.write(TSS + 8, &u16::to_le_bytes(selector));
        });
        checks.push(row(what, mode, bad, fault));
    }
}

/// Returns to level 1 of 64-bit code, and to level 3, where AX is the stack's selector.
fn returns(checks: &mut Vec<Check>) {
    let far: Code = |a| {
        let mut next = a.create_label();
        a.mov(rdx, rsp)?;
        a.push(rax)?;
        a.push(rdx)?;
        a.push(rcx)?;
        a.lea(rdx, qword_ptr(next))?;
        a.push(rdx)?;
        a.db(&[0x48, 0xCB])?;
        a.set_label(&mut next)?;
        a.zero_bytes()
    };
    let interrupt: Code = |a| {
        let mut next = a.create_label();
        a.mov(rdx, rsp)?;
        a.push(rax)?;
        a.push(rdx)?;
        a.push(2)?;
        a.push(rcx)?;
        a.lea(rdx, qword_ptr(next))?;
        a.push(rdx)?;
        a.iretq()?;
        a.set_label(&mut next)?;
        a.zero_bytes()
    };
    for (what, code) in [("RET", far), ("IRET", interrupt)] {
        for bad in [0, 2, 3] {
            let bad = move |w: &mut World| w.cpu.gpr[0] = bad;
            let row = check("null stack of a return", Mode::Long, code, bad, Fault::GP0);
            checks.push(row.detail(format!("{what}, RPL")).good(|w| {
                w.descriptor(CODE64_DESCRIPTOR | DPL1);
                (w.cpu.gpr[0], w.cpu.gpr[1]) = (1, u64::from(FREE | 1));
            }));
        }
        let bad = |w: &mut World| {
            w.put(GDT, DATA_DESCRIPTOR | DPL3);
            w.cpu.gpr[0] = 3;
        };
        let row = check("null stack of a return", Mode::Long, code, bad, Fault::GP0);
        checks.push(row.detail(format!("{what}, level 3")).good(|w| {
            w.cpu.gpr[0] = selector::USER_DATA.into();
            w.cpu.gpr[1] = selector::USER_CODE64.into();
        }));
    }
}

/// A call whose return address is beyond the limit: the return is what takes the fault.
fn beyond(checks: &mut Vec<Check>) {
    let code: Code = |a| {
        let (mut over, mut function) = (a.create_label(), a.create_label());
        a.jmp(over)?;
        a.set_label(&mut function)?;
        a.ret()?;
        a.set_label(&mut over)?;
        a.call(function)
    };
    // JMP of two bytes, RET of one, CALL of five.
    let bad = |w: &mut World| w.cpu.seg[SegReg::CS as usize].limit = CODE as u32 + 7;
    for mode in [Mode::Protected, Mode::PagedUser] {
        checks.push(check("limit of CS, where a call returns to", mode, code, bad, Fault::GP0));
    }
}

pub(crate) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    gates(&mut checks);
    stacks(&mut checks);
    returns(&mut checks);
    beyond(&mut checks);
    checks
}
