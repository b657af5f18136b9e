//! Exceptions taken on purpose, in ring 0 here and in ring 3 by [`crate::user`].

use crate::Error;
use crate::arch::{EFLAGS_TF, high, mnemonic};
use crate::asm::{Asm, asm};
use crate::interrupts::{IST_VECTOR, frame};
use crate::layout::{INTERRUPT_STACK, Mode};
use crate::system_calls::SYSTEM_CALL_FAULT;
use iced_x86::code_asm::*;

/// Emits `cause`, an instruction that faults, and checks the vector, the error code (if any) and
/// the RIP that its handler saw. The guest goes on behind it. For ring 0 and, through a system
/// call, ring 3; uses R15, A, C, D, SI, DI and R11.
pub(crate) fn expect_fault(
    a: &mut Asm,
    what: &str,
    vector: u32,
    error: Option<u32>,
    cause: impl FnOnce(&mut Asm) -> Result<(), Error>,
) -> Result<(), Error> {
    let name = mnemonic(vector);
    let ring = if a.mode() == Mode::User { "ring 3" } else { "ring 0" };
    asm!(a;
        label &format!("expect {what}");
        lea  r15, ptr(a.at(".resume"));
        label ".cause";
    );
    cause(a)?;
    asm!(a;
        label ".resume";
        load_fault;
        check &format!("{ring}: {what}: {name}, vector"), u64::from(vector);
    );
    if let Some(error) = error {
        asm!(a;
            load_fault;
            mov  rax, rdx;
            check &format!("{ring}: {what}: {name}, error code"), u64::from(error);
        );
    }
    asm!(a;
        load_fault;
        mov  rax, rdi;
        check &format!("{ring}: {what}: {name}, RIP"), a.addr(".cause");
    );
    Ok(())
}

impl Asm<'_> {
    /// RAX, RDX, RDI = vector, error code and RIP of the last fault.
    pub(crate) fn load_fault(&mut self) -> Result<(), Error> {
        if self.mode() == Mode::User {
            asm!(self;
                mov  eax, SYSTEM_CALL_FAULT;
                syscall;
            );
        } else {
            asm!(self;
                mov  rax, qword_ptr(self.addr("trap.vector"));
                mov  rdx, qword_ptr(self.addr("trap.error"));
                mov  rdi, qword_ptr(self.addr("trap.rip"));
            );
        }
        Ok(())
    }

    /// Single-steps: sets TF, executes `body`, and clears TF. A trap follows every instruction
    /// that began with TF set: those of the body, and the three that clear it.
    pub(crate) fn single_step(
        &mut self,
        body: impl FnOnce(&mut Asm) -> Result<(), Error>,
    ) -> Result<(), Error> {
        asm!(self;
            pushfq;
            or   dword_ptr(rsp), EFLAGS_TF;
            popfq;
        );
        body(self)?;
        asm!(self;
            pushfq;
            and  dword_ptr(rsp), !EFLAGS_TF;
            popfq;
        );
        Ok(())
    }
}

/// How many instructions [`Asm::single_step`] adds to those of its body.
pub(crate) const SINGLE_STEP_EXTRA: u64 = 3;

/// The exceptions of ring 0.
pub(crate) fn kernel_checks(a: &mut Asm) -> Result<(), Error> {
    expect_fault(a, "UD2", 6, None, |a| {
        asm!(a; ud2;);
        Ok(())
    })?;
    asm!(a; mov rbx, 0x0000_8000_0000_0000u64;);
    expect_fault(a, "a non-canonical address", 13, Some(0), |a| {
        asm!(a; mov rax, qword_ptr(rbx););
        Ok(())
    })?;
    asm!(a;
        mov  edx, 1;
        mov  ecx, 1;
    );
    expect_fault(a, "a quotient that does not fit", 0, None, |a| {
        asm!(a; div rcx;);
        Ok(())
    })?;
    debugging(a)
}

/// Single steps, a hardware breakpoint, INT3, and a stack from the IST.
fn debugging(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "debugging";
        mov  qword_ptr(a.addr("trap.steps")), 0;
        single_step |a: &mut Asm| {
            asm!(a;
                mov  eax, 1;
                add  eax, eax;
                nop;
                lea  rcx, ptr(rax + 1);
            );
            Ok(())
        };
        mov  rax, qword_ptr(a.addr("trap.steps"));
        check "debug: single steps over four instructions", 4 + SINGLE_STEP_EXTRA;

        lea  rax, ptr(a.at(".watched"));
        mov  dr0, rax;
        mov  eax, 1 << 10 | 1;              // DR7: break on execution at DR0
        mov  dr7, rax;
        xor  ebx, ebx;
        label ".watched";
        inc  ebx;
        cmp  ebx, 3;
        jb   ".watched";
        xor  eax, eax;
        mov  dr7, rax;
        mov  rax, qword_ptr(a.addr("trap.breakpoints"));
        check "debug: breakpoints at DR0 in a loop of three rounds", 3;
        mov  eax, ebx;
        check "debug: rounds of the loop", 3;

        int3;
        label ".after";
        lea  rax, ptr(a.at(".after"));
        sub  rax, qword_ptr(a.addr("trap.int3"));
        check "debug: INT3 pushes the RIP behind it, difference", 0;

        lea  r15, ptr(a.at(".back"));
        int  IST_VECTOR;
        label ".back";
        mov  rax, high(INTERRUPT_STACK);
        sub  rax, qword_ptr(a.addr("trap.rsp"));
        check "debug: depth of the interrupt stack of IST 1", frame::SIZE.into();
    );
    Ok(())
}
