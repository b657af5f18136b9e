//! Flags: saved around inserted code where they live, forgotten where they are dead.

use super::{Show, check, user};
use iced_x86::code_asm::*;

#[test]
fn flags() {
    check(
        "flags",
        Show::Code,
        &[
            user("dead at a load, since CMP writes them", |a| {
                a.mov(rax, qword_ptr(rdi))?;
                a.cmp(rax, rcx)
            }),
            user("live over a load", |a| {
                a.cmp(rax, rcx)?;
                a.mov(rdx, qword_ptr(rdi))?;
                a.sete(dl)
            }),
            user("read by the instruction with the memory operand", |a| {
                a.cmp(rax, rcx)?;
                a.adc(rdx, qword_ptr(rdi))
            }),
            user("saved once for two loads", |a| {
                a.cmp(rax, rcx)?;
                a.mov(rdx, qword_ptr(rdi))?;
                a.mov(rsi, qword_ptr(rsi))?;
                a.cmove(rdx, rsi)
            }),
            user("INC keeps CF", |a| {
                a.add(rax, rcx)?;
                a.inc(dword_ptr(rdi))?;
                a.adc(rdx, 0)
            }),
            user("a shift by CL may keep all", |a| {
                a.add(rax, rcx)?;
                a.shl(qword_ptr(rdi), cl)
            }),
            user("live at the block's beginning", |a| {
                a.mov(rax, qword_ptr(rdi))?;
                a.adc(rax, 0)
            }),
            user("carry instructions", |a| {
                a.stc()?;
                a.cmc()?;
                a.clc()?;
                a.lahf()
            }),
            user("conditional move from memory", |a| {
                a.test(eax, eax)?;
                a.cmovne(eax, dword_ptr(rdi))
            }),
        ],
    );
}
