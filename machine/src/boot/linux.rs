//! What the Linux boot protocols share: the zero page, the command line and
//! the initrd; and the entry of a `vmlinux` that has no PVH note.
//!
//! Source: Documentation/arch/x86/boot.rst and zero-page.rst of Linux. The
//! layout of `boot_params` is linux-loader's; its loaders are not used, since
//! they place neither initrd nor tables and take header fields on trust.

use linux_loader::loader::bootparam::{E820_MAX_ENTRIES_ZEROPAGE, boot_e820_entry, boot_params};
use vm_memory::{ByteValued, GuestMemory};

use super::placement::{Loader, PAGE, terminated};
use super::tables::{self, Registers32};
use super::{ElfClass, Entry, ImageError, Module, Request, elf};

/// The boot sector's signature, `boot_flag`.
pub(super) const BOOT_FLAG: u16 = 0xAA55;
/// "HdrS", `header`.
pub(super) const HEADER_MAGIC: u32 = 0x5372_6448;
/// `type_of_loader` of a loader without an assigned number.
pub(super) const UNREGISTERED_LOADER: u8 = 0xFF;
/// `cl_magic`, by which kernels before protocol 2.02 know a command line.
pub(super) const OLD_COMMAND_LINE_MAGIC: u16 = 0xA33F;

/// What a kernel image says about the things placed beside it.
pub(super) struct Limits {
    /// Longest command line in bytes, without the NUL.
    pub(super) command_line: u64,
    /// First address that the initrd cannot reach, at most 4 GiB.
    pub(super) initrd_end: u64,
    /// Whether the initrd may lie above `initrd_end`, even above 4 GiB, if it
    /// does not fit below.
    pub(super) initrd_anywhere: bool,
}

/// Places initrd and command line, fills in `params` and writes it. The kernel
/// itself must have been placed. Returns the address of the zero page.
pub(super) fn write_zero_page<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
    request: &Request<'_>,
    mut params: Box<boot_params>,
    limits: &Limits,
) -> Result<u64, ImageError> {
    let command_line = terminated(request.command_line)?;
    let length = command_line.len() as u64 - 1;
    if length > limits.command_line {
        return Err(ImageError::CommandLineTooLong { length, limit: limits.command_line });
    }
    // The command line follows the zero page, within 64 KiB where the oldest
    // protocols look for it.
    let zero_page = loader.take_low("zero page and command line", PAGE + length + 1, PAGE)?;
    let command_line_at = zero_page + PAGE;
    loader.write(command_line_at, &command_line)?;

    params.hdr.type_of_loader = UNREGISTERED_LOADER;
    params.hdr.setup_data = 0;
    if params.hdr.version >= 0x202 {
        params.hdr.cmd_line_ptr = command_line_at as u32;
    } else {
        params.screen_info.cl_magic = OLD_COMMAND_LINE_MAGIC;
        params.screen_info.cl_offset = PAGE as u16;
    }

    let size = initrd_size(request.modules);
    if size > 0 {
        let start = place_initrd(loader, size, limits)?;
        write_initrd(loader, start, request.modules)?;
        params.hdr.ramdisk_image = start as u32;
        params.hdr.ramdisk_size = size as u32;
        params.ext_ramdisk_image = (start >> 32) as u32;
        params.ext_ramdisk_size = (size >> 32) as u32;
    }

    if request.text_screen {
        // What the real-mode setup code would have found out: mode 3, an empty screen.
        params.screen_info.orig_video_mode = 3;
        params.screen_info.orig_video_cols = 80;
        params.screen_info.orig_video_lines = 25;
        params.screen_info.orig_video_isVGA = 1;
        params.screen_info.orig_video_points = 16;
    }
    params.acpi_rsdp_addr = request.rsdp.unwrap_or(0);
    params.alt_mem_k = u32::try_from(loader.map().ram_from(1 << 20) >> 10).unwrap_or(u32::MAX);
    let regions = loader.map().regions();
    if regions.len() > E820_MAX_ENTRIES_ZEROPAGE {
        return Err(ImageError::TooManyRegions {
            count: regions.len(),
            limit: E820_MAX_ENTRIES_ZEROPAGE,
        });
    }
    params.e820_entries = regions.len() as u8;
    for (index, region) in regions.iter().enumerate() {
        params.e820_table[index] =
            boot_e820_entry { addr: region.start, size: region.size, r#type: region.kind as u32 };
    }
    loader.write(zero_page, params.as_slice())?;
    Ok(zero_page)
}

/// The size of all modules as one initrd: the kernel's unpacker allows
/// archives to follow each other at multiples of four bytes.
fn initrd_size(modules: &[Module<'_>]) -> u64 {
    modules.iter().fold(0_u64, |size, module| size.next_multiple_of(4) + module.data.len() as u64)
}

/// All modules as one initrd.
pub(super) fn join_initrd(modules: &[Module<'_>]) -> Vec<u8> {
    let mut initrd = Vec::with_capacity(initrd_size(modules) as usize);
    for module in modules {
        initrd.resize(initrd.len().next_multiple_of(4), 0);
        initrd.extend_from_slice(module.data);
    }
    initrd
}

fn place_initrd<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
    size: u64,
    limits: &Limits,
) -> Result<u64, ImageError> {
    match loader.take_highest("initrd", size, PAGE, limits.initrd_end) {
        Err(ImageError::NoRoom { .. }) if limits.initrd_anywhere => {
            loader.take_highest("initrd", size, PAGE, u64::MAX)
        }
        result => result,
    }
}

fn write_initrd<M: GuestMemory + ?Sized>(
    loader: &Loader<'_, M>,
    start: u64,
    modules: &[Module<'_>],
) -> Result<(), ImageError> {
    let mut at = start;
    for module in modules {
        let aligned = at.next_multiple_of(4);
        loader.clear(at, aligned - at)?;
        loader.write(aligned, module.data)?;
        at = aligned + module.data.len() as u64;
    }
    Ok(())
}

/// Loads an ELF `vmlinux` and enters it as the last stage of its own
/// decompressor would: `startup_64` or `startup_32`, with the zero page in RSI.
pub(super) fn load_vmlinux<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
    request: &Request<'_>,
    class: ElfClass,
) -> Result<Entry, ImageError> {
    let image = elf::Image::parse(request.kernel)?;
    image.load(loader)?;
    let entry = image.physical_entry()?;

    // There is no setup header in an ELF file; the kernel checks only the magic
    // number of the one it is given, and reads what the loader fills in.
    let mut params = Box::new(boot_params::default());
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.version = 0x20F;
    params.hdr.loadflags = linux_loader::loader::bootparam::LOADED_HIGH;
    // COMMAND_LINE_SIZE of x86 less the NUL, and the initrd limits that the
    // kernel's own setup header carries for each word size.
    let limits = match class {
        ElfClass::Elf64 => {
            Limits { command_line: 2047, initrd_end: 1 << 31, initrd_anywhere: true }
        }
        ElfClass::Elf32 => {
            Limits { command_line: 2047, initrd_end: 0x3800_0000, initrd_anywhere: false }
        }
    };
    let zero_page = write_zero_page(loader, request, params, &limits)?;
    Ok(match class {
        ElfClass::Elf64 => Entry::Long64(tables::long64(loader, entry.into(), zero_page)?),
        ElfClass::Elf32 => Entry::Protected32(tables::protected32(
            loader,
            Registers32 { eip: entry, esi: zero_page as u32, ..Registers32::default() },
        )?),
    })
}
