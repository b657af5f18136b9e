//! System calls: one dispatcher behind SYSCALL and INT 80h.
//!
//! The number goes in EAX, arguments in RDI, RSI and RDX; RAX returns the result. SYSCALL
//! destroys RCX and R11.

use crate::Error;
use crate::arch::{
    EFLAGS_DF, EFLAGS_IF, EFLAGS_TF, IA32_FMASK, IA32_KERNEL_GS_BASE, IA32_LSTAR, IA32_STAR, high,
    selector,
};
use crate::asm::{Asm, asm};
use crate::interrupts::frame;
use crate::layout::ENTRY_STACK;
use iced_x86::code_asm::*;

/// Ends the program; RDI = status.
pub(crate) const SYSTEM_CALL_EXIT: u32 = 0;
/// Reports a check; RDI = text, RSI = value, RDX = expected value.
pub(crate) const SYSTEM_CALL_REPORT: u32 = 1;
/// Tells of the last fault: RAX = vector, RDX = error code, RDI = RIP, RSI = CR2.
pub(crate) const SYSTEM_CALL_FAULT: u32 = 2;
/// RAX = RDI + RSI, the simplest thing to check.
pub(crate) const SYSTEM_CALL_ADD: u32 = 3;
/// RAX = single steps counted since the last such call.
pub(crate) const SYSTEM_CALL_STEPS: u32 = 4;

/// Sets up SYSCALL's MSRs.
pub(crate) fn initialize(a: &mut Asm) -> Result<(), Error> {
    // What SWAPGS brings in: the stack to run on, and room for the caller's RSP.
    let processor =
        a.datum("system_call.processor", &[high(ENTRY_STACK).to_le_bytes(), [0; 8]].concat());
    let entry = a.addr("system_call.entry");
    let registers = [
        (IA32_STAR, u64::from(selector::SYSRET_BASE | 3) << 48 | u64::from(selector::CODE64) << 32),
        (IA32_LSTAR, entry),
        (IA32_FMASK, u64::from(EFLAGS_IF | EFLAGS_TF | EFLAGS_DF)),
        (IA32_KERNEL_GS_BASE, processor),
    ];
    asm!(a; label "system_calls.initialize";);
    for (register, value) in registers {
        asm!(a;
            mov  ecx, register;
            mov  eax, value as u32;
            mov  edx, (value >> 32) as u32;
            wrmsr;
        );
    }
    Ok(())
}

/// Both entries and the dispatcher.
pub(crate) fn routines(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        // SYSCALL changes neither RSP nor the TSS: the first thing to find is a stack.
        label "system_call.entry";
        swapgs;
        mov  qword_ptr(8).gs(), rsp;
        mov  rsp, qword_ptr(0).gs();
        push qword_ptr(8).gs();
        swapgs;
        push rcx;                           // the caller's RIP
        push r11;                           // and RFLAGS
        call "system_call";
        pop  r11;
        pop  rcx;
        pop  rsp;
        sysretq;

        // INT 80h comes with a trap frame like any interrupt.
        label "system_call.interrupt";
        mov  rax, qword_ptr(rbp + frame::RAX);
        call "system_call";
        mov  qword_ptr(rbp + frame::RAX), rax;
        mov  qword_ptr(rbp + frame::RDX), rdx;
        mov  qword_ptr(rbp + frame::RDI), rdi;
        mov  qword_ptr(rbp + frame::RSI), rsi;
        jmp  "trap.return";

        label "system_call";
        cmp  eax, SYSTEM_CALL_EXIT;
        je   "user.leave";
        cmp  eax, SYSTEM_CALL_REPORT;
        je   ".report";
        cmp  eax, SYSTEM_CALL_FAULT;
        je   ".fault";
        cmp  eax, SYSTEM_CALL_ADD;
        je   ".add";
        cmp  eax, SYSTEM_CALL_STEPS;
        je   ".steps";
        or   rax, -1;                       // no such call
        ret;

        label ".report";
        mov  rax, rsi;
        mov  rsi, rdi;
        call "report";
        ret;

        label ".fault";
        mov  rsi, qword_ptr(a.addr("trap.cr2"));
        load_fault;
        ret;

        label ".add";
        lea  rax, ptr(rdi + rsi);
        ret;

        label ".steps";
        xor  eax, eax;
        xchg qword_ptr(a.addr("trap.steps")), rax;
        ret;
    );
    Ok(())
}
