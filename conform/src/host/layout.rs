//! The addresses that a case runs at, the same on the host and in the guest.

/// Size of a page.
pub const PAGE: usize = 4096;
/// First address of the window: below 2 GiB, so that every addressing form of every mode reaches
/// it.
pub const WINDOW: u64 = 0x2000_0000;
/// Pages of the window: what a 16-bit segment spans.
pub const PAGES: usize = 16;
/// First address behind the window.
pub const WINDOW_END: u64 = WINDOW + (PAGES * PAGE) as u64;

/// What a page of the window is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Not mapped.
    None,
    /// Readable and writable.
    Data,
    /// Readable.
    ReadOnly,
    /// Readable and executable.
    Code,
}

/// The window. Page 0 is not mapped, so that 16-bit code meets it at offset 0.
pub const MAP: [Kind; PAGES] = [
    Kind::None,
    Kind::Data,
    Kind::Data,
    Kind::None,
    Kind::ReadOnly,
    Kind::Data,
    Kind::None,
    Kind::Code,
    Kind::Code,
    Kind::None,
    Kind::Data,
    Kind::None,
    Kind::None,
    Kind::None,
    Kind::None,
    Kind::None,
];

/// The pages whose contents belong to a case, in order: data and read-only pages.
pub const CONTENTS: [usize; 5] = [1, 2, 4, 5, 10];
/// Bytes of a case's memory.
pub const MEMORY: usize = CONTENTS.len() * PAGE;
/// Offset in the window of the first code page.
pub const CODE: usize = 7 * PAGE;
/// Bytes of code.
pub const CODE_SIZE: usize = 2 * PAGE;
/// Room for an instruction and what is behind it.
pub const CODE_ROOM: usize = 32;
/// INT3: fills the code pages, so that execution stops behind the instruction.
pub const FILL: u8 = 0xCC;

/// Address of the byte at `offset` in a case's memory.
pub const fn address_of(offset: usize) -> u64 {
    WINDOW + (CONTENTS[offset / PAGE % CONTENTS.len()] * PAGE + offset % PAGE) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contents_are_the_data_pages() {
        let pages: Vec<usize> =
            (0..PAGES).filter(|&i| matches!(MAP[i], Kind::Data | Kind::ReadOnly)).collect();
        assert_eq!(pages, CONTENTS);
        assert_eq!(MAP[CODE / PAGE], Kind::Code);
        assert_eq!(MAP[CODE / PAGE + 1], Kind::Code);
        assert_eq!(address_of(PAGE + 3), WINDOW + 2 * PAGE as u64 + 3);
    }
}
