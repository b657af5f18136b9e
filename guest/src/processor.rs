//! What processor this is, in its own words.

use crate::Error;
use crate::asm::{Asm, asm};
use iced_x86::code_asm::*;

/// Prints CPUID's vendor, the hypervisor's name if there is one, and the brand.
pub(crate) fn identify(a: &mut Asm) -> Result<(), Error> {
    // Room for the brand's 48 characters and a NUL.
    let text = a.datum("processor.text", &[0; 64]);
    for line in ["cpuid: vendor ", "cpuid: hypervisor "] {
        a.expect_line(line);
    }
    asm!(a;
        label "identify";
        print "cpuid: vendor ";
        xor  eax, eax;
        cpuid;
        mov  dword_ptr(text), ebx;
        mov  dword_ptr(text + 4), edx;
        mov  dword_ptr(text + 8), ecx;
        point_at text;
        call "serial.print";
        print "\r\ncpuid: hypervisor ";
        mov  eax, 1;
        cpuid;
        bt   ecx, 31;                       // set by hypervisors that do not hide
        jnc  ".bare";
        mov  eax, 0x4000_0000;
        cpuid;
        mov  dword_ptr(text), ebx;
        mov  dword_ptr(text + 4), ecx;
        mov  dword_ptr(text + 8), edx;
        point_at text;
        call "serial.print";
        print "\r\n";
        jmp  ".brand";
        label ".bare";
        print "none\r\n";

        label ".brand";
        mov  eax, 0x8000_0000u32;
        cpuid;
        cmp  eax, 0x8000_0004u32;
        jb   ".end";
    );
    for (leaf, offset) in [(0x8000_0002u32, 0), (0x8000_0003, 16), (0x8000_0004, 32)] {
        asm!(a;
            mov  eax, leaf;
            cpuid;
            mov  dword_ptr(text + offset), eax;
            mov  dword_ptr(text + offset + 4), ebx;
            mov  dword_ptr(text + offset + 8), ecx;
            mov  dword_ptr(text + offset + 12), edx;
        );
    }
    asm!(a;
        print "cpuid: brand ";
        point_at text;
        call "serial.print";
        print "\r\n";
        label ".end";
        nop;
    );
    Ok(())
}
