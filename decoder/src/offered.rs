//! What the guest's CPUID makes of bytes: instructions that it does not report are undefined, or are
//! the older ones of which they are a prefixed form.

use iced_x86::{Code, CpuidFeature, DecoderOptions, Mnemonic};
use std::sync::OnceLock;
use x86::cpuid::{Feature, Policy};

/// iced's options by which a guest without BMI1 or LZCNT has BSF and BSR in the place of TZCNT and
/// LZCNT: the prefix means nothing to it (SDM vol. 2, LZCNT, TZCNT).
pub(crate) fn options(policy: &Policy) -> u32 {
    let without = |feature, option| if policy.has(feature) { 0 } else { option };
    without(Feature::Bmi1, DecoderOptions::NO_MPFX_0FBC)
        | without(Feature::Lzcnt, DecoderOptions::NO_MPFX_0FBD)
}

/// Whether the guest has the instruction, as far as one feature of its CPUID decides it whatever
/// the state: integer and system instructions. (Vector and x87 instructions depend on control
/// registers as well, and are checked when they are executed.)
pub(crate) fn offered(policy: &Policy, code: Code, bits: u32) -> bool {
    let required = table().get(code as usize).copied().flatten();
    let long_flags = bits == 64 && matches!(code.mnemonic(), Mnemonic::Lahf | Mnemonic::Sahf);
    let has = |required| match required {
        Required::Feature(feature) => policy.has(feature),
        Required::LongNop => policy.has_long_nop(),
    };
    required.is_none_or(has) && (!long_flags || policy.has(Feature::LahfLm))
}

/// Without what an instruction is undefined.
#[derive(Clone, Copy)]
enum Required {
    /// A feature of CPUID.
    Feature(Feature),
    /// The hints of two-byte opcodes, which have none: [`Policy::has_long_nop`].
    LongNop,
}

fn table() -> &'static [Option<Required>] {
    static TABLE: OnceLock<Vec<Option<Required>>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let required = |code: Code| {
            let features = code.cpuid_features();
            let is_hint = |f: &_| matches!(f, CpuidFeature::MULTIBYTENOP | CpuidFeature::PREFETCHW);
            if features.iter().any(is_hint) {
                return Some(Required::LongNop);
            }
            features.iter().find_map(|&f| feature(code, f)).map(Required::Feature)
        };
        Code::values().map(required).collect()
    })
}

/// The CPUID feature without which the instruction is undefined.
fn feature(code: Code, iced: CpuidFeature) -> Option<Feature> {
    use Mnemonic::*;
    Some(match iced {
        CpuidFeature::ADX => Feature::Adx,
        CpuidFeature::BMI1 => Feature::Bmi1,
        CpuidFeature::BMI2 => Feature::Bmi2,
        CpuidFeature::CLFLUSHOPT => Feature::Clflushopt,
        CpuidFeature::CLFSH => Feature::Clfsh,
        CpuidFeature::CLWB => Feature::Clwb,
        CpuidFeature::CLZERO => Feature::Clzero,
        CpuidFeature::CMOV => Feature::Cmov,
        CpuidFeature::CMPXCHG16B => Feature::Cx16,
        CpuidFeature::CX8 => Feature::Cx8,
        CpuidFeature::FSGSBASE => Feature::FsGsBase,
        CpuidFeature::FXSR => Feature::Fxsr,
        CpuidFeature::INVPCID => Feature::Invpcid,
        CpuidFeature::LZCNT => Feature::Lzcnt,
        CpuidFeature::MOVBE => Feature::Movbe,
        CpuidFeature::MSR => Feature::Msr,
        CpuidFeature::POPCNT => Feature::Popcnt,
        CpuidFeature::RDPID => Feature::Rdpid,
        // It came with MMX (SDM vol. 2B, RDPMC).
        CpuidFeature::RDPMC => Feature::Mmx,
        CpuidFeature::RDRAND => Feature::Rdrand,
        CpuidFeature::RDSEED => Feature::Rdseed,
        CpuidFeature::RDTSCP => Feature::Rdtscp,
        CpuidFeature::SEP => Feature::Sep,
        CpuidFeature::SMAP => Feature::Smap,
        CpuidFeature::SSE if code.mnemonic() == Sfence => Feature::Sse,
        CpuidFeature::SSE2 if matches!(code.mnemonic(), Lfence | Mfence | Movnti) => Feature::Sse2,
        CpuidFeature::SSE4_2 if code.mnemonic() == Crc32 => Feature::Sse42,
        CpuidFeature::SYSCALL => Feature::Syscall,
        CpuidFeature::TSC => Feature::Tsc,
        CpuidFeature::XSAVE => Feature::Xsave,
        CpuidFeature::XSAVEC => Feature::Xsavec,
        CpuidFeature::XSAVEOPT => Feature::Xsaveopt,
        CpuidFeature::XSAVES => Feature::Xsaves,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecodeError, decode_offered};

    fn without(features: &[Feature]) -> Policy {
        let mut policy = Policy::host(1);
        features.iter().for_each(|&feature| policy.remove(feature));
        policy
    }

    #[test]
    fn hidden_counts_are_scans() {
        let lzcnt = [0xF3, 0x48, 0x0F, 0xBD, 0xC1];
        let tzcnt = [0xF3, 0x0F, 0xBC, 0xC1];
        let code = |policy: &Policy, bytes: &[u8]| decode_offered(policy, bytes, 64).unwrap().code;
        let host = without(&[]);
        assert_eq!(code(&host, &lzcnt), Code::Lzcnt_r64_rm64);
        assert_eq!(code(&host, &tzcnt), Code::Tzcnt_r32_rm32);
        let old = without(&[Feature::Lzcnt, Feature::Bmi1]);
        assert_eq!(code(&old, &lzcnt), Code::Bsr_r64_rm64);
        assert_eq!(code(&old, &tzcnt), Code::Bsf_r32_rm32);
        let insn = decode_offered(&old, &lzcnt, 64).unwrap();
        assert_eq!(insn.to_iced(0x1000).code(), Code::Bsr_r64_rm64, "decoded again");
        assert_eq!(insn.len, 5);
        assert_eq!(code(&without(&[Feature::Lzcnt]), &tzcnt), Code::Tzcnt_r32_rm32);
    }

    #[test]
    fn hidden_instructions_are_undefined() {
        let cases: [(Feature, &[u8]); 12] = [
            (Feature::Bmi1, &[0xC4, 0xE2, 0x70, 0xF2, 0xC2]),
            (Feature::Bmi2, &[0xC4, 0xE2, 0x6B, 0xF5, 0xC1]),
            (Feature::Adx, &[0x66, 0x0F, 0x38, 0xF6, 0xC1]),
            (Feature::Movbe, &[0x0F, 0x38, 0xF0, 0x00]),
            (Feature::Popcnt, &[0xF3, 0x0F, 0xB8, 0xC1]),
            (Feature::Cx16, &[0x48, 0x0F, 0xC7, 0x08]),
            (Feature::Sse42, &[0xF2, 0x0F, 0x38, 0xF1, 0xC1]),
            (Feature::Cmov, &[0x0F, 0x44, 0xC1]),
            (Feature::LahfLm, &[0x9F]),
            (Feature::Mmx, &[0x0F, 0x33]),
            (Feature::Sse, &[0x0F, 0xAE, 0xF8]),
            (Feature::Sse2, &[0x0F, 0xC3, 0x03]),
        ];
        for (feature, bytes) in cases {
            assert!(decode_offered(&without(&[]), bytes, 64).is_ok(), "{feature:?}");
            let hidden = decode_offered(&without(&[feature]), bytes, 64);
            assert_eq!(hidden.map(|insn| insn.code), Err(DecodeError::Invalid), "{feature:?}");
        }
        assert!(decode_offered(&without(&[Feature::LahfLm]), &[0x9F], 32).is_ok());
    }
}
