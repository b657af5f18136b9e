//! The I/O APIC: input pins and a redirection table that turns them into
//! interrupt messages.
//!
//! Registers are reached through an index and a data window:
//!
//! | offset | register |
//! |---|---|
//! | 00H | IOREGSEL: index, bits 7:0 |
//! | 10H | IOWIN: data of the register indexed |
//! | 40H | EOIR: write-only, a vector whose level interrupts are done |
//!
//! | index | register |
//! |---|---|
//! | 00H | IOAPICID: bits 27:24 |
//! | 01H | IOAPICVER, read-only: version 20H, last entry 23 |
//! | 02H | IOAPICARB, read-only: arbitration ID, follows the ID |
//! | 10H + 2n, 11H + 2n | redirection entry n, low and high half |
//!
//! Source: Intel 82093AA datasheet; Intel ICH10 datasheet, section "Advanced
//! Programmable Interrupt Controller (D31:F0)", for version 20H and EOIR.

use serde::{Deserialize, Serialize};

use super::message::{DeliveryMode, Destination, InterruptMessage, TriggerMode};

/// Guest physical address of a PC's I/O APIC.
pub const IO_APIC_BASE: u64 = 0xFEC0_0000;
/// Number of input pins and redirection entries.
pub const IO_APIC_PINS: u8 = 24;

/// Version 20H: there is an EOI register.
const VERSION: u32 = 0x20 | (IO_APIC_PINS as u32 - 1) << 16;

/// Bit 14, read-only: a level interrupt was sent and awaits its EOI.
const REMOTE_IRR: u64 = 1 << 14;
/// Bit 15: level triggered.
const LEVEL: u64 = 1 << 15;
/// Bit 16: masked.
const MASK: u64 = 1 << 16;
/// Vector, delivery mode, destination mode, polarity, trigger mode, mask;
/// destination (63:56) and its extension (55:49), which is what paravirtual
/// guests without an IOMMU use for APIC IDs above 255. Bit 12, delivery
/// status, always reads idle: messages leave at once.
const WRITABLE: u64 = 0xFFFE_0000_0000_0000 | 0x1_AFFF;

/// One entry of the redirection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RedirectionEntry(u64);

impl RedirectionEntry {
    fn vector(self) -> u8 {
        self.0 as u8
    }

    fn delivery_mode(self) -> DeliveryMode {
        DeliveryMode::from_bits((self.0 >> 8) as u32)
    }

    fn masked(self) -> bool {
        self.0 & MASK != 0
    }

    /// Whether the entry is served by level. The other delivery modes are
    /// edges whatever bit 15 says: nobody answers them with an EOI.
    fn level(self) -> bool {
        let mode = self.delivery_mode();
        self.0 & LEVEL != 0 && (mode == DeliveryMode::Fixed || mode == DeliveryMode::LowestPriority)
    }

    fn remote_irr(self) -> bool {
        self.0 & REMOTE_IRR != 0
    }

    fn message(self) -> InterruptMessage {
        let logical = self.0 & 1 << 11 != 0;
        let id = (self.0 >> 56) as u8;
        let extended_id = (self.0 >> 49) as u32 & 0x7F;
        InterruptMessage {
            vector: self.vector(),
            delivery_mode: self.delivery_mode(),
            destination: if extended_id == 0 {
                Destination::from_byte(logical, id)
            } else {
                Destination::from_id(logical, extended_id << 8 | u32::from(id))
            },
            trigger: if self.level() { TriggerMode::Level } else { TriggerMode::Edge },
        }
    }

    /// Software writes the entry.
    fn write(&mut self, value: u64) {
        self.0 = value & WRITABLE | self.0 & REMOTE_IRR;
        // Operating systems make a stuck entry forget its remote IRR by
        // turning it to edge and back.
        if self.0 & LEVEL == 0 {
            self.0 &= !REMOTE_IRR;
        }
    }
}

/// Messages that leave the I/O APIC, each with the pin it comes from.
pub type Injections = Vec<(u8, InterruptMessage)>;

/// An I/O APIC with 24 pins.
///
/// Levels are logical: `true` is "asserted", whatever the wiring. The polarity
/// bit of an entry is stored and has no effect, since guests set it to what
/// the ACPI tables say about the wire, not to invert a device.
///
/// Every message returned should be routed at once. If no local APIC takes
/// it, say so with [`IoApic::refused`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApic {
    /// Bits 27:24 of IOAPICID.
    id: u8,
    /// IOREGSEL.
    index: u8,
    entries: [RedirectionEntry; IO_APIC_PINS as usize],
    /// One bit for each pin that is asserted.
    asserted: u32,
}

impl IoApic {
    /// An I/O APIC after reset: all entries masked, ID `id` (0 to 15).
    pub fn new(id: u8) -> Self {
        Self {
            id: id & 0xF,
            index: 0,
            entries: [RedirectionEntry(MASK); IO_APIC_PINS as usize],
            asserted: 0,
        }
    }

    /// Resets the registers; the levels of the pins are not the I/O APIC's to
    /// reset.
    pub fn reset(&mut self) {
        *self = Self { asserted: self.asserted, ..Self::new(0) };
    }

    /// Sets the level of `pin`. Pins from 24 up do not exist: ignored.
    ///
    /// An edge-triggered pin sends on the rising edge, which is lost if the
    /// entry is masked; a level-triggered one sends when asserted, unless a
    /// former message awaits its EOI.
    pub fn set_pin(&mut self, pin: u8, level: bool) -> Option<InterruptMessage> {
        let entry = *self.entries.get(usize::from(pin))?;
        let bit = 1 << pin;
        let rising = level && self.asserted & bit == 0;
        self.asserted = if level { self.asserted | bit } else { self.asserted & !bit };
        if entry.level() {
            self.serve_level(pin)
        } else {
            (rising && !entry.masked()).then(|| entry.message())
        }
    }

    /// Whether `pin` is asserted.
    pub fn pin(&self, pin: u8) -> bool {
        pin < IO_APIC_PINS && self.asserted & 1 << pin != 0
    }

    /// A local APIC broadcasts the end of level interrupt `vector`. Pins that
    /// are still asserted send again.
    pub fn eoi(&mut self, vector: u8) -> Injections {
        let mut injections = Injections::new();
        for pin in 0..IO_APIC_PINS {
            let entry = &mut self.entries[usize::from(pin)];
            if entry.vector() == vector && entry.remote_irr() {
                entry.0 &= !REMOTE_IRR;
                injections.extend(self.serve_level(pin).map(|message| (pin, message)));
            }
        }
        injections
    }

    /// No local APIC took the message from `pin`: a level interrupt does not
    /// await an EOI then. It is tried again when the entry is written or the
    /// pin set.
    pub fn refused(&mut self, pin: u8) {
        if let Some(entry) = self.entries.get_mut(usize::from(pin)) {
            entry.0 &= !REMOTE_IRR;
        }
    }

    /// Sends from a level-triggered pin if there is something to send.
    fn serve_level(&mut self, pin: u8) -> Option<InterruptMessage> {
        let asserted = self.pin(pin);
        let entry = self.entries.get_mut(usize::from(pin))?;
        if !asserted || !entry.level() || entry.masked() || entry.remote_irr() {
            return None;
        }
        entry.0 |= REMOTE_IRR;
        Some(entry.message())
    }

    /// Reads from the register window. Registers are 32 bits wide; a narrower
    /// read gets the low bytes, the rest of a wider one is zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match offset & 0xFF {
            0x00 => u32::from(self.index),
            0x10 => self.read_indexed(),
            _ => 0,
        };
        data.fill(0);
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }

    /// Writes to the register window; narrow writes are extended with zeros.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Injections {
        let mut bytes = [0; 4];
        for (byte, value) in bytes.iter_mut().zip(data) {
            *byte = *value;
        }
        let value = u32::from_le_bytes(bytes);
        match offset & 0xFF {
            0x00 => {
                self.index = value as u8;
                Injections::new()
            }
            0x10 => self.write_indexed(value),
            0x40 => self.eoi(value as u8),
            _ => Injections::new(),
        }
    }

    /// The pin whose entry the index selects.
    fn selected_pin(&self) -> Option<u8> {
        self.index.checked_sub(0x10).map(|half| half / 2).filter(|&pin| pin < IO_APIC_PINS)
    }

    fn read_indexed(&self) -> u32 {
        match self.index {
            0x00 | 0x02 => u32::from(self.id) << 24,
            0x01 => VERSION,
            _ => {
                let entry = self.selected_pin().and_then(|pin| self.entries.get(usize::from(pin)));
                let value = entry.map_or(0, |entry| entry.0);
                (if self.index & 1 == 0 { value } else { value >> 32 }) as u32
            }
        }
    }

    fn write_indexed(&mut self, value: u32) -> Injections {
        if self.index == 0 {
            self.id = (value >> 24) as u8 & 0xF;
        }
        let Some(pin) = self.selected_pin() else {
            return Injections::new();
        };
        let entry = &mut self.entries[usize::from(pin)];
        let value = u64::from(value);
        entry.write(if self.index & 1 == 0 {
            entry.0 & !u64::from(u32::MAX) | value
        } else {
            entry.0 & u64::from(u32::MAX) | value << 32
        });
        self.serve_level(pin).map(|message| (pin, message)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Line that kvm-unit-tests' ioapic guest uses.
    const PIN: u8 = 14;

    fn read(apic: &mut IoApic, index: u8) -> u32 {
        assert!(apic.write(0, &[index]).is_empty());
        let mut data = [0; 4];
        apic.read(0x10, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(apic: &mut IoApic, index: u8, value: u32) -> Injections {
        assert!(apic.write(0, &[index]).is_empty());
        apic.write(0x10, &value.to_le_bytes())
    }

    fn with_entry(low: u32) -> IoApic {
        let mut apic = IoApic::new(0);
        assert!(write(&mut apic, 0x10 + 2 * PIN, low).is_empty());
        apic
    }

    fn entry(apic: &mut IoApic) -> u32 {
        read(apic, 0x10 + 2 * PIN)
    }

    #[test]
    fn identification_registers() {
        let mut apic = IoApic::new(0);
        assert_eq!(read(&mut apic, 1), 0x0017_0020);
        write(&mut apic, 1, u32::MAX);
        assert_eq!(read(&mut apic, 1), 0x0017_0020);
        write(&mut apic, 0, u32::MAX);
        assert_eq!(read(&mut apic, 0), 0x0F00_0000);
        assert_eq!(read(&mut apic, 2), 0x0F00_0000);
        write(&mut apic, 2, 0);
        assert_eq!(read(&mut apic, 2), 0x0F00_0000);
        assert_eq!(read(&mut apic, 0x40), 0, "no such entry");
        assert!(write(&mut apic, 0xFF, u32::MAX).is_empty());
    }

    #[test]
    fn entries_are_masked_at_reset_and_have_reserved_bits() {
        let mut apic = IoApic::new(0);
        for index in 0x10..0x40 {
            assert_eq!(read(&mut apic, index), if index % 2 == 0 { 0x1_0000 } else { 0 });
            write(&mut apic, index, u32::MAX);
            let kept = if index % 2 == 0 { 0x1_AFFF } else { 0xFFFE_0000 };
            assert_eq!(read(&mut apic, index), kept);
        }
        apic.reset();
        assert_eq!(apic, IoApic::new(0));
    }

    #[test]
    fn an_edge_sends_once() {
        let mut apic = with_entry(0x76);
        write(&mut apic, 0x11 + 2 * PIN, 0x0300_0000);
        let message = apic.set_pin(PIN, true).unwrap();
        assert_eq!(
            message,
            InterruptMessage {
                vector: 0x76,
                delivery_mode: DeliveryMode::Fixed,
                destination: Destination::Physical(3),
                trigger: TriggerMode::Edge,
            }
        );
        assert_eq!(apic.set_pin(PIN, true), None);
        assert_eq!(apic.set_pin(PIN, false), None);
        assert!(apic.set_pin(PIN, true).is_some());
        assert!(apic.eoi(0x76).is_empty());
    }

    #[test]
    fn an_edge_under_the_mask_is_lost() {
        let mut apic = with_entry(0x1_0081);
        assert_eq!(apic.set_pin(PIN, true), None);
        assert_eq!(apic.set_pin(PIN, false), None);
        assert!(write(&mut apic, 0x10 + 2 * PIN, 0x81).is_empty());
        assert!(apic.set_pin(PIN, true).is_some());
    }

    #[test]
    fn a_level_waits_for_its_eoi() {
        let mut apic = with_entry(0x8098);
        assert_eq!(apic.set_pin(PIN, true).unwrap().trigger, TriggerMode::Level);
        assert_eq!(entry(&mut apic), 0xC098);
        // The line goes down and up while the interrupt is in service.
        assert_eq!(apic.set_pin(PIN, false), None);
        assert_eq!(apic.set_pin(PIN, true), None);
        assert_eq!(apic.set_pin(PIN, false), None);
        assert!(apic.eoi(0x98).is_empty());
        assert_eq!(entry(&mut apic), 0x8098);
    }

    #[test]
    fn a_level_that_stays_comes_again() {
        let mut apic = with_entry(0x809A);
        let message = apic.set_pin(PIN, true).unwrap();
        assert!(apic.eoi(0x9B).is_empty(), "another vector");
        assert_eq!(apic.eoi(0x9A), [(PIN, message)]);
        // EOIR does the same as a broadcast.
        assert_eq!(apic.write(0x40, &[0x9A]), [(PIN, message)]);
        assert_eq!(apic.set_pin(PIN, false), None);
        assert!(apic.eoi(0x9A).is_empty());
    }

    #[test]
    fn a_level_under_the_mask_is_sent_on_unmasking() {
        let mut apic = with_entry(0x1_8082);
        assert_eq!(apic.set_pin(PIN, true), None);
        assert_eq!(write(&mut apic, 0x10 + 2 * PIN, 0x8082).len(), 1);
        // Masked while in service, then EOI: nothing until unmasked.
        assert!(write(&mut apic, 0x10 + 2 * PIN, 0x1_8082).is_empty());
        assert!(apic.eoi(0x82).is_empty());
        assert_eq!(write(&mut apic, 0x10 + 2 * PIN, 0x8082).len(), 1);
    }

    #[test]
    fn rewriting_an_entry_keeps_remote_irr_unless_it_becomes_an_edge() {
        let mut apic = with_entry(0x8064);
        assert!(apic.set_pin(PIN, true).is_some());
        assert!(write(&mut apic, 0x11 + 2 * PIN, 0x0100_0000).is_empty());
        assert_eq!(entry(&mut apic), 0xC064);
        assert!(write(&mut apic, 0x10 + 2 * PIN, 0x1_0064).is_empty());
        assert_eq!(entry(&mut apic), 0x1_0064);
        assert_eq!(write(&mut apic, 0x10 + 2 * PIN, 0x8064).len(), 1);
    }

    #[test]
    fn a_refused_level_is_tried_again() {
        let mut apic = with_entry(0x8064);
        assert!(apic.set_pin(PIN, true).is_some());
        apic.refused(PIN);
        assert_eq!(entry(&mut apic), 0x8064);
        assert_eq!(write(&mut apic, 0x11 + 2 * PIN, 0x0100_0000).len(), 1);
    }

    #[test]
    fn nmi_is_an_edge() {
        let mut apic = with_entry(0x8400);
        let message = apic.set_pin(PIN, true).unwrap();
        assert_eq!(message.delivery_mode, DeliveryMode::Nmi);
        assert_eq!(message.trigger, TriggerMode::Edge);
        assert_eq!(entry(&mut apic), 0x8400);
    }

    #[test]
    fn wide_destinations() {
        let mut apic = with_entry(0x31);
        write(&mut apic, 0x11 + 2 * PIN, 0x2C02_0000);
        assert_eq!(apic.set_pin(PIN, true).unwrap().destination, Destination::Physical(0x12C));
        write(&mut apic, 0x11 + 2 * PIN, 0xFF00_0000);
        assert_eq!(apic.set_pin(PIN, false), None);
        let message = apic.set_pin(PIN, true).unwrap();
        assert_eq!(message.destination, Destination::Physical(Destination::BROADCAST));
    }

    #[test]
    fn pins_that_do_not_exist() {
        let mut apic = IoApic::new(0);
        assert_eq!(apic.set_pin(24, true), None);
        assert_eq!(apic.set_pin(255, true), None);
        assert!(!apic.pin(24) && !apic.pin(255));
        apic.refused(255);
    }

    #[derive(Clone, Debug)]
    enum Action {
        Read(u64, usize),
        Write(u64, Vec<u8>),
        Entry { pin: u8, low: u32 },
        Pin(u8, bool),
        Eoi(u8),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            (any::<u64>(), 0usize..9).prop_map(|(offset, size)| Action::Read(offset, size)),
            (
                prop_oneof![Just(0), Just(0x10), any::<u64>()],
                prop::collection::vec(any::<u8>(), 0..9)
            )
                .prop_map(|(offset, data)| Action::Write(offset, data)),
            // Few vectors and modes, so that lines share them and EOIs meet.
            (0..IO_APIC_PINS, 0u32..4, 0u32..3, any::<bool>(), any::<bool>()).prop_map(
                |(pin, vector, mode, level, masked)| Action::Entry {
                    pin,
                    low: (0x30 + vector)
                        | mode << 8
                        | u32::from(level) << 15
                        | u32::from(masked) << 16,
                }
            ),
            (0u8..32, any::<bool>()).prop_map(|(pin, level)| Action::Pin(pin, level)),
            (0x30u8..0x34).prop_map(Action::Eoi),
        ]
    }

    proptest! {
        /// Nothing panics; a level message leaves exactly when its line is
        /// asserted, unmasked and has none in flight, and then it is in flight.
        #[test]
        fn random_accesses(actions in prop::collection::vec(action(), 0..200)) {
            let mut apic = IoApic::new(0);
            for action in actions {
                let before = apic.clone();
                let injections = match action {
                    Action::Read(offset, size) => {
                        apic.read(offset, &mut [0; 8][..size]);
                        Injections::new()
                    }
                    Action::Write(offset, data) => apic.write(offset, &data),
                    Action::Entry { pin, low } => write(&mut apic, 0x10 + 2 * pin, low),
                    Action::Pin(pin, level) => {
                        apic.set_pin(pin, level).map(|message| (pin, message)).into_iter().collect()
                    }
                    Action::Eoi(vector) => apic.eoi(vector),
                };
                for pin in 0..IO_APIC_PINS {
                    let entry = apic.entries[usize::from(pin)];
                    let sent = injections.iter().find(|(from, _)| *from == pin);
                    if let Some((_, message)) = sent {
                        prop_assert!(!entry.masked() && apic.pin(pin));
                        prop_assert_eq!(*message, entry.message());
                    }
                    if entry.level() {
                        // Asserted and unmasked lines have a message in flight.
                        let wants = apic.pin(pin) && !entry.masked();
                        prop_assert!(!wants || entry.remote_irr());
                        let was_in_flight = before.entries[usize::from(pin)].remote_irr();
                        prop_assert!(sent.is_none() || entry.remote_irr());
                        prop_assert!(was_in_flight || sent.is_some() == entry.remote_irr());
                    } else if sent.is_some() {
                        prop_assert!(!before.pin(pin));
                    }
                }
            }
        }
    }
}
