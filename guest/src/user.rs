//! The programs that run in ring 3: a probe that provokes the processor, and a counter.

use crate::arch::high;
use crate::asm::{Asm, asm};
use crate::exceptions::{SINGLE_STEP_EXTRA, expect_fault};
use crate::interrupts::{SYSTEM_CALL_VECTOR, TIMER_VECTOR};
use crate::layout::{LOAD_BASE, USER_CODE, USER_DATA, USER_LAZY};
use crate::system_calls::{
    SYSTEM_CALL_ADD, SYSTEM_CALL_EXIT, SYSTEM_CALL_FAULT, SYSTEM_CALL_STEPS,
};
use crate::{Error, compatibility};
use iced_x86::code_asm::*;

/// What the probe exits with.
pub(crate) const PROBE_STATUS: u64 = 0x77;
/// Offset in the data page of a task's counter, quadword.
pub(crate) const TASK_COUNTER: u64 = 0;
/// Offset in the data page of a task's note that its registers were not its own, quadword.
pub(crate) const TASK_CORRUPT: u64 = 8;
/// Rounds after which a task gives up: there is no timer.
const TASK_PATIENCE: u32 = 1 << 31;

/// The whole user section.
pub(crate) fn section(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "probe";
        xor  eax, eax;
        mov  ax, cs;
        and  eax, 3;
        check "ring 3: CPL", 3;
    );
    memory(a)?;
    system_calls(a)?;
    faults(a)?;
    if a.options().parts.compatibility {
        compatibility::excursion(a)?;
    }
    asm!(a;
        mov  edi, PROBE_STATUS as u32;
        mov  eax, SYSTEM_CALL_EXIT;
        syscall;
    );
    count(a)
}

/// A page that comes when it is touched.
fn memory(a: &mut Asm) -> Result<(), Error> {
    const TOUCHED: u64 = USER_LAZY + 0x7F8;
    a.expect_line(&format!("page fault: mapping the page of CR2 = {TOUCHED:#x}, error code = 0x6"));
    asm!(a;
        label "probe.memory";
        mov  rbx, TOUCHED;
        mov  dword_ptr(rbx), 0xFEED;        // faults, and is executed again
        mov  eax, dword_ptr(rbx);
        check "ring 3: the page mapped on demand holds what was written", 0xFEED;
        mov  eax, SYSTEM_CALL_FAULT;
        syscall;
        mov  rax, rsi;
        check "ring 3: CR2 of that page fault", TOUCHED;
    );
    Ok(())
}

/// The same call, both ways in.
fn system_calls(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "probe.system_calls";
        mov  edi, 40;
        mov  esi, 2;
        mov  eax, SYSTEM_CALL_ADD;
        syscall;
        check "ring 3: SYSCALL adds 40 and 2", 42;
        mov  rdi, -40i64;
        mov  esi, 2;
        mov  eax, SYSTEM_CALL_ADD;
        int  SYSTEM_CALL_VECTOR;
        check "ring 3: INT 80h adds -40 and 2", -38i64 as u64;
        mov  eax, SYSTEM_CALL_ADD;
        stc;
        syscall;
        setc al;
        movzx eax, al;
        check "ring 3: CF survives SYSCALL and SYSRET", 1;
        mov  eax, SYSTEM_CALL_ADD;
        syscall;
        label ".return";
        lea  rax, ptr(a.at(".return"));
        sub  rax, rcx;
        check "ring 3: SYSCALL left RIP in RCX, difference", 0;
    );
    Ok(())
}

/// What ring 3 may not do.
fn faults(a: &mut Asm) -> Result<(), Error> {
    asm!(a; xor ebx, ebx;);
    expect_fault(a, "DIV by zero", 0, None, |a| {
        asm!(a; div ebx;);
        Ok(())
    })?;
    expect_fault(a, "HLT", 13, Some(0), |a| {
        asm!(a; hlt;);
        Ok(())
    })?;
    expect_fault(a, "CLI", 13, Some(0), |a| {
        asm!(a; cli;);
        Ok(())
    })?;
    expect_fault(a, "IN without I/O permission", 13, Some(0), |a| {
        asm!(a; in_ al, 0x60;);
        Ok(())
    })?;
    expect_fault(a, "MOV from CR0", 13, Some(0), |a| {
        asm!(a; mov rax, cr0;);
        Ok(())
    })?;
    let gate = a.options().strict.then_some(TIMER_VECTOR << 3 | 2); // its index, and the IDT bit
    expect_fault(a, "INT through a gate of DPL 0", 13, gate, |a| {
        asm!(a; int TIMER_VECTOR;);
        Ok(())
    })?;
    expect_fault(a, "UD2", 6, None, |a| {
        asm!(a; ud2;);
        Ok(())
    })?;
    asm!(a; mov rbx, high(LOAD_BASE););
    expect_fault(a, "a read of the kernel's memory", 14, Some(5), |a| {
        asm!(a; mov eax, dword_ptr(rbx););
        Ok(())
    })?;
    asm!(a; mov ebx, USER_CODE as u32;);
    expect_fault(a, "a write to its own code", 14, Some(7), |a| {
        asm!(a; mov dword_ptr(rbx), eax;);
        Ok(())
    })?;
    asm!(a;
        label "probe.single_step";
        mov  eax, SYSTEM_CALL_STEPS;
        syscall;
        single_step |a: &mut Asm| {
            asm!(a;
                push rbx;
                pop  rcx;
            );
            Ok(())
        };
        mov  eax, SYSTEM_CALL_STEPS;
        syscall;
        check "ring 3: single steps over two instructions", 2 + SINGLE_STEP_EXTRA;
        xor  eax, eax;
        int3;
        inc  eax;
        check "ring 3: INT3 returns behind itself", 1;
    );
    Ok(())
}

/// Counts in its data page, and watches that its registers stay its own. RDI = a value to keep.
fn count(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "count";
        mov  rbx, rdi;
        mov  r12, rdi;
        mov  r8, rdi;
        mov  rsi, USER_DATA + TASK_COUNTER;
        mov  ecx, TASK_PATIENCE;
        label ".round";
        inc  qword_ptr(rsi);
        cmp  rbx, r12;
        jne  ".corrupt";
        cmp  rbx, r8;
        jne  ".corrupt";
        dec  ecx;
        jnz  ".round";
        jmp  ".exit";
        label ".corrupt";
        mov  qword_ptr(rsi + (TASK_CORRUPT - TASK_COUNTER)), 1;
        label ".exit";
        mov  edi, 1;
        mov  eax, SYSTEM_CALL_EXIT;
        syscall;
    );
    Ok(())
}
