//! PUSH, POP and their runs, which share one look into the TLB.

use super::{Show, check, user, user32};
use iced_x86::code_asm::*;

#[test]
fn stack() {
    check(
        "stack",
        Show::Code,
        &[
            user("push", |a| a.push(rax)),
            user("push of an immediate", |a| a.push(-1)),
            user("push from memory", |a| a.push(qword_ptr(rdi))),
            user("push of rsp", |a| a.push(rsp)),
            user("pop", |a| a.pop(rcx)),
            user("pop into the context", |a| a.pop(r11)),
            user("pop into memory is left to the helper", |a| a.pop(qword_ptr(rdi))),
            user("a prologue", |a| {
                a.push(rbp)?;
                a.mov(rbp, rsp)?;
                a.push(r9)?;
                a.push(r11)?;
                a.push(rbx)?;
                a.sub(rsp, 0x18)
            }),
            user("an epilogue", |a| {
                a.add(rsp, 0x18)?;
                a.pop(rbx)?;
                a.pop(r11)?;
                a.pop(r9)?;
                a.pop(rbp)?;
                a.ret()
            }),
            user("LEAVE", |a| a.leave()),
            user("16-bit push is left to the helper", |a| a.push(ax)),
            user32("push of 4 bytes", |a| a.push(eax)),
        ],
    );
}
