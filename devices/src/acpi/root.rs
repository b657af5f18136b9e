//! RSDP, RSDT and XSDT.

use acpi_tables::rsdp::Rsdp;

use super::{OEM_ID, bytes_of, checksum, table};

/// Size of the RSDP of ACPI 2.0 and later.
pub(super) const RSDP_SIZE: usize = 36;
/// Size of the part of it that ACPI 1.0 knows, with a checksum of its own.
const RSDP_V1_SIZE: usize = 20;

/// The root system description pointer, with both roots: operating systems
/// older than ACPI 2.0 follow the RSDT.
pub(super) fn rsdp(rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut bytes = bytes_of(&Rsdp::new(OEM_ID, xsdt));
    bytes[16..20].copy_from_slice(&rsdt.to_le_bytes());
    bytes[8] = 0;
    bytes[8] = checksum(&bytes[..RSDP_V1_SIZE]);
    bytes[32] = 0;
    bytes[32] = checksum(&bytes);
    bytes
}

/// The root table with 32-bit addresses.
pub(super) fn rsdt(tables: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = tables.iter().flat_map(|&address| (address as u32).to_le_bytes()).collect();
    table(*b"RSDT", 1, &body)
}

/// The root table with 64-bit addresses.
pub(super) fn xsdt(tables: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = tables.iter().flat_map(|address| address.to_le_bytes()).collect();
    table(*b"XSDT", 1, &body)
}
