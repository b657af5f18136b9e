//! 32-bit code: the same host code but for widths, and for encodings that 64-bit mode lacks.

use super::{ORIGIN, Show, check, user32};
use iced_x86::code_asm::*;

#[test]
fn modes() {
    check(
        "modes",
        Show::Code,
        &[
            user32("INC in one byte", |a| a.inc(eax)),
            user32("a load", |a| a.mov(eax, dword_ptr(esi + 4))),
            user32("a load from an absolute address", |a| a.mov(eax, dword_ptr(0x8000_1234u32))),
            user32("push and pop", |a| {
                a.push(ebx)?;
                a.push(esi)?;
                a.pop(edi)
            }),
            user32("a branch", |a| {
                a.test(eax, eax)?;
                a.je(ORIGIN + 0x40)?;
                a.nop()
            }),
            user32("16-bit addressing", |a| a.mov(al, byte_ptr(bx + si))),
            user32("decimal adjustment is the helper's", |a| a.daa()),
            user32("PUSHAD", |a| a.pushad()),
            user32("indirect jump", |a| a.jmp(eax)),
        ],
    );
}
