//! Long mode: PAE, EFER.LME, paging, and a far jump from compatibility to 64-bit code.

use crate::Error;
use crate::arch::{
    CR0_NE, CR0_PG, CR0_WP, CR4_PAE, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE, GDT_SIZE, IA32_EFER,
    high, selector, table_pointer64,
};
use crate::asm::{Asm, asm};
use crate::layout::{KERNEL_BASE, KERNEL_STACK, LOAD_BASE, PML4};
use crate::{
    computation, entry, exceptions, floating_point, interrupts, paging, power, processor, serial,
    system_calls, tasks,
};
use iced_x86::code_asm::*;

/// From 32-bit protected mode to the kernel (SDM volume 3, 10.8.5).
pub(crate) fn enter(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "enter_long_mode";
        mov  eax, 0x8000_0001u32;
        cpuid;
        mov  eax, edx;
        shr  eax, 20;
        and  eax, 0x201;                    // bit 29, long mode; bit 20, execute disable
        check "cpuid: long mode and execute disable are offered", 0x201;
    );
    paging::build_tables(a)?;
    asm!(a;
        mov  eax, cr4;
        or   eax, CR4_PAE;
        mov  cr4, eax;
        mov  eax, PML4 as u32;
        mov  cr3, eax;
        mov  ecx, IA32_EFER;
        rdmsr;
        or   eax, EFER_LME | EFER_NXE | EFER_SCE;
        wrmsr;
        mov  eax, cr0;
        or   eax, CR0_PG | CR0_WP | CR0_NE;
        mov  cr0, eax;

        // CS still has a 32-bit descriptor: this is compatibility mode.
        mov  ecx, IA32_EFER;
        rdmsr;
        and  eax, EFER_LMA | EFER_LME;
        check "compatibility mode: EFER.LMA and LME", u64::from(EFER_LMA | EFER_LME);

        // The kernel is linked in the high half, which a 32-bit jump cannot reach. Its code is
        // position-independent until it has gone there by itself.
        jmp_far selector::CODE64 as u16, (a.addr("kernel/start").wrapping_sub(KERNEL_BASE)) as u32;
    );
    a.expect_section("kernel");
    Ok(())
}

/// The whole 64-bit section, in the order it runs.
pub(crate) fn section(a: &mut Asm) -> Result<(), Error> {
    start(a)?;
    processor::identify(a)?;
    paging::checks(a)?;
    exceptions::kernel_checks(a)?;
    let parts = a.options().parts;
    if parts.floating_point {
        floating_point::checks(a)?;
    }
    if parts.computation {
        computation::checks(a)?;
    }
    system_calls::initialize(a)?;
    tasks::run_probe(a)?;
    if parts.timer {
        interrupts::initialize(a)?;
        tasks::run_pair(a)?;
    }
    power::finish(a)?;

    paging::routines(a)?;
    interrupts::trap(a)?;
    interrupts::tables(a);
    system_calls::routines(a)?;
    tasks::routines(a)?;
    computation::routines(a)?;
    power::routines(a)?;
    serial::print_decimal(a)?;
    serial::routines(a)
}

/// Arrives in the identity map and moves to the high half.
fn start(a: &mut Asm) -> Result<(), Error> {
    let gdt_base = a.addr("protected/gdt");
    let gdt = a.datum("gdt_pointer", &table_pointer64(high(gdt_base), GDT_SIZE));
    asm!(a;
        label "start";
        mov  rax, a.addr(".high");
        jmp_register rax;
        label ".high";
        mov  rsp, high(KERNEL_STACK);
        lgdt tbyte_ptr(gdt);
        mov  eax, selector::DATA64;
        mov  ds, eax;
        mov  es, eax;
        mov  ss, eax;
        xor  eax, eax;
        mov  fs, eax;
        mov  gs, eax;
        lidt tbyte_ptr(a.addr("idt_pointer"));
        mov  eax, selector::TSS64;
        ltr  ax;
        xor  r15d, r15d;                    // no exception is expected yet

        lea  rax, ptr(a.at("start"));
        shr  rax, 32;
        check "long mode: upper half of RIP", KERNEL_BASE >> 32;
        mov  rax, 0x0123_4567_89AB_CDEFu64;
        bswap rax;
        check "long mode: BSWAP of 64 bits", 0xEFCD_AB89_6745_2301;
        mov  rax, high(LOAD_BASE);
        mov  eax, dword_ptr(rax);
        check "long mode: the Multiboot header, read in the high half", entry::HEADER_MAGIC.into();
        xor  eax, eax;
        mov  ax, cs;
        check "long mode: CS", u64::from(selector::CODE64);
    );
    Ok(())
}
