//! The processor that a guest is given, as the command line names it.

use super::{Base, FEATURES, Feature, Policy};
use std::str::FromStr;
use std::sync::OnceLock;
use thiserror::Error;

/// Whose processor CPUID says it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vendor {
    /// GenuineIntel.
    Intel,
    /// AuthenticAMD.
    Amd,
}

impl Vendor {
    /// The host's.
    pub fn host() -> Vendor {
        static HOST: OnceLock<Vendor> = OnceLock::new();
        *HOST.get_or_init(|| Policy::host(1).vendor())
    }

    /// The name in CPUID leaf 0, in the order EBX, EDX, ECX.
    pub(super) fn name(self) -> &'static [u8; 12] {
        match self {
            Vendor::Intel => b"GenuineIntel",
            Vendor::Amd => b"AuthenticAMD",
        }
    }
}

/// A processor: a base model and what differs from it, written `host,-x2apic,vendor=GenuineIntel`
/// or `x86-64-v2,+avx`.
///
/// Feature names are the SDM's, in any case and punctuation (`tsc-deadline`, `SSE4.1`). `+NAME`
/// insists on a feature.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Model {
    base: Base,
    without: Vec<Feature>,
    with: Vec<Feature>,
    vendor: Option<Vendor>,
}

/// Why there is no such processor.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ModelError {
    /// The base model.
    #[error("processor model {0:?}: give one of {names}", names = names())]
    UnknownModel(String),
    /// The host cannot execute the model's instructions.
    #[error(
        "processor model {model}: this host lacks {features}: choose a lesser model, or do without: --cpu {model}{removed}",
        features = list(missing, ", "),
        removed = list(missing, ",-").to_lowercase().replacen("", ",-", 1)
    )]
    HostLacks {
        /// The model.
        model: &'static str,
        /// What is missing.
        missing: Vec<Feature>,
    },
    /// The name behind `+` or `-`.
    #[error("processor feature {0:?} is unknown: use the manual's name, such as x2apic or avx2")]
    UnknownFeature(String),
    /// The name behind `vendor=`.
    #[error("processor vendor {0:?}: give GenuineIntel or AuthenticAMD")]
    UnknownVendor(String),
    /// `+NAME` that cannot be had.
    #[error("processor feature {0:?}: this host does not have it, or what it needs was taken away")]
    NotAvailable(Feature),
}

fn names() -> String {
    Base::NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn list(features: &[Feature], between: &str) -> String {
    features.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(between)
}

fn feature(name: &str) -> Result<Feature, ModelError> {
    let plain = |s: &str| -> String {
        s.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let wanted = plain(name);
    FEATURES
        .iter()
        .map(|line| line.feature)
        .find(|f| plain(&format!("{f:?}")) == wanted)
        .ok_or_else(|| ModelError::UnknownFeature(name.to_owned()))
}

impl FromStr for Model {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Model, ModelError> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let base = Base::named(name).ok_or_else(|| ModelError::UnknownModel(name.to_owned()))?;
        let mut model = Model { base, ..Model::default() };
        for part in parts {
            if let Some(name) = part.strip_prefix('-') {
                model.without.push(feature(name)?);
            } else if let Some(name) = part.strip_prefix("vendor=") {
                model.vendor = Some(match name {
                    "GenuineIntel" => Vendor::Intel,
                    "AuthenticAMD" => Vendor::Amd,
                    _ => return Err(ModelError::UnknownVendor(name.to_owned())),
                });
            } else {
                model.with.push(feature(part.strip_prefix('+').unwrap_or(part))?);
            }
        }
        Ok(model)
    }
}

impl Model {
    /// The policy of a machine with `cpu_count` of these.
    ///
    /// # Errors
    /// [`ModelError::HostLacks`] and [`ModelError::NotAvailable`].
    pub fn policy(&self, cpu_count: u32) -> Result<Policy, ModelError> {
        let (mut policy, missing) = Policy::named(cpu_count, self.base, &self.without);
        if !missing.is_empty() {
            return Err(ModelError::HostLacks { model: self.base.name(), missing });
        }
        if let Some(vendor) = self.vendor {
            policy.set_vendor(vendor);
        }
        for &feature in &self.with {
            policy.add(feature, &self.without);
        }
        match self.with.iter().find(|&&f| !policy.has(f)) {
            Some(&missing) => Err(ModelError::NotAvailable(missing)),
            None => Ok(policy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;

    #[test]
    fn features_are_taken_away_by_name() {
        let model: Model = "host,-x2apic,-TSC_deadline,+pae".parse().unwrap();
        let policy = model.policy(1).unwrap();
        assert!(!policy.has(Feature::X2Apic) && !policy.has(Feature::TscDeadline));
        assert!(policy.has(Feature::Pae));
    }

    #[test]
    fn named_processors_are_what_they_say() {
        let cpu = Cpu::new();
        for (name, family, model, long_mode) in
            [("486", 4, 8, false), ("pentium", 5, 4, false), ("core2", 6, 15, true)]
        {
            let policy = name.parse::<Model>().unwrap().policy(1).unwrap();
            let leaf = |number| policy.query(number, 0, &cpu, true);
            let signature = leaf(1).eax;
            assert_eq!((signature >> 8 & 15, signature >> 4 & 15), (family, model), "{name}");
            assert_eq!(policy.has(Feature::LongMode), long_mode, "{name}");
            assert_eq!(leaf(0x8000_0001).edx >> 29 & 1 != 0, long_mode, "{name}");
            assert!(!policy.has(Feature::Hypervisor) && !policy.has(Feature::Avx), "{name}");
            assert_eq!(leaf(0x4000_0000), Default::default(), "{name}");
            assert_eq!(leaf(leaf(0).eax + 1), Default::default(), "{name}");
        }
        let pentium = "pentium".parse::<Model>().unwrap().policy(1).unwrap();
        assert_eq!(pentium.query(1, 0, &cpu, true).edx, 0x0080_03BF, "no PAE, no CMOV");
        let model: Model = "v2,+avx,-pcid".parse().unwrap();
        match model.policy(1) {
            Ok(policy) => assert!(policy.has(Feature::Avx) && !policy.has(Feature::Pcid)),
            Err(error) => assert_eq!(error, ModelError::NotAvailable(Feature::Avx)),
        }
        let policy = "x86-64-v2".parse::<Model>().unwrap().policy(1).unwrap();
        assert!(policy.has(Feature::Popcnt) && !policy.has(Feature::Avx));
        assert_eq!(policy.query(4, 2, &cpu, true).ecx, 4095);
    }

    #[test]
    fn what_the_host_lacks_is_named() {
        let missing = vec![Feature::Avx512F, Feature::Avx512Bw];
        let error = ModelError::HostLacks { model: "x86-64-v4", missing };
        let text = error.to_string();
        assert!(text.contains("lacks Avx512F, Avx512Bw"), "{text}");
        assert!(text.ends_with("--cpu x86-64-v4,-avx512f,-avx512bw"), "{text}");
        for (name, _) in Base::NAMES {
            match name.parse::<Model>().unwrap().policy(1) {
                Ok(_) => {}
                Err(ModelError::HostLacks { missing, .. }) => assert!(!missing.is_empty()),
                Err(other) => panic!("{name}: {other}"),
            }
        }
    }

    #[test]
    fn the_vendor_shows_in_leaf_0() {
        for (name, amd) in [("GenuineIntel", false), ("AuthenticAMD", true)] {
            let model: Model = format!("host,vendor={name}").parse().unwrap();
            let policy = model.policy(1).unwrap();
            assert_eq!(policy.is_amd(), amd);
            let r = policy.query(0, 0, &Cpu::new(), true);
            assert_eq!([r.ebx, r.edx, r.ecx].map(u32::to_le_bytes).concat(), name.as_bytes());
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| text.parse::<Model>().unwrap_err();
        assert_eq!(error("386"), ModelError::UnknownModel("386".into()));
        assert_eq!(error("host,-hyperdrive"), ModelError::UnknownFeature("hyperdrive".into()));
        assert_eq!(error("host,vendor=Acme"), ModelError::UnknownVendor("Acme".into()));
        let model: Model = "host,-xsave,+avx".parse().unwrap();
        assert_eq!(model.policy(1).unwrap_err(), ModelError::NotAvailable(Feature::Avx));
    }
}
