//! Guests made from a distribution's own kernel: fetching it, and building an
//! initramfs to go with it.
//!
//! Nothing here runs as root, writes outside the user's cache, or changes the
//! host's package state.

pub mod cpio;
pub mod debian;
pub mod disk;
pub mod host_program;
pub mod initramfs;

use std::io::Write;
use std::path::PathBuf;

pub use debian::FileSet;
use debian::{Architecture, Cache, FetchError, Package};

/// A distribution kernel that Ringshift is tried with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Debian's kernel for cloud machines, 64-bit, few drivers.
    CloudAmd64,
    /// Debian's standard 64-bit kernel.
    Amd64,
    /// Debian's 32-bit kernel with PAE.
    Pae686,
}

/// The files of a guest on the host.
#[derive(Clone, Debug)]
pub struct GuestFiles {
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// A statically linked busybox of the same word size.
    pub busybox: PathBuf,
}

impl Guest {
    /// The package that names the current kernel.
    const fn kernel_package(self) -> Package {
        match self {
            Self::CloudAmd64 => Package::kernel("linux-image-cloud-amd64", Architecture::Amd64),
            Self::Amd64 => Package::kernel("linux-image-amd64", Architecture::Amd64),
            Self::Pae686 => Package::kernel("linux-image-686-pae", Architecture::I386),
        }
    }

    const fn busybox_package(self) -> Package {
        match self {
            Self::CloudAmd64 | Self::Amd64 => Package::busybox(Architecture::Amd64),
            Self::Pae686 => Package::busybox(Architecture::I386),
        }
    }
}

/// Gets the files of `guest`: from the user's cache, or else from the network.
/// `progress` is called with a line of text at every step that takes time.
///
/// # Errors
/// [`FetchError`] if the host has no apt, no network or no such package, or if
/// the cache cannot be written.
pub fn fetch(guest: Guest, progress: &dyn Fn(&str)) -> Result<GuestFiles, FetchError> {
    fetch_into(&Cache::open()?, guest, progress)
}

fn fetch_into(
    cache: &Cache,
    guest: Guest,
    progress: &dyn Fn(&str),
) -> Result<GuestFiles, FetchError> {
    Ok(GuestFiles {
        kernel: cache.file(&guest.kernel_package(), progress)?,
        busybox: cache.file(&guest.busybox_package(), progress)?,
    })
}

/// Why a test with a guest cannot run on this host.
#[derive(Debug, thiserror::Error)]
#[error("SKIPPED: {guest} is not available on this host: {reason}")]
pub struct Skipped {
    guest: String,
    reason: FetchError,
}

impl Skipped {
    /// Says so at once.
    fn new(guest: String, reason: FetchError) -> Skipped {
        let skipped = Skipped { guest, reason };
        say(&skipped.to_string());
        skipped
    }
}

/// The files of `guest` for a test, fetched if need be. A test that gets
/// [`Skipped`] has nothing to do but return: the reason was said on standard
/// error already, past the test runner's capture, so that it is seen.
///
/// # Errors
/// [`Skipped`], with the reason.
pub fn available(guest: Guest) -> Result<GuestFiles, Skipped> {
    Cache::open()
        .and_then(|cache| fetch_into(&cache.for_tests(), guest, &say))
        .map_err(|reason| Skipped::new(format!("{guest:?}"), reason))
}

/// The files of a Debian package for a test, as [`available`].
///
/// # Errors
/// [`Skipped`], with the reason.
pub fn available_files(set: &FileSet) -> Result<Vec<PathBuf>, Skipped> {
    Cache::open()
        .and_then(|cache| cache.for_tests().files(set, &say))
        .map_err(|reason| Skipped::new(format!("the Debian package {}", set.name), reason))
}

/// Writes a line to standard error itself: what `eprintln!` writes in a test is
/// shown only if the test fails.
fn say(line: &str) {
    // With nowhere to say it, there is nobody to hear of the failure either.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::initramfs::Initramfs;
    use super::*;
    use crate::boot::{Entry, Kind, MemoryMap, Module, Protocol, Request, load};
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    /// A distribution's kernel is a bzImage that this loader takes, and enters
    /// as its word size asks.
    fn is_loaded(guest: Guest, wide: bool) {
        const RAM: u64 = 256 << 20;
        let Ok(files) = available(guest) else { return };
        let kernel = std::fs::read(files.kernel).unwrap();
        let busybox = std::fs::read(files.busybox).unwrap();
        assert!(busybox.starts_with(&[0x7F, b'E', b'L', b'F', if wide { 2 } else { 1 }]));
        let initrd = Initramfs::shell(&busybox).build().unwrap();
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), RAM as usize)]);
        let request = Request {
            kernel: &kernel,
            name: "vmlinuz",
            command_line: "console=ttyS0",
            modules: &[Module { data: &initrd, command_line: "" }],
            memory_map: &MemoryMap::pc(RAM, 0xC000_0000),
            rsdp: None,
            text_screen: false,
            protocol: Protocol::Best,
        };
        let loaded = load(&memory.unwrap(), &request).unwrap();
        assert_eq!(loaded.kind, Kind::BzImage);
        assert_eq!(matches!(loaded.entry, Entry::Long64(_)), wide);
        assert!(
            loaded
                .placed
                .iter()
                .any(|item| { item.what == "initrd" && item.size == initrd.len() as u64 })
        );
    }

    #[test]
    fn debians_cloud_kernel_is_loaded() {
        is_loaded(Guest::CloudAmd64, true);
    }

    #[test]
    fn debians_32_bit_kernel_is_loaded() {
        is_loaded(Guest::Pae686, false);
    }
}
