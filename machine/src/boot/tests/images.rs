//! Small images of every kind, valid until a test spoils them.

/// Writes `bytes` over `image` at `at`.
pub(super) fn patch(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// File offset of the protected-mode part of [`bzimage`].
pub(super) const PAYLOAD_AT: usize = 5 * 512;
/// Its content: a pattern that no table has.
pub(super) const PAYLOAD: [u8; 4096] = [0x5A; 4096];

/// A bzImage of protocol 2.15 with a 64-bit entry point, that wants 2 MiB at
/// 16 MiB.
pub(super) fn bzimage() -> Vec<u8> {
    let mut image = vec![0; PAYLOAD_AT];
    image.extend_from_slice(&PAYLOAD);
    patch(&mut image, 0x1F1, &[4]);
    patch(&mut image, 0x1F4, &(PAYLOAD.len() as u32 / 16).to_le_bytes());
    patch(&mut image, 0x1FE, &[0x55, 0xAA, 0xEB, 0x6A]);
    patch(&mut image, 0x202, b"HdrS");
    patch(&mut image, 0x206, &0x20F_u16.to_le_bytes());
    // LOADED_HIGH, and KEEP_SEGMENTS, which the loader must clear.
    patch(&mut image, 0x211, &[0x41]);
    patch(&mut image, 0x214, &0x10_0000_u32.to_le_bytes());
    patch(&mut image, 0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
    patch(&mut image, 0x230, &0x20_0000_u32.to_le_bytes());
    patch(&mut image, 0x234, &[1]);
    // XLF_KERNEL_64 and XLF_CAN_BE_LOADED_ABOVE_4G.
    patch(&mut image, 0x236, &[3, 0]);
    patch(&mut image, 0x238, &2047_u32.to_le_bytes());
    // A value of setup_data that the loader must clear.
    patch(&mut image, 0x250, &[0xFF; 8]);
    patch(&mut image, 0x258, &0x100_0000_u64.to_le_bytes());
    patch(&mut image, 0x260, &0x20_0000_u32.to_le_bytes());
    image
}

/// A segment of an ELF image.
pub(super) struct Segment {
    pub(super) physical: u64,
    pub(super) virtual_: u64,
    pub(super) content: Vec<u8>,
    pub(super) size: u64,
}

impl Segment {
    /// A segment with equal addresses.
    pub(super) fn flat(at: u64, content: &[u8], size: u64) -> Self {
        Self { physical: at, virtual_: at, content: content.into(), size }
    }
}

/// A PVH entry note with a 32-bit address.
pub(super) fn pvh_note(entry: u32) -> Vec<u8> {
    let mut note = Vec::new();
    // A note of somebody else comes first.
    for word in [4, 5, 1, u32::from_le_bytes(*b"GNU\0"), 1, 2] {
        note.extend_from_slice(&word.to_le_bytes());
    }
    for word in [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), entry] {
        note.extend_from_slice(&word.to_le_bytes());
    }
    note
}

/// Offset of the first segment's content in an [`elf`] image.
pub(super) const CONTENT_AT: usize = 0x400;

/// An ELF executable; `wide` for ELFCLASS64.
pub(super) fn elf(wide: bool, entry: u64, segments: &[Segment], note: Option<&[u8]>) -> Vec<u8> {
    let mut headers = Vec::new();
    let mut contents = Vec::new();
    let word = |bytes: &mut Vec<u8>, value: u64| {
        bytes.extend_from_slice(&value.to_le_bytes()[..if wide { 8 } else { 4 }]);
    };
    let mut program = |kind: u32, content: &[u8], physical: u64, virtual_: u64, size: u64| {
        let offset = (CONTENT_AT + contents.len()) as u64;
        contents.extend_from_slice(content);
        headers.extend_from_slice(&kind.to_le_bytes());
        if wide {
            headers.extend_from_slice(&7_u32.to_le_bytes());
        }
        for value in [offset, virtual_, physical, content.len() as u64, size] {
            word(&mut headers, value);
        }
        if !wide {
            headers.extend_from_slice(&7_u32.to_le_bytes());
        }
        word(&mut headers, 4);
    };
    for segment in segments {
        program(1, &segment.content, segment.physical, segment.virtual_, segment.size);
    }
    if let Some(note) = note {
        program(4, note, 0, 0, note.len() as u64);
    }

    let mut image = vec![0x7F, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1];
    image.resize(16, 0);
    let machine = if wide { 62_u16 } else { 3 };
    image.extend_from_slice(&2_u16.to_le_bytes());
    image.extend_from_slice(&machine.to_le_bytes());
    image.extend_from_slice(&1_u32.to_le_bytes());
    let (header_size, program_size) = if wide { (64_u16, 56_u16) } else { (52, 32) };
    for value in [entry, header_size.into(), 0] {
        word(&mut image, value);
    }
    image.extend_from_slice(&0_u32.to_le_bytes());
    let count = segments.len() as u16 + u16::from(note.is_some());
    for half in [header_size, program_size, count, 0, 0, 0] {
        image.extend_from_slice(&half.to_le_bytes());
    }
    image.extend_from_slice(&headers);
    assert!(image.len() <= CONTENT_AT);
    image.resize(CONTENT_AT, 0);
    image.extend_from_slice(&contents);
    image
}

/// A Multiboot header with its checksum, then `fields`.
pub(super) fn multiboot_header(flags: u32, fields: &[u32]) -> Vec<u8> {
    let checksum = 0_u32.wrapping_sub(0x1BAD_B002).wrapping_sub(flags);
    [0x1BAD_B002, flags, checksum]
        .iter()
        .chain(fields)
        .flat_map(|word| word.to_le_bytes())
        .collect()
}
