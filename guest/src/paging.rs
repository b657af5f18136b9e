//! Four-level paging: the kernel's tables, user address spaces, and what the bits do.

use crate::Error;
use crate::arch::{
    PAGE_ACCESSED, PAGE_DIRTY, PAGE_LARGE, PAGE_NX_HIGH, PAGE_PRESENT, PAGE_USER, PAGE_WRITE, high,
};
use crate::asm::{Asm, asm};
use crate::exceptions::expect_fault;
use crate::layout::{
    FRAME_FIRST, FRAME_SECOND, PAGE_DIRECTORY, PDPT_HIGH, PDPT_LOW, PML4, SECTIONS, SPACE_DATA,
    SPACE_SIZE, SPACE_STACK, TABLES_END, USER_CODE, USER_DATA, USER_STACK, WINDOW,
    WINDOW_DIRECTORY, WINDOW_TABLE,
};
use iced_x86::code_asm::*;

/// Offset of the last entry of a table, bytes.
const LAST: u64 = 511 * 8;
/// Bits of a table entry for the kernel.
const KERNEL: u32 = PAGE_WRITE | PAGE_PRESENT;
/// Bits of a table entry that ring 3 may use, too.
const USER: u32 = PAGE_USER | PAGE_WRITE | PAGE_PRESENT;
/// Pages of code of a user program.
const CODE_PAGES: u32 = 4;

/// Builds the kernel's tables: the first GiB in 2 MiB pages, once at 0 and once at
/// [`crate::layout::KERNEL_BASE`], and the empty window behind that. 32-bit code.
pub(crate) fn build_tables(a: &mut Asm) -> Result<(), Error> {
    let links = [
        (PML4, PDPT_LOW),
        (PML4 + LAST, PDPT_HIGH),
        (PDPT_LOW, PAGE_DIRECTORY),
        (PDPT_HIGH + LAST - 8, PAGE_DIRECTORY),
        (PDPT_HIGH + LAST, WINDOW_DIRECTORY),
        (WINDOW_DIRECTORY, WINDOW_TABLE),
    ];
    asm!(a;
        label "build_tables";
        mov  edi, PML4 as u32;
        mov  ecx, ((TABLES_END - PML4) / 4) as u32;
        xor  eax, eax;
        rep; stosd;
    );
    for (entry, table) in links {
        asm!(a; mov dword_ptr(entry), table as u32 | KERNEL;);
    }
    asm!(a;
        mov  edi, PAGE_DIRECTORY as u32;
        mov  eax, PAGE_LARGE | KERNEL;
        label ".large_page";
        mov  dword_ptr(edi), eax;           // the upper halves are zero already
        add  edi, 8;
        add  eax, 0x20_0000;
        cmp  eax, 0x4000_0000;
        jb   ".large_page";
    );
    Ok(())
}

/// Maps pages into the window and looks at what the processor does with their entries.
pub(crate) fn checks(a: &mut Asm) -> Result<(), Error> {
    let entry = |page: u64| high(WINDOW_TABLE + page * 8);
    asm!(a;
        label "paging.checks";
        mov  rbx, WINDOW;
        mov  dword_ptr(entry(0)), FRAME_FIRST as u32 | KERNEL;
        mov  dword_ptr(entry(1)), FRAME_SECOND as u32 | KERNEL;

        mov  rax, qword_ptr(rbx);
        mov  eax, dword_ptr(entry(0));
        and  eax, PAGE_ACCESSED | PAGE_DIRTY;
        check "paging: accessed and dirty bits after a read", u64::from(PAGE_ACCESSED);
        mov  dword_ptr(rbx), 0x600D;
        mov  eax, dword_ptr(entry(0));
        and  eax, PAGE_ACCESSED | PAGE_DIRTY;
        check "paging: accessed and dirty bits after a write", (PAGE_ACCESSED | PAGE_DIRTY).into();
        mov  eax, dword_ptr(high(FRAME_FIRST));
        check "paging: what the window wrote, in the frame behind it", 0x600D;

        // A page behind another whose frame lies in front of it.
        lea  rdi, ptr(rbx + 0xFF0);
        mov  rsi, a.addr("kernel/start");
        mov  ecx, 0x20;
        rep; movsb;
        mov  rax, qword_ptr(high(FRAME_FIRST + 0xFF8));
        xor  rax, qword_ptr(a.addr("kernel/start") + 8);
        check "paging: REP MOVSB in front of a page boundary, difference", 0;
        mov  rax, qword_ptr(high(FRAME_SECOND));
        xor  rax, qword_ptr(a.addr("kernel/start") + 16);
        check "paging: REP MOVSB behind the page boundary, difference", 0;
        mov  rax, 0x8877_6655_4433_2211u64;
        mov  qword_ptr(rbx + 0xFFD), rax;
        mov  eax, dword_ptr(high(FRAME_SECOND));
        check "paging: a quadword across the boundary, its upper part", 0x7766_5544;
    );
    expect_fault(a, "a write to a page that is not there", 14, Some(2), |a| {
        asm!(a; mov dword_ptr(rbx + 0x2004), eax;);
        Ok(())
    })?;
    asm!(a;
        mov  rax, cr2;
        check "paging: CR2", WINDOW + 0x2004;
        mov  dword_ptr(entry(0)), FRAME_FIRST as u32 | PAGE_PRESENT;
        invlpg byte_ptr(rbx);
    );
    expect_fault(a, "a write to a read-only page under CR0.WP", 14, Some(3), |a| {
        asm!(a; mov dword_ptr(rbx), eax;);
        Ok(())
    })?;
    // The RIP of this fault is not that of the jump but the page itself.
    asm!(a;
        label "paging.execute_disable";
        mov  byte_ptr(high(FRAME_FIRST)), 0xC3; // RET
        mov  dword_ptr(entry(0) + 4), PAGE_NX_HIGH;
        invlpg byte_ptr(rbx);
        lea  r15, ptr(a.at(".resume"));
        jmp_register rbx;
        label ".resume";
        load_fault;
        mov  rax, rdx;
        check "ring 0: execution of an execute-disable page, error code", 0x11;
        mov  rax, rdi;
        check "ring 0: execution of an execute-disable page, RIP", WINDOW;
    );
    Ok(())
}

/// `space.create`: builds the address space in the block at RDI (physical, see
/// [`crate::layout::SPACES`]). Destroys A, C, SI and DI.
pub(crate) fn routines(a: &mut Asm) -> Result<(), Error> {
    let [.., user, _] = &SECTIONS;
    let page = |linear: u64| (linear >> 12 & 511) * 8;
    let kernel_half = high(PML4 + LAST);
    asm!(a;
        label "space.create";
        mov  rsi, high(0);
        add  rsi, rdi;                      // the block, where we see it
        push rdi;
        mov  rdi, rsi;
        mov  ecx, SPACE_SIZE as u32;
        xor  eax, eax;
        rep; stosb;
        pop  rdi;

        // The kernel is in every address space, in the last entry of the PML4.
        mov  rax, qword_ptr(kernel_half);
        mov  qword_ptr(rsi + LAST), rax;
        // PML4, PDPT, directory, table.
        lea  rax, ptr(rdi + 0x1000 + USER);
        mov  qword_ptr(rsi), rax;
        lea  rax, ptr(rdi + 0x2000 + USER);
        mov  qword_ptr(rsi + 0x1000), rax;
        lea  rax, ptr(rdi + 0x3000 + USER);
        mov  qword_ptr(rsi + 0x2000 + (USER_CODE >> 21) * 8), rax;
        // The code, for all, and not to be written.
        push rdi;
        lea  rdi, ptr(rsi + 0x3000 + page(USER_CODE));
        mov  eax, user.load as u32 | PAGE_USER | PAGE_PRESENT;
        mov  ecx, CODE_PAGES;
        label ".code";
        mov  qword_ptr(rdi), rax;
        add  rdi, 8;
        add  eax, 0x1000;
        loop_ ".code";
        pop  rdi;
        // Data and stack, its own, and not to be executed.
        lea  rax, ptr(rdi + SPACE_DATA + USER);
        bts  rax, 63;
        mov  qword_ptr(rsi + 0x3000 + page(USER_DATA)), rax;
        lea  rax, ptr(rdi + SPACE_STACK + USER);
        bts  rax, 63;
        mov  qword_ptr(rsi + 0x3000 + page(USER_STACK)), rax;
        ret;
    );
    Ok(())
}
