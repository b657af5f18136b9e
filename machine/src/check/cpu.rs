//! The host's processor, by CPUID as an ordinary process sees it.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{__cpuid, __cpuid_count};

/// Hardware virtualization that the processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virtualization {
    /// Intel VT-x (CPUID.1:ECX.VMX).
    VtX,
    /// AMD-V (CPUID.8000_0001H:ECX.SVM).
    Svm,
}

/// Whether the processor walks two levels of page tables (EPT or NPT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nesting {
    /// It does.
    Present,
    /// It does not.
    Absent,
    /// The processor tells only privileged code, and the kernel does not pass
    /// it on.
    Unknown,
}

/// The host's processor.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// The brand string.
    pub brand: String,
    /// Threads that this process may use.
    pub cores: usize,
    /// Level of the x86-64 psABI (1 to 4) that the processor reaches, with the
    /// kernel's support.
    pub level: u32,
    /// Instruction set extensions usable by a process: name and presence.
    pub extensions: Vec<(&'static str, bool)>,
    /// Hardware virtualization, if any.
    pub virtualization: Option<Virtualization>,
    /// Nested paging for it.
    pub nesting: Nesting,
    /// Protection keys: the processor has them, and the kernel switched them on.
    pub protection_keys: (bool, bool),
    /// RDFSBASE and its kin: the processor has them, and the kernel allows them
    /// to processes (AT_HWCAP2 bit 1).
    pub fsgsbase: (bool, bool),
    /// The TSC runs at one rate in every state (CPUID.8000_0007H:EDX.8).
    pub invariant_tsc: bool,
    /// 57-bit linear addresses.
    pub la57: bool,
    /// Signature of the hypervisor that the host itself runs under.
    pub hypervisor: Option<String>,
}

/// AT_HWCAP2 bit 1: the kernel has set CR4.FSGSBASE.
const HWCAP2_FSGSBASE: usize = 1 << 1;

macro_rules! extensions {
    ($($name:tt)*) => { vec![$(($name, is_x86_feature_detected!($name))),*] };
}

impl Cpu {
    pub(super) fn detect() -> Self {
        let basic = __cpuid(0).eax;
        let extended = __cpuid(0x8000_0000).eax;
        let leaf = |number: u32| {
            let last = if number >= 0x8000_0000 { extended } else { basic };
            (number <= last).then(|| __cpuid_count(number, 0))
        };
        let bit =
            |register: Option<u32>, bit: u32| register.is_some_and(|word| word >> bit & 1 == 1);
        let features = leaf(1).map(|leaf| leaf.ecx);
        let structured = leaf(7);
        let structured_ecx = structured.map(|leaf| leaf.ecx);

        let virtualization = if bit(features, 5) {
            Some(Virtualization::VtX)
        } else if bit(leaf(0x8000_0001).map(|leaf| leaf.ecx), 2) {
            Some(Virtualization::Svm)
        } else {
            None
        };
        let nesting = match virtualization {
            None => Nesting::Absent,
            Some(Virtualization::Svm) => match bit(leaf(0x8000_000A).map(|leaf| leaf.edx), 0) {
                true => Nesting::Present,
                false => Nesting::Absent,
            },
            Some(Virtualization::VtX) => {
                ept(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
            }
        };
        let fsgsbase = bit(structured.map(|leaf| leaf.ebx), 0);
        Self {
            brand: brand(extended),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            level: level(),
            extensions: extensions!(
                "sse" "sse2" "sse3" "ssse3" "sse4.1" "sse4.2" "sse4a" "popcnt" "lzcnt" "bmi1"
                "bmi2" "adx" "movbe" "cmpxchg16b" "aes" "pclmulqdq" "sha" "rdrand" "rdseed"
                "fxsr" "xsave" "xsaveopt" "xsavec" "f16c" "fma" "avx" "avx2" "vaes" "vpclmulqdq"
                "gfni" "avx512f" "avx512cd" "avx512bw" "avx512dq" "avx512vl" "avx512ifma"
                "avx512vbmi" "avx512vbmi2" "avx512vnni" "avx512bitalg" "avx512vpopcntdq"
                "avx512bf16" "avx512fp16"
            ),
            virtualization,
            nesting,
            protection_keys: (bit(structured_ecx, 3), bit(structured_ecx, 4)),
            fsgsbase: (fsgsbase, rustix::param::linux_hwcap().1 & HWCAP2_FSGSBASE != 0),
            invariant_tsc: bit(leaf(0x8000_0007).map(|leaf| leaf.edx), 8),
            la57: bit(structured_ecx, 16),
            hypervisor: bit(features, 31).then(|| {
                let leaf = __cpuid(0x4000_0000);
                text(&[leaf.ebx, leaf.ecx, leaf.edx])
            }),
        }
    }

    /// Whether the extension `name` is usable.
    pub fn has(&self, name: &str) -> bool {
        self.extensions.iter().any(|(known, present)| *known == name && *present)
    }
}

/// The level of the x86-64 psABI, section 3.1.1.
fn level() -> u32 {
    macro_rules! all {
        ($($name:tt)*) => { $(is_x86_feature_detected!($name))&&* };
    }
    if !all!("cmpxchg16b" "popcnt" "sse3" "ssse3" "sse4.1" "sse4.2") {
        1
    } else if !all!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe" "xsave") {
        2
    } else if !all!("avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl") {
        3
    } else {
        4
    }
}

fn brand(extended: u32) -> String {
    if extended < 0x8000_0004 {
        return "an x86-64 processor without a name".into();
    }
    let words: Vec<u32> = (0x8000_0002..=0x8000_0004)
        .map(__cpuid)
        .flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
        .collect();
    text(&words)
}

/// The text that CPUID spells in registers.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}

/// Whether the kernel lists EPT among the VT-x features it found.
fn ept(cpuinfo: &str) -> Nesting {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("vmx flags")?.split_once(':'));
    match flags {
        None => Nesting::Unknown,
        Some((_, flags)) if flags.split_whitespace().any(|flag| flag == "ept") => Nesting::Present,
        Some(_) => Nesting::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ept_is_known_only_if_the_kernel_says_so() {
        let line = "vmx flags\t: vnmi preemption_timer ept vpid\n";
        assert_eq!(ept(line), Nesting::Present);
        assert_eq!(ept("vmx flags\t: vnmi ept_ad\n"), Nesting::Absent);
        assert_eq!(ept("flags\t\t: fpu vme ept\n"), Nesting::Unknown);
    }

    #[test]
    fn text_ends_at_the_first_nul() {
        assert_eq!(text(&[u32::from_le_bytes(*b" KVM"), 0x4D4B, u32::MAX]), "KVMKM");
    }

    /// Against the kernel's own view of the processor.
    #[test]
    fn extensions_agree_with_the_kernel() {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap();
        let kernel = |flag: &str| flags.split_whitespace().any(|known| known == flag);
        let cpu = Cpu::detect();
        for (name, flag) in [
            ("sse4.2", "sse4_2"),
            ("avx2", "avx2"),
            ("avx512f", "avx512f"),
            ("cmpxchg16b", "cx16"),
            ("aes", "aes"),
            ("sha", "sha_ni"),
        ] {
            assert_eq!(cpu.has(name), kernel(flag), "{name}");
        }
        assert_eq!(cpu.virtualization.is_some(), kernel("vmx") || kernel("svm"));
        assert_eq!(cpu.hypervisor.is_some(), kernel("hypervisor"));
        assert_eq!(cpu.protection_keys.1, kernel("ospke"));
        assert_eq!(cpu.fsgsbase.1, kernel("fsgsbase"));
        assert!(cpuinfo.contains(&cpu.brand), "{}", cpu.brand);
    }
}
