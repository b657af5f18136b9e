//! The features that a guest can be offered, one line each.

/// Output register of CPUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// Who must have a feature for the guest to be offered it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// The host CPU executes the instructions: only where it has them.
    Host,
    /// The engines provide it, whatever the host has.
    Engine,
}

/// Where a feature shows, and what it takes.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Which one.
    pub feature: Feature,
    /// CPUID leaf.
    pub leaf: u32,
    /// CPUID subleaf.
    pub subleaf: u32,
    /// Output register.
    pub register: Register,
    /// Bit.
    pub bit: u32,
    /// Who must have it.
    pub rule: Rule,
    /// Features without which this one is not offered.
    pub needs: &'static [Feature],
}

macro_rules! features {
    ($($name:ident $leaf:literal/$sub:literal $register:ident[$bit:literal] $rule:ident $(needs $needs:ident)?,)*) => {
        /// A CPUID feature bit, under the SDM's name.
        #[allow(missing_docs, reason = "the names are the manual's; FEATURES says where each bit is")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum Feature { $($name,)* }

        /// Every feature, in the order of [`Feature`].
        pub const FEATURES: &[Line] = &[$(Line {
            feature: Feature::$name,
            leaf: $leaf,
            subleaf: $sub,
            register: Register::$register,
            bit: $bit,
            rule: Rule::$rule,
            needs: &[$(Feature::$needs)?],
        },)*];
    };
}

features! {
    // Leaf 1, EDX.
    Fpu          1/0 Edx[0]  Engine,
    Vme          1/0 Edx[1]  Engine,
    De           1/0 Edx[2]  Engine,
    Pse          1/0 Edx[3]  Engine,
    Tsc          1/0 Edx[4]  Engine,
    Msr          1/0 Edx[5]  Engine,
    Pae          1/0 Edx[6]  Engine,
    Mce          1/0 Edx[7]  Engine,
    Cx8          1/0 Edx[8]  Engine,
    Apic         1/0 Edx[9]  Engine,
    Sep          1/0 Edx[11] Engine,
    Mtrr         1/0 Edx[12] Engine,
    Pge          1/0 Edx[13] Engine,
    Mca          1/0 Edx[14] Engine,
    Cmov         1/0 Edx[15] Engine,
    Pat          1/0 Edx[16] Engine,
    Pse36        1/0 Edx[17] Engine,
    Clfsh        1/0 Edx[19] Engine,
    Mmx          1/0 Edx[23] Host,
    Fxsr         1/0 Edx[24] Engine,
    Sse          1/0 Edx[25] Host,
    Sse2         1/0 Edx[26] Host,
    // Leaf 1, ECX.
    Sse3         1/0 Ecx[0]  Host,
    Pclmulqdq    1/0 Ecx[1]  Host,
    Ssse3        1/0 Ecx[9]  Host,
    Fma          1/0 Ecx[12] Host needs Avx,
    Cx16         1/0 Ecx[13] Engine,
    Pcid         1/0 Ecx[17] Engine,
    Sse41        1/0 Ecx[19] Host,
    Sse42        1/0 Ecx[20] Host,
    X2Apic       1/0 Ecx[21] Engine,
    Movbe        1/0 Ecx[22] Engine,
    Popcnt       1/0 Ecx[23] Engine,
    TscDeadline  1/0 Ecx[24] Engine,
    Aes          1/0 Ecx[25] Host,
    Xsave        1/0 Ecx[26] Engine,
    Avx          1/0 Ecx[28] Host needs Xsave,
    F16c         1/0 Ecx[29] Host needs Avx,
    Rdrand       1/0 Ecx[30] Engine,
    Hypervisor   1/0 Ecx[31] Engine,
    // Leaf 7, EBX.
    FsGsBase     7/0 Ebx[0]  Engine,
    TscAdjust    7/0 Ebx[1]  Engine,
    Bmi1         7/0 Ebx[3]  Engine,
    Avx2         7/0 Ebx[5]  Host needs Avx,
    Smep         7/0 Ebx[7]  Engine,
    Bmi2         7/0 Ebx[8]  Engine,
    Erms         7/0 Ebx[9]  Engine,
    Invpcid      7/0 Ebx[10] Engine,
    Avx512F      7/0 Ebx[16] Host needs Avx2,
    Avx512Dq     7/0 Ebx[17] Host needs Avx512F,
    Rdseed       7/0 Ebx[18] Engine,
    Adx          7/0 Ebx[19] Engine,
    Smap         7/0 Ebx[20] Engine,
    Avx512Ifma   7/0 Ebx[21] Host needs Avx512F,
    Clflushopt   7/0 Ebx[23] Engine,
    Clwb         7/0 Ebx[24] Engine,
    Avx512Cd     7/0 Ebx[28] Host needs Avx512F,
    Sha          7/0 Ebx[29] Host,
    Avx512Bw     7/0 Ebx[30] Host needs Avx512F,
    Avx512Vl     7/0 Ebx[31] Host needs Avx512F,
    // Leaf 7, ECX.
    Avx512Vbmi   7/0 Ecx[1]  Host needs Avx512F,
    Umip         7/0 Ecx[2]  Engine,
    Pku          7/0 Ecx[3]  Engine needs Xsave,
    Avx512Vbmi2  7/0 Ecx[6]  Host needs Avx512F,
    Gfni         7/0 Ecx[8]  Host,
    Vaes         7/0 Ecx[9]  Host needs Avx,
    Vpclmulqdq   7/0 Ecx[10] Host needs Avx,
    Avx512Vnni   7/0 Ecx[11] Host needs Avx512F,
    Avx512Bitalg 7/0 Ecx[12] Host needs Avx512F,
    Avx512Vpopcntdq 7/0 Ecx[14] Host needs Avx512F,
    La57         7/0 Ecx[16] Host,
    Rdpid        7/0 Ecx[22] Engine,
    // Leaf 7, EDX. The engines flush nothing that speculation could leak from, and report the
    // immunities in IA32_ARCH_CAPABILITIES.
    Fsrm         7/0 Edx[4]  Engine,
    Avx512Vp2Intersect 7/0 Edx[8] Host needs Avx512F,
    MdClear      7/0 Edx[10] Engine,
    Avx512Fp16   7/0 Edx[23] Host needs Avx512Bw,
    SpecCtrl     7/0 Edx[26] Engine,
    Stibp        7/0 Edx[27] Engine,
    ArchCapabilities 7/0 Edx[29] Engine,
    Ssbd         7/0 Edx[31] Engine,
    // Leaf 7, subleaf 1.
    Sha512       7/1 Eax[0]  Host needs Avx,
    Sm3          7/1 Eax[1]  Host needs Avx,
    Sm4          7/1 Eax[2]  Host needs Avx,
    AvxVnni      7/1 Eax[4]  Host needs Avx2,
    Avx512Bf16   7/1 Eax[5]  Host needs Avx512F,
    AvxIfma      7/1 Eax[23] Host needs Avx2,
    AvxVnniInt8  7/1 Edx[4]  Host needs Avx2,
    AvxNeConvert 7/1 Edx[5]  Host needs Avx2,
    AvxVnniInt16 7/1 Edx[10] Host needs Avx2,
    // Leaf 0xD, subleaf 1, EAX.
    Xsaveopt     0xD/1 Eax[0] Engine needs Xsave,
    Xsavec       0xD/1 Eax[1] Engine needs Xsave,
    Xgetbv1      0xD/1 Eax[2] Engine needs Xsave,
    Xsaves       0xD/1 Eax[3] Engine needs Xsave,
    // Leaf 0x80000001, ECX.
    LahfLm       0x8000_0001/0 Ecx[0] Engine,
    Lzcnt        0x8000_0001/0 Ecx[5] Engine,
    Sse4a        0x8000_0001/0 Ecx[6] Host,
    PrefetchW    0x8000_0001/0 Ecx[8] Engine,
    // Leaf 0x80000001, EDX.
    Syscall      0x8000_0001/0 Edx[11] Engine,
    Nx           0x8000_0001/0 Edx[20] Engine,
    Pdpe1gb      0x8000_0001/0 Edx[26] Engine,
    Rdtscp       0x8000_0001/0 Edx[27] Engine,
    LongMode     0x8000_0001/0 Edx[29] Engine,
    // Leaf 0x80000007, EDX.
    InvariantTsc 0x8000_0007/0 Edx[8] Engine,
    // Leaf 0x80000008, EBX.
    Clzero       0x8000_0008/0 Ebx[0] Host,
    Xsaveerptr   0x8000_0008/0 Ebx[2] Host,
}
