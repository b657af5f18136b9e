//! Configuration, IA32_APIC_BASE and the operating modes it selects.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Guest physical address of the register page after power-on.
pub const LOCAL_APIC_BASE: u64 = 0xFEE0_0000;
/// Size of the register page in bytes.
pub const LOCAL_APIC_SIZE: u64 = 0x1000;

/// IA32_APIC_BASE bit 8: this is the bootstrap processor.
pub(super) const BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE bit 10: x2APIC mode.
pub(super) const BASE_X2APIC: u64 = 1 << 10;
/// IA32_APIC_BASE bit 11: global enable.
pub(super) const BASE_ENABLE: u64 = 1 << 11;
/// IA32_APIC_BASE bits that are reserved whatever the processor offers.
pub(super) const BASE_RESERVED: u64 = 0xFF | 1 << 9;

/// What a local APIC is built with: it never changes afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalApicConfig {
    /// The initial APIC ID, which CPUID leaves 1 (low 8 bits) and 0BH report,
    /// and the APIC ID in x2APIC mode.
    pub id: u32,
    /// Whether this is the bootstrap processor's.
    pub bootstrap: bool,
    /// Whether CPUID offers x2APIC mode.
    pub x2apic: bool,
    /// Whether CPUID offers the TSC-deadline timer.
    pub tsc_deadline: bool,
    /// MAXPHYADDR: bits from here up are reserved in IA32_APIC_BASE.
    pub physical_address_bits: u8,
}

/// The operating mode, as IA32_APIC_BASE selects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApicMode {
    /// Globally disabled: no registers, CPUID.1:EDX.APIC reads 0, the LINT
    /// pins act as INTR and NMI.
    Disabled,
    /// Registers in memory, 8-bit IDs.
    XApic,
    /// Registers as MSRs, 32-bit IDs.
    X2Apic,
}

impl ApicMode {
    /// The mode that a value of IA32_APIC_BASE selects; `None` if x2APIC mode
    /// is asked for without the global enable.
    pub(super) fn from_base(base: u64) -> Option<Self> {
        match (base & BASE_ENABLE != 0, base & BASE_X2APIC != 0) {
            (false, false) => Some(Self::Disabled),
            (true, false) => Some(Self::XApic),
            (true, true) => Some(Self::X2Apic),
            (false, true) => None,
        }
    }

    /// Whether software may go from `self` to `new` (SDM volume 3A, figure
    /// "Local x2APIC State Transitions with IA32_APIC_BASE").
    pub(super) fn may_become(self, new: Self) -> bool {
        match (self, new) {
            (Self::Disabled, Self::X2Apic) | (Self::X2Apic, Self::XApic) => false,
            (Self::Disabled, Self::Disabled | Self::XApic)
            | (Self::XApic, Self::Disabled | Self::XApic | Self::X2Apic)
            | (Self::X2Apic, Self::Disabled | Self::X2Apic) => true,
        }
    }
}

/// An access that raises a general-protection exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AccessError {
    /// The APIC is not in x2APIC mode, or has no such register there, or the
    /// register does not allow this direction.
    #[error("no access to local APIC MSR {0:#x} in this mode and direction")]
    NoRegister(u32),
    /// The value has reserved bits set.
    #[error("local APIC MSR {msr:#x}: value {value:#x} has reserved bits set")]
    ReservedBits {
        /// MSR address.
        msr: u32,
        /// The value refused.
        value: u64,
    },
    /// IA32_APIC_BASE: from this mode software cannot go there.
    #[error("IA32_APIC_BASE: {value:#x} is no legal transition from {from:?}")]
    IllegalTransition {
        /// The present mode.
        from: ApicMode,
        /// The value refused.
        value: u64,
    },
}

/// MSR address of IA32_APIC_BASE, for error messages.
pub(super) const IA32_APIC_BASE: u32 = 0x1B;
