//! Loading a kernel into guest memory, and the CPU state in which it starts.
//!
//! [`load`] recognises a kernel by its content, places it with its command
//! line, its modules (a Linux initrd is module 0) and the tables of its boot
//! protocol in guest RAM, and returns the [`Entry`] state. Nothing here knows
//! the virtual CPU or the board: the caller gives a [`MemoryMap`] and a
//! [`vm_memory::GuestMemory`], and carries the entry state into its CPU.
//!
//! | file | image and protocol |
//! |---|---|
//! | `bzimage` | Linux bzImage, 64-bit and 32-bit boot protocol |
//! | `real_mode` | Linux by its 16-bit setup code, for firmware to load; when that is needed |
//! | `linux` | the zero page both Linux protocols share, and a bare `vmlinux` |
//! | `pvh` | ELF with a Xen PVH entry note |
//! | `multiboot` | Multiboot 1, in an ELF or by address fields |
//! | `elf` | program headers and notes, for the three above |
//!
//! An image is hostile until it has proved otherwise: every failure is an
//! [`ImageError`] that says what was wrong and with which value; the caller
//! adds the name of the file.

mod bzimage;
mod detect;
mod elf;
mod entry;
mod error;
mod linux;
mod memory_map;
mod multiboot;
mod placement;
mod pvh;
mod real_mode;
pub(crate) mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod vectors;

pub use detect::{ElfClass, Kind, detect};
pub use entry::{DescriptorTable, Entry, Long64, Protected32, Real16, Segment};
pub use error::ImageError;
pub use memory_map::{EBDA_START, MemoryMap, Region, RegionKind};
pub use placement::Placed;
pub use real_mode::{RealModeLinux, real_mode, wants_setup_code};

use vm_memory::GuestMemory;

/// A file handed to the kernel beside itself: a Multiboot or PVH module, or a
/// part of the Linux initrd.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// The content of the file.
    pub data: &'a [u8],
    /// The string that goes with it, by custom its name and arguments. Linux
    /// has no place for it and ignores it.
    pub command_line: &'a str,
}

/// Which of a kernel's boot protocols to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The most capable one that the image offers.
    #[default]
    Best,
    /// For Linux, the 32-bit boot protocol even if the image has a 64-bit
    /// entry point. Other images are not concerned.
    Linux32,
    /// For a Linux bzImage, the 64-bit boot protocol or none. Other images are
    /// not concerned.
    Linux64,
}

/// Everything [`load`] needs beside guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The content of the kernel file.
    pub kernel: &'a [u8],
    /// The kernel's name, word 0 of a Multiboot command line.
    pub name: &'a str,
    /// The command line, without the kernel's name.
    pub command_line: &'a str,
    /// Modules in order. Linux sees them joined into one initrd.
    pub modules: &'a [Module<'a>],
    /// The guest's memory, including what is reserved for firmware tables.
    pub memory_map: &'a MemoryMap,
    /// Guest-physical address of the ACPI RSDP, for protocols that carry it.
    pub rsdp: Option<u64>,
    /// Whether there is a VGA adapter, showing 80 columns and 25 lines of text.
    pub text_screen: bool,
    /// The protocol, where there is a choice.
    pub protocol: Protocol,
}

/// A kernel in guest memory, ready to run.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the image was.
    pub kind: Kind,
    /// The CPU state in which it starts.
    pub entry: Entry,
    /// What was written where, for traces and debuggers.
    pub placed: Vec<Placed>,
}

/// Loads the kernel of `request` into `memory`.
///
/// # Errors
/// [`ImageError`] if the image is malformed, is of no known kind, or does not
/// fit the guest's memory. Guest memory may be partly written then.
pub fn load<M: GuestMemory + ?Sized>(
    memory: &M,
    request: &Request<'_>,
) -> Result<Loaded, ImageError> {
    let kind = detect(request.kernel)?;
    let mut loader = placement::Loader::new(memory, request.memory_map);
    let entry = match kind {
        Kind::BzImage => bzimage::load(&mut loader, request)?,
        Kind::Multiboot => multiboot::load(&mut loader, request)?,
        Kind::Pvh(_) => pvh::load(&mut loader, request)?,
        Kind::Vmlinux(class) => linux::load_vmlinux(&mut loader, request, class)?,
    };
    let placed = loader.into_placed();
    for item in &placed {
        tracing::debug!(what = %item.what, start = item.start, size = item.size, "loaded");
    }
    Ok(Loaded { kind, entry, placed })
}
