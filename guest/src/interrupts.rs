//! Interrupts of long mode: IDT and TSS, the trap frame, the 8259 and the PIT.

use crate::arch::{
    EFLAGS_RF, PAGE_PRESENT, PAGE_USER, PAGE_WRITE, TSS64_SIZE, high, interrupt_gate64,
    pushes_error_code, table_pointer64,
};
use crate::asm::{Asm, asm};
use crate::layout::{ENTRY_STACK, INTERRUPT_STACK, KERNEL_BASE, SPACE_LAZY, USER_LAZY};
use crate::{Error, Options};
use iced_x86::code_asm::*;

/// The vector the first 8259 is moved to, behind those of exceptions: IRQ 0, the timer.
pub(crate) const TIMER_VECTOR: u32 = 0x20;
/// The vector of system calls by INT.
pub(crate) const SYSTEM_CALL_VECTOR: u32 = 0x80;
/// The vector delivered on a stack of its own, by the IST.
pub(crate) const IST_VECTOR: u32 = 0x70;

/// Offsets from RBP in the trap frame: what [`Asm::push_all`] pushed, then vector and error code,
/// then what the processor pushed.
pub(crate) mod frame {
    /// R15, where an instruction that is going to fault says where to go on.
    pub(crate) const R15: u32 = 0;
    /// RDI.
    pub(crate) const RDI: u32 = 64;
    /// RSI.
    pub(crate) const RSI: u32 = 72;
    /// RDX.
    pub(crate) const RDX: u32 = 96;
    /// RAX.
    pub(crate) const RAX: u32 = 112;
    /// Vector.
    pub(crate) const VECTOR: u32 = 120;
    /// Error code, or 0.
    pub(crate) const ERROR: u32 = 128;
    /// RIP.
    pub(crate) const RIP: u32 = 136;
    /// CS.
    pub(crate) const CS: u32 = 144;
    /// RFLAGS.
    pub(crate) const RFLAGS: u32 = 152;
    /// RSP.
    pub(crate) const RSP: u32 = 160;
    /// SS.
    pub(crate) const SS: u32 = 168;
    /// Size of the whole frame, bytes.
    pub(crate) const SIZE: u32 = 176;
}

/// The vectors with a gate, each with its DPL and its IST index.
fn gates() -> impl Iterator<Item = (u32, u8, u8)> {
    let exceptions = (0..32).map(|vector| match vector {
        3 => (vector, 3, 0), // INT3 is for everybody
        8 => (vector, 0, 1), // a double fault may mean that the stack is bad
        _ => (vector, 0, 0),
    });
    let others = [
        (TIMER_VECTOR, 0, 0),
        (TIMER_VECTOR + 7, 0, 0), // spurious
        (IST_VECTOR, 0, 1),
        (SYSTEM_CALL_VECTOR, 3, 0),
    ];
    exceptions.chain(others)
}

/// The common entry of all vectors, and what to do about each. Everything returns by
/// `trap.return`, with RSP at a trap frame, not necessarily the one that came in.
pub(crate) fn trap(a: &mut Asm) -> Result<(), Error> {
    for (vector, ..) in gates() {
        asm!(a; label &format!("vector.{vector}"););
        if !pushes_error_code(vector) {
            asm!(a; push 0;);
        }
        asm!(a;
            push_immediate vector;
            jmp  "trap";
        );
    }
    for name in ["vector", "error", "rip", "cr2", "rsp", "steps", "breakpoints", "int3"] {
        a.variable(&format!("trap.{name}"));
    }
    asm!(a;
        label "trap";
        push_all;
        cld;
        mov  rbp, rsp;
        mov  eax, dword_ptr(rbp + frame::VECTOR);
        cmp  eax, TIMER_VECTOR;
        je   "timer";
        cmp  eax, SYSTEM_CALL_VECTOR;
        je   "system_call.interrupt";
        cmp  eax, 1;
        je   "trap.debug";
        cmp  eax, 3;
        je   "trap.breakpoint";
        cmp  eax, TIMER_VECTOR + 7;
        je   "trap.return";
        cmp  eax, 14;
        je   "trap.page_fault";

        // Note it, and go on where R15 says.
        label "trap.note";
        mov  qword_ptr(a.addr("trap.vector")), rax;
        mov  rcx, qword_ptr(rbp + frame::ERROR);
        mov  qword_ptr(a.addr("trap.error")), rcx;
        mov  rcx, qword_ptr(rbp + frame::RIP);
        mov  qword_ptr(a.addr("trap.rip")), rcx;
        mov  qword_ptr(a.addr("trap.rsp")), rsp;
        xor  ecx, ecx;
        xchg qword_ptr(rbp + frame::R15), rcx;
        test rcx, rcx;
        jz   "trap.unexpected";
        mov  qword_ptr(rbp + frame::RIP), rcx;

        label "trap.return";
        pop_all;
        add  rsp, 16;                       // vector and error code
        iretq;
    );
    debug_exceptions(a)?;
    page_fault(a)?;
    unexpected(a)?;
    timer(a)
}

/// #DB and #BP are traps: count them and return.
fn debug_exceptions(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "trap.debug";
        mov  rax, dr6;
        xor  ecx, ecx;
        mov  dr6, rcx;                      // the processor only ever sets its bits
        bt   rax, 14;                       // BS: a single step
        jnc  ".breakpoint";
        inc  qword_ptr(a.addr("trap.steps"));
        label ".breakpoint";
        bt   rax, 0;                        // B0: DR0 matched
        jnc  "trap.return";
        inc  qword_ptr(a.addr("trap.breakpoints"));
        // An instruction breakpoint is a fault: without RF it would come back at once.
        or   dword_ptr(rbp + frame::RFLAGS), EFLAGS_RF;
        jmp  "trap.return";

        label "trap.breakpoint";
        mov  rax, qword_ptr(rbp + frame::RIP);
        mov  qword_ptr(a.addr("trap.int3")), rax;
        jmp  "trap.return";
    );
    Ok(())
}

/// #PF: the lazy page of a user program is mapped; all other faults are like other exceptions.
fn page_fault(a: &mut Asm) -> Result<(), Error> {
    let table_entry = 0x3000 + (USER_LAZY >> 12 & 511) * 8;
    asm!(a;
        label "trap.page_fault";
        mov  rcx, cr2;
        mov  qword_ptr(a.addr("trap.cr2")), rcx;
        xor  rcx, USER_LAZY as i32;
        cmp  rcx, 0xFFF;
        ja   "trap.note";
        test dword_ptr(rbp + frame::ERROR), 1;
        jnz  "trap.note";                   // it is there: a violation of its rights

        print "page fault: mapping the page of CR2 = 0x";
        mov  rax, cr2;
        call "serial.print_hex";
        print ", error code = 0x";
        mov  rax, qword_ptr(rbp + frame::ERROR);
        mov  qword_ptr(a.addr("trap.error")), rax;
        call "serial.print_hex";
        print "\r\n";
        // CR3 is the block of the address space: table and frame are at fixed places in it.
        mov  rcx, cr3;
        lea  rax, ptr(rcx + SPACE_LAZY + (PAGE_USER | PAGE_WRITE | PAGE_PRESENT));
        mov  qword_ptr(rcx + KERNEL_BASE as i64 + table_entry as i64), rax;
        jmp  "trap.return";
    );
    Ok(())
}

/// Nothing in R15: the guest has a bug, or the machine has.
fn unexpected(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "trap.unexpected";
        print "long mode: unexpected exception";
    );
    for (name, offset) in [
        ("vector", frame::VECTOR),
        ("error code", frame::ERROR),
        ("CS", frame::CS),
        ("RIP", frame::RIP),
        ("RSP", frame::RSP),
    ] {
        asm!(a;
            print &format!(", {name} = 0x");
            mov  rax, qword_ptr(rbp + offset);
            call "serial.print_hex";
        );
    }
    asm!(a;
        print ", CR2 = 0x";
        mov  rax, cr2;
        call "serial.print_hex";
        print "\r\n";
        jmp  "power.fail";
    );
    Ok(())
}

// The 8259s (first of them) and the PIT.
const PIC1_COMMAND: u32 = 0x20;
const PIC1_DATA: u32 = 0x21;
const PIC2_COMMAND: u32 = 0xA0;
const PIC2_DATA: u32 = 0xA1;
const PIC_END_OF_INTERRUPT: u32 = 0x20;
const PIC_READ_REQUESTS: u32 = 0x0A;
const PIT_CHANNEL_0: u32 = 0x40;
const PIT_COMMAND: u32 = 0x43;
/// Channel 0, low then high byte, mode 2 (rate generator), binary.
const PIT_RATE_GENERATOR: u32 = 0x34;
/// The PIT's input clock, Hz.
const PIT_CLOCK: u32 = 1_193_182;

/// The rate asked for, within what the PIT can do and the guest can follow.
fn timer_hz(options: &Options) -> u32 {
    options.timer_hz.clamp(19, 10_000)
}

/// Moves the 8259s' vectors away from those of exceptions, starts the timer, and makes sure of
/// its ticks before anything waits for one with HLT.
pub(crate) fn initialize(a: &mut Asm) -> Result<(), Error> {
    let divisor = PIT_CLOCK / timer_hz(a.options());
    let words = [
        (PIC1_COMMAND, 0x11), // ICW1: initialise, ICW4 follows
        (PIC2_COMMAND, 0x11),
        (PIC1_DATA, TIMER_VECTOR), // ICW2: vectors
        (PIC2_DATA, TIMER_VECTOR + 8),
        (PIC1_DATA, 0x04), // ICW3: the second hangs on IRQ 2
        (PIC2_DATA, 0x02),
        (PIC1_DATA, 0x01), // ICW4: 8086 mode
        (PIC2_DATA, 0x01),
        (PIC1_DATA, 0xFE), // mask all but IRQ 0
        (PIC2_DATA, 0xFF),
        (PIT_COMMAND, PIT_RATE_GENERATOR),
        (PIT_CHANNEL_0, divisor & 0xFF),
        (PIT_CHANNEL_0, divisor >> 8),
        (PIC1_COMMAND, PIC_READ_REQUESTS),
    ];
    asm!(a; label "interrupts.initialize";);
    for (port, value) in words {
        asm!(a;
            mov  al, value;
            out  port, al;
        );
    }
    let ticks = a.addr("timer.ticks");
    asm!(a;
        in_  al, PIC1_DATA;
        movzx eax, al;
        check "8259: the mask reads back", 0xFE;

        // Interrupts are still off: a tick must show up as a request. The bound is some seconds.
        mov  ecx, 20_000_000;
        label ".poll";
        in_  al, PIC1_COMMAND;
        test al, 1;
        jnz  ".requested";
        loop_ ".poll";
        label ".requested";
        and  eax, 1;
        check "8259: the timer requests an interrupt, IRR bit 0", 1;

        // STI holds interrupts off until HLT has begun, so no tick can slip in between.
        mov  qword_ptr(ticks), 0;
        label ".wait";
        sti;
        hlt;
        cli;
        cmp  qword_ptr(ticks), 3;
        jb   ".wait";
        mov  rax, qword_ptr(ticks);
        check "timer: ticks counted across HLT", 3;
    );
    Ok(())
}

/// The timer interrupt: acknowledge, count, and let [`crate::tasks`] choose who goes on.
fn timer(a: &mut Asm) -> Result<(), Error> {
    let ticks = a.variable("timer.ticks");
    asm!(a;
        label "timer";
        mov  al, PIC_END_OF_INTERRUPT;
        out  PIC1_COMMAND, al;
        inc  qword_ptr(ticks);
        cmp  qword_ptr(a.addr("tasks.running")), 0;
        je   "trap.return";
        jmp  "tasks.switch";
    );
    Ok(())
}

/// IDT and TSS of long mode.
pub(crate) fn tables(a: &mut Asm) {
    let mut idt = vec![0; 256 * 16];
    for (vector, dpl, ist) in gates() {
        let handler = a.addr(&format!("vector.{vector}"));
        let offset = vector as usize * 16;
        if let Some(gate) = idt.get_mut(offset..offset + 16) {
            gate.copy_from_slice(&interrupt_gate64(handler, dpl, ist));
        }
    }
    let base = a.datum("idt", &idt);
    a.datum("idt_pointer", &table_pointer64(base, idt.len()));

    let mut tss = vec![0; TSS64_SIZE as usize];
    for (offset, value) in [(TSS_RSP0, high(ENTRY_STACK)), (TSS_IST1, high(INTERRUPT_STACK))] {
        if let Some(field) = tss.get_mut(offset..offset + 8) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    }
    if let Some(field) = tss.get_mut(TSS_IO_MAP..TSS_IO_MAP + 2) {
        field.copy_from_slice(&(TSS64_SIZE as u16).to_le_bytes()); // no I/O permission map
    }
    a.datum("tss", &tss);
}

/// Offset of RSP0 in a 64-bit TSS: the stack for entries from ring 3.
pub(crate) const TSS_RSP0: usize = 4;
/// Offset of IST1.
const TSS_IST1: usize = 36;
/// Offset of the I/O map base.
const TSS_IO_MAP: usize = 102;
