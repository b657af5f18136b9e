//! The way in: a Multiboot loader's 32-bit protected mode, and the way down to real mode.
//!
//! Multiboot 1 (specification 0.6.96, 3.2) promises flat 32-bit segments, A20 open, paging and
//! interrupts off, EAX = the magic number; it leaves GDTR, IDTR and ESP undefined. So the first
//! thing the guest does is to bring its own of each. It then gives all of that up again, since it
//! wants to make the climb itself.

use crate::Error;
use crate::arch::{CR0_PE, GDT_SIZE, selector, table_pointer32};
use crate::asm::{Asm, asm};
use crate::layout::{
    CHECKS_FAILED, CHECKS_PASSED, CHECKS_SKIPPED, LOAD_BASE, LOAD_END, MEMORY_END, PROTECTED_STACK,
    SECTIONS,
};
use crate::serial;
use iced_x86::code_asm::*;

/// First word of a Multiboot header.
pub(crate) const HEADER_MAGIC: u32 = 0x1BAD_B002;
/// Header flag 16: the header itself says where to load the image, so it need not be ELF.
const ADDRESSES_ARE_VALID: u32 = 1 << 16;
/// EAX at entry.
const LOADER_MAGIC: u32 = 0x2BAD_B002;

/// The Multiboot header, at the very start of the image.
pub(crate) fn multiboot_header(a: &mut Asm) -> Result<(), Error> {
    let checksum = HEADER_MAGIC.wrapping_add(ADDRESSES_ARE_VALID).wrapping_neg();
    asm!(a;
        label "multiboot_header";
        dd &[HEADER_MAGIC, ADDRESSES_ARE_VALID, checksum];
        // header, start of load, end of load, end of memory to clear, entry point
        dd &[LOAD_BASE as u32, LOAD_BASE as u32, LOAD_END as u32, MEMORY_END as u32];
        dd &[a.addr32("entry")];
    );
    Ok(())
}

/// Entry point, in 32-bit protected mode.
pub(crate) fn multiboot_entry(a: &mut Asm) -> Result<(), Error> {
    let [_, real, ..] = &SECTIONS;
    asm!(a;
        label "entry";
        cli;
        cld;
        mov  esp, PROTECTED_STACK as u32;
        mov  dword_ptr(CHECKS_PASSED), 0;
        mov  dword_ptr(CHECKS_FAILED), 0;
        mov  dword_ptr(CHECKS_SKIPPED), 0;

        // Our own GDT. A far jump is the only way to load CS.
        lgdt fword_ptr(a.addr("gdt_pointer"));
        jmp_far selector::CODE32 as u16, a.addr32(".reload");
        label ".reload";
        mov  ecx, selector::DATA32;
        mov  ds, ecx;
        mov  es, ecx;
        mov  fs, ecx;
        mov  gs, ecx;
        mov  ss, ecx;
        mov  ebx, eax;                      // the loader's magic number
    );
    serial::initialize(a)?;
    asm!(a;
        say   "ringshift guest: a climb from real mode to ring 3 of long mode";
        mov   eax, ebx;
        check "multiboot: magic number in EAX", u64::from(LOADER_MAGIC);
        mov   eax, cr0;
        and   eax, CR0_PE;
        check "multiboot: entered with CR0.PE", 1;

        // The 16-bit section goes where 16-bit code can be.
        mov  esi, real.load as u32;
        mov  edi, real.origin as u32;
        mov  ecx, (real.size / 4) as u32;
        rep; movsd;

        // Down: a 16-bit code segment first, so that CS has a real-mode limit when PE falls.
        jmp_far selector::CODE16 as u16, a.addr32("real/enter");
    );
    a.expect_section(real.name);
    let gdt = a.addr32("gdt");
    a.datum("gdt_pointer", &table_pointer32(gdt, GDT_SIZE));
    Ok(())
}
