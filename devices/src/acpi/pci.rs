//! The PCI host bridge in AML: for [`BoardInfo::devices`](super::BoardInfo::devices).

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Name, Package, Path,
    ResourceTemplate,
};

use super::bytes_of;
use crate::pci::intx::{PIRQ_COUNT, pirq};

/// Slots of the bus.
const SLOTS: u8 = 32;

/// The bridge of an i440FX board with bus 0. Base address registers may lie in
/// `[memory_start, memory_end]`; PIRQ number i is wired to global system interrupt `gsis[i]`.
///
/// The routing is fixed: firmware and [`crate::pci::piix`] set the same lines in the PIRQ registers,
/// and the 8259s and the I/O APIC have the same numbers for them.
pub fn host_bridge(memory_start: u32, memory_end: u32, gsis: [u8; PIRQ_COUNT]) -> Vec<u8> {
    let buses = AddressSpace::new_bus_number(0u16, 0xff);
    let config = IO::new(0xcf8, 0xcf8, 1, 8);
    let low_ports = AddressSpace::new_io(0u16, 0x0cf7, None);
    let high_ports = AddressSpace::new_io(0x0d00u16, 0xffff, None);
    let cacheable = AddressSpaceCacheable::NotCacheable;
    let vga = AddressSpace::new_memory(cacheable, true, 0xa_0000u32, 0xb_ffff, None);
    let cacheable = AddressSpaceCacheable::NotCacheable;
    let memory = AddressSpace::new_memory(cacheable, true, memory_start, memory_end, None);
    let template =
        ResourceTemplate::new(vec![&buses, &config, &low_ports, &high_ports, &vga, &memory]);

    let rows: Vec<[u32; 4]> = (0..SLOTS)
        .flat_map(|slot| (0..4).map(move |pin| (slot, pin)))
        .map(|(slot, pin)| {
            let gsi = gsis.get(usize::from(pirq(slot, pin))).copied().unwrap_or(0);
            [u32::from(slot) << 16 | 0xffff, pin.into(), 0, gsi.into()]
        })
        .collect();
    let rows: Vec<Package<'_>> = rows
        .iter()
        .map(|row| Package::new(row.iter().map(|n| n as &dyn acpi_tables::Aml).collect()))
        .collect();
    let table = Package::new(rows.iter().map(|row| row as &dyn acpi_tables::Aml).collect());

    let hid = Name::new(Path::new("_HID"), &EISAName::new("PNP0A03"));
    let zero = 0u8;
    let address = Name::new(Path::new("_ADR"), &zero);
    let uid = Name::new(Path::new("_UID"), &zero);
    let resources = Name::new(Path::new("_CRS"), &template);
    let routing = Name::new(Path::new("_PRT"), &table);
    bytes_of(&Device::new(Path::new("PCI0"), vec![&hid, &address, &uid, &resources, &routing]))
}
