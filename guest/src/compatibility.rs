//! Compatibility mode: 32-bit code in ring 3 while the kernel stays in long mode.
//!
//! The probe comes here by a far return, and goes back by a far jump: CS.L alone decides which
//! of the two instruction sets runs. INT 80h is the system call of both.

use crate::Error;
use crate::arch::selector;
use crate::asm::{Asm, asm};
use iced_x86::code_asm::*;

/// The whole section.
pub(crate) fn section(a: &mut Asm) -> Result<(), Error> {
    if !a.options().parts.compatibility {
        return Ok(());
    }
    asm!(a;
        label "start";
        xor  eax, eax;
        mov  ax, cs;
        check "compatibility mode: CS", u64::from(selector::USER_CODE32);

        // The byte 40h is INC EAX here and a REX prefix in 64-bit code.
        mov  eax, 41;
        db   &[0x40];
        nop;
        check "compatibility mode: INC EAX in one byte", 42;

        // Instructions that 64-bit mode has dropped.
        mov  eax, 0x000F;
        aaa;
        check "compatibility mode: AAA of 0Fh", 0x105;
        mov  ecx, esp;
        pushad;
        mov  eax, ecx;
        sub  eax, esp;
        mov  esp, ecx;
        check "compatibility mode: bytes that PUSHAD pushes", 32;

        // Addresses wrap at 4 GiB. The way to ring 3 has emptied DS, which 64-bit code does not
        // notice and this code would.
        mov  eax, selector::USER_DATA;
        mov  ds, eax;
        mov  ebx, 0xFFFF_FFFFu32;
        mov  eax, dword_ptr(ebx + a.addr32("word") + 1);
        check "compatibility mode: a load whose address wraps", 0xC0DE;

        jmp_far selector::USER_CODE as u16, a.addr32("user/probe.back");
    );
    a.datum("word", &0xC0DEu32.to_le_bytes());
    Ok(())
}

/// The excursion, seen from 64-bit code.
pub(crate) fn excursion(a: &mut Asm) -> Result<(), Error> {
    a.expect_section("compatibility");
    asm!(a;
        label "probe.compatibility";
        push_immediate selector::USER_CODE32;
        push_immediate a.addr32("compatibility/start");
        retfq;
        label "probe.back";
        xor  eax, eax;
        mov  ax, cs;
        check "ring 3: CS back in 64-bit mode", u64::from(selector::USER_CODE);
    );
    Ok(())
}
