//! Which instruction-set extensions thunks run, and the CPUID feature of each.

use iced_x86::CpuidFeature;
use std::sync::OnceLock;
use x86::cpuid::{Feature, Policy};

/// The most features that one instruction needs.
pub(crate) const MAX_NEEDS: usize = 3;

/// The features an instruction needs, repeated to fill up.
pub(crate) type Needs = [Feature; MAX_NEEDS];

/// The CPUID feature for an extension that thunks run; none for everything else, which is thereby
/// refused.
pub(crate) fn feature(iced: CpuidFeature) -> Option<Feature> {
    Some(match iced {
        CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387 => Feature::Fpu,
        CpuidFeature::CMOV => Feature::Cmov,
        CpuidFeature::MMX => Feature::Mmx,
        CpuidFeature::SSE => Feature::Sse,
        CpuidFeature::SSE2 => Feature::Sse2,
        CpuidFeature::SSE3 => Feature::Sse3,
        CpuidFeature::SSSE3 => Feature::Ssse3,
        CpuidFeature::SSE4_1 => Feature::Sse41,
        CpuidFeature::SSE4_2 => Feature::Sse42,
        CpuidFeature::SSE4A => Feature::Sse4a,
        CpuidFeature::AES => Feature::Aes,
        CpuidFeature::PCLMULQDQ => Feature::Pclmulqdq,
        CpuidFeature::AVX => Feature::Avx,
        CpuidFeature::AVX2 => Feature::Avx2,
        CpuidFeature::F16C => Feature::F16c,
        CpuidFeature::FMA => Feature::Fma,
        CpuidFeature::VAES => Feature::Vaes,
        CpuidFeature::VPCLMULQDQ => Feature::Vpclmulqdq,
        CpuidFeature::SHA => Feature::Sha,
        CpuidFeature::GFNI => Feature::Gfni,
        CpuidFeature::AVX512F => Feature::Avx512F,
        CpuidFeature::AVX512DQ => Feature::Avx512Dq,
        CpuidFeature::AVX512BW => Feature::Avx512Bw,
        CpuidFeature::AVX512VL => Feature::Avx512Vl,
        CpuidFeature::AVX512CD => Feature::Avx512Cd,
        CpuidFeature::AVX512_IFMA => Feature::Avx512Ifma,
        CpuidFeature::AVX512_VBMI => Feature::Avx512Vbmi,
        CpuidFeature::AVX512_VBMI2 => Feature::Avx512Vbmi2,
        CpuidFeature::AVX512_VNNI => Feature::Avx512Vnni,
        CpuidFeature::AVX512_BITALG => Feature::Avx512Bitalg,
        CpuidFeature::AVX512_VPOPCNTDQ => Feature::Avx512Vpopcntdq,
        CpuidFeature::AVX512_BF16 => Feature::Avx512Bf16,
        CpuidFeature::AVX512_FP16 => Feature::Avx512Fp16,
        CpuidFeature::AVX512_VP2INTERSECT => Feature::Avx512Vp2Intersect,
        CpuidFeature::AVX_VNNI => Feature::AvxVnni,
        CpuidFeature::AVX_VNNI_INT8 => Feature::AvxVnniInt8,
        CpuidFeature::AVX_VNNI_INT16 => Feature::AvxVnniInt16,
        CpuidFeature::AVX_IFMA => Feature::AvxIfma,
        CpuidFeature::AVX_NE_CONVERT => Feature::AvxNeConvert,
        CpuidFeature::SHA512 => Feature::Sha512,
        CpuidFeature::SM3 => Feature::Sm3,
        CpuidFeature::SM4 => Feature::Sm4,
        _ => return None,
    })
}

/// The features that an instruction needs; none if one of them is not for thunks.
pub(crate) fn needs(all: &[CpuidFeature]) -> Option<Needs> {
    let mut needs = [feature(*all.first()?)?; MAX_NEEDS];
    if all.len() > MAX_NEEDS {
        return None;
    }
    for (slot, iced) in needs.iter_mut().zip(all) {
        *slot = feature(*iced)?;
    }
    Some(needs)
}

/// What the host has.
fn host() -> &'static Policy {
    static HOST: OnceLock<Policy> = OnceLock::new();
    HOST.get_or_init(|| Policy::host(1))
}

/// Whether the host has all of `needs`.
pub(crate) fn host_has(needs: &Needs) -> bool {
    needs.iter().all(|&f| host().has(f))
}

/// Whether the host is an AMD or Hygon processor.
pub(crate) fn host_is_amd() -> bool {
    host().is_amd()
}

/// Whether the host's widest vector registers have 64 bytes.
pub(crate) fn host_has_zmm() -> bool {
    host().has(Feature::Avx512F)
}
