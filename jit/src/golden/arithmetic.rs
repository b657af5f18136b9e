//! Integer instructions on registers: copies as they are, but for registers that live elsewhere.

use super::{Show, check, user};
use iced_x86::code_asm::*;

#[test]
fn arithmetic() {
    check(
        "arithmetic",
        Show::Code,
        &[
            user("two pinned registers", |a| a.add(rax, rcx)),
            user("two pinned registers", |a| a.sub(r12d, ebx)),
            user("r9 to r11 live in the context", |a| a.add(r10, rax)),
            user("a segment prefix without a memory operand", |a| a.db(&[0x64, 0x4C, 0x01, 0xC8])),
            user("two registers of the context", |a| a.xor(r11d, r9d)),
            user("read only", |a| a.cmp(r10, rax)),
            user("the stack pointer sits in r9", |a| a.sub(rsp, 0x28)),
            user("low bytes", |a| {
                a.add(al, bl)?;
                a.add(r10b, cl)?;
                a.mov(sil, r11b)
            }),
            user("high bytes", |a| {
                a.mov(ah, bl)?;
                a.add(ch, dh)?;
                a.movzx(eax, bh)
            }),
            user("16-bit operands", |a| {
                a.inc(ax)?;
                a.imul_2(r10w, cx)
            }),
            user("immediates", |a| {
                a.mov(rax, 0x1122_3344_5566_7788u64)?;
                a.mov(r10, 5u64)?;
                a.and(ecx, 0xFF)
            }),
            user("multiplication", |a| {
                a.mul(rcx)?;
                a.imul_3(rax, r11, 10)
            }),
            user("division, unsigned", |a| a.div(rcx)),
            user("division, signed, by a register of the context", |a| a.idiv(r10d)),
            user("LEA", |a| {
                a.lea(rax, ptr(rdi + rcx * 4 + 0x10))?;
                a.lea(r10, ptr(r11 + r9))?;
                a.lea(eax, ptr(rdi + 1))
            }),
            user("exchange", |a| {
                a.xchg(rax, r10)?;
                a.bswap(edx)
            }),
            user("conversions", |a| {
                a.cdqe()?;
                a.cqo()?;
                a.movsxd(rcx, edx)
            }),
            user("BMI2", |a| {
                a.rorx(rax, rcx, 8)?;
                a.shlx(r10, rax, rcx)?;
                a.andn(eax, ecx, edx)
            }),
            user("no operation", |a| {
                a.nop()?;
                a.endbr64()
            }),
        ],
    );
}
