//! Linux by its 16-bit setup code: what boot loaders of old do, and the only way into images that
//! have no 32-bit entry point. The setup code calls the BIOS, so a BIOS must have started the
//! machine; the parts are offered to it through fw_cfg ([`crate::firmware`]).
//!
//! | boot protocol | setup | command line | kernel |
//! |---|---|---|---|
//! | zImage | 90000 | ends at 9A000 | 10000 |
//! | before 2.02 | 90000 | ends at 9A000 | 100000 |
//! | 2.02 and later | 10000 | 20000 | 100000 |
//!
//! Source: Documentation/arch/x86/boot.rst of Linux, "Loading The Rest of The Kernel", "Sample Boot
//! Configuration" and "Running the Kernel".

use devices::fw_cfg::LinuxImage;
use linux_loader::loader::bootparam::{CAN_USE_HEAP, LOADED_HIGH, setup_header};
use x86::cpuid::{Feature, Policy};

use super::bzimage::{self, SetupParts};
use super::linux::{OLD_COMMAND_LINE_MAGIC, UNREGISTERED_LOADER};
use super::placement::{PAGE, terminated};
use super::{ImageError, Module, linux};

/// Where the protected-mode part of a bzImage goes, and no zImage may reach.
const HIGH: u64 = 0x10_0000;
/// The end of the command line beside setup code at [`OLD_SETUP`].
const OLD_COMMAND_LINE_END: u32 = 0x9_A000;
const OLD_SETUP: u32 = 0x9_0000;
const NEW_COMMAND_LINE: u32 = 0x2_0000;
const NEW_SETUP: u32 = 0x1_0000;
/// Where a zImage's protected-mode part goes.
const LOW_KERNEL: u32 = 0x1_0000;
/// Kept free between the setup code and the command line: the setup code's heap and stack.
const HEAP: u32 = 0x1000;
/// Firmware has its tables in the last part of RAM below 4 GiB: of SeaBIOS 256 KiB, at most.
const FIRMWARE_TABLES: u64 = 1 << 20;

/// Offsets of header fields in the image.
mod field {
    pub(super) const OLD_COMMAND_LINE: usize = 0x20;
    pub(super) const VID_MODE: usize = 0x1FA;
    pub(super) const TYPE_OF_LOADER: usize = 0x210;
    pub(super) const LOADFLAGS: usize = 0x211;
    pub(super) const RAMDISK_IMAGE: usize = 0x218;
    pub(super) const RAMDISK_SIZE: usize = 0x21C;
    pub(super) const HEAP_END_PTR: usize = 0x224;
    pub(super) const CMD_LINE_PTR: usize = 0x228;
}

/// The parts of an image, each with its place, and how the setup code is entered: CS is `segment`
/// and 20H, IP 0, the other segments `segment`, SP is `stack`.
#[derive(Clone, Debug)]
pub struct RealModeLinux {
    /// Setup code with its header filled in, kernel, command line and initrd.
    pub image: LinuxImage,
    /// Where the setup code lies, in paragraphs.
    pub segment: u16,
    /// First stack pointer.
    pub stack: u16,
}

/// What every x86-64 processor has. Where all is there, the setup code has nothing to refuse.
const BASELINE: [Feature; 9] = [
    Feature::Fpu,
    Feature::Tsc,
    Feature::Msr,
    Feature::Pae,
    Feature::Cx8,
    Feature::Cmov,
    Feature::Fxsr,
    Feature::Sse2,
    Feature::LongMode,
];

/// Whether `image` is a Linux image that must be started by its setup code, since it has no other
/// entry point, or that had better be on a processor with `policy`: the setup code looks for what
/// its kernel needs, and says what is missing; behind it nobody does.
pub fn wants_setup_code(image: &[u8], policy: &Policy) -> bool {
    let Ok(parts) = bzimage::setup_parts(image) else { return false };
    if !has_32_bit_entry(&parts.header) {
        tracing::debug!("the kernel has no 32-bit entry point: a BIOS starts it");
        return true;
    }
    let missing: Vec<_> = BASELINE.into_iter().filter(|&feature| !policy.has(feature)).collect();
    if !missing.is_empty() {
        tracing::debug!(?missing, "the kernel may refuse this processor: a BIOS starts it");
    }
    !missing.is_empty()
}

/// Linux documents entry in 32 bits since the fields of protocol 2.05. A boot loader jumps to
/// `code32_start` then; iPXE, which has nothing there, leaves it zero.
fn has_32_bit_entry(header: &setup_header) -> bool {
    header.version >= 0x205 && header.loadflags & LOADED_HIGH != 0 && header.code32_start != 0
}

/// Takes the image `kernel` apart, for a machine with `below_4g` bytes of RAM below 4 GiB.
///
/// # Errors
/// [`ImageError`] if it is no Linux image, is malformed, or does not fit.
pub fn real_mode(
    kernel: &[u8],
    command_line: &str,
    modules: &[Module<'_>],
    below_4g: u64,
) -> Result<RealModeLinux, ImageError> {
    let SetupParts { header, setup, payload } = bzimage::setup_parts(kernel)?;
    let (version, high) = (header.version, header.loadflags & LOADED_HIGH != 0);
    let text = terminated(command_line)?;
    let limit = bzimage::command_line_limit(&header);
    let length = text.len() as u64 - 1;
    if length > limit {
        return Err(ImageError::CommandLineTooLong { length, limit });
    }
    let (setup_at, command_line_at) = if high && version >= 0x202 {
        (NEW_SETUP, NEW_COMMAND_LINE)
    } else {
        // At most 256 bytes.
        (OLD_SETUP, OLD_COMMAND_LINE_END - (text.len() as u32).next_multiple_of(16))
    };
    let kernel_at = if high { HIGH as u32 } else { LOW_KERNEL };
    if setup.len() as u64 > u64::from(command_line_at - setup_at - HEAP) {
        return Err(ImageError::SetupHeader {
            field: "setup_sects",
            value: header.setup_sects.into(),
            problem: "the setup code has no room below the command line",
        });
    }
    let end = u64::from(kernel_at) + payload.len() as u64;
    let ram_end = below_4g.saturating_sub(FIRMWARE_TABLES);
    if end > if high { ram_end } else { OLD_SETUP.into() } {
        return Err(ImageError::OutsideRam {
            what: "the kernel".into(),
            start: kernel_at.into(),
            size: payload.len() as u64,
        });
    }

    let mut setup = setup.to_vec();
    let initrd = linux::join_initrd(modules);
    let initrd = (!initrd.is_empty())
        .then(|| {
            let limit = bzimage::initrd_limit(&header).min(ram_end);
            let lowest = bzimage::runtime_end(&header).max(end).max(HIGH);
            place_initrd(initrd.len() as u64, lowest, limit).map(|at| (at, initrd))
        })
        .transpose()?;
    put(&mut setup, field::TYPE_OF_LOADER, &[UNREGISTERED_LOADER]);
    if let Some(mode) = video_mode(command_line) {
        put(&mut setup, field::VID_MODE, &mode.to_le_bytes());
    }
    if let Some((at, initrd)) = &initrd {
        put(&mut setup, field::RAMDISK_IMAGE, &at.to_le_bytes());
        put(&mut setup, field::RAMDISK_SIZE, &(initrd.len() as u32).to_le_bytes());
    }
    if version >= 0x201 {
        let heap_end = (command_line_at - setup_at - 0x200) as u16;
        put(&mut setup, field::LOADFLAGS, &[header.loadflags | CAN_USE_HEAP]);
        put(&mut setup, field::HEAP_END_PTR, &heap_end.to_le_bytes());
    }
    if version >= 0x202 {
        put(&mut setup, field::CMD_LINE_PTR, &command_line_at.to_le_bytes());
    } else {
        let offset = (command_line_at - setup_at) as u16;
        let words = [OLD_COMMAND_LINE_MAGIC.to_le_bytes(), offset.to_le_bytes()];
        put(&mut setup, field::OLD_COMMAND_LINE, &words.concat());
    }
    Ok(RealModeLinux {
        image: LinuxImage {
            setup: (setup_at, setup),
            kernel: (kernel_at, payload.to_vec()),
            command_line: (command_line_at, command_line.to_owned()),
            initrd,
        },
        segment: (setup_at >> 4) as u16,
        stack: (command_line_at - setup_at - 16) as u16,
    })
}

/// The setup part has at least the boot sector and one more: all fields lie in it.
fn put(setup: &mut [u8], at: usize, bytes: &[u8]) {
    setup[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The highest page below `limit` from which `size` bytes fit above `lowest`.
fn place_initrd(size: u64, lowest: u64, limit: u64) -> Result<u32, ImageError> {
    limit
        .checked_sub(size)
        .map(|start| start & !(PAGE - 1))
        .filter(|&start| start >= lowest)
        .and_then(|start| u32::try_from(start).ok())
        .ok_or(ImageError::NoRoom { what: "initrd".into(), size, limit })
}

/// The mode of a word `vga=` on the command line, which is for the boot loader.
fn video_mode(command_line: &str) -> Option<u16> {
    let value =
        command_line.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix("vga="))?;
    match value {
        "normal" => Some(0xFFFF),
        "ext" => Some(0xFFFE),
        "ask" => Some(0xFFFD),
        number => match number.strip_prefix("0x").or_else(|| number.strip_prefix("0X")) {
            Some(digits) => u16::from_str_radix(digits, 16).ok(),
            None => number.parse().ok(),
        },
    }
}
