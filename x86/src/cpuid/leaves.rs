//! The leaves, one function arm each.

use super::base::{self, Identity};
use super::features::{FEATURES, Line, Register};
use super::{Base, Feature, Policy, Vendor};
use crate::Cpu;
use crate::control::{cr4, xcr0};
use std::arch::x86_64::__cpuid_count;

/// EAX, EBX, ECX, EDX.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuidResult {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

impl CpuidResult {
    fn set(&mut self, register: Register, bits: u32) {
        match register {
            Register::Eax => self.eax |= bits,
            Register::Ebx => self.ebx |= bits,
            Register::Ecx => self.ecx |= bits,
            Register::Edx => self.edx |= bits,
        }
    }
}

/// Host leaves that the policy needs, read once.
#[derive(Clone, Debug)]
pub(super) struct Host {
    vendor: CpuidResult,
    signature: u32,
    max_extended: u32,
    brand: [CpuidResult; 3],
}

fn host(leaf: u32, subleaf: u32) -> CpuidResult {
    let r = __cpuid_count(leaf, subleaf);
    CpuidResult { eax: r.eax, ebx: r.ebx, ecx: r.ecx, edx: r.edx }
}

impl Host {
    pub(super) fn read() -> Host {
        let max_extended = host(0x8000_0000, 0).eax;
        let brand = [0x8000_0002, 0x8000_0003, 0x8000_0004]
            .map(|leaf| if leaf <= max_extended { host(leaf, 0) } else { CpuidResult::default() });
        Host { vendor: host(0, 0), signature: host(1, 0).eax, max_extended, brand }
    }

    pub(super) fn has(&self, line: &Line) -> bool {
        let max = if line.leaf >= 0x8000_0000 { self.max_extended } else { self.vendor.eax };
        if line.leaf > max {
            return false;
        }
        let r = host(line.leaf, line.subleaf);
        let value = match line.register {
            Register::Eax => r.eax,
            Register::Ebx => r.ebx,
            Register::Ecx => r.ecx,
            Register::Edx => r.edx,
        };
        value >> line.bit & 1 != 0
    }

    /// Shows another processor than the host's.
    pub(super) fn become_model(&mut self, identity: &Identity) {
        self.signature = identity.signature;
        self.brand = base::brand_leaves(identity.brand);
    }

    pub(super) fn physical_bits(&self) -> u8 {
        if self.max_extended >= 0x8000_0008 { host(0x8000_0008, 0).eax as u8 } else { 36 }
    }

    /// Replaces the vendor's name, given in the order EBX, EDX, ECX.
    pub(super) fn set_vendor(&mut self, name: &[u8; 12]) {
        let word = |i: usize| u32::from_le_bytes([name[i], name[i + 1], name[i + 2], name[i + 3]]);
        (self.vendor.ebx, self.vendor.edx, self.vendor.ecx) = (word(0), word(4), word(8));
    }

    /// Whose rules the processor follows: Hygon's are AMD's, all others Intel's.
    pub(super) fn vendor(&self) -> Vendor {
        let name = [self.vendor.ebx, self.vendor.edx, self.vendor.ecx].map(u32::to_le_bytes);
        match &name.concat()[..] {
            b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
            _ => Vendor::Intel,
        }
    }
}

const MAX_BASIC: u32 = 0xD;
/// Intel's, where the clocks are known.
const MAX_BASIC_CLOCKS: u32 = 0x16;
const MAX_EXTENDED: u32 = 0x8000_0021;

/// KVM's paravirtual features (Linux Documentation/virt/kvm/x86/cpuid.rst): the clock at its old
/// and new MSRs, no delays needed after port I/O, IPIs by hypercall, a stable clock.
const KVM_FEATURES: u32 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 11 | 1 << 24;

pub(super) fn query(
    policy: &Policy,
    leaf: u32,
    subleaf: u32,
    cpu: &Cpu,
    apic_enabled: bool,
) -> CpuidResult {
    // Beyond the last leaf, Intel answers with the last basic one, AMD with zeroes; zeroes are
    // what software of either kind survives.
    let mut r = CpuidResult::default();
    let identity = policy.base.identity();
    let max_basic = identity.as_ref().map_or_else(
        || {
            if policy.is_amd() || policy.clocks.is_none() { MAX_BASIC } else { MAX_BASIC_CLOCKS }
        },
        |identity| identity.max_basic,
    );
    let max_extended = identity.as_ref().map_or(MAX_EXTENDED, |identity| identity.max_extended);
    let last = match leaf >> 28 {
        0 => max_basic,
        // The hypervisor's leaves.
        4 if policy.has(Feature::Hypervisor) => 0x4000_0010,
        8 => max_extended,
        _ => 0,
    };
    if leaf > last {
        return r;
    }
    // Only these leaves look at ECX.
    let subleaf = if matches!(leaf, 4 | 7 | 0xB | 0xD) { subleaf } else { 0 };
    for (i, line) in FEATURES.iter().enumerate() {
        if line.leaf == leaf && line.subleaf == subleaf && policy.offered >> i & 1 != 0 {
            r.set(line.register, 1 << line.bit);
        }
    }
    let count = policy.cpu_count.max(1);
    match leaf {
        0 => {
            r = policy.host.vendor;
            r.eax = max_basic;
        }
        1 => {
            r.eax = policy.host.signature;
            // CLFLUSH line of 8 × 8 bytes, logical processors, initial APIC ID.
            if policy.has(Feature::Clfsh) {
                r.ebx |= 8 << 8;
            }
            if policy.has(Feature::Apic) {
                r.ebx |= count.min(255) << 16 | cpu.apic_id << 24;
            }
            if count > 1 {
                r.edx |= 1 << 28;
            }
            if cpu.cr4 & cr4::OSXSAVE != 0 {
                r.ecx |= 1 << 27;
            }
            if !apic_enabled {
                r.edx &= !(1 << 9);
                r.ecx &= !(1 << 21);
            }
        }
        4 => r = deterministic_cache(policy, subleaf, count),
        7 if subleaf == 0 => {
            if cpu.cr4 & cr4::PKE != 0 && policy.has(Feature::Pku) {
                r.ecx |= 1 << 4;
            }
            // The last subleaf.
            r.eax = 2;
        }
        // BHI_CTRL: branch history can be kept to its own mode, which costs nothing here, while
        // kernels that do not find it clear the history by a loop.
        7 if subleaf == 2 && !policy.is_amd() && policy.has(Feature::SpecCtrl) => r.edx |= 1 << 4,
        0xB => r = topology(subleaf, count, cpu.apic_id),
        0xD => r = xsave(policy, subleaf, cpu, r),
        0x15 => r = crystal_clock(policy),
        0x16 => r = processor_frequency(policy),
        0x4000_0000 => {
            let name = |s: &[u8; 4]| u32::from_le_bytes(*s);
            r = CpuidResult {
                eax: 0x4000_0010,
                ebx: name(b"KVMK"),
                ecx: name(b"VMKV"),
                edx: name(b"M\0\0\0"),
            };
        }
        0x4000_0001 => r.eax = KVM_FEATURES,
        // The clocks in kHz, a leaf that hypervisors share (VMware KB 1009458).
        0x4000_0010 => {
            if let Some(clocks) = policy.clocks {
                r.eax = (clocks.tsc_hz / 1000) as u32;
                r.ebx = (clocks.crystal_hz / 1000) as u32;
            }
        }
        0x8000_0000 => {
            r = policy.host.vendor;
            r.eax = max_extended;
            if !policy.is_amd() {
                r = CpuidResult { eax: max_extended, ..CpuidResult::default() };
            }
        }
        0x8000_0001 => {
            r.eax = policy.host.signature;
            if policy.is_amd() {
                // AMD repeats most of leaf 1's EDX here (APM vol. 3, E.4.2).
                r.edx |= query(policy, 1, 0, cpu, apic_enabled).edx & 0x0183_F3FF;
            }
        }
        0x8000_0002..=0x8000_0004 => r = policy.host.brand[(leaf - 0x8000_0002) as usize],
        0x8000_0006 if policy.base != Base::Host => r.ecx = base::LEVEL_2,
        0x8000_0005 if policy.base != Base::Host => {}
        0x8000_0005 | 0x8000_0006 if policy.host.max_extended >= leaf => r = host(leaf, 0),
        0x8000_0008 => {
            let linear = if policy.has(Feature::La57) { 57 } else { 48 };
            r.eax = u32::from(policy.physical_bits) | linear << 8;
            if policy.is_amd() {
                // IBPB, IBRS, STIBP, SSBD, BTC_NO, IBPB_RET: speculation controls that cost nothing
                // here, and immunity, so that the guest needs no thunks.
                r.ebx |= 1 << 12 | 1 << 14 | 1 << 15 | 1 << 24 | 1 << 29 | 1 << 30;
                r.ecx = (count - 1) | id_bits(count) << 12;
            }
        }
        0x8000_0021 if policy.is_amd() => {
            // LFENCE serialises, null selectors clear their base, automatic IBRS, SRSO_NO.
            r.eax = 1 << 2 | 1 << 6 | 1 << 8 | 1 << 29;
            // TSA_SQ_NO, TSA_L1_NO: no transient scheduler attacks.
            r.ecx = 1 << 1 | 1 << 2;
        }
        _ => {}
    }
    r
}

/// Bits of an APIC ID that number `count` processors.
fn id_bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

/// Leaf 4 on Intel: the host's caches, each private to one vCPU but for the last level.
fn deterministic_cache(policy: &Policy, subleaf: u32, count: u32) -> CpuidResult {
    if policy.is_amd() || subleaf > 3 {
        return CpuidResult::default();
    }
    let mut r = match policy.base {
        Base::Host if policy.host.vendor.eax < 4 => CpuidResult::default(),
        Base::Host => host(4, subleaf),
        Base::I486
        | Base::Pentium
        | Base::Core2
        | Base::X86_64V2
        | Base::X86_64V3
        | Base::X86_64V4 => base::cache(subleaf).unwrap_or_default(),
    };
    if r.eax & 0x1F == 0 {
        return CpuidResult::default();
    }
    let level = r.eax >> 5 & 7;
    let sharing = if level >= 3 { count - 1 } else { 0 };
    r.eax = r.eax & 0x3FFF | sharing << 14 | (count - 1).min(63) << 26;
    r
}

/// Leaf 15H: the TSC as a multiple of the core crystal clock.
fn crystal_clock(policy: &Policy) -> CpuidResult {
    policy.clocks.map_or_else(CpuidResult::default, |clocks| CpuidResult {
        eax: 1,
        ebx: (clocks.tsc_hz / clocks.crystal_hz) as u32,
        ecx: clocks.crystal_hz as u32,
        edx: 0,
    })
}

/// Leaf 16H: base, maximum and bus frequency in MHz, for information only.
fn processor_frequency(policy: &Policy) -> CpuidResult {
    policy.clocks.map_or_else(CpuidResult::default, |clocks| {
        let mhz = (clocks.tsc_hz / 1_000_000) as u32;
        CpuidResult { eax: mhz, ebx: mhz, ecx: 100, edx: 0 }
    })
}

/// Leaf 0xB: one thread per core, one package.
fn topology(subleaf: u32, count: u32, apic_id: u32) -> CpuidResult {
    let (shift, processors, kind) = match subleaf {
        0 => (0, 1, 1),
        1 => (id_bits(count), count, 2),
        _ => (0, 0, 0),
    };
    CpuidResult { eax: shift, ebx: processors, ecx: subleaf & 0xFF | kind << 8, edx: apic_id }
}

/// State components beyond the legacy region: XCR0 bit, size, and offset in the standard format
/// (SDM vol. 1, section 13.4.3). The offsets are Intel's, whatever the host's: the engines lay the
/// area out themselves.
pub const XSAVE_COMPONENTS: [(u32, u32, u32); 5] =
    [(2, 256, 576), (5, 64, 1088), (6, 512, 1152), (7, 1024, 1664), (9, 8, 2688)];

fn xsave(policy: &Policy, subleaf: u32, cpu: &Cpu, mut r: CpuidResult) -> CpuidResult {
    if !policy.has(Feature::Xsave) {
        return CpuidResult::default();
    }
    let standard_size = |mask: u64| {
        XSAVE_COMPONENTS
            .iter()
            .filter(|c| mask >> c.0 & 1 != 0)
            .fold(576, |size: u32, c| size.max(c.2 + c.1))
    };
    match subleaf {
        0 => {
            let mask = policy.xcr0_mask();
            r.eax = mask as u32;
            r.ebx = standard_size(cpu.xcr0);
            r.ecx = standard_size(mask);
            r.edx = (mask >> 32) as u32;
        }
        1 => {
            // Size of the compacted area for XCR0 | IA32_XSS; no component is 64-byte aligned by
            // its flag except where its size keeps it so.
            let mask = (cpu.xcr0 | cpu.xss) & !(xcr0::X87 | xcr0::SSE);
            r.ebx = XSAVE_COMPONENTS
                .iter()
                .filter(|c| mask >> c.0 & 1 != 0)
                .fold(576, |size: u32, c| size + c.1);
        }
        _ => {
            if let Some(c) = XSAVE_COMPONENTS.iter().find(|c| c.0 == subleaf)
                && policy.xcr0_mask() >> c.0 & 1 != 0
            {
                r = CpuidResult { eax: c.1, ebx: c.2, ecx: 0, edx: 0 };
            }
        }
    }
    r
}
