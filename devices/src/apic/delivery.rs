//! Routing: which local APICs a message addresses.
//!
//! Source: SDM volume 3A, sections "Determining IPI Destination", "Logical
//! Destination Mode in x2APIC Mode" and "Lowest Priority Delivery Mode".

use super::message::{DeliveryMode, Destination, InterruptMessage};
use super::mode::ApicMode;

/// What routing needs to know of one local APIC
/// ([`LocalApic::address`](super::LocalApic::address)): a copy, so that a
/// sender need not hold the locks of all APICs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApicAddress {
    /// Operating mode.
    pub mode: ApicMode,
    /// APIC ID in that mode.
    pub id: u32,
    /// The ID that the processor was built with.
    pub initial_id: u32,
    /// Logical destination register in that mode.
    pub logical_destination: u32,
    /// Destination format register (xAPIC mode).
    pub destination_format: u32,
    /// Processor priority, 0 to 255: the lowest wins lowest-priority messages.
    pub priority: u8,
    /// Whether the APIC accepts fixed interrupts.
    pub software_enabled: bool,
}

impl ApicAddress {
    /// Whether a message to `id` in physical destination mode comes here.
    pub fn matches_physical(&self, id: u32) -> bool {
        match self.mode {
            ApicMode::Disabled => false,
            ApicMode::X2Apic => id == self.id || id == Destination::BROADCAST,
            ApicMode::XApic => {
                id == self.id
                    || id == 0xFF
                    || id == Destination::BROADCAST
                    // A processor with a wide ID wakes up in xAPIC mode, and
                    // only its full ID tells it from its 8-bit namesakes.
                    || self.initial_id > 0xFF && id == self.initial_id
            }
        }
    }

    /// Whether a message to the message destination address `mda` in logical
    /// destination mode comes here.
    pub fn matches_logical(&self, mda: u32) -> bool {
        match self.mode {
            ApicMode::Disabled => false,
            ApicMode::X2Apic => {
                let same_cluster = mda >> 16 == self.logical_destination >> 16;
                mda == Destination::BROADCAST
                    || same_cluster && mda & self.logical_destination & 0xFFFF != 0
            }
            ApicMode::XApic => self.matches_logical_xapic(mda),
        }
    }

    fn matches_logical_xapic(&self, mda: u32) -> bool {
        if mda == 0xFF || mda == Destination::BROADCAST {
            return true;
        }
        if mda > 0xFF {
            return false;
        }
        let logical_id = self.logical_destination >> 24;
        match self.destination_format >> 28 {
            // Flat model: one bit for each processor.
            0b1111 => logical_id & mda != 0,
            // Cluster model: 4 bits of cluster, one bit for each member.
            0b0000 => logical_id >> 4 == mda >> 4 && logical_id & mda & 0xF != 0,
            _ => false,
        }
    }
}

/// Calls `deliver` with the index of each APIC in `apics` that `message` goes
/// to. `sender` is the sending APIC's index, `None` for I/O APICs and MSIs.
///
/// A lowest-priority message goes to one APIC only; `rotation` breaks ties:
/// of equals, the first at or after that index (modulo the number of APICs)
/// is chosen. Advance it to spread interrupts.
///
/// Returns the number of calls: at zero nobody was addressed.
pub fn route(
    message: &InterruptMessage,
    sender: Option<usize>,
    apics: &[ApicAddress],
    rotation: usize,
    mut deliver: impl FnMut(usize),
) -> usize {
    let addressed = |index: usize, apic: &ApicAddress| match message.destination {
        Destination::Physical(id) => apic.matches_physical(id),
        Destination::Logical(mda) => apic.matches_logical(mda),
        Destination::Own => sender == Some(index),
        Destination::AllIncludingSelf => apic.mode != ApicMode::Disabled,
        Destination::AllExcludingSelf => apic.mode != ApicMode::Disabled && sender != Some(index),
    };
    if message.delivery_mode == DeliveryMode::LowestPriority {
        let count = apics.len();
        let winner = apics
            .iter()
            .enumerate()
            .filter(|&(index, apic)| apic.software_enabled && addressed(index, apic))
            .min_by_key(|&(index, apic)| {
                // `count` is not zero where there is an element.
                let distance = (index + count - rotation % count) % count;
                (apic.priority, distance)
            });
        return match winner {
            Some((index, _)) => {
                deliver(index);
                1
            }
            None => 0,
        };
    }
    let mut targets = 0;
    for (index, apic) in apics.iter().enumerate() {
        if addressed(index, apic) {
            deliver(index);
            targets += 1;
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::super::message::TriggerMode;
    use super::*;

    fn xapic(id: u8, ldr: u8, flat: bool) -> ApicAddress {
        ApicAddress {
            mode: ApicMode::XApic,
            id: u32::from(id),
            initial_id: u32::from(id),
            logical_destination: u32::from(ldr) << 24,
            destination_format: if flat { u32::MAX } else { 0x0FFF_FFFF },
            priority: 0,
            software_enabled: true,
        }
    }

    fn x2apic(id: u32) -> ApicAddress {
        ApicAddress {
            mode: ApicMode::X2Apic,
            id,
            initial_id: id,
            logical_destination: (id >> 4) << 16 | 1 << (id & 15),
            ..xapic(0, 0, true)
        }
    }

    fn message(delivery_mode: DeliveryMode, destination: Destination) -> InterruptMessage {
        InterruptMessage { vector: 0x41, delivery_mode, destination, trigger: TriggerMode::Edge }
    }

    fn targets(apics: &[ApicAddress], sender: Option<usize>, to: Destination) -> Vec<usize> {
        let mut targets = Vec::new();
        let count =
            route(&message(DeliveryMode::Fixed, to), sender, apics, 0, |index| targets.push(index));
        assert_eq!(count, targets.len());
        targets
    }

    #[test]
    fn physical() {
        let apics = [xapic(0, 0, true), xapic(1, 0, true), xapic(1, 0, true)];
        assert_eq!(targets(&apics, None, Destination::Physical(0)), [0]);
        // Software can give two xAPICs the same ID: both are addressed.
        assert_eq!(targets(&apics, None, Destination::Physical(1)), [1, 2]);
        assert!(targets(&apics, None, Destination::Physical(2)).is_empty());
        assert_eq!(targets(&apics, None, Destination::from_byte(false, 0xFF)), [0, 1, 2]);
    }

    #[test]
    fn physical_x2apic() {
        let apics = [x2apic(0), x2apic(0xFF), x2apic(0x100)];
        assert_eq!(targets(&apics, None, Destination::Physical(0xFF)), [1]);
        assert_eq!(targets(&apics, None, Destination::Physical(0x100)), [2]);
        assert_eq!(targets(&apics, None, Destination::Physical(u32::MAX)), [0, 1, 2]);
    }

    #[test]
    fn a_wide_id_is_reachable_before_x2apic_mode() {
        let mut waking = xapic(0x2C, 0, true);
        waking.initial_id = 0x12C;
        let apics = [x2apic(0), waking];
        assert_eq!(targets(&apics, None, Destination::Physical(0x12C)), [1]);
    }

    #[test]
    fn logical_flat() {
        let apics = [xapic(0, 1, true), xapic(1, 2, true), xapic(2, 4, true)];
        assert_eq!(targets(&apics, None, Destination::Logical(0b101)), [0, 2]);
        assert!(targets(&apics, None, Destination::Logical(0x80)).is_empty());
        assert_eq!(targets(&apics, None, Destination::from_byte(true, 0xFF)), [0, 1, 2]);
    }

    #[test]
    fn logical_cluster() {
        let apics = [xapic(0, 0x11, false), xapic(1, 0x12, false), xapic(2, 0x21, false)];
        assert_eq!(targets(&apics, None, Destination::Logical(0x13)), [0, 1]);
        assert_eq!(targets(&apics, None, Destination::Logical(0x21)), [2]);
        assert!(targets(&apics, None, Destination::Logical(0x31)).is_empty());
        assert!(targets(&apics, None, Destination::Logical(0x10)).is_empty());
    }

    #[test]
    fn logical_x2apic() {
        let apics = [x2apic(0), x2apic(3), x2apic(0x13)];
        assert_eq!(targets(&apics, None, Destination::Logical(0b1101)), [0, 1]);
        assert_eq!(targets(&apics, None, Destination::Logical(0x1_0008)), [2]);
        assert!(targets(&apics, None, Destination::Logical(0x1_0000)).is_empty());
    }

    #[test]
    fn shorthands_and_disabled_apics() {
        let mut apics = [xapic(0, 0, true), xapic(1, 0, true), xapic(2, 0, true)];
        apics[2].mode = ApicMode::Disabled;
        let sender = Some(1);
        assert_eq!(targets(&apics, sender, Destination::Own), [1]);
        assert_eq!(targets(&apics, sender, Destination::AllIncludingSelf), [0, 1]);
        assert_eq!(targets(&apics, sender, Destination::AllExcludingSelf), [0]);
        assert!(targets(&apics, None, Destination::Own).is_empty());
    }

    #[test]
    fn lowest_priority_goes_to_one() {
        let mut apics = [xapic(0, 1, true), xapic(1, 2, true), xapic(2, 4, true)];
        apics[0].priority = 0x30;
        let lowest = message(DeliveryMode::LowestPriority, Destination::Logical(7));
        let pick = |apics: &[ApicAddress], rotation| {
            let mut target = None;
            route(&lowest, None, apics, rotation, |index| target = Some(index));
            target
        };
        assert_eq!(pick(&apics, 0), Some(1));
        assert_eq!(pick(&apics, 2), Some(2));
        assert_eq!(pick(&apics, usize::MAX), pick(&apics, usize::MAX % 3));
        apics[1].software_enabled = false;
        assert_eq!(pick(&apics, 0), Some(2));
        apics[2].software_enabled = false;
        assert_eq!(pick(&apics, 0), Some(0));
        apics[0].software_enabled = false;
        assert_eq!(pick(&apics, 0), None);
        assert_eq!(pick(&[], 0), None);
    }
}
