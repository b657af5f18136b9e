//! Limits and types of segments: SDM vol. 3A, sections 5.3 to 5.5.

use super::world::{DATA, Mode, World};
use super::{Check, check};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::segment::ar;
use x86::{Fault, SegReg};

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;

const ES: usize = SegReg::ES as usize;
const CS: usize = SegReg::CS as usize;
const SS: usize = SegReg::SS as usize;
const DS: usize = SegReg::DS as usize;
const FS: usize = SegReg::FS as usize;
const GS: usize = SegReg::GS as usize;

/// Protected mode; EBX, ESI, EDI and EBP point to data.
fn row(name: &'static str, code: Code, bad: impl Fn(&mut World) + 'static, fault: Fault) -> Check {
    check(name, Mode::Protected, code, bad, fault).good(|w| {
        for register in [3, 5, 6, 7] {
            w.cpu.gpr[register] = DATA;
        }
    })
}

fn limit(segment: usize, limit: u64) -> impl Fn(&mut World) {
    move |w| w.cpu.seg[segment].limit = limit as u32
}

fn access(segment: usize, change: fn(u32) -> u32) -> impl Fn(&mut World) {
    move |w| w.cpu.seg[segment].access = change(w.cpu.seg[segment].access)
}

fn limits(checks: &mut Vec<Check>) {
    let one_short: [(&str, Code, u64); 7] = [
        ("byte", |a| a.mov(al, byte_ptr(ebx)), 0),
        ("word", |a| a.mov(ax, word_ptr(ebx)), 1),
        ("doubleword read", |a| a.mov(eax, dword_ptr(ebx)), 3),
        ("doubleword write", |a| a.mov(dword_ptr(ebx), eax), 3),
        ("read and write", |a| a.add(dword_ptr(ebx), eax), 3),
        ("x87", |a| a.fld(qword_ptr(ebx)), 7),
        ("vector", |a| a.movups(xmm0, xmmword_ptr(ebx)), 15),
    ];
    for (what, code, last) in one_short {
        let bad = limit(DS, DATA + last - 1);
        checks.push(row("limit of DS", code, bad, Fault::GP0).detail(what));
    }
    let through: [(&str, Code, usize, Fault); 6] = [
        ("ES", |a| a.mov(eax, dword_ptr(ebx).es()), ES, Fault::GP0),
        ("SS", |a| a.mov(eax, dword_ptr(ebp)), SS, Fault::SS0),
        ("FS", |a| a.mov(eax, dword_ptr(ebx).fs()), FS, Fault::GP0),
        ("GS", |a| a.mov(eax, dword_ptr(ebx).gs()), GS, Fault::GP0),
        ("source of a string", |a| a.lodsd(), DS, Fault::GP0),
        ("destination of a string", |a| a.stosd(), ES, Fault::GP0),
    ];
    for (what, code, segment, fault) in through {
        checks
            .push(row("limit of each segment", code, limit(segment, DATA + 2), fault).detail(what));
    }
    checks.push(row(
        "limit of CS, as data",
        |a| a.mov(eax, dword_ptr(ebx).cs()),
        limit(CS, DATA + 2),
        Fault::GP0,
    ));
    let stack: [(&str, Code, u64); 6] = [
        ("PUSH", |a| a.push(eax), 0xEFFE),
        ("POP", |a| a.pop(eax), 0xF002),
        ("PUSHA", |a| a.pushad(), 0xEFE0),
        (
            "CALL",
            |a| {
                let mut next = a.create_label();
                a.call(next)?;
                a.set_label(&mut next)?;
                a.zero_bytes()
            },
            0xEFFE,
        ),
        ("LEAVE", |a| a.leave(), DATA + 2),
        ("PUSHF", |a| a.pushfd(), 0xEFFE),
    ];
    for (what, code, last) in stack {
        checks.push(row("limit of the stack", code, limit(SS, last), Fault::SS0).detail(what));
    }
    let down = access(SS, |access| access | ar::DC);
    let bad = move |w: &mut World| {
        down(w);
        w.cpu.seg[SS].limit = 0xF800;
    };
    checks.push(
        row("limit of the stack", |a| a.push(eax), bad, Fault::SS0).detail("PUSH, expands down"),
    );
    let code: [(&str, Code, u64); 3] = [
        (
            "the next instruction",
            |a| {
                a.nop()?;
                a.nop()
            },
            super::world::CODE,
        ),
        (
            "the middle of an instruction",
            |a| {
                a.nop()?;
                a.mov(eax, 0x1234_5678u32)
            },
            super::world::CODE + 3,
        ),
        (
            "the target of a jump",
            |a| {
                let mut over = a.create_label();
                a.jmp(over)?;
                for _ in 0..20 {
                    a.nop()?;
                }
                a.set_label(&mut over)?;
                a.zero_bytes()
            },
            super::world::CODE + 8,
        ),
    ];
    for (what, code, last) in code {
        checks.push(row("limit of CS", code, limit(CS, last), Fault::GP0).detail(what));
    }
    let down = access(DS, |access| access | ar::DC);
    let bad = move |w: &mut World| {
        down(w);
        w.cpu.seg[DS].limit = DATA as u32;
    };
    checks.push(row(
        "limit of a segment that expands down",
        |a| a.mov(al, byte_ptr(ebx)),
        bad,
        Fault::GP0,
    ));
    let bad = |w: &mut World| {
        w.cpu.seg[DS].access = (w.cpu.seg[DS].access | ar::DC) & !ar::DB;
        w.cpu.seg[DS].limit = 0;
    };
    checks.push(row(
        "end of a segment that expands down, 16 bits",
        |a| a.mov(al, byte_ptr(ebx)),
        bad,
        Fault::GP0,
    ));
}

fn real_mode(checks: &mut Vec<Check>) {
    // What runs over, and the number and value of the register that makes it do so.
    let rows: [(&str, Code, (usize, u64), Fault); 4] = [
        ("DS", |a| a.mov(ax, word_ptr(bx)), (3, 0xFFFF), Fault::GP0),
        ("SS", |a| a.mov(word_ptr(bp), ax), (5, 0xFFFF), Fault::SS0),
        ("PUSH", |a| a.push(ax), (4, 1), Fault::SS0),
        ("32-bit address", |a| a.mov(ax, word_ptr(ebx)), (3, 0x1_0000), Fault::GP0),
    ];
    // Where a segment begins in the middle of a page, its end is no page's.
    for mode in [Mode::Real, Mode::Virtual8086] {
        for (last, address) in [(0xFFFF, 0xFFFF), (0x4000, 0x4000)] {
            let bad = move |w: &mut World| {
                w.cpu.seg[DS].limit = last;
                w.cpu.gpr[3] = address;
            };
            let code: Code = |a| a.mov(ax, word_ptr(bx));
            let row = check("64 KiB in real and V86 mode", mode, code, bad, Fault::GP0);
            checks.push(row.detail(format!("base 10, limit {last:x}")).good(move |w| {
                w.cpu.seg[DS].base = 0x10;
                w.cpu.gpr[3] = address - 1;
            }));
        }
    }
    for mode in [Mode::Real, Mode::Virtual8086] {
        for (what, code, (register, value), fault) in rows {
            let bad = move |w: &mut World| w.cpu.gpr[register] = value;
            let row = check("64 KiB in real and V86 mode", mode, code, bad, fault).detail(what);
            checks.push(row.good(|w| {
                w.cpu.gpr[3] = 0xFFFE;
                w.cpu.gpr[5] = 0xFFFE;
            }));
        }
    }
}

fn types(checks: &mut Vec<Check>) {
    let read_only = |segment| access(segment, |access| access & !ar::RW);
    let execute_only = |segment| access(segment, |access| (access | ar::CODE) & !(ar::RW | ar::DC));
    let code = |segment| access(segment, |access| access | ar::CODE);
    let write: Code = |a| a.mov(dword_ptr(ebx), eax);
    let read: Code = |a| a.mov(eax, dword_ptr(ebx));
    checks.push(row("write to read-only data", write, read_only(DS), Fault::GP0));
    checks.push(
        row("write to read-only data", |a| a.stosd(), read_only(ES), Fault::GP0).detail("string"),
    );
    checks.push(
        row("write to read-only data", |a| a.add(dword_ptr(ebx), 1), read_only(DS), Fault::GP0)
            .detail("read and write"),
    );
    checks.push(
        row("write to read-only data", |a| a.fstp(qword_ptr(ebx)), read_only(DS), Fault::GP0)
            .detail("x87"),
    );
    checks.push(
        row(
            "write to read-only data",
            |a| a.movups(xmmword_ptr(ebx), xmm0),
            read_only(DS),
            Fault::GP0,
        )
        .detail("vector"),
    );
    checks.push(row("write to code", write, code(DS), Fault::GP0));
    checks.push(row("read of execute-only code", read, execute_only(DS), Fault::GP0));
    checks.push(
        row(
            "read of execute-only code",
            |a| a.mov(eax, dword_ptr(ebx).cs()),
            access(CS, |access| access & !ar::RW),
            Fault::GP0,
        )
        .detail("through CS"),
    );
    for (what, code, segment) in [
        ("DS", read, DS),
        ("ES", (|a| a.mov(eax, dword_ptr(ebx).es())) as Code, ES),
        ("FS", (|a| a.mov(eax, dword_ptr(ebx).fs())) as Code, FS),
        ("GS", (|a| a.mov(eax, dword_ptr(ebx).gs())) as Code, GS),
        ("a write", write, DS),
    ] {
        let bad = move |w: &mut World| w.cpu.seg[segment] = x86::Segment::null(0);
        checks.push(row("null selector", code, bad, Fault::GP0).detail(what));
    }
}

pub(crate) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    limits(&mut checks);
    real_mode(&mut checks);
    types(&mut checks);
    checks
}
