//! x87, MMX, SSE and AVX: copies on the host's registers, which are loaded when first needed.

use super::{Show, check, host_has_avx, user};
use iced_x86::code_asm::*;

#[test]
fn floating_point() {
    check(
        "floating_point",
        Show::Code,
        &[
            user("SSE between registers", |a| a.addsd(xmm0, xmm1)),
            user("SSE load, unaligned", |a| a.movups(xmm0, xmmword_ptr(rdi))),
            user("SSE load, aligned", |a| a.movaps(xmm0, xmmword_ptr(rdi))),
            user("SSE store of 8 bytes", |a| a.movsd_2(qword_ptr(rdi), xmm1)),
            user("SSE and general registers", |a| {
                a.cvtsi2sd(xmm0, r10)?;
                a.movq(rax, xmm0)
            }),
            user("comparison writes flags", |a| {
                a.ucomisd(xmm0, xmm1)?;
                a.setb(al)
            }),
            user("x87", |a| {
                a.fld(qword_ptr(rdi))?;
                a.fadd_2(st0, st1)?;
                a.fstp(qword_ptr(rdi))
            }),
            user("x87 status", |a| a.fnstsw(ax)),
            user("MMX needs both", |a| a.paddb(mm0, mm1)),
            user("a helper in between saves the registers", |a| {
                a.addsd(xmm0, xmm1)?;
                a.cpuid()?;
                a.addsd(xmm0, xmm1)
            }),
        ],
    );
}

#[test]
fn avx() {
    if !host_has_avx() {
        return;
    }
    check(
        "avx",
        Show::Code,
        &[
            user("AVX between registers", |a| a.vaddpd(ymm0, ymm1, ymm2)),
            user("AVX load of 32 bytes", |a| a.vmovdqu(ymm0, ymmword_ptr(rdi))),
            user("VZEROUPPER", |a| a.vzeroupper()),
            user("FMA with memory", |a| a.vfmadd231sd(xmm0, xmm1, qword_ptr(rdi + 8))),
        ],
    );
}
