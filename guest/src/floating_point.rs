//! x87, SSE2 and AVX: enough to see that each unit is there and computes.

use crate::Error;
use crate::arch::{CR0_EM, CR0_MP, CR0_TS, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE};
use crate::asm::{Asm, asm};
use crate::exceptions::expect_fault;
use iced_x86::code_asm::*;

/// Switches the units on and checks them.
pub(crate) fn checks(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "floating_point";
        mov  rax, cr0;
        and  eax, !(CR0_EM | CR0_TS);
        or   eax, CR0_MP;
        mov  cr0, rax;
        mov  rax, cr4;
        or   eax, CR4_OSFXSR | CR4_OSXMMEXCPT;
        mov  cr4, rax;
    );
    x87(a)?;
    sse(a)?;
    avx(a)
}

fn x87(a: &mut Asm) -> Result<(), Error> {
    let ten = a.datum("x87.ten", &10u32.to_le_bytes());
    let million = a.datum("x87.million", &1_000_000u32.to_le_bytes());
    let control = a.datum("x87.control", &0x037Bu16.to_le_bytes()); // ZM clear: #Z is unmasked
    let result = a.variable("x87.result");
    asm!(a;
        label "x87";
        fninit;
        fild dword_ptr(ten);
        fsqrt;
        fimul dword_ptr(million);
        fistp qword_ptr(result);
        mov  rax, qword_ptr(result);
        check "x87: a million times the square root of ten", 3_162_278;
        fldpi;
        fstp qword_ptr(result);
        mov  rax, qword_ptr(result);
        check "x87: pi as a double", std::f64::consts::PI.to_bits();

        fldcw word_ptr(control);
        fld1;
        fldz;
        fdivp st1, st0;                     // only marks the exception as pending
    );
    expect_fault(a, "FWAIT with an unmasked #Z pending", 16, None, |a| {
        asm!(a; wait;);
        Ok(())
    })?;
    asm!(a; fninit;);
    Ok(())
}

fn sse(a: &mut Asm) -> Result<(), Error> {
    let bytes: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].into_iter().flat_map(f32::to_le_bytes).collect();
    let vector = a.datum("sse.vector", &bytes);
    asm!(a;
        label "sse";
        mov  eax, 2;
        cvtsi2sd xmm0, eax;
        sqrtsd xmm0, xmm0;
        movq rax, xmm0;
        check "sse2: square root of two as a double", std::f64::consts::SQRT_2.to_bits();
        movaps xmm1, xmmword_ptr(vector);
        mulps xmm1, xmm1;                   // 1, 4, 9, 16
        movhlps xmm2, xmm1;
        addps xmm1, xmm2;                   // 10, 20
        pshufd xmm2, xmm1, 1;
        addss xmm1, xmm2;
        cvttss2si eax, xmm1;
        check "sse: sum of the squares of 1 to 4", 30;
        pcmpeqd xmm3, xmm3;
        psrld xmm3, 28;
        paddd xmm3, xmm3;
        movd eax, xmm3;
        check "sse2: packed integers", 30;
    );
    Ok(())
}

/// AVX needs the processor's offer, CR4.OSXSAVE, and XCR0 (SDM volume 1, 13.3 and 14.3).
fn avx(a: &mut Asm) -> Result<(), Error> {
    const WHAT: &str = "avx: sum of 1 to 8 in one register";
    let bytes: Vec<u8> = (1..=8u8).flat_map(|n| f32::from(n).to_le_bytes()).collect();
    let vector = a.datum("avx.vector", &bytes);
    asm!(a;
        label "avx";
        mov  eax, 1;
        cpuid;
        and  ecx, 1 << 28 | 1 << 26;        // AVX and XSAVE
        cmp  ecx, 1 << 28 | 1 << 26;
        jne  ".absent";
        mov  rax, cr4;
        or   eax, CR4_OSXSAVE;
        mov  cr4, rax;
        xor  ecx, ecx;
        xgetbv;
        or   eax, 7;                        // x87, SSE and AVX state
        xsetbv;
        vmovups ymm0, ymmword_ptr(vector);
        vextractf128 xmm1, ymm0, 1;
        vaddps xmm0, xmm0, xmm1;            // 6, 8, 10, 12
        vhaddps xmm0, xmm0, xmm0;
        vhaddps xmm0, xmm0, xmm0;
        vcvttss2si eax, xmm0;
        vzeroupper;
        check_or_skip WHAT, 36;
        jmp  ".end";
        label ".absent";
        skip WHAT;
        label ".end";
        nop;
    );
    Ok(())
}
