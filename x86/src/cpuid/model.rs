//! The processor that a guest is given, as the command line names it.

use super::{FEATURES, Feature, Policy};
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

/// A processor: a base model and what differs from it, written `host,-x2apic,vendor=GenuineIntel`.
///
/// Feature names are the SDM's, in any case and punctuation (`tsc-deadline`, `SSE4.1`). `+NAME`
/// insists on a feature.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Model {
    without: Vec<Feature>,
    with: Vec<Feature>,
    vendor: Option<Vendor>,
}

/// Why there is no such processor.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ModelError {
    /// The base model.
    #[error("processor model {0:?}: there is only \"host\"")]
    UnknownModel(String),
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
        let base = parts.next().unwrap_or_default();
        if base != "host" {
            return Err(ModelError::UnknownModel(base.to_owned()));
        }
        let mut model = Model::default();
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
    /// [`ModelError::NotAvailable`].
    pub fn policy(&self, cpu_count: u32) -> Result<Policy, ModelError> {
        let mut policy = Policy::host(cpu_count);
        if let Some(vendor) = self.vendor {
            policy.set_vendor(vendor);
        }
        for &feature in &self.without {
            policy.remove(feature);
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
        assert_eq!(error("486"), ModelError::UnknownModel("486".into()));
        assert_eq!(error("host,-hyperdrive"), ModelError::UnknownFeature("hyperdrive".into()));
        assert_eq!(error("host,vendor=Acme"), ModelError::UnknownVendor("Acme".into()));
        let model: Model = "host,-xsave,+avx".parse().unwrap();
        assert_eq!(model.policy(1).unwrap_err(), ModelError::NotAvailable(Feature::Avx));
    }
}
