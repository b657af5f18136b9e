//! The interrupt command register.
//!
//! Source: SDM volume 3A, sections "Interrupt Command Register (ICR)" and
//! "ICR Operation in x2APIC Mode".

use super::message::{DeliveryMode, Destination, InterruptMessage, TriggerMode};

/// Writable bits of the low half: shorthand, trigger, level, destination mode,
/// delivery mode, vector. Bit 12, delivery status, always reads idle.
pub(super) const ICR_LOW_WRITABLE: u64 = 0x000C_CFFF & !ICR_DELIVERY_STATUS;
/// Bit 12: send pending. Ignored when written, in x2APIC mode too.
pub(super) const ICR_DELIVERY_STATUS: u64 = 1 << 12;
/// Writable bits of the high half in xAPIC mode: the destination.
pub(super) const ICR_HIGH_XAPIC: u64 = 0xFF00_0000_0000_0000;
/// Bits that must be zero in x2APIC mode: 31:20, 17:16 and 13.
pub(super) const ICR_X2APIC_RESERVED: u64 = 0xFFF0_0000 | 0x0003_0000 | 0x2000;

const LEVEL_ASSERT: u64 = 1 << 14;
const TRIGGER_LEVEL: u64 = 1 << 15;

/// The message that writing `icr` sends; `None` for INIT level de-assert,
/// which only set arbitration IDs on the serial APIC bus, and for reserved
/// delivery modes.
pub(super) fn decode(icr: u64, x2apic: bool) -> Option<InterruptMessage> {
    let delivery_mode = DeliveryMode::from_bits((icr >> 8) as u32);
    match delivery_mode {
        DeliveryMode::Init if icr & (TRIGGER_LEVEL | LEVEL_ASSERT) == TRIGGER_LEVEL => return None,
        DeliveryMode::Reserved | DeliveryMode::ExtInt => return None,
        DeliveryMode::Fixed
        | DeliveryMode::LowestPriority
        | DeliveryMode::Smi
        | DeliveryMode::Nmi
        | DeliveryMode::Init
        | DeliveryMode::StartUp => {}
    }
    let logical = icr & 1 << 11 != 0;
    let destination = match icr >> 18 & 3 {
        0 if x2apic => Destination::from_id(logical, (icr >> 32) as u32),
        0 => Destination::from_byte(logical, (icr >> 56) as u8),
        1 => Destination::Own,
        2 => Destination::AllIncludingSelf,
        _ => Destination::AllExcludingSelf,
    };
    Some(InterruptMessage {
        vector: icr as u8,
        delivery_mode,
        destination,
        // The trigger mode of an IPI other than INIT de-assert has been
        // ignored since the Pentium 4: all are edges.
        trigger: TriggerMode::Edge,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xapic_destination_is_the_top_byte() {
        let message = decode(0x0300_0000_0000_4041, false).unwrap();
        assert_eq!(message.destination, Destination::Physical(3));
        assert_eq!(message.vector, 0x41);
        let message = decode(0xFF00_0000_0000_4841, false).unwrap();
        assert_eq!(message.destination, Destination::Logical(u32::MAX));
    }

    #[test]
    fn x2apic_destination_is_the_top_half() {
        let message = decode(0x0000_00FF_0000_4041, true).unwrap();
        assert_eq!(message.destination, Destination::Physical(0xFF));
        let message = decode(0x0001_0004_0000_0841, true).unwrap();
        assert_eq!(message.destination, Destination::Logical(0x1_0004));
    }

    #[test]
    fn shorthands() {
        for (bits, destination) in [
            (0x4_4041, Destination::Own),
            (0x8_4041, Destination::AllIncludingSelf),
            (0xC_4041, Destination::AllExcludingSelf),
        ] {
            assert_eq!(decode(bits, true).unwrap().destination, destination);
        }
    }

    #[test]
    fn init_deassert_and_reserved_modes_send_nothing() {
        assert_eq!(decode(0x8500, false), None);
        assert_eq!(decode(0xC500, false).unwrap().delivery_mode, DeliveryMode::Init);
        assert_eq!(decode(0x0500, false).unwrap().delivery_mode, DeliveryMode::Init);
        assert_eq!(decode(0x4341, false), None);
        assert_eq!(decode(0x4741, false), None);
    }
}
