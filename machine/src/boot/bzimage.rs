//! Linux bzImage: the setup header, and entry by the 64-bit or 32-bit boot
//! protocol. The real-mode part of the image is not run; `real_mode` does that.
//!
//! Source: Documentation/arch/x86/boot.rst of Linux.

use linux_loader::loader::bootparam::{
    LOADED_HIGH, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_KERNEL_64, boot_params, setup_header,
};
use vm_memory::{ByteValued, GuestMemory};

use super::linux::{self, BOOT_FLAG, HEADER_MAGIC, Limits};
use super::placement::Loader;
use super::tables::{self, Registers32};
use super::{Entry, ImageError, Protocol, Request};

/// File offset of the setup header.
const HEADER_START: usize = 0x1F1;
const BOOT_FLAG_AT: usize = 0x1FE;
/// File offset of the second byte of `jump`: the header ends that many bytes
/// after the instruction.
const JUMP_DISTANCE_AT: usize = 0x201;
const MAGIC_AT: usize = 0x202;
/// End of the header of protocol 2.00.
const SMALLEST_HEADER_END: usize = 0x224;
const SECTOR: u64 = 512;
/// The 64-bit entry point, from the load address.
const ENTRY_64: u64 = 0x200;
/// Where a bzImage that states no preference is loaded.
const DEFAULT_LOAD_ADDRESS: u64 = 0x10_0000;
/// `initrd_addr_max` of kernels before protocol 2.03.
const OLD_INITRD_ADDR_MAX: u32 = 0x37FF_FFFF;
const FOUR_GIB: u64 = 1 << 32;

/// Whether `image` begins with a boot sector and has a setup header.
pub(super) fn is_linux(image: &[u8]) -> bool {
    image.get(BOOT_FLAG_AT..BOOT_FLAG_AT + 2) == Some(&BOOT_FLAG.to_le_bytes())
        && image.get(MAGIC_AT..MAGIC_AT + 4) == Some(&HEADER_MAGIC.to_le_bytes())
}

/// A setup header that has been checked, and the image's protected-mode part.
struct BzImage<'a> {
    header: setup_header,
    payload: &'a [u8],
    load_address: u64,
    /// Bytes from the load address that the kernel uses before it reads the
    /// memory map.
    extent: u64,
}

impl<'a> BzImage<'a> {
    fn parse(image: &'a [u8]) -> Result<Self, ImageError> {
        let header = read_header(image)?;
        let version = header.version;
        if version < 0x200 {
            return Err(ImageError::BootProtocol(version));
        }
        if header.loadflags & LOADED_HIGH == 0 {
            return Err(ImageError::LoadedLow(header.loadflags));
        }
        let payload = payload(image, &header)?;
        let load_address = load_address(&header)?;
        let extent = extent(&header, load_address, payload.len() as u64)?;
        Ok(Self { header, payload, load_address, extent })
    }

    fn has_64_bit_entry(&self) -> bool {
        self.header.version >= 0x20C && self.header.xloadflags & XLF_KERNEL_64 != 0
    }

    fn limits(&self, enter_64: bool) -> Limits {
        let header = &self.header;
        Limits {
            command_line: command_line_limit(header),
            initrd_end: initrd_limit(header),
            initrd_anywhere: enter_64 && header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G != 0,
        }
    }
}

/// An image's parts, whichever way it is entered.
pub(super) struct SetupParts<'a> {
    pub(super) header: setup_header,
    /// The boot sector and the setup code.
    pub(super) setup: &'a [u8],
    /// The protected-mode part.
    pub(super) payload: &'a [u8],
}

/// Takes an image apart. It may be a zImage.
pub(super) fn setup_parts(image: &[u8]) -> Result<SetupParts<'_>, ImageError> {
    let header = read_header(image)?;
    if header.version < 0x200 {
        return Err(ImageError::BootProtocol(header.version));
    }
    let payload = payload(image, &header)?;
    Ok(SetupParts { header, setup: &image[..image.len() - payload.len()], payload })
}

/// Longest command line in bytes, without the NUL.
pub(super) fn command_line_limit(header: &setup_header) -> u64 {
    if header.version >= 0x206 { header.cmdline_size.into() } else { 255 }
}

/// First address that the initrd cannot reach.
pub(super) fn initrd_limit(header: &setup_header) -> u64 {
    let last = if header.version >= 0x203 { header.initrd_addr_max } else { OLD_INITRD_ADDR_MAX };
    u64::from(last) + 1
}

/// End of the memory that the kernel uses before it reads the memory map, as far as it says so.
pub(super) fn runtime_end(header: &setup_header) -> u64 {
    if header.version < 0x20A {
        return 0;
    }
    header.pref_address.saturating_add(header.init_size.into())
}

fn read_header(image: &[u8]) -> Result<setup_header, ImageError> {
    if !is_linux(image) {
        return Err(ImageError::NoSetupHeader);
    }
    let distance = image.get(JUMP_DISTANCE_AT).copied().unwrap_or(0);
    let end = MAGIC_AT + usize::from(distance);
    if end < SMALLEST_HEADER_END {
        return Err(ImageError::SetupHeader {
            field: "jump",
            value: distance.into(),
            problem: "the header ends before the fields of boot protocol 2.00",
        });
    }
    let mut header = setup_header::default();
    // Fields past the end of the file's header stay zero, fields that are newer
    // than the structure are of no use here.
    let end = end.min(HEADER_START + header.as_slice().len());
    let bytes = image.get(HEADER_START..end).ok_or(ImageError::Truncated {
        what: "the setup header",
        need: end as u64,
        have: image.len() as u64,
    })?;
    header.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
    Ok(header)
}

/// The protected-mode part of the image, which follows the setup sectors.
fn payload<'a>(image: &'a [u8], header: &setup_header) -> Result<&'a [u8], ImageError> {
    let setup_sectors = if header.setup_sects == 0 { 4 } else { u64::from(header.setup_sects) };
    let start = (1 + setup_sectors) * SECTOR;
    let have = image.len() as u64;
    let payload = image.get(start as usize..).filter(|rest| rest.len() as u64 > ENTRY_64).ok_or(
        ImageError::Truncated { what: "the setup code", need: start + ENTRY_64 + 1, have },
    )?;
    // `syssize` counts paragraphs of 16 bytes, the last of which may be partly
    // filled. It had only 16 bits before protocol 2.04.
    let paragraphs = if header.version >= 0x204 { header.syssize } else { header.syssize & 0xFFFF };
    let size = u64::from(paragraphs) * 16;
    if size > (payload.len() as u64).next_multiple_of(16) {
        return Err(ImageError::Truncated {
            what: "the compressed kernel (syssize)",
            need: start + size,
            have,
        });
    }
    Ok(payload)
}

/// Where the protected-mode part goes. A relocatable kernel would move itself
/// up to its preferred address, so that is where it is put at once.
fn load_address(header: &setup_header) -> Result<u64, ImageError> {
    if header.version < 0x20A {
        return Ok(DEFAULT_LOAD_ADDRESS);
    }
    let value = header.pref_address;
    let problem = if value < DEFAULT_LOAD_ADDRESS {
        "below 1 MiB"
    } else if value >= FOUR_GIB {
        "above 4 GiB"
    } else {
        return Ok(value);
    };
    Err(ImageError::SetupHeader { field: "pref_address", value, problem })
}

/// How much memory from the load address must be RAM and stay free.
fn extent(header: &setup_header, load_address: u64, payload: u64) -> Result<u64, ImageError> {
    if header.version < 0x20A {
        return Ok(payload);
    }
    let mut runtime_start = load_address;
    if header.relocatable_kernel != 0 {
        let alignment = header.kernel_alignment;
        if !alignment.is_power_of_two() {
            return Err(ImageError::SetupHeader {
                field: "kernel_alignment",
                value: alignment.into(),
                problem: "not a power of two",
            });
        }
        runtime_start = load_address.next_multiple_of(alignment.into());
    }
    let runtime_end = runtime_start + u64::from(header.init_size);
    Ok((runtime_end - load_address).max(payload))
}

/// Loads the bzImage of `request`.
pub(super) fn load<M: GuestMemory + ?Sized>(
    loader: &mut Loader<'_, M>,
    request: &Request<'_>,
) -> Result<Entry, ImageError> {
    let image = BzImage::parse(request.kernel)?;
    let enter_64 = match request.protocol {
        Protocol::Best => image.has_64_bit_entry(),
        Protocol::Linux32 => false,
        Protocol::Linux64 if !image.has_64_bit_entry() => return Err(ImageError::No64BitEntry),
        Protocol::Linux64 => true,
    };
    let start = image.load_address;
    loader.claim("kernel", start, image.extent)?;
    loader.write(start, image.payload)?;

    let mut params = Box::new(boot_params::default());
    params.hdr = image.header;
    params.hdr.code32_start = start as u32;
    // The other flags are between stages of the kernel or for entry in real mode.
    params.hdr.loadflags = LOADED_HIGH;
    let zero_page = linux::write_zero_page(loader, request, params, &image.limits(enter_64))?;

    Ok(if enter_64 {
        Entry::Long64(tables::long64(loader, start + ENTRY_64, zero_page)?)
    } else {
        Entry::Protected32(tables::protected32(
            loader,
            Registers32 { eip: start as u32, esi: zero_page as u32, ..Registers32::default() },
        )?)
    })
}
