//! Serial output and the reporting of checks.
//!
//! The same source is assembled for every mode that prints: LODSB, calls, pushes of AX and
//! operations on 8 and 16-bit registers read alike in 16, 32 and 64-bit code. A program in
//! ring 3 has no access to the port and reports by system call instead.

use crate::Error;
use crate::asm::{Asm, asm};
use crate::interrupts::SYSTEM_CALL_VECTOR;
use crate::layout::{CHECKS_FAILED, CHECKS_PASSED, CHECKS_SKIPPED, Mode};
use crate::system_calls::SYSTEM_CALL_REPORT;
use iced_x86::code_asm::*;

/// First port of COM1, a 16550.
const COM1: u32 = 0x3F8;
/// Line control register.
const LINE_CONTROL: u32 = COM1 + 3;
/// Line status register.
const LINE_STATUS: u32 = COM1 + 5;
/// Line status: the transmitter takes another byte.
const TRANSMITTER_EMPTY: u32 = 1 << 5;

/// Sets 115,200 baud, 8 data bits, no parity, one stop bit, FIFOs on and no interrupts. 32-bit
/// code, once.
pub(crate) fn initialize(a: &mut Asm) -> Result<(), Error> {
    let registers = [
        (COM1 + 1, 0x00),     // no interrupts: output is polled
        (LINE_CONTROL, 0x80), // the next two ports become the divisor
        (COM1, 0x01),
        (COM1 + 1, 0x00),
        (LINE_CONTROL, 0x03), // 8N1
        (COM1 + 2, 0x07),     // FIFOs on and empty
        (COM1 + 4, 0x03),     // DTR and RTS: somebody is here
    ];
    for (port, value) in registers {
        asm!(a;
            mov dx, port;
            mov al, value;
            out dx, al;
        );
    }
    Ok(())
}

/// The routines that [`Asm::print`], [`Asm::check`] and their kin call.
pub(crate) fn routines(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        // Sends AL. Preserves everything but the flags.
        label "serial.put_char";
        push dx;
        push ax;
        mov  dx, LINE_STATUS;
        label ".wait";
        in_  al, dx;
        test al, TRANSMITTER_EMPTY;
        jz   ".wait";
        pop  ax;
        mov  dx, COM1;
        out  dx, al;
        pop  dx;
        ret;

        // Sends the NUL-terminated string at SI, which it leaves behind the NUL. Destroys AL.
        label "serial.print";
        label ".next";
        lodsb;
        test al, al;
        jz   ".end";
        call "serial.put_char";
        jmp  ".next";
        label ".end";
        ret;
    );
    print_hex(a)?;
    report(a)
}

/// Sends EAX (RAX in 64-bit code) in hexadecimal without leading zeros. Destroys A, B and C.
fn print_hex(a: &mut Asm) -> Result<(), Error> {
    asm!(a; label "serial.print_hex";);
    if a.bitness() == 64 {
        asm!(a;
            mov  rbx, rax;
            mov  cl, 60;                    // shift that brings the next digit down
            label ".digit";
            mov  rax, rbx;
            shr  rax, cl;
        );
    } else {
        asm!(a;
            mov  ebx, eax;
            mov  cl, 28;
            label ".digit";
            mov  eax, ebx;
            shr  eax, cl;
        );
    }
    asm!(a;
        jnz  ".print";                      // a digit, or a zero after one
        test cl, cl;
        jnz  ".skip";                       // a leading zero, and not the last digit
        label ".print";
        and  al, 0xF;
        add  al, u32::from(b'0');
        cmp  al, u32::from(b'9');
        jbe  ".put";
        add  al, u32::from(b'a' - b'9' - 1);
        label ".put";
        call "serial.put_char";
        label ".skip";
        sub  cl, 4;
        jnc  ".digit";
        ret;
    );
    Ok(())
}

/// Sends EAX in decimal. Destroys A, B, C and D. 32 and 64-bit code.
pub(crate) fn print_decimal(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "serial.print_decimal";
        mov  ebx, 10;
        xor  ecx, ecx;
        label ".divide";                    // digits come last first: via the stack
        xor  edx, edx;
        div  ebx;
        push dx;
        inc  ecx;
        test eax, eax;
        jnz  ".divide";
        label ".send";
        pop  ax;
        add  al, u32::from(b'0');
        call "serial.put_char";
        loop_ ".send";
        ret;
    );
    Ok(())
}

/// The routine behind [`Asm::check`]: prints the string at SI and the value in A; compares the
/// value with D and counts. Preserves everything but the flags.
fn report(a: &mut Asm) -> Result<(), Error> {
    let passed = a.mode().low_memory(CHECKS_PASSED);
    let failed = a.mode().low_memory(CHECKS_FAILED);
    let (ok, failure, end) =
        (a.string(" ok\r\n"), a.string(" FAILED, expected 0x"), a.string("\r\n"));
    asm!(a;
        label "report";
        push_all;
    );
    // The only place where width matters: keep the value in BP and the expectation in DI.
    if a.bitness() == 64 {
        asm!(a; mov rbp, rax; mov rdi, rdx;);
    } else {
        asm!(a; mov ebp, eax; mov edi, edx;);
    }
    asm!(a; call "serial.print";);
    if a.bitness() == 64 {
        asm!(a;
            mov  rax, rbp;
            call "serial.print_hex";
            cmp  rbp, rdi;
        );
    } else {
        asm!(a;
            mov  eax, ebp;
            call "serial.print_hex";
            cmp  ebp, edi;
        );
    }
    asm!(a;
        jne  ".failed";
        inc  dword_ptr(passed);
        point_at ok;
        jmp  ".print";
        label ".failed";
        inc  dword_ptr(failed);
        point_at failure;
        call "serial.print";
    );
    if a.bitness() == 64 {
        asm!(a; mov rax, rdi;);
    } else {
        asm!(a; mov eax, edi;);
    }
    asm!(a;
        call "serial.print_hex";
        point_at end;
        label ".print";
        call "serial.print";
        pop_all;
        ret;
    );
    Ok(())
}

/// What a section says.
impl Asm<'_> {
    /// SI = address of a string or other datum.
    pub(crate) fn point_at(&mut self, address: u64) -> Result<(), Error> {
        match self.bitness() {
            16 => asm!(self; mov si, address as u32;),
            32 => asm!(self; mov esi, address as u32;),
            _ => asm!(self; mov rsi, address;),
        }
        Ok(())
    }

    /// Prints text. Preserves everything but the flags.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), Error> {
        let address = self.string(text);
        asm!(self;
            push_all;
            point_at address;
            call "serial.print";
            pop_all;
        );
        Ok(())
    }

    /// Prints a line, and expects it of the transcript.
    pub(crate) fn say(&mut self, line: &str) -> Result<(), Error> {
        self.expect_line(line);
        self.print(&format!("{line}\r\n"))
    }

    /// Checks that A (16 or 32-bit code: EAX, else RAX) holds `expected`: prints a line of `what`
    /// and the value, and counts. Preserves everything but the flags, D and SI; in ring 3, where
    /// it is a system call, not A, C, DI and R11 either.
    pub(crate) fn check(&mut self, what: &str, expected: u64) -> Result<(), Error> {
        self.expect_check(&format!("{what} = {expected:#x} ok"));
        self.report(what, expected)
    }

    /// [`Asm::check`] of something optional: elsewhere there is a [`Asm::skip`] of the same text.
    pub(crate) fn check_or_skip(&mut self, what: &str, expected: u64) -> Result<(), Error> {
        self.expect_check(what);
        self.report(what, expected)
    }

    /// Notes that the processor does not offer what [`Asm::check_or_skip`] would check.
    pub(crate) fn skip(&mut self, what: &str) -> Result<(), Error> {
        let skipped = self.mode().low_memory(CHECKS_SKIPPED);
        asm!(self; inc dword_ptr(skipped););
        self.print(&format!("{what} skipped: CPUID does not offer it\r\n"))
    }

    fn report(&mut self, what: &str, expected: u64) -> Result<(), Error> {
        let text = self.string(&format!("{what} = 0x"));
        match self.mode() {
            Mode::Real | Mode::Protected => asm!(self;
                mov  edx, expected as u32;
                point_at text;
                call "report";
            ),
            Mode::Kernel => asm!(self;
                mov  rdx, expected;
                point_at text;
                call "report";
            ),
            Mode::User => asm!(self;
                mov  rsi, rax;
                mov  rdx, expected;
                mov  rdi, text;
                mov  eax, SYSTEM_CALL_REPORT;
                syscall;
            ),
            Mode::Compatibility => asm!(self;
                mov  esi, eax;
                mov  edx, expected as u32;
                mov  edi, text as u32;
                mov  eax, SYSTEM_CALL_REPORT;
                int  SYSTEM_CALL_VECTOR;
            ),
        }
        Ok(())
    }
}
