//! 32-bit code: the same host code but for widths, and for encodings that 64-bit mode lacks. Real
//! mode: segments with bases and limits.

use super::{Body, ORIGIN, Show, Snippet, check, user32};
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

/// A snippet of real-mode code.
const fn real(name: &'static str, body: Body) -> Snippet {
    Snippet { name, bits: 16, ring: 0, body }
}

#[test]
fn real_mode() {
    check(
        "real_mode",
        Show::Code,
        &[
            real("a load through DS", |a| a.mov(al, byte_ptr(bx))),
            real("a store through SS", |a| a.mov(word_ptr(bp + 4), ax)),
            real("an override", |a| a.mov(ax, word_ptr(di + 2).es())),
            real("push and pop", |a| {
                a.push(ax)?;
                a.pop(dx)
            }),
            real("a loop", |a| {
                let mut top = a.create_label();
                a.set_label(&mut top)?;
                a.add(ax, bx)?;
                a.dec(cx)?;
                a.jne(top)
            }),
            real("a call", |a| a.call(0x1040)),
            real("RET", |a| a.ret()),
            real("a software interrupt is the helper's", |a| a.int(0x10)),
        ],
    );
}
