//! CD-ROMs made on the spot: an ISO 9660 volume whose root directory holds a few files, one of which
//! boots by El Torito without emulation, as ISOLINUX does.
//!
//! | sector | content |
//! |---|---|
//! | 16 | primary volume descriptor |
//! | 17 | El Torito's boot record |
//! | 18 | end of the descriptors |
//! | 19, 20 | path tables, little and big-endian |
//! | 21 | root directory |
//! | 22 | boot catalog |
//! | 23 | the files, one after the other |
//!
//! Source: ECMA-119 (2nd edition), sections 8.4, 9.1 and 9.4; El Torito 1.0, section 2. The boot
//! information table in the boot file is that of `mkisofs -boot-info-table`.

const SECTOR: usize = 2048;
const DESCRIPTORS: usize = 16;
const PATH_TABLE: usize = 19;
const ROOT: usize = 21;
const CATALOG: usize = 22;
const FILES: usize = 23;
const DIRECTORY: u8 = 2;
/// The boot information table's place in the boot file, and its end.
const BOOT_TABLE: usize = 8;
const BOOT_TABLE_END: usize = 64;

/// A volume with `files`, by upper-case names of 8 and 3 characters, sorted. The first 2 KiB of the
/// file `boot` are loaded by firmware and started.
///
/// # Panics
/// If there is no file `boot`, or the root directory needs more than a sector.
pub fn volume(files: &[(&str, &[u8])], boot: &str) -> Vec<u8> {
    let mut image = vec![0; FILES * SECTOR];
    let mut root =
        [record(&[0], ROOT, SECTOR, DIRECTORY), record(&[1], ROOT, SECTOR, DIRECTORY)].concat();
    let mut boot_sector = None;
    for (name, content) in files {
        let sector = image.len() / SECTOR;
        root.extend(record(format!("{name};1").as_bytes(), sector, content.len(), 0));
        image.extend_from_slice(content);
        if *name == boot {
            let start = sector * SECTOR;
            boot_information(&mut image[start..], sector);
            boot_sector = Some(sector);
        }
        image.resize(image.len().next_multiple_of(SECTOR), 0);
    }
    let boot_sector = boot_sector.expect("the boot file is one of the files");
    assert!(root.len() <= SECTOR, "too many files");
    let sectors = image.len() / SECTOR;
    let mut put = |sector: usize, offset: usize, bytes: &[u8]| {
        let at = sector * SECTOR + offset;
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };

    put(DESCRIPTORS, 0, b"\x01CD001\x01");
    // System and volume identifiers.
    put(DESCRIPTORS, 8, &[b' '; 64]);
    put(DESCRIPTORS, 40, b"RINGSHIFT");
    put(DESCRIPTORS, 80, &both_32(sectors));
    for (offset, value) in [(120, 1), (124, 1), (128, SECTOR)] {
        put(DESCRIPTORS, offset, &both_16(value));
    }
    // One directory, the root: ten bytes.
    put(DESCRIPTORS, 132, &both_32(10));
    put(DESCRIPTORS, 140, &(PATH_TABLE as u32).to_le_bytes());
    put(DESCRIPTORS, 148, &(PATH_TABLE as u32 + 1).to_be_bytes());
    put(DESCRIPTORS, 156, &record(&[0], ROOT, SECTOR, DIRECTORY));
    put(DESCRIPTORS, 190, &[b' '; 623]);
    put(DESCRIPTORS, 881, &[1]);

    put(DESCRIPTORS + 1, 0, b"\x00CD001\x01EL TORITO SPECIFICATION");
    put(DESCRIPTORS + 1, 0x47, &(CATALOG as u32).to_le_bytes());
    put(DESCRIPTORS + 2, 0, b"\xFFCD001\x01");
    put(PATH_TABLE, 0, &[1, 0]);
    put(PATH_TABLE, 2, &(ROOT as u32).to_le_bytes());
    put(PATH_TABLE, 6, &[1, 0]);
    put(PATH_TABLE + 1, 0, &[1, 0]);
    put(PATH_TABLE + 1, 2, &(ROOT as u32).to_be_bytes());
    put(PATH_TABLE + 1, 6, &[0, 1]);
    put(ROOT, 0, &root);

    // Validation entry, whose words have the sum 0: PC, 55 AA.
    put(CATALOG, 0, &[1, 0]);
    put(CATALOG, 28, &0x55AA_u16.wrapping_sub(1).to_le_bytes());
    put(CATALOG, 30, &[0x55, 0xAA]);
    // Initial entry: bootable, no emulation, four sectors of 512 bytes.
    put(CATALOG, 32, &[0x88, 0, 0, 0, 0, 0, 4, 0]);
    put(CATALOG, 40, &(boot_sector as u32).to_le_bytes());
    image
}

/// Tells the boot file where it lies: the volume descriptor's sector, its own, its size and the sum
/// of its words behind the table.
fn boot_information(file: &mut [u8], sector: usize) {
    let sum = file[BOOT_TABLE_END..].chunks(4).fold(0_u32, |sum, word| {
        let mut bytes = [0; 4];
        bytes[..word.len()].copy_from_slice(word);
        sum.wrapping_add(u32::from_le_bytes(bytes))
    });
    let table = [DESCRIPTORS as u32, sector as u32, file.len() as u32, sum];
    let table = table.map(u32::to_le_bytes).concat();
    file[BOOT_TABLE..BOOT_TABLE_END].fill(0);
    file[BOOT_TABLE..BOOT_TABLE + table.len()].copy_from_slice(&table);
}

/// A directory record.
fn record(name: &[u8], sector: usize, size: usize, flags: u8) -> Vec<u8> {
    let mut record = vec![0; 2];
    record.extend(both_32(sector));
    record.extend(both_32(size));
    // 1 January 2025.
    record.extend([125, 1, 1, 0, 0, 0, 0, flags, 0, 0]);
    record.extend(both_16(1));
    record.push(name.len() as u8);
    record.extend_from_slice(name);
    record.resize(record.len().next_multiple_of(2), 0);
    record[0] = record.len() as u8;
    record
}

/// Both byte orders, the little-endian first.
fn both_16(value: usize) -> Vec<u8> {
    [(value as u16).to_le_bytes(), (value as u16).to_be_bytes()].concat()
}

fn both_32(value: usize) -> Vec<u8> {
    [(value as u32).to_le_bytes(), (value as u32).to_be_bytes()].concat()
}
