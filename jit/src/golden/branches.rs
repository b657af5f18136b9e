//! Jumps: side exits, loops, unrolled loops, indirect jumps.

use super::{ORIGIN, Show, check, user};
use iced_x86::code_asm::*;

#[test]
fn branches() {
    check(
        "branches",
        Show::Code,
        &[
            user("JMP", |a| a.jmp(ORIGIN + 0x40)),
            user("JMP into another page", |a| a.jmp(ORIGIN + 0x1_0000)),
            user("a side exit", |a| {
                a.test(rax, rax)?;
                a.je(ORIGIN + 0x40)?;
                a.mov(ecx, 1)?;
                a.ret()
            }),
            user("two side exits", |a| {
                a.cmp(eax, 10)?;
                a.ja(ORIGIN + 0x40)?;
                a.je(ORIGIN + 0x80)?;
                a.inc(eax)
            }),
            user("a branch on flags saved by a load", |a| {
                a.cmp(eax, 10)?;
                a.mov(rcx, qword_ptr(rdi))?;
                a.jl(ORIGIN + 0x40)?;
                a.nop()
            }),
            user("a loop of one block, laid out four times", |a| {
                let mut top = a.create_label();
                a.set_label(&mut top)?;
                a.add(rax, rcx)?;
                a.dec(ecx)?;
                a.jne(top)
            }),
            user("a loop over memory", |a| {
                let mut top = a.create_label();
                a.set_label(&mut top)?;
                a.add(eax, dword_ptr(rdi))?;
                a.add(rdi, 4)?;
                a.cmp(rdi, rsi)?;
                a.jne(top)
            }),
            user("a branch backwards ends the block", |a| {
                a.dec(ecx)?;
                a.jne(ORIGIN - 0x20)?;
                a.nop()
            }),
            user("indirect, by register", |a| a.jmp(rax)),
            user("indirect, by a register of the context", |a| a.jmp(r11)),
            user("indirect, by memory: a jump table", |a| a.jmp(qword_ptr(rdi + rax * 8))),
            user("LOOP is left to the helper", |a| a.loop_(ORIGIN)),
        ],
    );
}
