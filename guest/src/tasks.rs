//! Running programs in ring 3: one to its end, then two side by side, pre-empted by the timer.

use crate::Error;
use crate::arch::{EFLAGS_FIXED, EFLAGS_IF, high, selector};
use crate::asm::{Asm, asm};
use crate::interrupts::{TSS_RSP0, frame};
use crate::layout::{
    ENTRY_STACK, PML4, SPACE_DATA, SPACE_KERNEL_STACK, SPACE_SIZE, SPACES, USER_STACK,
};
use crate::user::{PROBE_STATUS, TASK_CORRUPT, TASK_COUNTER};
use iced_x86::code_asm::*;

/// Top of a user program's stack.
const STACK_TOP: u64 = USER_STACK + 0x1000;
/// Bytes of a task's entry in `tasks.table`: RSP, CR3 and RSP0, and one quadword of padding.
const TASK_SIZE: u64 = 32;
/// The two tasks' address spaces; the probe has the first.
const TASK_SPACES: [u64; 2] = [SPACES + SPACE_SIZE, SPACES + 2 * SPACE_SIZE];
/// What each task keeps in its registers.
const SEEDS: [u64; 2] = [0xAAAA_AAAA_AAAA_AAAA, 0xBBBB_BBBB_BBBB_BBBB];

/// Where a task's first trap frame lies: at the top of its kernel stack.
fn first_frame(space: u64) -> u64 {
    high(space + SPACE_KERNEL_STACK + 0x1000) - u64::from(frame::SIZE)
}

/// Runs the probe of [`crate::user`] with interrupts off until it exits.
pub(crate) fn run_probe(a: &mut Asm) -> Result<(), Error> {
    a.expect_section("user");
    asm!(a;
        label "run_probe";
        mov  rdi, SPACES;
        call "space.create";
        mov  rdi, SPACES;
        mov  rsi, a.addr("user/probe");
        call "user.enter";
        check "ring 3: exit status", PROBE_STATUS;
    );
    Ok(())
}

/// Runs two tasks until the timer has cut so many slices, and looks at what they did.
pub(crate) fn run_pair(a: &mut Asm) -> Result<(), Error> {
    let slices = a.options().slices.clamp(MINIMUM_SLICES, MAXIMUM_SLICES);
    let trace = a.addr("tasks.trace");
    let entry = a.addr("user/count");
    asm!(a; label "run_pair";);
    for (space, seed) in TASK_SPACES.into_iter().zip(SEEDS) {
        asm!(a;
            mov  rdi, space;
            call "space.create";
            mov  rbp, first_frame(space);
            mov  dword_ptr(rbp + frame::RIP), entry as u32;
            mov  dword_ptr(rbp + frame::CS), selector::USER_CODE;
            mov  dword_ptr(rbp + frame::RFLAGS), EFLAGS_IF | EFLAGS_FIXED;
            mov  dword_ptr(rbp + frame::RSP), STACK_TOP as u32;
            mov  dword_ptr(rbp + frame::SS), selector::USER_DATA;
            mov  rax, seed;
            mov  qword_ptr(rbp + frame::RDI), rax;
        );
    }
    let data = |task: usize, offset: u64| high(TASK_SPACES[task] + SPACE_DATA) + offset;
    a.expect_line(&format!(
        "tasks: pre-empted in the order {}",
        "AB".repeat(slices as usize).get(..slices as usize).unwrap_or_default()
    ));
    asm!(a;
        mov  qword_ptr(a.addr("tasks.running")), 1;
        call "tasks.start";
        mov  qword_ptr(a.addr("tasks.running")), 0;
        print "tasks: pre-empted in the order ";
        point_at trace;
        call "serial.print";
        print "\r\ntasks: A counted to ";
        mov  eax, dword_ptr(data(0, TASK_COUNTER));
        call "serial.print_decimal";
        print ", B to ";
        mov  eax, dword_ptr(data(1, TASK_COUNTER));
        call "serial.print_decimal";
        print "\r\n";

        mov  rax, qword_ptr(a.addr("tasks.slices"));
        check "tasks: slices cut by the timer", u64::from(slices);
        mov  rax, qword_ptr(trace);
        check "tasks: the first eight, as letters", u64::from_le_bytes(*b"ABABABAB");
        xor  eax, eax;
        cmp  qword_ptr(data(0, TASK_COUNTER)), 0;
        setne al;
        xor  ecx, ecx;
        cmp  qword_ptr(data(1, TASK_COUNTER)), 0;
        setne cl;
        lea  rax, ptr(rax + rcx * 2);
        check "tasks: which of them made progress", 3;
        mov  rax, qword_ptr(data(0, TASK_CORRUPT));
        add  rax, qword_ptr(data(1, TASK_CORRUPT));
        check "tasks: registers that did not survive", 0;
    );
    Ok(())
}

/// Bounds of [`crate::Options::slices`]: eight are looked at.
const MINIMUM_SLICES: u32 = 8;
const MAXIMUM_SLICES: u32 = 1024;

/// Entry to and exit from ring 3, and the switch between the two tasks.
pub(crate) fn routines(a: &mut Asm) -> Result<(), Error> {
    let slices = a.options().slices.clamp(MINIMUM_SLICES, MAXIMUM_SLICES);
    let callee_saved = [rbx, rbp, r12, r13, r14, r15];
    a.datum("tasks.trace", &vec![0; slices as usize + 1]);
    for name in ["tasks.running", "tasks.current", "tasks.slices", "user.rsp"] {
        a.variable(name);
    }
    let table: Vec<u8> = TASK_SPACES
        .into_iter()
        .flat_map(|space| [first_frame(space), space, high(space + SPACE_KERNEL_STACK + 0x1000), 0])
        .flat_map(u64::to_le_bytes)
        .collect();
    let table = a.datum("tasks.table", &table);
    let rsp0 = a.addr("tss") + TSS_RSP0 as u64;

    // user.enter: runs the program at RSI in address space RDI; returns its status in RAX.
    asm!(a; label "user.enter";);
    for register in callee_saved {
        asm!(a; push register;);
    }
    asm!(a;
        mov  qword_ptr(a.addr("user.rsp")), rsp;
        mov  cr3, rdi;
        push_immediate selector::USER_DATA;           // the frame that IRETQ takes
        push_immediate STACK_TOP as u32;
        push_immediate EFLAGS_FIXED;
        push_immediate selector::USER_CODE;
        push rsi;
        xor  r15d, r15d;
        iretq;
    );

    // user.leave: drops whatever the kernel was doing for ring 3 and returns to the caller of
    // user.enter or tasks.start, with status RDI.
    asm!(a;
        label "user.leave";
        mov  rsp, qword_ptr(a.addr("user.rsp"));
        mov  eax, PML4 as u32;
        mov  cr3, rax;
        mov  rax, high(ENTRY_STACK);
        mov  qword_ptr(rsp0), rax;
        mov  rax, rdi;
    );
    for register in callee_saved.into_iter().rev() {
        asm!(a; pop register;);
    }
    asm!(a; ret;);

    // tasks.start: like user.enter, but into the first task's waiting frame.
    asm!(a; label "tasks.start";);
    for register in callee_saved {
        asm!(a; push register;);
    }
    asm!(a;
        mov  qword_ptr(a.addr("user.rsp")), rsp;
        mov  rdx, table;
        jmp  "tasks.resume";

        // tasks.switch: the timer interrupted the current task; its registers are at RSP.
        label "tasks.switch";
        mov  rbx, qword_ptr(a.addr("tasks.current"));
        mov  rcx, qword_ptr(a.addr("tasks.slices"));
        lea  eax, ptr(rbx + u32::from(b'A'));
        mov  rdx, a.addr("tasks.trace");
        mov  byte_ptr(rdx + rcx), al;
        inc  rcx;
        mov  qword_ptr(a.addr("tasks.slices")), rcx;
        xor  edi, edi;                      // status, if that was the last slice
        cmp  rcx, slices as i32;
        jae  "user.leave";

        mov  rdx, table;
        mov  rax, rbx;
        shl  rax, TASK_SIZE.trailing_zeros();
        mov  qword_ptr(rdx + rax), rsp;     // leave the one
        xor  rbx, 1;
        mov  qword_ptr(a.addr("tasks.current")), rbx;
        shl  rbx, TASK_SIZE.trailing_zeros();
        add  rdx, rbx;

        label "tasks.resume";               // and take up the other, at RDX
        mov  rsp, qword_ptr(rdx);
        mov  rax, qword_ptr(rdx + 8);
        mov  cr3, rax;
        mov  rax, qword_ptr(rdx + 16);
        mov  qword_ptr(rsp0), rax;
        jmp  "trap.return";
    );
    Ok(())
}
