//! Guests made from a distribution's own kernel: fetching it, and building an
//! initramfs to go with it.
//!
//! Nothing here runs as root, writes outside the user's cache, or changes the
//! host's package state.

pub mod cpio;
pub mod debian;
pub mod initramfs;

use std::path::PathBuf;

use debian::{Architecture, FetchError, Package};

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
    let cache = debian::Cache::open()?;
    Ok(GuestFiles {
        kernel: cache.file(&guest.kernel_package(), progress)?,
        busybox: cache.file(&guest.busybox_package(), progress)?,
    })
}

/// Why a test with a guest cannot run on this host.
#[derive(Debug, thiserror::Error)]
#[error("SKIPPED: {guest:?} is not available on this host: {reason}")]
pub struct Skipped {
    guest: Guest,
    reason: FetchError,
}

/// The files of `guest` for a test, fetched if need be with progress on standard
/// error. A test that gets [`Skipped`] prints it and returns.
///
/// # Errors
/// [`Skipped`], with the reason.
pub fn available(guest: Guest) -> Result<GuestFiles, Skipped> {
    fetch(guest, &|line| eprintln!("{line}")).map_err(|reason| Skipped { guest, reason })
}
