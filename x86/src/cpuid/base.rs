//! The processors that a guest can be given by name.
//!
//! `host` is all that host and engines can do. The others are what guests of their time expect: a
//! family, model and stepping, the features of that processor, its caches. The levels of x86-64 are
//! those of the psABI; beyond the instructions of their level they have what makes a virtual
//! machine quick (x2APIC, TSC deadline, PCID, KVM's clock), all of which the engines provide on any
//! host.
//!
//! A model is never offered on a host that cannot execute it: unlike other virtual machines, which
//! warn and go on without, building it fails with the names of what is missing, and
//! `MODEL,-feature` says that the guest can do without.
//!
//! Sources: SDM vol. 2A, CPUID, and vol. 4, table 2-1 (families and models); Intel AP-485, chapter
//! 5 (steppings); System V ABI, AMD64 supplement, section 3.1.1.

use super::Feature::{self, *};
use super::leaves::CpuidResult;

/// A processor by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Base {
    /// All that host and engines can do.
    #[default]
    Host,
    /// An Intel 486 DX4.
    I486,
    /// A Pentium with MMX.
    Pentium,
    /// A Core 2, 65 nm.
    Core2,
    /// x86-64-v2: SSE4.2, POPCNT, CMPXCHG16B.
    X86_64V2,
    /// x86-64-v3: AVX2, BMI, FMA, MOVBE.
    X86_64V3,
    /// x86-64-v4: AVX-512 F, BW, CD, DQ and VL.
    X86_64V4,
}

/// What a named processor is, beside its features.
pub(super) struct Identity {
    /// Leaf 1 EAX.
    pub(super) signature: u32,
    /// Last basic leaf.
    pub(super) max_basic: u32,
    /// Last extended leaf; 0 for none.
    pub(super) max_extended: u32,
    /// At most 47 characters.
    pub(super) brand: &'static str,
    /// Width of physical addresses in bits, at most.
    pub(super) physical_bits: u8,
}

const PENTIUM: &[Feature] = &[Fpu, Vme, De, Pse, Tsc, Msr, Mce, Cx8, Apic, Mmx];
const X86_64: &[Feature] = &[
    Fpu, Vme, De, Pse, Tsc, Msr, Pae, Mce, Cx8, Apic, Sep, Mtrr, Pge, Mca, Cmov, Pat, Pse36, Clfsh,
    Mmx, Fxsr, Sse, Sse2, Syscall, Nx, LongMode,
];
/// With the immunities of the engines, or kernels take the mitigations of its time.
const CORE2: &[Feature] = &[Sse3, Ssse3, Cx16, LahfLm, SpecCtrl, Stibp, Ssbd, ArchCapabilities];
const V2: &[Feature] = &[Sse3, Ssse3, Sse41, Sse42, Popcnt, Cx16, LahfLm];
const V3: &[Feature] = &[Xsave, Avx, Avx2, Bmi1, Bmi2, F16c, Fma, Lzcnt, Movbe];
const V4: &[Feature] = &[Avx512F, Avx512Bw, Avx512Cd, Avx512Dq, Avx512Vl];
/// What the engines add to the levels of x86-64, on any host.
const VIRTUAL: &[Feature] = &[
    Hypervisor,
    X2Apic,
    TscDeadline,
    InvariantTsc,
    Pcid,
    Invpcid,
    Rdtscp,
    Pdpe1gb,
    SpecCtrl,
    Stibp,
    Ssbd,
    MdClear,
    ArchCapabilities,
];

impl Base {
    /// Every one, by name.
    pub const NAMES: &[(&str, Base)] = &[
        ("host", Base::Host),
        ("486", Base::I486),
        ("pentium", Base::Pentium),
        ("core2", Base::Core2),
        ("x86-64-v2", Base::X86_64V2),
        ("x86-64-v3", Base::X86_64V3),
        ("x86-64-v4", Base::X86_64V4),
    ];

    /// The processor of this name. The levels of x86-64 may be given as `v2` to `v4`.
    pub(super) fn named(name: &str) -> Option<Base> {
        let is = |full: &str| full == name || full.strip_prefix("x86-64-") == Some(name);
        Base::NAMES.iter().find(|(full, _)| is(full)).map(|&(_, base)| base)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Base::NAMES.iter().find(|(_, base)| *base == self).map_or("", |(name, _)| name)
    }

    /// Its features; `None` for the host's.
    pub(super) fn features(self) -> Option<Vec<Feature>> {
        Some(match self {
            Base::Host => return None,
            Base::I486 => vec![Fpu, Vme, Pse],
            Base::Pentium => PENTIUM.to_vec(),
            Base::Core2 => [X86_64, CORE2].concat(),
            Base::X86_64V2 => [X86_64, V2, VIRTUAL].concat(),
            Base::X86_64V3 => [X86_64, V2, V3, VIRTUAL].concat(),
            Base::X86_64V4 => [X86_64, V2, V3, V4, VIRTUAL].concat(),
        })
    }

    /// What it is; `None` for the host.
    pub(super) fn identity(self) -> Option<Identity> {
        let level = |signature, brand| Identity {
            signature,
            max_basic: 0xD,
            max_extended: 0x8000_0008,
            brand,
            physical_bits: 48,
        };
        Some(match self {
            Base::Host => return None,
            // DX4: family 4, model 8.
            Base::I486 => Identity {
                signature: 0x480,
                max_basic: 1,
                max_extended: 0,
                brand: "",
                physical_bits: 36,
            },
            // P55C: family 5, model 4.
            Base::Pentium => Identity {
                signature: 0x543,
                max_basic: 1,
                max_extended: 0,
                brand: "",
                physical_bits: 36,
            },
            // Merom: family 6, model 15.
            Base::Core2 => Identity {
                signature: 0x6FB,
                max_basic: 0xA,
                max_extended: 0x8000_0008,
                brand: "Intel(R) Core(TM)2 Duo, by Ringshift",
                physical_bits: 36,
            },
            // The first that had the level: Nehalem, Haswell, Skylake-SP.
            Base::X86_64V2 => level(0x1_06A5, "x86-64-v2, by Ringshift"),
            Base::X86_64V3 => level(0x3_06C3, "x86-64-v3, by Ringshift"),
            Base::X86_64V4 => level(0x5_0654, "x86-64-v4, by Ringshift"),
        })
    }
}

/// Leaves 0x80000002 to 0x80000004.
pub(super) fn brand_leaves(brand: &str) -> [CpuidResult; 3] {
    let mut text = [0u8; 48];
    for (to, from) in text.iter_mut().zip(brand.bytes().take(47)) {
        *to = from;
    }
    let word = |at: usize| u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]);
    [0, 16, 32].map(|at| CpuidResult {
        eax: word(at),
        ebx: word(at + 4),
        ecx: word(at + 8),
        edx: word(at + 12),
    })
}

/// Leaf 4 of the named processors that have it: type and level, ways, line size, sets. 32 KiB
/// each of data and code, 4 MiB unified.
pub(super) fn cache(subleaf: u32) -> Option<CpuidResult> {
    let (kind, level, ways, sets) = match subleaf {
        0 => (1, 1, 8, 64),
        1 => (2, 1, 8, 64),
        2 => (3, 2, 16, 4096),
        _ => return None,
    };
    Some(CpuidResult {
        // Self-initializing.
        eax: kind | level << 5 | 1 << 8,
        ebx: (ways - 1) << 22 | (64 - 1),
        ecx: sets - 1,
        edx: 0,
    })
}

/// Leaf 0x80000006 ECX to match: 4 MiB, 16-way, lines of 64 bytes.
pub(super) const LEVEL_2: u32 = 4096 << 16 | 8 << 12 | 64;
