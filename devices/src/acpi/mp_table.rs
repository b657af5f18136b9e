//! The MP floating pointer structure and configuration table, for kernels that
//! know APICs but not ACPI (MultiProcessor Specification 1.4, chapter 4).

use super::madt::{FIRST_WIDE_ID, TIMER_PIN};
use super::{BoardInfo, checksum};

/// Specification revision 1.4.
const REVISION: u8 = 4;
/// Size of the configuration table header.
const HEADER_SIZE: usize = 44;
/// Version that the processor entries tell of the local APICs.
const LOCAL_APIC_VERSION: u8 = 0x14;
/// Version that the I/O APIC entry tells.
const IO_APIC_VERSION: u8 = 0x20;
/// ID of the only bus.
const ISA_BUS: u8 = 0;
/// Local APIC ID that means all of them.
const ALL_LOCAL_APICS: u8 = 0xFF;
/// Number of ISA interrupts.
const ISA_IRQS: u8 = 16;
/// The interrupt of the slave 8259A: no device has it.
const CASCADE_IRQ: u8 = 2;

/// Interrupt type of an entry: a vectored interrupt.
const INT: u8 = 0;
/// Interrupt type: NMI.
const NMI: u8 = 1;
/// Interrupt type: the 8259A supplies the vector.
const EXT_INT: u8 = 3;
/// Flags: polarity and trigger mode conform to the bus.
const CONFORMING: u16 = 0;
/// Flags: active high (01), level-triggered (11).
const HIGH_LEVEL: u16 = 0b1101;

/// The structure that guests search for: 16 bytes, in F0000H..FFFFFH.
pub(super) fn floating_pointer(configuration: u32) -> Vec<u8> {
    let mut bytes = b"_MP_".to_vec();
    bytes.extend(configuration.to_le_bytes());
    // Length in paragraphs, revision, checksum; the features say that there is
    // a configuration table and that PIC mode is not implemented.
    bytes.extend([1, REVISION, 0, 0, 0, 0, 0, 0]);
    bytes[10] = checksum(&bytes);
    bytes
}

/// The configuration table. Processors whose ID does not fit in 8 bits are
/// left out: the format cannot name them.
pub(super) fn configuration(board: &BoardInfo) -> Vec<u8> {
    let entries = entries(board);
    let length = HEADER_SIZE + entries.iter().map(Vec::len).sum::<usize>();

    let mut bytes = b"PCMP".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend([REVISION, 0]);
    bytes.extend(b"RINGSHFT");
    bytes.extend(b"RINGSHIFT PC");
    // No OEM table.
    bytes.extend([0; 6]);
    bytes.extend((entries.len() as u16).to_le_bytes());
    bytes.extend(board.local_apic_base.to_le_bytes());
    // No extended entries.
    bytes.extend([0; 4]);
    bytes.extend(entries.concat());
    bytes[7] = checksum(&bytes);
    bytes
}

fn entries(board: &BoardInfo) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    for (index, &id) in board.apic_ids.iter().enumerate() {
        if id < FIRST_WIDE_ID {
            entries.push(processor(board, id as u8, index == 0));
        }
    }
    // Entry type 1: bus.
    entries.push([&[1, ISA_BUS][..], b"ISA   "].concat());
    // Entry type 2: I/O APIC, usable.
    let mut io_apic = vec![2, board.io_apic_id, IO_APIC_VERSION, 1];
    io_apic.extend(board.io_apic_base.to_le_bytes());
    entries.push(io_apic);

    // Entry type 3: I/O interrupt assignment.
    for irq in (0..ISA_IRQS).filter(|&irq| irq != CASCADE_IRQ) {
        let pin = if irq == 0 { TIMER_PIN } else { irq };
        let flags = if irq == board.power.sci_irq { HIGH_LEVEL } else { CONFORMING };
        entries.push(interrupt(3, INT, flags, irq, board.io_apic_id, pin));
    }
    // Entry type 4: local interrupt assignment; LINT0 and LINT1.
    entries.push(interrupt(4, EXT_INT, CONFORMING, 0, ALL_LOCAL_APICS, 0));
    entries.push(interrupt(4, NMI, CONFORMING, 0, ALL_LOCAL_APICS, 1));
    entries
}

/// Entry type 0: processor.
fn processor(board: &BoardInfo, id: u8, bootstrap: bool) -> Vec<u8> {
    let flags = 1 | u8::from(bootstrap) << 1;
    let mut entry = vec![0, id, LOCAL_APIC_VERSION, flags];
    entry.extend(board.processor_signature.to_le_bytes());
    entry.extend(board.processor_features.to_le_bytes());
    entry.extend([0; 8]);
    entry
}

fn interrupt(entry: u8, kind: u8, flags: u16, irq: u8, apic: u8, pin: u8) -> Vec<u8> {
    let [low, high] = flags.to_le_bytes();
    vec![entry, kind, low, high, ISA_BUS, irq, apic, pin]
}
