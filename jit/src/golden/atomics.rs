//! LOCK and XCHG: on the host address, aligned; what is not aligned takes the slow path.

use super::{Show, check, user};
use iced_x86::code_asm::*;

#[test]
fn atomics() {
    check(
        "atomics",
        Show::Code,
        &[
            user("LOCK ADD", |a| a.lock().add(dword_ptr(rdi), eax)),
            user("LOCK CMPXCHG", |a| a.lock().cmpxchg(qword_ptr(rdi), rcx)),
            user("LOCK XADD with a register of the context", |a| {
                a.lock().xadd(dword_ptr(rdi), r10d)
            }),
            user("XCHG with memory is always locked", |a| a.xchg(qword_ptr(rdi), rax)),
            user("CMPXCHG16B", |a| a.lock().cmpxchg16b(xmmword_ptr(rdi))),
            user("fences", |a| {
                a.mfence()?;
                a.lfence()?;
                a.pause()
            }),
        ],
    );
}
