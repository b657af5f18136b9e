//! Memory operands: the address through the software TLB, then the copy.

use super::{Show, check, kernel, user};
use iced_x86::code_asm::*;

#[test]
fn memory() {
    check(
        "memory",
        Show::Code,
        &[
            user("load of 1 byte", |a| a.mov(al, byte_ptr(rdi))),
            user("load of 2 bytes", |a| a.mov(ax, word_ptr(rdi))),
            user("load of 4 bytes", |a| a.mov(eax, dword_ptr(rdi))),
            user("load of 8 bytes", |a| a.mov(rax, qword_ptr(rdi))),
            kernel("store of 8 bytes in ring 0", |a| a.mov(qword_ptr(rdi), rax)),
            user("store of an immediate", |a| a.mov(dword_ptr(rdi), 7)),
            user("base, index and displacement", |a| a.mov(eax, dword_ptr(rdi + rcx * 4 - 0x40))),
            user("base in the context", |a| a.mov(rax, qword_ptr(r10 + 8))),
            user("base and index in the context", |a| a.mov(rax, qword_ptr(r10 + r11 * 8))),
            user("the destination in the context", |a| a.mov(r11, qword_ptr(rdi))),
            user("off the stack pointer", |a| a.mov(rax, qword_ptr(rsp + 0x18))),
            user("absolute", |a| a.mov(eax, dword_ptr(0x1234u32))),
            user("relative to RIP", |a| a.mov(rax, qword_ptr(0x40_1100u64))),
            user("32-bit addressing", |a| a.mov(eax, dword_ptr(edi + ecx))),
            user("read, modify and write", |a| a.add(dword_ptr(rdi), ecx)),
            user("increment", |a| a.inc(byte_ptr(rdi + 1))),
            user("high byte", |a| a.mov(ah, byte_ptr(rdi))),
            user("zero and sign extension", |a| {
                a.movzx(eax, byte_ptr(rdi))?;
                a.movsx(rax, word_ptr(rdi + 2))
            }),
            user("several off one base", |a| {
                a.mov(rax, qword_ptr(rdi))?;
                a.mov(rcx, qword_ptr(rdi + 8))?;
                a.mov(qword_ptr(rdi + 16), rax)?;
                a.mov(rdx, qword_ptr(rdi + 24))
            }),
            user("a base that changes", |a| {
                a.mov(rax, qword_ptr(rdi))?;
                a.add(rdi, 8)?;
                a.mov(rcx, qword_ptr(rdi))
            }),
            user("bit test with an immediate", |a| a.bt(dword_ptr(rdi), 3)),
            user("bit test by a register reaches further", |a| a.bt(dword_ptr(rdi), ecx)),
        ],
    );
}
