//! HPET description table (IA-PC HPET Specification 1.0a, section 3.2.4).

use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{HpetInfo, bytes_of, table};

pub(super) fn build(hpet: &HpetInfo) -> Vec<u8> {
    let address =
        GAS::new(AddressSpace::SystemMemory, 64, 0, AccessSize::Undefined, hpet.base.into());
    let mut body = Vec::new();
    body.extend(hpet.event_timer_block_id.to_le_bytes());
    body.extend(bytes_of(&address));
    // The first HPET, and no guarantee about what else is in its page.
    body.push(0);
    body.extend(hpet.minimum_tick.to_le_bytes());
    body.push(0);
    table(*b"HPET", 1, &body)
}
