//! The same tables as [`build`](super::build) gives, for firmware that places them itself: QEMU's
//! table loader.
//!
//! | file | holds |
//! |---|---|
//! | `etc/acpi/rsdp` | RSDP, to be placed in the BIOS area |
//! | `etc/acpi/tables` | all other tables, pointers being offsets into the file |
//! | `etc/table-loader` | commands: allocate, add the address of a file to a pointer, sum up |
//!
//! Source: QEMU, hw/acpi/bios-linker-loader.c describes the commands' layout; SeaBIOS,
//! src/fw/romfile_loader.h.

use super::{AcpiError, BoardInfo, Layout, dsdt, fixed, hpet, madt, root};

/// The RSDP's file.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
/// The tables' file.
pub const TABLES_FILE: &str = "etc/acpi/tables";
/// The commands' file.
pub const LOADER_FILE: &str = "etc/table-loader";

const COMMAND_SIZE: usize = 128;
const NAME_SIZE: usize = 56;
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
const ZONE_HIGH: u8 = 1;
const ZONE_FSEG: u8 = 2;

/// Offset of a system description table's checksum.
const CHECKSUM: u32 = 9;
/// Length of its header.
const HEADER: u32 = 36;

/// The content of the three files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderFiles {
    /// [`RSDP_FILE`].
    pub rsdp: Vec<u8>,
    /// [`TABLES_FILE`].
    pub tables: Vec<u8>,
    /// [`LOADER_FILE`].
    pub commands: Vec<u8>,
}

#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn command(&mut self, number: u32, body: &[&[u8]]) {
        let mut entry = number.to_le_bytes().to_vec();
        for part in body {
            entry.extend_from_slice(part);
        }
        entry.resize(COMMAND_SIZE, 0);
        self.0.extend(entry);
    }

    fn allocate(&mut self, file: &str, alignment: u32, zone: u8) {
        self.command(ALLOCATE, &[&name(file), &alignment.to_le_bytes(), &[zone]]);
    }

    /// Adds the address of `source` to the `size` bytes at `offset` of `file`.
    fn pointer(&mut self, file: &str, source: &str, offset: u32, size: u8) {
        let (file, source) = (name(file), name(source));
        self.command(ADD_POINTER, &[&file, &source, &offset.to_le_bytes(), &[size]]);
    }

    fn checksum(&mut self, file: &str, at: u32, start: u32, length: u32) {
        let numbers = [at, start, length].map(u32::to_le_bytes).concat();
        self.command(ADD_CHECKSUM, &[&name(file), &numbers]);
    }
}

/// Clears a checksum that the commands ask for. SeaBIOS takes the sum from the byte that is there;
/// OVMF replaces it by what the sum, this byte included, lacks.
fn clear(file: &mut [u8], at: u32) {
    if let Some(byte) = file.get_mut(at as usize) {
        *byte = 0;
    }
}

fn name(file: &str) -> Vec<u8> {
    let mut bytes = file.as_bytes().to_vec();
    bytes.resize(NAME_SIZE, 0);
    bytes
}

/// Builds the files.
///
/// # Errors
/// If the tables do not fit 4 GiB.
pub fn loader_files(board: &BoardInfo) -> Result<LoaderFiles, AcpiError> {
    let mut layout = Layout { next: 0, regions: Vec::new() };
    let facs = layout.place(fixed::facs());
    let dsdt = layout.place(dsdt::build(board));
    let fadt = layout.place(fixed::fadt(board, facs as u32, dsdt as u32));
    let mut listed = vec![fadt, layout.place(madt::build(board))];
    if let Some(hpet) = &board.hpet {
        listed.push(layout.place(hpet::build(hpet)));
    }
    let rsdt = layout.place(root::rsdt(&listed));
    let xsdt = layout.place(root::xsdt(&listed));
    let needed = layout.next;
    if u32::try_from(needed).is_err() {
        return Err(AcpiError::TooLarge { needed, available: 1 << 32 });
    }
    let mut tables = vec![0; needed as usize];
    let length_of = |address: u64| {
        layout.regions.iter().find(|(at, _)| *at == address).map_or(0, |(_, table)| table.len())
    };
    let lengths = [fadt, rsdt, xsdt].map(|address| (address as u32, length_of(address) as u32));
    for (address, table) in &layout.regions {
        let start = *address as usize;
        if let Some(target) = tables.get_mut(start..start + table.len()) {
            target.copy_from_slice(table);
        }
    }

    let mut script = Script::default();
    script.allocate(TABLES_FILE, 64, ZONE_HIGH);
    script.allocate(RSDP_FILE, 16, ZONE_FSEG);
    let (fadt, rsdt_at, xsdt_at) = (fadt as u32, rsdt as u32, xsdt as u32);
    // FIRMWARE_CTRL, DSDT and X_DSDT.
    for (offset, size) in [(36, 4), (40, 4), (140, 8)] {
        script.pointer(TABLES_FILE, TABLES_FILE, fadt + offset, size);
    }
    for index in 0..listed.len() as u32 {
        script.pointer(TABLES_FILE, TABLES_FILE, rsdt_at + HEADER + 4 * index, 4);
        script.pointer(TABLES_FILE, TABLES_FILE, xsdt_at + HEADER + 8 * index, 8);
    }
    for (start, length) in lengths {
        clear(&mut tables, start + CHECKSUM);
        script.checksum(TABLES_FILE, start + CHECKSUM, start, length);
    }
    // RsdtAddress and XsdtAddress; the checksum of ACPI 1.0's part, then of the whole.
    script.pointer(RSDP_FILE, TABLES_FILE, 16, 4);
    script.pointer(RSDP_FILE, TABLES_FILE, 24, 8);
    let mut rsdp = root::rsdp(rsdt_at, xsdt);
    for (at, length) in [(8, 20), (32, root::RSDP_SIZE as u32)] {
        clear(&mut rsdp, at);
        script.checksum(RSDP_FILE, at, 0, length);
    }
    Ok(LoaderFiles { rsdp, tables, commands: script.0 })
}
