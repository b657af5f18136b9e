//! What CPUID tells the guest: a policy masked to what the host and the engines really have
//! (SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E).

mod base;
mod features;
mod leaves;
mod model;

pub use base::Base;
pub use features::{FEATURES, Feature, Line, Register, Rule};
pub use leaves::{CpuidResult, XSAVE_COMPONENTS};
pub use model::{Model, ModelError, Vendor};

use crate::Cpu;
use crate::control::{cr4, xcr0};
use leaves::Host;
use std::sync::{Arc, OnceLock};

/// What a vCPU reports, fixed when the machine is made.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Offered features, by position in [`FEATURES`].
    offered: u128,
    host: Host,
    /// Whose name is in `host`.
    vendor: Vendor,
    /// Which processor this is.
    base: Base,
    /// vCPUs in the machine.
    pub cpu_count: u32,
    /// Width of physical addresses in bits: reserved bits in paging structures start here.
    pub physical_bits: u8,
    /// Frequencies, where the machine tells them.
    pub clocks: Option<Clocks>,
}

/// The frequencies that a guest would otherwise have to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Time-stamp counter, in hertz.
    pub tsc_hz: u64,
    /// Core crystal clock, in hertz, which drives the APIC timer.
    pub crystal_hz: u64,
}

impl Policy {
    /// Everything that host and engines can do.
    pub fn host(cpu_count: u32) -> Policy {
        let host = Host::read();
        let mut offered = 0;
        for (i, line) in FEATURES.iter().enumerate() {
            let have = match line.rule {
                Rule::Host => host.has(line),
                Rule::Engine => true,
            };
            if have {
                offered |= 1 << i;
            }
        }
        let physical_bits = host.physical_bits().clamp(36, 48);
        let vendor = host.vendor();
        Policy { offered, host, vendor, base: Base::Host, cpu_count, physical_bits, clocks: None }
    }

    /// A named processor, without the features of `without` and what cannot be had without those.
    /// The second value is what the host lacks of the rest.
    pub fn named(cpu_count: u32, base: Base, without: &[Feature]) -> (Policy, Vec<Feature>) {
        let mut policy = Policy::host(cpu_count);
        let mut wanted = policy.clone();
        if let Some(identity) = base.identity() {
            wanted.offered =
                base.features().into_iter().flatten().fold(0, |bits, f| bits | 1 << f as u32);
            policy.physical_bits = policy.physical_bits.min(identity.physical_bits);
            policy.host.become_model(&identity);
            policy.set_vendor(Vendor::Intel);
            policy.base = base;
        }
        for &feature in without {
            wanted.remove(feature);
        }
        let lacking = wanted.offered & !policy.offered;
        let missing = FEATURES.iter().map(|line| line.feature);
        let missing = missing.filter(|&f| lacking >> f as u32 & 1 != 0).collect();
        policy.offered &= wanted.offered;
        (policy, missing)
    }

    /// [`Policy::host`] for one vCPU, made once: CPUID is slow where the host is itself virtual.
    pub fn single() -> Arc<Policy> {
        static SINGLE: OnceLock<Arc<Policy>> = OnceLock::new();
        SINGLE.get_or_init(|| Arc::new(Policy::host(1))).clone()
    }

    /// Whether the guest is offered `feature`.
    pub fn has(&self, feature: Feature) -> bool {
        self.offered >> feature as u32 & 1 != 0
    }

    /// Whether the opcodes 0F 0D and 0F 18 to 0F 1F are hints or do nothing, rather than being
    /// undefined: on the families 6 and 15 (SDM vol. 2B, NOP).
    pub fn has_long_nop(&self) -> bool {
        let family = |signature: u32| signature >> 8 & 0xF;
        self.base.identity().is_none_or(|base| matches!(family(base.signature), 6 | 15))
    }

    /// Takes a feature away, and with it what cannot be had without it.
    pub fn remove(&mut self, feature: Feature) {
        self.offered &= !(1 << feature as u32);
        for line in FEATURES {
            if line.needs.contains(&feature) && self.has(line.feature) {
                self.remove(line.feature);
            }
        }
    }

    /// Offers a feature that host and engines have, and what it needs, but nothing of `without`.
    pub(super) fn add(&mut self, feature: Feature, without: &[Feature]) {
        let line = FEATURES.iter().find(|line| line.feature == feature);
        let available = |line: &&Line| match line.rule {
            Rule::Host => Host::read().has(line),
            Rule::Engine => true,
        };
        let Some(line) = line.filter(available).filter(|_| !without.contains(&feature)) else {
            return;
        };
        for &needed in line.needs {
            self.add(needed, without);
        }
        if line.needs.iter().all(|&needed| self.has(needed)) {
            self.offered |= 1 << feature as u32;
        }
    }

    /// Makes the guest see a processor of `vendor`.
    pub fn set_vendor(&mut self, vendor: Vendor) {
        self.host.set_vendor(vendor.name());
        self.vendor = vendor;
    }

    /// Whose rules the guest's processor follows where the vendors' manuals differ: those of the
    /// vendor that it sees, whatever the host is.
    pub fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// Whether the guest sees an AMD (or Hygon) processor: [`Policy::vendor`].
    pub fn is_amd(&self) -> bool {
        self.vendor == Vendor::Amd
    }

    /// XCR0 bits that the guest may set.
    pub fn xcr0_mask(&self) -> u64 {
        let bit = |feature, mask| if self.has(feature) { mask } else { 0 };
        xcr0::X87
            | xcr0::SSE
            | bit(Feature::Avx, xcr0::AVX)
            | bit(Feature::Avx512F, xcr0::AVX512)
            | bit(Feature::Pku, xcr0::PKRU)
    }

    /// CR4 bits that the guest may set.
    pub fn cr4_mask(&self) -> u64 {
        let bit = |feature, mask| if self.has(feature) { mask } else { 0 };
        bit(Feature::Tsc, cr4::TSD)
            // RDPMC came with MMX.
            | bit(Feature::Mmx, cr4::PCE)
            | bit(Feature::Sse, cr4::OSXMMEXCPT)
            | bit(Feature::Vme, cr4::VME | cr4::PVI)
            | bit(Feature::De, cr4::DE)
            | bit(Feature::Pse, cr4::PSE)
            | bit(Feature::Pae, cr4::PAE)
            | bit(Feature::Mce, cr4::MCE)
            | bit(Feature::Pge, cr4::PGE)
            | bit(Feature::Fxsr, cr4::OSFXSR)
            | bit(Feature::Umip, cr4::UMIP)
            | bit(Feature::La57, cr4::LA57)
            | bit(Feature::FsGsBase, cr4::FSGSBASE)
            | bit(Feature::Pcid, cr4::PCIDE)
            | bit(Feature::Xsave, cr4::OSXSAVE)
            | bit(Feature::Smep, cr4::SMEP)
            | bit(Feature::Smap, cr4::SMAP)
            | bit(Feature::Pku, cr4::PKE)
    }

    /// The answer of CPUID for `leaf` and `subleaf` on `cpu`. `apic_enabled` is the global enable
    /// bit of IA32_APIC_BASE.
    pub fn query(&self, leaf: u32, subleaf: u32, cpu: &Cpu, apic_enabled: bool) -> CpuidResult {
        leaves::query(self, leaf, subleaf, cpu, apic_enabled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_in_the_order_of_the_enum() {
        assert!(FEATURES.len() <= 128);
        for (i, line) in FEATURES.iter().enumerate() {
            assert_eq!(line.feature as usize, i, "{:?}", line.feature);
        }
    }

    #[test]
    fn removing_a_feature_removes_its_dependents() {
        let mut policy = Policy::host(1);
        policy.remove(Feature::Xsave);
        assert!(
            !policy.has(Feature::Avx) && !policy.has(Feature::Avx2) && !policy.has(Feature::Fma)
        );
        assert_eq!(policy.xcr0_mask(), xcr0::X87 | xcr0::SSE);
    }

    #[test]
    fn clocks_are_reported_where_they_are_known() {
        let mut policy = Policy::host(1);
        let cpu = Cpu::new();
        policy.set_vendor(Vendor::Intel);
        assert_eq!(policy.query(0, 0, &cpu, true).eax, 0xD);
        policy.clocks = Some(Clocks { tsc_hz: 1_000_000_000, crystal_hz: 25_000_000 });
        assert_eq!(policy.query(0, 0, &cpu, true).eax, 0x16);
        let tsc = policy.query(0x15, 0, &cpu, true);
        assert_eq!((tsc.eax, tsc.ebx, tsc.ecx), (1, 40, 25_000_000));
        assert_eq!(policy.query(0x16, 0, &cpu, true).eax, 1000);
        let shared = policy.query(0x4000_0010, 0, &cpu, true);
        assert_eq!((shared.eax, shared.ebx), (1_000_000, 25_000));
        assert_eq!(policy.query(0x4000_0000, 0, &cpu, true).eax, 0x4000_0010);
        policy.set_vendor(Vendor::Amd);
        assert_eq!(policy.query(0, 0, &cpu, true).eax, 0xD, "AMD has no such leaves");
        assert_eq!(policy.query(0x15, 0, &cpu, true), CpuidResult::default());
    }

    #[test]
    fn reports_bits_in_their_leaves() {
        let policy = Policy::host(2);
        let mut cpu = Cpu::new();
        let one = policy.query(1, 0, &cpu, true);
        assert_ne!(one.edx & 1 << 9, 0, "APIC");
        assert_eq!(one.ecx & 1 << 27, 0, "OSXSAVE before CR4.OSXSAVE");
        assert_ne!(one.ecx & 1 << 31, 0, "hypervisor");
        cpu.cr4 |= cr4::OSXSAVE;
        assert_ne!(policy.query(1, 0, &cpu, true).ecx & 1 << 27, 0);
        assert_eq!(policy.query(1, 0, &cpu, false).edx & 1 << 9, 0);
        assert_eq!(&policy.query(0x4000_0000, 0, &cpu, true).ebx.to_le_bytes(), b"KVMK");
        assert_eq!(policy.query(1, 7, &cpu, true), policy.query(1, 0, &cpu, true), "no subleaves");
        let size = policy.query(0xD, 0, &cpu, true);
        assert_eq!(size.ebx, 576, "x87 and SSE only while XCR0 is 1");
    }
}
