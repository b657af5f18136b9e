//! FAT disks made on the spot: a volume without a partition table, as UEFI's firmware reads it, whose
//! root directory holds a few files.
//!
//! | sector | content |
//! |---|---|
//! | 0 | boot sector, with the BIOS parameter block |
//! | 1, 33 | two file allocation tables of 16-bit entries |
//! | 65 | root directory |
//! | 97 | the files, one after the other |
//!
//! Source: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03.

const SECTOR: usize = 512;
const SECTORS: u16 = 0xFFF0;
const CLUSTER: usize = 8 * SECTOR;
const TABLE: usize = 32 * SECTOR;
const ROOT: usize = SECTOR + 2 * TABLE;
const ROOT_ENTRIES: usize = 512;
const ENTRY: usize = 32;
const DATA: usize = ROOT + ROOT_ENTRIES * ENTRY;
/// The number of the first cluster.
const FIRST: usize = 2;
const END_OF_FILE: u16 = 0xFFFF;
const MEDIA: u8 = 0xF8;
const ARCHIVE: u8 = 0x20;

/// A volume of 32 MiB with `files`, by names of 8 and 3 characters with blanks and without the dot:
/// `README  TXT`.
///
/// # Panics
/// If the files do not fit, or one is empty.
pub fn volume(files: &[(&[u8; 11], &[u8])]) -> Vec<u8> {
    let mut image = vec![0; usize::from(SECTORS) * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xEB, 0x3C, 0x90]);
    put(3, b"RINGSHFT");
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[(CLUSTER / SECTOR) as u8]);
    // Reserved sectors, tables, entries of the root directory, sectors.
    put(14, &1u16.to_le_bytes());
    put(16, &[2]);
    put(17, &(ROOT_ENTRIES as u16).to_le_bytes());
    put(19, &SECTORS.to_le_bytes());
    put(21, &[MEDIA]);
    put(22, &((TABLE / SECTOR) as u16).to_le_bytes());
    // Geometry; drive number and signature, serial number, label and kind.
    put(24, &63u16.to_le_bytes());
    put(26, &16u16.to_le_bytes());
    put(36, &[0x80, 0, 0x29, 1, 2, 3, 4]);
    put(43, b"RINGSHIFT  FAT16   ");
    put(510, &[0x55, 0xAA]);

    let mut table = vec![0xFF00 | u16::from(MEDIA), END_OF_FILE];
    for (index, (name, content)) in files.iter().enumerate() {
        assert!(!content.is_empty(), "an empty file has no cluster");
        let first = table.len();
        let end = first + content.len().div_ceil(CLUSTER);
        table.extend((first + 1..end).map(|next| next as u16));
        table.push(END_OF_FILE);
        put(DATA + (first - FIRST) * CLUSTER, content);
        let entry = ROOT + index * ENTRY;
        put(entry, *name);
        put(entry + 11, &[ARCHIVE]);
        put(entry + 26, &(first as u16).to_le_bytes());
        put(entry + 28, &(content.len() as u32).to_le_bytes());
    }
    let table: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    put(SECTOR, &table);
    put(SECTOR + TABLE, &table);
    image
}
