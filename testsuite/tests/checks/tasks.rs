//! Tasks: SDM vol. 3A, sections 7.2 and 7.3; vol. 2, IRET and INT.

use super::world::{
    CODE, CODE_DESCRIPTOR, DATA, DATA_DESCRIPTOR, GDT, LDT, Mode, PRESENT, STACK, World, selector,
};
use super::{Check, check};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::{Fault, Vector, flags};

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// The limit in a descriptor, and its granularity.
const LIMIT: u64 = 0x008F_0000_0000_FFFF;
const FREE: u16 = selector::FREE;
const TARGET: u16 = selector::TARGET;
/// Task state segments of the old task and the new one, zero at the beginning.
const OLD: u64 = DATA + 0x1000;
const NEW: u64 = DATA + 0x1100;
/// The descriptor of the new task, available.
const TASK: u64 = 0x0000_8901_1100_0067;
const BUSY: u64 = 2 << 40;
/// Where the selectors of a 32-bit task are.
const ES: u64 = NEW + 0x48;
const CS: u64 = NEW + 0x4C;
const SS: u64 = NEW + 0x50;
const DS: u64 = NEW + 0x54;
const LDTR: u64 = NEW + 0x60;

/// The new task at [`FREE`] begins `length` bytes behind the beginning of the code.
fn tasks(w: &mut World, length: u64) {
    w.cpu.tr.base = OLD;
    w.descriptor(TASK);
    w.put(NEW + 0x20, (CODE + length) | (flags::FIXED_ONE << 32));
    w.write(NEW + 0x38, &(STACK as u32).to_le_bytes());
    for (at, selector) in [
        (ES, selector::DATA),
        (CS, selector::CODE32),
        (SS, selector::DATA),
        (DS, selector::DATA),
        (LDTR, 0),
    ] {
        w.write(at, &selector.to_le_bytes());
    }
}

/// The fault in the new task, where the old one's instruction is done.
fn in_new_task(fault: Fault) -> Fault {
    let done = Fault::trap(Vector::DB).to_bits() & !0xFF;
    Fault::from_bits(fault.to_bits() | done)
}

fn put(at: u64, value: u16) -> Box<dyn Fn(&mut World)> {
    Box::new(move |w| w.write(at, &value.to_le_bytes()))
}

/// IRET to the task that the old one's link names.
fn returns(checks: &mut Vec<Check>) {
    // The NOP is the new task's: its faults are there.
    let code: Code = |a| {
        a.iretd()?;
        a.nop()
    };
    let row = |what: &str, bad: Box<dyn Fn(&mut World)>, fault| {
        check("return to a task", Mode::Protected, code, bad, fault).detail(what).good(|w| {
            tasks(w, 1);
            w.descriptor(TASK | BUSY);
            w.write(OLD, &FREE.to_le_bytes());
            w.cpu.rflags |= flags::NT;
        })
    };
    let local = |w: &mut World| {
        w.cpu.ldtr = w.segment(selector::LDT);
        w.put(LDT + u64::from(FREE), TASK | BUSY);
        w.write(OLD, &(FREE | 4).to_le_bytes());
    };
    checks.push(row("link in the LDT", Box::new(local), Fault::ts(FREE | 4)));
    checks.push(row("link beyond the limit", put(OLD, 0x100), Fault::ts(0x100)));
    checks.push(row("available", Box::new(|w| w.descriptor(TASK)), Fault::ts(FREE)));
    checks.push(row("data", Box::new(|w| w.descriptor(DATA_DESCRIPTOR)), Fault::ts(FREE)));
    let absent = |w: &mut World| w.descriptor((TASK | BUSY) & !PRESENT);
    checks.push(row("P", Box::new(absent), Fault::np(FREE)));
    let short = |w: &mut World| w.descriptor((TASK | BUSY) - 1);
    checks.push(row("limit", Box::new(short), Fault::ts(FREE)));
    // The new task's selectors. The null descriptor is not looked at.
    let null = |at: u64, descriptor: u64| {
        Box::new(move |w: &mut World| {
            w.put(GDT, descriptor);
            w.write(at, &[0, 0]);
        })
    };
    let name = "segments of a task";
    let row = |what, bad, fault| Check { name, ..row(what, bad, in_new_task(fault)) };
    checks.push(row("CS null", null(CS, CODE_DESCRIPTOR), Fault::ts(0)));
    checks.push(row("SS null", null(SS, DATA_DESCRIPTOR), Fault::ts(0)));
    checks.push(row("CS of data", put(CS, selector::DATA), Fault::ts(selector::DATA)));
    checks.push(row("CS of level 3", put(CS, selector::USER_CODE32 & !3), Fault::ts(0x20)));
    checks.push(row("SS of level 3", put(SS, selector::USER_DATA & !3), Fault::ts(0x28)));
    checks.push(row("SS of code", put(SS, selector::CODE32), Fault::ts(selector::CODE32)));
    checks.push(row("DS of the system", put(DS, selector::LDT), Fault::ts(selector::LDT)));
    checks.push(row("ES beyond the limit", put(ES, 0x100), Fault::ts(0x100)));
    checks.push(row("LDT of data", put(LDTR, selector::DATA), Fault::ts(selector::DATA)));
    checks.push(row("LDT in the LDT", put(LDTR, 0x54), Fault::ts(0x54)));
    for (what, at, descriptor, fault) in [
        ("CS not present", CS, CODE_DESCRIPTOR, Fault::np(TARGET)),
        ("SS not present", SS, DATA_DESCRIPTOR, Fault::ss(TARGET)),
        ("DS not present", DS, DATA_DESCRIPTOR, Fault::np(TARGET)),
        ("LDT not present", LDTR, 0x0000_8211_1000_00FF, Fault::ts(TARGET)),
    ] {
        let bad = move |w: &mut World| {
            w.put(GDT + u64::from(TARGET), descriptor & !PRESENT);
            w.write(at, &TARGET.to_le_bytes());
        };
        checks.push(row(what, Box::new(bad), fault));
    }
}

/// The new task's EIP counts before its T bit does.
fn entries(checks: &mut Vec<Check>) {
    let call: Code = |a| {
        a.call(fword_ptr(ebx))?;
        a.nop()
    };
    let jump: Code = |a| {
        a.jmp(fword_ptr(ebx))?;
        a.nop()
    };
    let int: Code = |a| {
        a.int(0x20)?;
        a.nop()
    };
    for (what, code) in [("CALL", call), ("JMP", jump), ("task gate of the IDT", int)] {
        let good = |w: &mut World| {
            tasks(w, 2);
            w.cpu.gpr[3] = DATA;
            w.write(DATA + 4, &FREE.to_le_bytes());
            w.put(DATA + 0x100, 0x8500_0000_0000 | u64::from(FREE) << 16);
            // Vectors before 20H have no gates.
            w.cpu.idtr = x86::DescriptorTable { base: DATA, limit: 0x107 };
            w.put(GDT + u64::from(TARGET), CODE_DESCRIPTOR);
            w.write(CS, &TARGET.to_le_bytes());
        };
        let row = |bad: Box<dyn Fn(&mut World)>, fault| {
            let name = "instruction pointer of a task";
            check(name, Mode::Protected, code, bad, fault).detail(what).good(good)
        };
        let short = |w: &mut World| {
            let short = CODE_DESCRIPTOR & !LIMIT | (CODE + 1);
            w.put(GDT + u64::from(TARGET), short);
            w.write(NEW + 0x64, &[1]);
        };
        checks.push(row(Box::new(short), in_new_task(Fault::GP0)));
        let trap = |w: &mut World| w.write(NEW + 0x64, &[1]);
        let trap = row(Box::new(trap), Fault::trap(Vector::DB));
        checks.push(Check { name: "T bit of a task", ..trap });
        let cut = |w: &mut World| w.descriptor(TASK - 1);
        let cut = row(Box::new(cut), Fault::ts(FREE));
        checks.push(Check { name: "limit of a task", ..cut });
        // A 16-bit task is shorter: a good one would have other registers, a short one has none.
        let cut = |w: &mut World| w.descriptor(TASK & !(8 << 40) & !0xFFFF | 0x2A);
        let cut = row(Box::new(cut), Fault::ts(FREE)).detail(format!("{what}, 16 bits"));
        checks.push(Check { name: "limit of a task", ..cut });
    }
}

pub(crate) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    returns(&mut checks);
    entries(&mut checks);
    checks
}
