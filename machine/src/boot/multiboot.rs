//! Multiboot 1: the header in the image, and the information block in EBX.
//!
//! Source: Multiboot Specification version 0.6.96.

use std::ops::Range;

use vm_memory::GuestMemory;

use super::placement::{Loader, PAGE};
use super::tables::{self, Registers32};
use super::{Entry, ImageError, Request, elf};

/// The header lies within this many bytes from the start of the file (3.1).
const SEARCH: usize = 8192;
const HEADER_MAGIC: u32 = 0x1BAD_B002;
const HEADER_MAGIC_2: u32 = 0xE852_50D6;
/// In EAX at entry: the boot loader speaks Multiboot.
const LOADER_MAGIC: u32 = 0x2BAD_B002;

/// Header flags 0 to 2: page-aligned modules, memory information, video modes.
/// The first two are always given. The last cannot be, as there is no video
/// BIOS; kernels that set it (and GRUB's own tests do) check the information
/// block before they use it, so it is no reason to refuse them.
const SATISFIED: u32 = 0b111;
/// Flags that a loader may not ignore (3.1.2).
const MANDATORY: u32 = 0xFFFF;
/// Header flag 16: the address fields are valid.
const HAS_ADDRESSES: u32 = 1 << 16;

const INFO_MEMORY: u32 = 1 << 0;
const INFO_COMMAND_LINE: u32 = 1 << 2;
const INFO_MODULES: u32 = 1 << 3;
const INFO_MEMORY_MAP: u32 = 1 << 6;
const INFO_LOADER_NAME: u32 = 1 << 9;
const INFO_SIZE: usize = 120;
const LOADER_NAME: &str = "Ringshift";

const FOUR_GIB: u64 = 1 << 32;
const HIGH_START: u64 = 0x10_0000;

/// Why a Multiboot image cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum MultibootError {
    /// The image requires something unknown.
    #[error("the Multiboot header at {at:#x} requires unknown features (flags {flags:#010x})")]
    UnknownFlags {
        /// File offset of the header.
        at: usize,
        /// Its flags.
        flags: u32,
    },
    /// Neither ELF nor address fields say where to load.
    #[error(
        "the Multiboot header at {0:#x} has no address fields (flag 16) and the file is no ELF file"
    )]
    NoAddresses(usize),
    /// The address fields contradict each other.
    #[error("Multiboot address field {field} is {value:#x}: {problem}")]
    Address {
        /// The field's name in the specification.
        field: &'static str,
        /// Its value.
        value: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A header found in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// File offset.
    at: usize,
    flags: u32,
}

fn word(image: &[u8], at: usize) -> Option<u32> {
    let bytes = image.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// Finds the first header whose checksum is right.
pub(super) fn find_header(image: &[u8]) -> Option<Header> {
    (0..=SEARCH - 12).step_by(4).find_map(|at| {
        let [magic, flags, checksum] =
            [word(image, at)?, word(image, at + 4)?, word(image, at + 8)?];
        let valid = magic == HEADER_MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0;
        valid.then_some(Header { at, flags })
    })
}

/// Whether there is a Multiboot 2 header.
pub(super) fn is_multiboot2(image: &[u8]) -> bool {
    (0..32768 - 16).step_by(8).any(|at| {
        let sum = (0..4)
            .try_fold(0_u32, |sum, index| Some(sum.wrapping_add(word(image, at + 4 * index)?)));
        word(image, at) == Some(HEADER_MAGIC_2) && sum == Some(0)
    })
}

/// Where an image goes by its address fields (3.1.3).
#[derive(Debug)]
struct Addresses {
    content: Range<usize>,
    load: u64,
    /// Bytes in memory, with what is to be zeroed.
    size: u64,
    entry: u32,
}

impl Addresses {
    fn parse(image: &[u8], header: Header) -> Result<Self, ImageError> {
        let field = |index: usize| {
            let at = header.at + 12 + 4 * index;
            word(image, at).ok_or(ImageError::Truncated {
                what: "the Multiboot header",
                need: at as u64 + 4,
                have: image.len() as u64,
            })
        };
        let [header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr] =
            [field(0)?, field(1)?, field(2)?, field(3)?, field(4)?];
        let wrong = |field, value, problem| MultibootError::Address { field, value, problem };

        let before_header = header_addr.checked_sub(load_addr).ok_or(wrong(
            "load_addr",
            load_addr,
            "above header_addr",
        ))?;
        let start = header.at.checked_sub(before_header as usize).ok_or(wrong(
            "header_addr",
            header_addr,
            "too far above load_addr for this file",
        ))?;
        let length = match load_end_addr {
            0 => image.len() - start,
            end => {
                end.checked_sub(load_addr).ok_or(wrong("load_end_addr", end, "below load_addr"))?
                    as usize
            }
        };
        if start + length > image.len() {
            return Err(ImageError::Truncated {
                what: "the image (load_end_addr)",
                need: (start + length) as u64,
                have: image.len() as u64,
            });
        }
        let size = match bss_end_addr {
            0 => length as u64,
            end => u64::from(end)
                .checked_sub(u64::from(load_addr))
                .filter(|size| *size >= length as u64)
                .ok_or(wrong("bss_end_addr", end, "below the end of the loaded image"))?,
        };
        if u64::from(entry_addr.wrapping_sub(load_addr)) >= size {
            return Err(ImageError::EntryOutside(entry_addr.into()));
        }
        Ok(Self { content: start..start + length, load: load_addr.into(), size, entry: entry_addr })
    }
}

/// Loads the image; returns its entry point and the first address after it.
fn load_image<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
    image: &[u8],
    header: Header,
) -> Result<(u32, u64), ImageError> {
    // Address fields go before ELF headers where an image has both (3.1.2).
    if header.flags & HAS_ADDRESSES != 0 {
        let addresses = Addresses::parse(image, header)?;
        loader.claim("kernel", addresses.load, addresses.size)?;
        let content = &image[addresses.content.clone()];
        loader.write(addresses.load, content)?;
        let length = content.len() as u64;
        loader.clear(addresses.load + length, addresses.size - length)?;
        return Ok((addresses.entry, addresses.load + addresses.size));
    }
    if !elf::is_elf(image) {
        return Err(MultibootError::NoAddresses(header.at).into());
    }
    let elf = elf::Image::parse(image)?;
    elf.load(loader)?;
    Ok((elf.physical_entry()?, elf.end()))
}

/// Loads the kernel of `request` and its modules.
pub(super) fn load<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
    request: &Request<'_>,
) -> Result<Entry, ImageError> {
    let image = request.kernel;
    let header =
        find_header(image).ok_or_else(|| ImageError::Unrecognised("no Multiboot header".into()))?;
    if header.flags & MANDATORY & !SATISFIED != 0 {
        let Header { at, flags } = header;
        return Err(MultibootError::UnknownFlags { at, flags }.into());
    }
    let (eip, kernel_end) = load_image(loader, image, header)?;
    let modules = load_modules(loader, request, kernel_end)?;
    let info = write_info(loader, request, &modules)?;
    Ok(Entry::Protected32(tables::protected32(
        loader,
        Registers32 { eip, eax: LOADER_MAGIC, ebx: info, ..Registers32::default() },
    )?))
}

/// Loads the modules upwards from the kernel, where other loaders put them and
/// small kernels expect them; returns the module list (3.3, `mods_addr`).
fn load_modules<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
    request: &Request<'_>,
    kernel_end: u64,
) -> Result<Vec<u8>, ImageError> {
    let mut list = Vec::new();
    for module in request.modules {
        let size = module.data.len() as u64;
        let from = kernel_end.max(HIGH_START);
        // An empty module still has an address, so it is given a byte.
        let start = loader.take_lowest("module", size.max(1), PAGE, from, FOUR_GIB)?;
        loader.write(start, module.data)?;
        let string = loader.put_string("module string", module.command_line)?;
        for word in [start, start + size, string, 0] {
            list.extend_from_slice(&(word as u32).to_le_bytes());
        }
    }
    Ok(list)
}

/// Writes the information block and what it points to; returns its address.
fn write_info<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
    request: &Request<'_>,
    modules: &[u8],
) -> Result<u32, ImageError> {
    let command_line = match (request.name, request.command_line) {
        (name, "") => name.to_owned(),
        (name, rest) => format!("{name} {rest}"),
    };
    let command_line = loader.put_string("command line", &command_line)?;
    let loader_name = loader.put_string("boot loader name", LOADER_NAME)?;
    let map = memory_map(loader);
    let map_at = loader.put_low("memory map", &map, 4)?;
    let modules_at = match modules {
        [] => 0,
        list => loader.put_low("module list", list, 4)?,
    };

    // Both sizes stop at the first gap.
    let kib_from = |start| u32::try_from(loader.map().ram_from(start) >> 10).unwrap_or(u32::MAX);
    let mut flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MEMORY_MAP | INFO_LOADER_NAME;
    if !modules.is_empty() {
        flags |= INFO_MODULES;
    }
    // Offsets of the fields as in the table of section 3.3.
    let fields = [
        (0, flags),
        (4, kib_from(0)),
        (8, kib_from(HIGH_START)),
        (16, command_line as u32),
        (20, (modules.len() / 16) as u32),
        (24, modules_at as u32),
        (44, map.len() as u32),
        (48, map_at as u32),
        (64, loader_name as u32),
    ];
    let mut info = [0; INFO_SIZE];
    for (offset, value) in fields {
        info[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
    Ok(loader.put_low("Multiboot information", &info, 8)? as u32)
}

/// The memory map: entries of 20 bytes, each after its size.
fn memory_map<M: GuestMemory + ?Sized>(loader: &Loader<'_, M>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for region in loader.map().regions() {
        bytes.extend_from_slice(&20_u32.to_le_bytes());
        bytes.extend_from_slice(&region.start.to_le_bytes());
        bytes.extend_from_slice(&region.size.to_le_bytes());
        bytes.extend_from_slice(&(region.kind as u32).to_le_bytes());
    }
    bytes
}
