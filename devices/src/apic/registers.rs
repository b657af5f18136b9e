//! The local APIC's register map: numbers, local vector table, writable bits.

use serde::{Deserialize, Serialize};

/// A local APIC register, by its number: the MMIO offset divided by 16, and
/// the low byte of the x2APIC MSR address (SDM volume 3A, tables "Local APIC
/// Register Address Map" and "Local APIC Register Address Map Supported by
/// x2APIC").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// 02H, local APIC ID.
    Id,
    /// 03H, local APIC version.
    Version,
    /// 08H, task priority (TPR).
    TaskPriority,
    /// 09H, arbitration priority (APR); not in x2APIC mode.
    ArbitrationPriority,
    /// 0AH, processor priority (PPR).
    ProcessorPriority,
    /// 0BH, end of interrupt (EOI).
    EndOfInterrupt,
    /// 0CH, remote read (RRD); not in x2APIC mode.
    RemoteRead,
    /// 0DH, logical destination (LDR).
    LogicalDestination,
    /// 0EH, destination format (DFR); not in x2APIC mode.
    DestinationFormat,
    /// 0FH, spurious interrupt vector (SVR).
    SpuriousVector,
    /// 10H to 17H, in-service (ISR), with the index of the 32-bit part.
    InService(u8),
    /// 18H to 1FH, trigger mode (TMR).
    TriggerMode(u8),
    /// 20H to 27H, interrupt request (IRR).
    InterruptRequest(u8),
    /// 28H, error status (ESR).
    ErrorStatus,
    /// 30H, interrupt command (ICR) bits 31:0; all 64 bits in x2APIC mode.
    InterruptCommand,
    /// 31H, interrupt command bits 63:32; not in x2APIC mode.
    InterruptCommandHigh,
    /// 32H to 37H, local vector table.
    Lvt(LvtEntry),
    /// 38H, initial count of the timer.
    InitialCount,
    /// 39H, current count of the timer.
    CurrentCount,
    /// 3EH, divide configuration of the timer (DCR).
    DivideConfiguration,
    /// 3FH, SELF IPI; only in x2APIC mode.
    SelfIpi,
}

impl Register {
    /// The register with number `number`, in either mode; `None` if reserved.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0x02 => Self::Id,
            0x03 => Self::Version,
            0x08 => Self::TaskPriority,
            0x09 => Self::ArbitrationPriority,
            0x0A => Self::ProcessorPriority,
            0x0B => Self::EndOfInterrupt,
            0x0C => Self::RemoteRead,
            0x0D => Self::LogicalDestination,
            0x0E => Self::DestinationFormat,
            0x0F => Self::SpuriousVector,
            0x10..=0x17 => Self::InService((number & 7) as u8),
            0x18..=0x1F => Self::TriggerMode((number & 7) as u8),
            0x20..=0x27 => Self::InterruptRequest((number & 7) as u8),
            0x28 => Self::ErrorStatus,
            0x30 => Self::InterruptCommand,
            0x31 => Self::InterruptCommandHigh,
            0x32 => Self::Lvt(LvtEntry::Timer),
            0x33 => Self::Lvt(LvtEntry::ThermalSensor),
            0x34 => Self::Lvt(LvtEntry::PerformanceCounter),
            0x35 => Self::Lvt(LvtEntry::Lint0),
            0x36 => Self::Lvt(LvtEntry::Lint1),
            0x37 => Self::Lvt(LvtEntry::Error),
            0x38 => Self::InitialCount,
            0x39 => Self::CurrentCount,
            0x3E => Self::DivideConfiguration,
            0x3F => Self::SelfIpi,
            _ => return None,
        })
    }
}

/// A source of local interrupts, with its entry in the local vector table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LvtEntry {
    /// The APIC timer.
    Timer,
    /// The thermal sensor.
    ThermalSensor,
    /// Performance-monitoring counter overflow.
    PerformanceCounter,
    /// The LINT0 pin: the 8259A's INTR on a PC.
    Lint0,
    /// The LINT1 pin: NMI on a PC.
    Lint1,
    /// An error that the APIC itself detected.
    Error,
}

/// Number of entries, one more than the version register's "max LVT entry".
/// There is no CMCI entry, so IA32_MCG_CAP must not report one.
pub(super) const LVT_ENTRIES: usize = 6;

/// Version register: 14H, an integrated APIC with xAPIC and x2APIC registers;
/// bits 23:16 the last LVT entry; bit 24 suppression of EOI broadcasts.
pub(super) const VERSION: u32 = 0x14 | (LVT_ENTRIES as u32 - 1) << 16 | 1 << 24;

/// LVT bits 7:0.
pub(super) const LVT_VECTOR: u32 = 0xFF;
/// LVT bits 10:8.
pub(super) const LVT_DELIVERY_MODE: u32 = 7 << 8;
/// LVT bit 12, read-only: delivery status, always idle here.
pub(super) const LVT_DELIVERY_STATUS: u32 = 1 << 12;
/// LVT bit 13: input polarity of a LINT pin.
pub(super) const LVT_POLARITY: u32 = 1 << 13;
/// LVT bit 14, read-only: a level interrupt was accepted and awaits its EOI.
pub(super) const LVT_REMOTE_IRR: u32 = 1 << 14;
/// LVT bit 15: level trigger mode of a LINT pin.
pub(super) const LVT_LEVEL: u32 = 1 << 15;
/// LVT bit 16: mask.
pub(super) const LVT_MASK: u32 = 1 << 16;
/// LVT timer bit 17: periodic.
pub(super) const LVT_TIMER_PERIODIC: u32 = 1 << 17;
/// LVT timer bit 18: TSC-deadline.
pub(super) const LVT_TIMER_TSC_DEADLINE: u32 = 1 << 18;

impl LvtEntry {
    /// The entry's place in the table.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Timer => 0,
            Self::ThermalSensor => 1,
            Self::PerformanceCounter => 2,
            Self::Lint0 => 3,
            Self::Lint1 => 4,
            Self::Error => 5,
        }
    }

    /// The bits that software can change (SDM volume 3A, figure "Local Vector
    /// Table").
    pub(super) fn writable(self, tsc_deadline: bool) -> u32 {
        let common = LVT_VECTOR | LVT_MASK;
        match self {
            Self::Timer if tsc_deadline => common | LVT_TIMER_PERIODIC | LVT_TIMER_TSC_DEADLINE,
            Self::Timer => common | LVT_TIMER_PERIODIC,
            Self::ThermalSensor | Self::PerformanceCounter => common | LVT_DELIVERY_MODE,
            Self::Lint0 | Self::Lint1 => common | LVT_DELIVERY_MODE | LVT_POLARITY | LVT_LEVEL,
            Self::Error => common,
        }
    }

    /// The bits that software reads but cannot change; writing them is legal.
    pub(super) fn read_only(self) -> u32 {
        match self {
            Self::Lint0 | Self::Lint1 => LVT_DELIVERY_STATUS | LVT_REMOTE_IRR,
            Self::Timer | Self::ThermalSensor | Self::PerformanceCounter | Self::Error => {
                LVT_DELIVERY_STATUS
            }
        }
    }
}

/// SVR bit 8: APIC software enable.
pub(super) const SVR_ENABLE: u32 = 1 << 8;
/// SVR bit 12: suppress EOI broadcasts.
pub(super) const SVR_SUPPRESS_EOI_BROADCAST: u32 = 1 << 12;
/// Writable SVR bits. Bit 9 (focus checking) does nothing since the Pentium 4
/// but older kernels still set it, in x2APIC mode too.
pub(super) const SVR_WRITABLE: u32 = SVR_SUPPRESS_EOI_BROADCAST | 1 << 9 | SVR_ENABLE | 0xFF;

/// DCR bits that exist: 3, 1 and 0.
pub(super) const DCR_WRITABLE: u32 = 0b1011;

/// Bits of the error status register.
pub(super) mod esr {
    /// Bit 5: an IPI with vector 0 to 15 was to be sent.
    pub(in crate::apic) const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    /// Bit 6: a message or a local interrupt came with vector 0 to 15.
    pub(in crate::apic) const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
    /// Bit 7: access to a reserved register in xAPIC mode.
    pub(in crate::apic) const ILLEGAL_REGISTER_ADDRESS: u32 = 1 << 7;
}
