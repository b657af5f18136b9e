//! Segment overrides and selectors.

use super::{Show, check, kernel, user, user32};
use iced_x86::code_asm::*;

#[test]
fn segments() {
    check(
        "segments",
        Show::Code,
        &[
            user("thread-local load through FS", |a| a.mov(rax, qword_ptr(0x28u32).fs())),
            kernel("per-CPU increment through GS", |a| a.inc(dword_ptr(rdi).gs())),
            user("FS with base and index", |a| a.mov(eax, dword_ptr(rdi + rcx * 2 + 8).fs())),
            user("a selector is read", |a| {
                a.mov(eax, ds)?;
                a.mov(r10w, fs)
            }),
            kernel("a selector is written", |a| a.mov(es, ax)),
            user32("DS and SS need no base", |a| {
                a.mov(eax, dword_ptr(ebx))?;
                a.mov(dword_ptr(ebp + 8), eax)
            }),
        ],
    );
}
