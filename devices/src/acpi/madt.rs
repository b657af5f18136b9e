//! MADT: processors, I/O APIC and interrupt wiring.

use super::{BoardInfo, table};

/// Flag of the table: there are 8259As too, mask them before using the APICs.
const PCAT_COMPAT: u32 = 1;
/// Flag of a processor: it can be used.
const ENABLED: u32 = 1;
/// Interrupt flags: polarity and trigger mode as the bus has them by default.
const CONFORMING: u16 = 0;
/// Interrupt flags: active high (01) and level-triggered (11).
const HIGH_LEVEL: u16 = 0b1101;
/// Processor UID that means all of them.
const ALL_PROCESSORS: u8 = 0xFF;
/// Local interrupt pin that carries NMI.
const LINT1: u8 = 1;
/// The I/O APIC pin that carries the PIT's interrupt, ISA IRQ 0.
pub(super) const TIMER_PIN: u8 = 2;
/// Lowest APIC ID that an 8-bit field cannot name: FFH is the broadcast.
pub(super) const FIRST_WIDE_ID: u32 = 0xFF;

pub(super) fn build(board: &BoardInfo) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(board.local_apic_base.to_le_bytes());
    body.extend(PCAT_COMPAT.to_le_bytes());

    for (uid, &id) in board.apic_ids.iter().enumerate() {
        let uid = uid as u32;
        if id < FIRST_WIDE_ID && uid < FIRST_WIDE_ID {
            // Type 0: processor local APIC.
            body.extend([0, 8, uid as u8, id as u8]);
            body.extend(ENABLED.to_le_bytes());
        } else {
            // Type 9: processor local x2APIC.
            body.extend([9, 16, 0, 0]);
            body.extend(id.to_le_bytes());
            body.extend(ENABLED.to_le_bytes());
            body.extend(uid.to_le_bytes());
        }
    }
    // Type 1: I/O APIC, serving global system interrupts from 0 up.
    body.extend([1, 12, board.io_apic_id, 0]);
    body.extend(board.io_apic_base.to_le_bytes());
    body.extend(0u32.to_le_bytes());

    interrupt_override(&mut body, 0, TIMER_PIN, CONFORMING);
    interrupt_override(&mut body, board.power.sci_irq, board.power.sci_irq, HIGH_LEVEL);

    // Type 4: local APIC NMI.
    body.extend([4, 6, ALL_PROCESSORS]);
    body.extend(CONFORMING.to_le_bytes());
    body.push(LINT1);
    if board.apic_ids.iter().any(|&id| id >= FIRST_WIDE_ID) {
        // Type 10: local x2APIC NMI.
        body.extend([10, 12]);
        body.extend(CONFORMING.to_le_bytes());
        body.extend(u32::MAX.to_le_bytes());
        body.extend([LINT1, 0, 0, 0]);
    }
    table(*b"APIC", 4, &body)
}

/// Type 2: an ISA interrupt that is not on the pin of its number, or is not
/// active-high and edge-triggered.
fn interrupt_override(body: &mut Vec<u8>, irq: u8, pin: u8, flags: u16) {
    const ISA: u8 = 0;
    body.extend([2, 10, ISA, irq]);
    body.extend(u32::from(pin).to_le_bytes());
    body.extend(flags.to_le_bytes());
}
