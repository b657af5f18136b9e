//! Why an image cannot be booted.

use super::elf::ElfError;
use super::multiboot::MultibootError;

/// Why an image cannot be booted, with the value at fault. The message does
/// not name the file: the caller, who opened it, does.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// The content is none of the images known here.
    #[error("not a bootable kernel: {0}")]
    Unrecognised(String),
    /// The file ends too early.
    #[error("the file is cut short: {what} ends at byte {need}, the file at {have}")]
    Truncated {
        /// What should have been there.
        what: &'static str,
        /// Where it should end, in bytes.
        need: u64,
        /// The size of the file, in bytes.
        have: u64,
    },
    /// The setup header's magic number is missing.
    #[error("a Linux image without the HdrS signature (boot protocol before 2.00)")]
    NoSetupHeader,
    /// The Linux boot protocol is too old.
    #[error("Linux boot protocol {}.{:02} is too old, 2.00 is the first supported", .0 >> 8, .0 & 0xFF)]
    BootProtocol(u16),
    /// A zImage, which loads below 1 MiB.
    #[error(
        "a zImage, loaded below 1 MiB (loadflags {0:#04x}); it must be started through a BIOS, by its setup code"
    )]
    LoadedLow(u8),
    /// No 64-bit entry point, where that was asked for.
    #[error("this kernel has no 64-bit entry point")]
    No64BitEntry,
    /// A setup header field makes no sense.
    #[error("setup header field {field} is {value:#x}: {problem}")]
    SetupHeader {
        /// The field's name in the Linux boot protocol.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The command line is longer than the kernel accepts.
    #[error("the command line has {length} bytes, this kernel takes at most {limit}")]
    CommandLineTooLong {
        /// Its length.
        length: u64,
        /// The longest the kernel takes.
        limit: u64,
    },
    /// The command line, or a module's string, holds a NUL.
    #[error("the command line holds a NUL byte at offset {0}")]
    CommandLineNul(usize),
    /// The memory map does not fit the boot protocol's table.
    #[error("the memory map has {count} regions, the boot protocol holds {limit}")]
    TooManyRegions {
        /// Regions in the map.
        count: usize,
        /// Regions the protocol holds.
        limit: usize,
    },
    /// A fixed address is not RAM.
    #[error("{what} needs {size:#x} bytes at {start:#x}, which is not all RAM of this guest")]
    OutsideRam {
        /// What should be loaded.
        what: String,
        /// Its guest-physical address.
        start: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// Two things claim the same memory.
    #[error(
        "{what} ({start:#x}, {size:#x} bytes) overlaps {other} ({other_start:#x}, {other_size:#x} bytes)"
    )]
    Overlap {
        /// What should be loaded.
        what: String,
        /// Its guest-physical address.
        start: u64,
        /// Its size in bytes.
        size: u64,
        /// What is there already.
        other: String,
        /// Its guest-physical address.
        other_start: u64,
        /// Its size in bytes.
        other_size: u64,
    },
    /// No free RAM is large enough.
    #[error(
        "no room for {what}: {size} bytes of free RAM are needed below {limit:#x}; give the guest more memory"
    )]
    NoRoom {
        /// What should be loaded.
        what: String,
        /// Its size in bytes.
        size: u64,
        /// First address that is out of its reach.
        limit: u64,
    },
    /// The entry point is not in the image.
    #[error("the entry point {0:#x} is outside of every loaded segment")]
    EntryOutside(u64),
    /// The ELF structure is malformed.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The Multiboot header asks for something impossible.
    #[error(transparent)]
    Multiboot(#[from] MultibootError),
    /// Guest memory refused an access, against the memory map.
    #[error("guest memory at {start:#x} cannot be written: {source}")]
    Memory {
        /// The guest-physical address.
        start: u64,
        /// The reason.
        source: vm_memory::GuestMemoryError,
    },
}
