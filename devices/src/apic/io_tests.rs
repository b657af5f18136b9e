//! The I/O APIC against its datasheet and kvm-unit-tests' ioapic guest.

use proptest::prelude::*;

use super::io::*;
use super::message::*;

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
        (prop_oneof![Just(0), Just(0x10), any::<u64>()], prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(offset, data)| Action::Write(offset, data)),
        // Few vectors and modes, so that lines share them and EOIs meet.
        (0..IO_APIC_PINS, 0u32..4, 0u32..3, any::<bool>(), any::<bool>()).prop_map(
            |(pin, vector, mode, level, masked)| Action::Entry {
                pin,
                low: (0x30 + vector) | mode << 8 | u32::from(level) << 15 | u32::from(masked) << 16,
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
