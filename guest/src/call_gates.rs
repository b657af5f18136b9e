//! Privilege in protected mode: down to ring 3 by a far return, up again through call gates.
//!
//! A gate names the one entry point that the outer ring may call, and how many parameters the
//! processor shall copy from the outer stack to the inner one (SDM volume 3, 5.8.3 to 5.8.6).
//! Ring 3 cannot print here, so it leaves what it found for ring 0 to check.

use crate::Error;
use crate::arch::selector;
use crate::asm::{Asm, asm};
use crate::layout::CALLER_STACK;
use iced_x86::code_asm::*;

/// Doublewords that the gate to the adder copies.
pub(crate) const PARAMETERS: u8 = 2;

/// The excursion. 32-bit code.
pub(crate) fn excursion(a: &mut Asm) -> Result<(), Error> {
    let caller = CALLER_STACK as u32;
    for name in ["esp", "cs", "sum", "balance"] {
        a.variable(&format!("call_gates.{name}"));
    }
    asm!(a;
        label "call_gates";
        mov  dword_ptr(a.addr("call_gates.esp")), esp;
        push_immediate selector::USER_DATA;
        push_immediate caller;
        push_immediate selector::USER_CODE32;
        push_immediate a.addr32(".ring3");
        retf;

        label ".ring3";
        mov  eax, selector::USER_DATA;      // the return has emptied DS: its DPL was 0
        mov  ds, eax;
        mov  eax, cs;
        mov  dword_ptr(a.addr("call_gates.cs")), eax;

        mov  dword_ptr(a.addr("trap.resume")), a.addr32(".refused");
        mov  eax, selector::DATA32;
        mov  es, eax;                       // not for ring 3: #GP
        label ".refused";
        mov  eax, selector::USER_DATA;
        mov  ds, eax;

        push_immediate 40;
        push_immediate 2;
        call_far selector::GATE_ADD as u16, 0;
        mov  dword_ptr(a.addr("call_gates.sum")), eax;
        mov  dword_ptr(a.addr("call_gates.balance")), esp;
        call_far selector::GATE_LEAVE as u16, 0;

        // Ring 0, on the stack of the TSS: return address, parameters, the caller's SS:ESP.
        label "call_gates.add";
        mov  eax, dword_ptr(esp + 8);
        add  eax, dword_ptr(esp + 12);
        retf_1 u32::from(PARAMETERS) * 4;   // drops the parameters of both stacks

        label "call_gates.leave";
        mov  eax, selector::DATA32;
        mov  ds, eax;
        mov  es, eax;
        mov  fs, eax;
        mov  gs, eax;
        mov  esp, dword_ptr(a.addr("call_gates.esp"));
        mov  eax, dword_ptr(a.addr("call_gates.cs"));
        check "call gates: CS in ring 3", selector::USER_CODE32.into();
        mov  eax, dword_ptr(a.addr("trap.vector"));
        check "call gates: ring 3 loads a segment of ring 0: #GP, vector", 13;
        mov  eax, dword_ptr(a.addr("trap.error"));
        check "call gates: the same #GP, its error code", selector::DATA32.into();
        mov  eax, dword_ptr(a.addr("call_gates.sum"));
        check "call gates: the sum of two parameters, from ring 0", 42;
        mov  eax, dword_ptr(a.addr("call_gates.balance"));
        check "call gates: ESP of ring 3 after the call", CALLER_STACK;
        xor  eax, eax;
        mov  ax, ss;
        check "call gates: SS back in ring 0", selector::DATA32.into();
    );
    Ok(())
}
