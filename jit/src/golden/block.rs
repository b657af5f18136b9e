//! Whole blocks: entry, poll, side exit and trampolines as well.

use super::{ORIGIN, Show, check, user};
use iced_x86::code_asm::*;

#[test]
fn block() {
    check(
        "block",
        Show::Everything,
        &[
            user("flags dead at the entry", |a| a.xor(eax, eax)),
            user("flags live at the entry", |a| a.adc(eax, 0)),
            user("vector and x87 registers are wanted", |a| {
                a.addsd(xmm0, xmm1)?;
                a.fadd_2(st0, st1)
            }),
            user("a function", |a| {
                a.push(rbx)?;
                a.mov(rbx, rdi)?;
                a.test(rdi, rdi)?;
                a.je(ORIGIN + 0x40)?;
                a.call(ORIGIN + 0x80)
            }),
        ],
    );
}
