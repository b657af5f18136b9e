//! Virtual-8086 mode: real-mode code as a task of protected mode, and the monitor above it.
//!
//! With IOPL 0 every CLI, HLT and INT of the task raises #GP, and the monitor decides what the
//! task shall believe has happened: trap and emulate, the oldest kind of virtualization on x86.

use crate::Error;
use crate::arch::{EFLAGS_FIXED, EFLAGS_VM};
use crate::asm::{Asm, asm};
use crate::layout::VIRTUAL_8086_STACK;
use crate::protected_mode::frame;
use iced_x86::code_asm::*;

/// The interrupt the task asks for: to the monitor, a request to double AX.
const REQUEST: u32 = 0x21;
/// A segment number that the task computes with.
const SEGMENT: u32 = 0x0700;

/// What it adds to that.
const SUMMAND: u32 = 0x1111;
/// AX at its end, after the monitor has doubled it.
const DOUBLED: u64 = (SEGMENT as u64 + SUMMAND as u64) * 2;

/// The task, in the 16-bit section.
pub(crate) fn task(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "virtual_8086_task";
        mov  ax, SEGMENT;
        mov  ds, ax;
        mov  ax, ds;                        // no descriptor was consulted
        add  ax, SUMMAND;
        cli;                                // the monitor ignores it
        int  REQUEST;                       // the monitor doubles AX
        hlt;                                // the monitor ends the task
        label ".forever";
        jmp  ".forever";
    );
    Ok(())
}

/// Enters the task and checks what came of it. 32-bit code.
pub(crate) fn excursion(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "virtual_8086";
        mov  dword_ptr(a.addr("virtual_8086.esp")), esp;
        // IRETD to EFLAGS.VM takes nine doublewords (SDM volume 3, 21.2.5).
        push_immediate 0;                             // GS
        push_immediate 0;                             // FS
        push_immediate 0;                             // DS
        push_immediate 0;                             // ES
        push_immediate 0;                             // SS
        push_immediate VIRTUAL_8086_STACK;
        push_immediate EFLAGS_VM | EFLAGS_FIXED;
        push_immediate 0;                             // CS
        push_immediate a.addr32("real/virtual_8086_task");
        iretd;

        label "virtual_8086.ended";         // EAX = the task's AX
        check "virtual-8086: AX after segment arithmetic and a doubling INT", DOUBLED;
        mov   eax, dword_ptr(a.addr("virtual_8086.interrupt"));
        check "virtual-8086: the INT that the monitor decoded", u64::from(REQUEST);
        mov   eax, dword_ptr(a.addr("virtual_8086.traps"));
        check "virtual-8086: sensitive instructions that trapped", 3;
    );
    for name in ["esp", "interrupt", "traps"] {
        a.variable(&format!("virtual_8086.{name}"));
    }
    Ok(())
}

/// Where the exceptions of the task end up, with EBP = its frame. 32-bit code.
pub(crate) fn monitor(a: &mut Asm) -> Result<(), Error> {
    let [int, cli, hlt] = [0xCD, 0xFA, 0xF4];
    asm!(a;
        label "virtual_8086.monitor";
        cmp  dword_ptr(ebp + frame::VECTOR), 13;
        jne  "trap.unexpected";
        inc  dword_ptr(a.addr("virtual_8086.traps"));
        movzx ebx, word_ptr(ebp + frame::CS);
        shl  ebx, 4;
        add  ebx, dword_ptr(ebp + frame::EIP);
        cmp  byte_ptr(ebx), int;
        je   ".int";
        cmp  byte_ptr(ebx), cli;
        je   ".cli";
        cmp  byte_ptr(ebx), hlt;
        jne  "trap.unexpected";

        label ".hlt";
        mov  eax, dword_ptr(ebp + frame::EAX);
        and  eax, 0xFFFF;
        mov  esp, dword_ptr(a.addr("virtual_8086.esp"));
        jmp  "virtual_8086.ended";

        label ".cli";
        inc  word_ptr(ebp + frame::EIP);
        jmp  "trap.return";

        label ".int";
        movzx eax, byte_ptr(ebx + 1);
        mov  dword_ptr(a.addr("virtual_8086.interrupt")), eax;
        shl  dword_ptr(ebp + frame::EAX), 1;
        add  word_ptr(ebp + frame::EIP), 2;
        jmp  "trap.return";
    );
    Ok(())
}
