//! Thunks against the same instructions assembled into this program, on random operands.
//!
//! Each row has an instruction as text, which the compiler assembles, and as bytes, which a thunk
//! runs. Registers 0 to 2 are its operands.

use native::{Prepared, Scratch, prepare, thunk};
use proptest::prelude::*;
use std::arch::asm;
use x86::Cpu;
use x86::fpu::VectorReg;

type Registers = [[u64; 4]; 3];

struct Row {
    text: &'static str,
    bytes: &'static [u8],
    available: bool,
    run: fn(&mut Registers),
}

macro_rules! rows {
    ($($text:literal $feature:tt $bytes:expr;)*) => {
        vec![$(Row {
            text: $text,
            bytes: &$bytes,
            available: is_x86_feature_detected!($feature),
            run: |registers| {
                // SAFETY: only run where the host has the feature and AVX; the instruction
                // works on registers that are declared, and the memory is an exclusive borrow.
                unsafe {
                    asm!(
                        "vmovdqu ymm0, [{r}]",
                        "vmovdqu ymm1, [{r} + 32]",
                        "vmovdqu ymm2, [{r} + 64]",
                        $text,
                        "vmovdqu [{r}], ymm0",
                        "vmovdqu [{r} + 32], ymm1",
                        "vmovdqu [{r} + 64], ymm2",
                        "vzeroupper",
                        r = in(reg) registers,
                        out("ymm0") _, out("ymm1") _, out("ymm2") _,
                        options(nostack),
                    );
                }
            },
        },)*]
    };
}

fn rows() -> Vec<Row> {
    rows! {
        "paddd xmm0, xmm1" "sse2" [0x66, 0x0F, 0xFE, 0xC1];
        "pmaddwd xmm0, xmm1" "sse2" [0x66, 0x0F, 0xF5, 0xC1];
        "pshufd xmm0, xmm1, 0x1b" "sse2" [0x66, 0x0F, 0x70, 0xC1, 0x1B];
        "psllq xmm0, xmm1" "sse2" [0x66, 0x0F, 0xF3, 0xC1];
        "movhlps xmm0, xmm1" "sse2" [0x0F, 0x12, 0xC1];
        "mulps xmm0, xmm1" "sse2" [0x0F, 0x59, 0xC1];
        "sqrtpd xmm0, xmm1" "sse2" [0x66, 0x0F, 0x51, 0xC1];
        "subsd xmm0, xmm1" "sse2" [0xF2, 0x0F, 0x5C, 0xC1];
        "maxss xmm1, xmm2" "sse2" [0xF3, 0x0F, 0x5F, 0xCA];
        "rsqrtps xmm0, xmm1" "sse2" [0x0F, 0x52, 0xC1];
        "cvttps2dq xmm0, xmm1" "sse2" [0xF3, 0x0F, 0x5B, 0xC1];
        "cmppd xmm0, xmm1, 5" "sse2" [0x66, 0x0F, 0xC2, 0xC1, 5];
        "pshufb xmm0, xmm1" "ssse3" [0x66, 0x0F, 0x38, 0x00, 0xC1];
        "palignr xmm0, xmm1, 5" "ssse3" [0x66, 0x0F, 0x3A, 0x0F, 0xC1, 5];
        "haddpd xmm0, xmm1" "sse3" [0x66, 0x0F, 0x7C, 0xC1];
        "blendvps xmm1, xmm2, xmm0" "sse4.1" [0x66, 0x0F, 0x38, 0x14, 0xCA];
        "dpps xmm0, xmm1, 0xf1" "sse4.1" [0x66, 0x0F, 0x3A, 0x40, 0xC1, 0xF1];
        "roundps xmm0, xmm1, 1" "sse4.1" [0x66, 0x0F, 0x3A, 0x08, 0xC1, 1];
        "pcmpgtq xmm0, xmm1" "sse4.2" [0x66, 0x0F, 0x38, 0x37, 0xC1];
        "pcmpistrm xmm1, xmm2, 0x40" "sse4.2" [0x66, 0x0F, 0x3A, 0x62, 0xCA, 0x40];
        "aesenc xmm0, xmm1" "aes" [0x66, 0x0F, 0x38, 0xDC, 0xC1];
        "aeskeygenassist xmm0, xmm1, 0x36" "aes" [0x66, 0x0F, 0x3A, 0xDF, 0xC1, 0x36];
        "pclmulqdq xmm0, xmm1, 0x11" "pclmulqdq" [0x66, 0x0F, 0x3A, 0x44, 0xC1, 0x11];
        "sha256rnds2 xmm1, xmm2, xmm0" "sha" [0x0F, 0x38, 0xCB, 0xCA];
        "extrq xmm0, 8, 16" "sse4a" [0x66, 0x0F, 0x78, 0xC0, 8, 16];
        "vpaddq ymm0, ymm1, ymm2" "avx2" [0xC5, 0xF5, 0xD4, 0xC2];
        "vpxor xmm0, xmm1, xmm2" "avx" [0xC5, 0xF1, 0xEF, 0xC2];
        "vpermd ymm0, ymm1, ymm2" "avx2" [0xC4, 0xE2, 0x75, 0x36, 0xC2];
        "vaddps ymm0, ymm1, ymm2" "avx" [0xC5, 0xF4, 0x58, 0xC2];
        "vmovss xmm0, xmm1, xmm2" "avx" [0xC5, 0xF2, 0x10, 0xC2];
        "vblendvpd ymm0, ymm1, ymm2, ymm0" "avx" [0xC4, 0xE3, 0x75, 0x4B, 0xC2, 0];
        "vfmadd231pd ymm0, ymm1, ymm2" "fma" [0xC4, 0xE2, 0xF5, 0xB8, 0xC2];
        "vfnmsub132ss xmm0, xmm1, xmm2" "fma" [0xC4, 0xE2, 0x71, 0x9F, 0xC2];
        "vcvtph2ps ymm0, xmm1" "f16c" [0xC4, 0xE2, 0x7D, 0x13, 0xC1];
        "vaesdec ymm0, ymm1, ymm2" "vaes" [0xC4, 0xE2, 0x75, 0xDE, 0xC2];
        "vpclmulqdq ymm0, ymm1, ymm2, 0x10" "vpclmulqdq" [0xC4, 0xE3, 0x75, 0x44, 0xC2, 0x10];
        "gf2p8mulb xmm0, xmm1" "gfni" [0x66, 0x0F, 0x38, 0xCF, 0xC1];
    }
}

/// Random bits, with the special values of floating-point formats among them.
fn register() -> impl Strategy<Value = [u64; 4]> {
    let special = prop::sample::select(vec![
        0u64,
        1,
        0x8000_0000_8000_0000,
        0x7F80_0000_7F80_0000,
        0x7FF0_0000_0000_0000,
        0x7FC0_0001_7F80_0001,
        0x3F80_0000_3F80_0000,
        0x3FF0_0000_0000_0000,
    ]);
    let word = prop_oneof![any::<u64>(), special];
    [word.clone(), word.clone(), word.clone(), word]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn thunks_agree(registers in [register(), register(), register()]) {
        if !is_x86_feature_detected!("avx") {
            eprintln!("skipped: the host has no AVX");
            return Ok(());
        }
        for row in rows().iter().filter(|row| row.available) {
            let insn = decoder::decode(row.bytes, 64).expect("decodes");
            let Some(Prepared::Cached(thunk)) = thunk(prepare(&insn)) else {
                panic!("{} has no thunk", row.text);
            };
            let mut cpu = Cpu::new();
            for (register, value) in cpu.vector.iter_mut().zip(registers) {
                *register = VectorReg([value[0], value[1], value[2], value[3], 0, 0, 0, 0]);
            }
            thunk.run(&mut cpu, &mut Scratch::default()).expect("all exceptions are masked");
            let mut expected = registers;
            (row.run)(&mut expected);
            for (n, value) in expected.iter().enumerate() {
                prop_assert_eq!(&cpu.vector[n].0[..4], &value[..], "{}: register {}", row.text, n);
            }
        }
    }
}
