//! Privileged and sensitive instructions: on the virtual state, or left to helpers.

use super::{Show, check, kernel, user};
use iced_x86::code_asm::*;

#[test]
fn system() {
    check(
        "system",
        Show::Code,
        &[
            kernel("CLI and STI", |a| {
                a.cli()?;
                a.sti()?;
                a.nop()
            }),
            user("CLI in ring 3 is the helper's", |a| a.cli()),
            kernel("PUSHFQ", |a| a.pushfq()),
            kernel("POPFQ", |a| a.popfq()),
            user("CPUID", |a| a.cpuid()),
            user("RDTSC", |a| a.rdtsc()),
            kernel("control registers", |a| {
                a.mov(rax, cr3)?;
                a.mov(cr3, rax)
            }),
            kernel("port input", |a| a.in_(al, dx)),
            kernel("SYSRET", |a| a.sysretq()),
            user("SYSCALL", |a| a.syscall()),
            kernel("INVLPG", |a| a.invlpg(ptr(rdi))),
            kernel("HLT", |a| a.hlt()),
            user("INT3", |a| a.int3()),
            user("UD2", |a| a.ud2()),
        ],
    );
}
