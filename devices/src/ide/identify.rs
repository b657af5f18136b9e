//! What drives say of themselves: IDENTIFY DEVICE and IDENTIFY PACKET DEVICE.
//!
//! Source: ATA/ATAPI-6 (T13/1410D), sections 8.15 and 8.16.

/// Heads and sectors per track of the translated geometry.
pub(super) const HEADS: u32 = 16;
/// Sectors per track.
pub(super) const SECTORS: u32 = 63;
/// Most sectors in one block of READ MULTIPLE.
pub(super) const MAX_MULTIPLE: u8 = 16;

/// Cylinders of a disk of `sectors` sectors.
pub(super) fn cylinders(sectors: u64) -> u16 {
    (sectors / u64::from(HEADS * SECTORS)).clamp(1, 16383) as u16
}

struct Words([u16; 256]);

impl Words {
    /// Text in the order of ATA strings: the first character in the high byte.
    fn text(&mut self, first: usize, words: usize, text: &str) {
        let mut bytes = text.bytes().chain(std::iter::repeat(b' '));
        for word in self.0.iter_mut().skip(first).take(words) {
            let (high, low) = (bytes.next().unwrap_or(b' '), bytes.next().unwrap_or(b' '));
            *word = u16::from_be_bytes([high, low]);
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// Which DMA mode SET FEATURES chose: words 62, 63 and 88 show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct TransferMode(pub(super) u8);

impl TransferMode {
    /// Multiword DMA 0 to 2 supported, and the selected one.
    fn multiword(self) -> u16 {
        0x07 | if self.0 >> 3 == 4 { 0x100 << (self.0 & 7).min(2) } else { 0 }
    }

    /// Ultra DMA 0 to 5 supported, and the selected one.
    fn ultra(self) -> u16 {
        0x3f | if self.0 >> 3 == 8 { 0x100 << (self.0 & 7).min(5) } else { 0 }
    }
}

/// A disk's 512 bytes. `serial` tells drives apart; `multiple` is what SET MULTIPLE MODE chose.
pub(super) fn disk(sectors: u64, serial: &str, multiple: u8, mode: TransferMode) -> Vec<u8> {
    let mut words = Words([0; 256]);
    let cylinders = cylinders(sectors);
    let chs = u32::from(cylinders) * HEADS * SECTORS;
    let lba28 = sectors.min(0x0fff_ffff) as u32;
    words.text(10, 10, serial);
    words.text(23, 4, "1.0");
    words.text(27, 20, "RINGSHIFT HARDDISK");
    for (index, value) in [
        (0, 0x0040), // fixed
        (1, cylinders),
        (3, HEADS as u16),
        (6, SECTORS as u16),
        (47, 0x8000 | u16::from(MAX_MULTIPLE)),
        (48, 1),      // 32-bit PIO
        (49, 0x0f00), // IORDY, LBA, DMA
        (50, 0x4000),
        (53, 7), // words 54 to 58, 64 to 70 and 88 are valid
        (54, cylinders),
        (55, HEADS as u16),
        (56, SECTORS as u16),
        (57, chs as u16),
        (58, (chs >> 16) as u16),
        (59, if multiple == 0 { 0 } else { 0x100 | u16::from(multiple) }),
        (60, lba28 as u16),
        (61, (lba28 >> 16) as u16),
        (63, mode.multiword()),
        (64, 3), // PIO 3 and 4
        (65, 120),
        (66, 120),
        (67, 120),
        (68, 120),
        (80, 0x7e),   // ATA-1 to ATA-6
        (82, 0x4020), // NOP, write cache
        (83, 0x7400), // FLUSH CACHE (EXT), 48-bit addresses
        (84, 0x4000),
        (85, 0x4020),
        (86, 0x3400),
        (87, 0x4000),
        (88, mode.ultra()),
        (93, 0x6001), // 80-wire cable
        (100, sectors as u16),
        (101, (sectors >> 16) as u16),
        (102, (sectors >> 32) as u16),
        (103, (sectors >> 48) as u16),
    ] {
        words.0[index] = value;
    }
    words.bytes()
}

/// A CD-ROM drive's 512 bytes.
pub(super) fn cdrom(serial: &str, mode: TransferMode) -> Vec<u8> {
    let mut words = Words([0; 256]);
    words.text(10, 10, serial);
    words.text(23, 4, "1.0");
    words.text(27, 20, "RINGSHIFT CD-ROM");
    for (index, value) in [
        (0, 0x85c0), // ATAPI, CD-ROM, removable, 12-byte packets, DRQ within 50 us
        (48, 1),
        (49, 0x0f00),
        (53, 7),
        (63, mode.multiword()),
        (64, 3),
        (65, 120),
        (66, 120),
        (67, 120),
        (68, 120),
        (80, 0x7e),
        (82, 0x0210), // PACKET, DEVICE RESET
        (83, 0x4000),
        (84, 0x4000),
        (85, 0x0210),
        (87, 0x4000),
        (88, mode.ultra()),
        (93, 0x6001),
    ] {
        words.0[index] = value;
    }
    words.bytes()
}
