//! Calls and returns: host CALL and RET in pairs, so that the host predicts them.

use super::{ORIGIN, Show, check, user, user32};
use iced_x86::code_asm::*;

#[test]
fn calls() {
    check(
        "calls",
        Show::Code,
        &[
            user("CALL", |a| a.call(ORIGIN + 0x40)),
            user("CALL by register", |a| a.call(rax)),
            user("CALL by memory", |a| a.call(qword_ptr(rdi + 0x10))),
            user("RET", |a| a.ret()),
            user("RET that releases arguments", |a| a.ret_1(0x10u32)),
            user("flags that live into a call", |a| {
                a.cmp(rax, rcx)?;
                a.call(ORIGIN + 0x40)
            }),
            user32("CALL and its return address, 4 bytes", |a| a.call(ORIGIN + 0x40)),
            user32("RET of 4 bytes", |a| a.ret()),
        ],
    );
}
