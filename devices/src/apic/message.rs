//! Interrupt messages: what I/O APICs, MSIs and processors send to local APICs.

use serde::{Deserialize, Serialize};

/// How a message is to be taken, the 3-bit delivery mode field of the ICR, the
/// LVT, a redirection entry and MSI data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryMode {
    /// 000: to every processor addressed, with the vector of the message.
    Fixed,
    /// 001: to the one processor addressed that runs at the lowest priority.
    LowestPriority,
    /// 010: a system management interrupt.
    Smi,
    /// 100: a nonmaskable interrupt; the vector is ignored.
    Nmi,
    /// 101: INIT; the vector is ignored.
    Init,
    /// 110: start-up IPI; the vector is bits 19:12 of the start address.
    StartUp,
    /// 111: the vector comes from the 8259A.
    ExtInt,
    /// 011: reserved (remote read on the 82489DX); such a message is dropped.
    Reserved,
}

impl DeliveryMode {
    /// Decodes the three low bits of `bits`.
    pub fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => Self::Reserved,
        }
    }
}

/// Edge or level, as the TMR will show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TriggerMode {
    /// One interrupt for each message.
    Edge,
    /// The source stays asserted until it is served: EOI is broadcast back.
    Level,
}

/// Whom a message addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Destination {
    /// The local APIC with this ID; [`Destination::BROADCAST`] is all of them.
    Physical(u32),
    /// The local APICs whose logical ID matches this message destination
    /// address; [`Destination::BROADCAST`] is all of them.
    Logical(u32),
    /// Shorthand 01: the sender.
    Own,
    /// Shorthand 10: every local APIC, the sender too.
    AllIncludingSelf,
    /// Shorthand 11: every local APIC but the sender.
    AllExcludingSelf,
}

impl Destination {
    /// The destination that means every local APIC.
    pub const BROADCAST: u32 = u32::MAX;

    /// The destination in an 8-bit field, as xAPICs, I/O APICs and MSIs have
    /// it: FFH, the broadcast of that width, becomes the broadcast of 32 bits.
    pub fn from_byte(logical: bool, id: u8) -> Self {
        let id = if id == 0xFF { Self::BROADCAST } else { u32::from(id) };
        Self::from_id(logical, id)
    }

    /// The destination in a 32-bit field, as x2APICs have it.
    pub fn from_id(logical: bool, id: u32) -> Self {
        if logical { Self::Logical(id) } else { Self::Physical(id) }
    }
}

/// One interrupt on its way to local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptMessage {
    /// Vector; 0 to 15 are illegal where the delivery mode uses it.
    pub vector: u8,
    /// What the message asks for.
    pub delivery_mode: DeliveryMode,
    /// Whom it addresses.
    pub destination: Destination,
    /// Edge or level.
    pub trigger: TriggerMode,
}

/// Address bits 31:20 of a message-signalled interrupt.
const MSI_ADDRESS_PREFIX: u64 = 0xFEE;

impl InterruptMessage {
    /// Decodes a message-signalled interrupt: a 32-bit write of `data` to
    /// guest physical `address` (SDM volume 3A, section "Message Signalled
    /// Interrupts"). `None` if the address is outside FEE00000H..FEEFFFFFH.
    ///
    /// Address bits 11:5 extend the destination to 15 bits, as QEMU and KVM
    /// define it for guests with more than 255 processors and without an
    /// IOMMU; a guest that was not told so leaves them zero.
    pub fn from_msi(address: u64, data: u32) -> Option<Self> {
        if address >> 20 != MSI_ADDRESS_PREFIX {
            return None;
        }
        let id = (address >> 12) as u8;
        let extended_id = (address >> 5) as u32 & 0x7F;
        // The redirection hint (bit 3) is not needed: the delivery mode says
        // whether to choose among targets. The SDM calls the destination mode
        // ignored without the hint, yet processors honour it and Linux's flat
        // logical mode relies on that.
        let logical = address & 1 << 2 != 0;
        let destination = if extended_id == 0 {
            Destination::from_byte(logical, id)
        } else {
            Destination::from_id(logical, extended_id << 8 | u32::from(id))
        };
        Some(Self {
            vector: data as u8,
            delivery_mode: DeliveryMode::from_bits(data >> 8),
            destination,
            trigger: if data & 1 << 15 != 0 { TriggerMode::Level } else { TriggerMode::Edge },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msi_fields() {
        let message = InterruptMessage::from_msi(0xFEE0_300C, 0x8141).unwrap();
        assert_eq!(
            message,
            InterruptMessage {
                vector: 0x41,
                delivery_mode: DeliveryMode::LowestPriority,
                destination: Destination::Logical(3),
                trigger: TriggerMode::Level,
            }
        );
        let message = InterruptMessage::from_msi(0xFEEF_F000, 0x31).unwrap();
        assert_eq!(message.destination, Destination::Physical(Destination::BROADCAST));
        assert_eq!(message.trigger, TriggerMode::Edge);
        let message = InterruptMessage::from_msi(0xFEE2_C020, 0x31).unwrap();
        assert_eq!(message.destination, Destination::Physical(0x12C));
    }

    #[test]
    fn msi_addresses_outside_the_window_are_not_interrupts() {
        assert_eq!(InterruptMessage::from_msi(0xFEF0_0000, 0x41), None);
        assert_eq!(InterruptMessage::from_msi(0xFED0_0000, 0x41), None);
        assert_eq!(InterruptMessage::from_msi(0x1_FEE0_0000, 0x41), None);
    }

    #[test]
    fn a_broadcast_byte_widens() {
        assert_eq!(Destination::from_byte(true, 0xFF), Destination::Logical(u32::MAX));
        assert_eq!(Destination::from_byte(false, 0xFE), Destination::Physical(0xFE));
    }
}
