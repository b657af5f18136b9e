//! Real mode: segments that are just shifted numbers, vectors that are just far pointers.

use crate::Error;
use crate::arch::{CR0_PE, GDT_SIZE, selector, table_pointer32};
use crate::asm::{Asm, asm};
use crate::entry::HEADER_MAGIC;
use crate::layout::{LOAD_BASE, REAL_STACK, SCRATCH_SEGMENT};
use crate::{serial, virtual_8086};
use iced_x86::code_asm::*;

/// The vector of the test's own interrupt: one of those a BIOS leaves to programs.
const SOFTWARE_INTERRUPT: u32 = 0x60;

/// The whole 16-bit section.
pub(crate) fn section(a: &mut Asm) -> Result<(), Error> {
    leave_protected_mode(a)?;
    flags_and_segments(a)?;
    interrupts(a)?;
    strings(a)?;
    unreal_mode(a)?;
    enter_protected_mode(a)?;
    virtual_8086::task(a)?;
    serial::routines(a)
}

/// Arrives in a 16-bit protected-mode segment and clears CR0.PE (SDM volume 3, 10.9.2).
fn leave_protected_mode(a: &mut Asm) -> Result<(), Error> {
    let vectors = a.datum("ivt_pointer", &table_pointer32(0, 0x400));
    asm!(a;
        label "enter";
        // Limits of 64 KiB in the hidden parts: real mode will not set them again.
        mov  ax, selector::DATA16;
        mov  ds, ax;
        mov  es, ax;
        mov  fs, ax;
        mov  gs, ax;
        mov  ss, ax;
        lidt fword_ptr(vectors);
        mov  eax, cr0;
        and  eax, !CR0_PE;
        mov  cr0, eax;
        jmp_far 0, a.addr32("start");       // CS, at last, is a segment number

        label "start";
        xor  ax, ax;
        mov  ds, ax;
        mov  es, ax;
        mov  fs, ax;
        mov  gs, ax;
        mov  ss, ax;
        mov  sp, REAL_STACK;
        xor  eax, eax;
        smsw ax;
        and  ax, CR0_PE;
        check "real mode: CR0.PE", 0;
    );
    Ok(())
}

/// FLAGS as pushed, and two names for one byte.
fn flags_and_segments(a: &mut Asm) -> Result<(), Error> {
    let far_call = (SCRATCH_SEGMENT, 0x0100);
    asm!(a;
        // Bit 1 reads as 1 and bit 15 as 0 on everything since the 80386; IF is still clear.
        pushf;
        xor  eax, eax;
        pop  ax;
        and  ax, 0x8202;
        check "real mode: FLAGS bits 15, 9 and 1", 2;

        // 1000:0100 and 100F:0010 are the same byte.
        mov  ax, SCRATCH_SEGMENT;
        mov  es, ax;
        add  ax, 0x0F;
        mov  fs, ax;
        mov  bx, 0x0100;
        mov  byte_ptr(bx).es(), 0x5A;
        xor  eax, eax;
        mov  di, 0x0010;
        mov  al, byte_ptr(di).fs();
        check "real mode: 1000:0100 read at 100F:0010", 0x5A;

        // A far call to a RETF elsewhere pushes CS:IP.
        mov  byte_ptr(bx).es(), 0xCB;
        mov  cx, sp;
        push cs;
        push_immediate a.addr32(".back");
        push_immediate far_call.0;
        push_immediate far_call.1;
        retf;                               // to the RETF, which returns to .back
        label ".back";
        xor  eax, eax;
        mov  ax, sp;
        sub  ax, cx;
        check "real mode: stack balance after two far returns", 0;
    );
    Ok(())
}

/// A software interrupt and a divide error, both through the IVT.
fn interrupts(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        mov  word_ptr(SOFTWARE_INTERRUPT * 4), a.addr32("add_handler");
        mov  word_ptr(SOFTWARE_INTERRUPT * 4 + 2), 0;
        mov  eax, 0x1200;
        mov  bx, 0x34;
        int  SOFTWARE_INTERRUPT;
        check "real mode: INT 60h through the IVT adds BX to AX", 0x1234;

        // A fault pushes the address of the instruction itself.
        mov  word_ptr(0), a.addr32("divide_handler");
        mov  word_ptr(2), 0;
        mov  ax, 0x1234;
        xor  bl, bl;
        label ".divide";
        div  bl;
        label ".resume";
        movzx eax, si;
        check "real mode: #DE pushes the IP of the DIV", a.addr(".divide");
    );
    let resume = a.addr32(".resume");
    asm!(a;
        jmp  "strings";

        label "add_handler";
        add  ax, bx;
        iret;

        // SI = IP that was pushed; resumes behind the division.
        label "divide_handler";
        push bp;
        mov  bp, sp;
        mov  si, word_ptr(bp + 2);
        mov  word_ptr(bp + 2), resume;
        pop  bp;
        iret;
    );
    Ok(())
}

/// Copies this section's own code away, forwards, and compares it.
fn strings(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "strings";
        mov  ax, SCRATCH_SEGMENT;
        mov  es, ax;
        mov  si, a.addr32("enter");
        xor  di, di;
        mov  cx, 0x100;
        rep; movsw;
        mov  si, a.addr32("enter");
        xor  di, di;
        mov  ecx, 0x200;
        repe; cmpsb;
        mov  eax, ecx;
        je   ".equal";
        inc  eax;                           // the byte that differed is not in ECX any more
        label ".equal";
        check "real mode: bytes left where REPE CMPSB found a difference", 0;
        movzx eax, di;
        check "real mode: DI behind the compared strings", 0x200;
    );
    Ok(())
}

/// Unreal mode: a segment register keeps the limit it was loaded with in protected mode, so that
/// real mode reaches all of memory. It finds the Multiboot header at 1 MiB, if A20 is open.
fn unreal_mode(a: &mut Asm) -> Result<(), Error> {
    let pointer = table_pointer32(a.addr32("protected/gdt"), GDT_SIZE);
    let gdt = a.datum("gdt_pointer", &pointer);
    asm!(a;
        label "unreal_mode";
        lgdt fword_ptr(gdt);
        mov  eax, cr0;
        or   al, CR0_PE;
        mov  cr0, eax;
        mov  bx, selector::DATA32;
        mov  fs, bx;                        // base 0, limit 4 GiB
        and  al, !CR0_PE & 0xFF;
        mov  cr0, eax;
        mov  ebx, LOAD_BASE as u32;
        mov  eax, dword_ptr(ebx).fs();
        check "unreal mode: the Multiboot header, read through FS", HEADER_MAGIC.into();

        // FFFF:0510 is 0x100500 with A20 open and wraps to 0x500 with A20 closed.
        mov  ax, 0xFFFF;
        mov  es, ax;
        mov  bx, 0x0510;
        mov  word_ptr(0x500), 0x1111;
        xor  eax, eax;
        mov  ax, word_ptr(bx).es();
        push ax;
        mov  word_ptr(0x500), 0x2222;
        mov  ax, word_ptr(bx).es();
        pop  bx;
        sub  ax, bx;                        // did FFFF:0510 follow?
        check "real mode: A20 is open, FFFF:0510 does not follow 0000:0500", 0;
    );
    Ok(())
}

/// Up again, by the book: GDT, CR0.PE, far jump (SDM volume 3, 10.9.1).
fn enter_protected_mode(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "enter_protected_mode";
        cli;
        mov  eax, cr0;
        or   al, CR0_PE;
        mov  cr0, eax;
        jmp_far32 selector::CODE32 as u16, a.addr32("protected/start");
    );
    Ok(())
}
