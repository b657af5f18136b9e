//! The end: the summary line, and the ways to switch a machine off.

use crate::Error;
use crate::asm::{Asm, asm};
use crate::layout::{CHECKS_FAILED, CHECKS_PASSED, CHECKS_SKIPPED, Mode};
use iced_x86::code_asm::*;

/// Port of QEMU's and Ringshift's isa-debug-exit device: a write ends the machine with status
/// `value << 1 | 1`.
const DEBUG_EXIT: u32 = 0xF4;
/// Written there after a failure: exit status 67.
pub const DEBUG_EXIT_FAILED: u32 = 0x21;
/// Written there when all is well but the machine has survived its power-off: exit status 33.
pub const DEBUG_EXIT_ALIVE: u32 = 0x10;

/// Not an address but a number only the whole build knows, passed on as if it were a symbol: how
/// many checks there are.
pub(crate) const TOTAL_CHECKS: &str = "guest/total_checks";

/// `power.fail`: ends the machine with a nonzero status. 32 and 64-bit code.
pub(crate) fn routines(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "power.fail";
        print "ringshift guest: FAILED\r\n";
        mov  al, DEBUG_EXIT_FAILED;
        jmp  "power.debug_exit";

        label "power.debug_exit";           // AL = value
        out  DEBUG_EXIT, al;
        cli;
        label ".halt";
        hlt;
        jmp  ".halt";
    );
    Ok(())
}

/// Sums up and switches off: for a success through ACPI, else as `power.fail`. 64-bit code.
pub(crate) fn finish(a: &mut Asm) -> Result<(), Error> {
    let low = |address| Mode::Kernel.low_memory(address);
    let power_off = a.options().power_off;
    a.expect_line("ringshift guest: all ");
    asm!(a;
        label "finish";
        mov  eax, dword_ptr(low(CHECKS_PASSED));
        mov  ecx, dword_ptr(low(CHECKS_SKIPPED));
        add  ecx, eax;
        cmp  dword_ptr(low(CHECKS_FAILED)), 0;
        jne  ".failed";
        cmp  ecx, dword_ptr(a.addr("total_checks"));
        jne  ".failed";                     // a check was never reached

        print "ringshift guest: all ";
        call "serial.print_decimal";
        print " checks passed";
        mov  eax, dword_ptr(low(CHECKS_SKIPPED));
        test eax, eax;
        jz   ".power_off";
        print ", ";
        call "serial.print_decimal";
        print " skipped";

        label ".power_off";
        print "\r\n";
        mov  dx, u32::from(power_off.port);
        mov  ax, u32::from(power_off.value);
        out  dx, ax;
        // A machine takes its time to fall; a million reads of a port is about a second of it.
        // Still here after that? Then there is no such register.
        mov  ecx, 1_000_000;
        label ".wait";
        in_  al, 0x80;
        loop_ ".wait";
        mov  al, DEBUG_EXIT_ALIVE;
        jmp  "power.debug_exit";

        label ".failed";
        print "ringshift guest: ";
        mov  eax, dword_ptr(low(CHECKS_FAILED));
        call "serial.print_decimal";
        print " checks failed, ";
        mov  eax, dword_ptr(low(CHECKS_PASSED));
        call "serial.print_decimal";
        print " passed, of ";
        mov  eax, dword_ptr(a.addr("total_checks"));
        call "serial.print_decimal";
        print "\r\n";
        jmp  "power.fail";
    );
    let total = a.addr(TOTAL_CHECKS);
    a.datum("total_checks", &total.to_le_bytes());
    Ok(())
}
