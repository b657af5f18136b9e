//! Canonical addresses and alignment: SDM vol. 1, section 3.3.7.1; vol. 3A, section 6.15, interrupt 17.

use super::world::{CODE, DATA, Mode, STACK, World};
use super::{Check, check};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::control::cr0;
use x86::{Fault, flags};

type Code = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// The first address that is not canonical.
const HOLE: u64 = 1 << 47;

/// 64-bit mode; RBX, RBP, RSI and RDI point to data.
fn row(name: &'static str, code: Code, bad: impl Fn(&mut World) + 'static, fault: Fault) -> Check {
    check(name, Mode::Long, code, bad, fault).good(|w| {
        for register in [3, 5, 6, 7] {
            w.cpu.gpr[register] = DATA;
        }
        w.put(STACK, CODE + 0x100);
    })
}

fn register(n: usize, value: u64) -> impl Fn(&mut World) {
    move |w| w.cpu.gpr[n] = value
}

fn canonical(checks: &mut Vec<Check>) {
    let rows: [(&str, Code, usize, Fault); 12] = [
        ("read", |a| a.mov(rax, qword_ptr(rbx)), 3, Fault::GP0),
        ("write", |a| a.mov(qword_ptr(rbx), rax), 3, Fault::GP0),
        ("read and write", |a| a.add(qword_ptr(rbx), rax), 3, Fault::GP0),
        ("byte", |a| a.mov(al, byte_ptr(rbx)), 3, Fault::GP0),
        ("by RBP", |a| a.mov(rax, qword_ptr(rbp)), 5, Fault::SS0),
        ("by RSP", |a| a.mov(rax, qword_ptr(rsp)), 4, Fault::SS0),
        ("x87", |a| a.fld(qword_ptr(rbx)), 3, Fault::GP0),
        ("vector", |a| a.movups(xmm0, xmmword_ptr(rbx)), 3, Fault::GP0),
        ("source of a string", |a| a.lodsq(), 6, Fault::GP0),
        ("destination of a string", |a| a.stosq(), 7, Fault::GP0),
        ("POP", |a| a.pop(rax), 4, Fault::SS0),
        ("LEAVE", |a| a.leave(), 5, Fault::SS0),
    ];
    for (what, code, n, fault) in rows {
        checks.push(row("canonical address of data", code, register(n, HOLE), fault).detail(what));
    }
    // Beyond the hole's other end, and into it with the last byte.
    let read: Code = |a| a.mov(rax, qword_ptr(rbx));
    checks.push(
        row("canonical address of data", read, register(3, !HOLE), Fault::GP0)
            .detail("below the upper half"),
    );
    checks.push(
        row("canonical address of data", read, register(3, HOLE - 4), Fault::GP0)
            .detail("into the hole"),
    );
    checks.push(
        row("canonical address of data", |a| a.push(rax), register(4, HOLE + 8), Fault::SS0)
            .detail("PUSH"),
    );
    let bad = |w: &mut World| w.cpu.seg[4].base = HOLE;
    let read: Code = |a| a.mov(rax, qword_ptr(rbx).fs());
    checks.push(row("canonical address of data", read, bad, Fault::GP0).detail("FS"));
    let jump: Code = |a| {
        let mut next = a.create_label();
        a.lea(rcx, qword_ptr(next))?;
        a.or(rax, rcx)?;
        a.jmp(rax)?;
        a.set_label(&mut next)?;
        a.zero_bytes()
    };
    checks.push(row("canonical target", jump, register(0, HOLE), Fault::GP0).detail("JMP"));
    let call: Code = |a| {
        let mut next = a.create_label();
        a.lea(rcx, qword_ptr(next))?;
        a.or(rax, rcx)?;
        a.call(rax)?;
        a.set_label(&mut next)?;
        a.zero_bytes()
    };
    checks.push(row("canonical target", call, register(0, HOLE), Fault::GP0).detail("CALL"));
    let ret: Code = |a| {
        let mut next = a.create_label();
        a.lea(rcx, qword_ptr(next))?;
        a.or(rax, rcx)?;
        a.push(rax)?;
        a.ret()?;
        a.set_label(&mut next)?;
        a.zero_bytes()
    };
    checks.push(row("canonical target", ret, register(0, HOLE), Fault::GP0).detail("RET"));
    let user: Code = |a| {
        let mut next = a.create_label();
        a.lea(rcx, qword_ptr(next))?;
        a.or(rax, rcx)?;
        a.mov(rdx, rsp)?;
        a.push(0x10)?;
        a.push(rdx)?;
        a.push(2)?;
        a.push(0x18)?;
        a.push(rax)?;
        a.iretq()?;
        a.set_label(&mut next)?;
        a.zero_bytes()
    };
    checks.push(row("canonical target", user, register(0, HOLE), Fault::GP0).detail("IRET"));
    for (what, code) in [
        ("LGDT", (|a| a.lgdt(ptr(rbx))) as Code),
        (
            "LIDT",
            (|a| {
                a.sidt(ptr(rbx + 16))?;
                a.lidt(ptr(rbx))
            }) as Code,
        ),
    ] {
        let bad = |w: &mut World| w.put(DATA + 2, HOLE);
        let check = row("canonical base", code, bad, Fault::GP0).detail(what);
        // The good one loads what there is.
        let good = check.good;
        let gdt = what == "LGDT";
        checks.push(Check {
            good: Box::new(move |w| {
                good(w);
                w.write(DATA, &if gdt { 0xFFu16 } else { 0 }.to_le_bytes());
                w.put(DATA + 2, if gdt { super::world::GDT } else { 0 });
            }),
            ..check
        });
    }
    for (what, code) in
        [("WRFSBASE", (|a| a.wrfsbase(rax)) as Code), ("WRGSBASE", (|a| a.wrgsbase(rax)) as Code)]
    {
        let check = row("canonical base", code, register(0, HOLE), Fault::GP0).detail(what);
        checks.push(check.good(|w| w.cpu.cr4 |= x86::control::cr4::FSGSBASE));
    }
}

fn alignment(checks: &mut Vec<Check>) {
    let off_by = |n: u64| register(3, DATA + n);
    let rows: [(&str, Code, u64); 5] = [
        ("MOVAPS", |a| a.movaps(xmm0, xmmword_ptr(rbx)), 8),
        ("MOVAPS, write", |a| a.movaps(xmmword_ptr(rbx), xmm0), 1),
        ("ADDPS", |a| a.addps(xmm0, xmmword_ptr(rbx)), 4),
        ("FXSAVE", |a| a.fxsave(ptr(rbx)), 8),
        ("CMPXCHG16B", |a| a.cmpxchg16b(xmmword_ptr(rbx)), 8),
    ];
    for (what, code, off) in rows {
        checks.push(row("alignment of 16 bytes", code, off_by(off), Fault::GP0).detail(what));
    }
    for (what, code) in
        [("XSAVE", (|a| a.xsave(ptr(rbx))) as Code), ("XRSTOR", (|a| a.xrstor(ptr(rbx))) as Code)]
    {
        for off in [8, 32] {
            let check = row("alignment of 64 bytes", code, off_by(off), Fault::GP0);
            checks.push(check.detail(format!("{what}, {off}")).good(|w| {
                w.put(DATA + 24, 0x1F80);
                (w.cpu.gpr[0], w.cpu.gpr[3]) = (3, DATA);
            }));
        }
    }
    for (what, code) in [
        ("read", (|a| a.mov(eax, dword_ptr(ebx))) as Code),
        ("write", (|a| a.mov(dword_ptr(ebx), eax)) as Code),
        ("read and write", (|a| a.add(dword_ptr(ebx), eax)) as Code),
        ("word", (|a| a.mov(ax, word_ptr(ebx))) as Code),
        ("x87", (|a| a.fld(dword_ptr(ebx))) as Code),
    ] {
        let bad = |w: &mut World| w.cpu.gpr[3] = World::linear(Mode::PagedUser) + 1;
        checks.push(check("EFLAGS.AC", Mode::PagedUser, code, bad, Fault::AC0).detail(what).good(
            |w| {
                w.cpu.gpr[3] = World::linear(Mode::PagedUser);
                w.cpu.cr0 |= cr0::AM;
                w.cpu.rflags |= flags::AC;
            },
        ));
    }
}

pub(crate) fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    canonical(&mut checks);
    alignment(&mut checks);
    checks
}
