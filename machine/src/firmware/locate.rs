//! Finding firmware on the host.

use std::path::{Path, PathBuf};
use thiserror::Error;

/// Directories where distributions keep SeaBIOS: Debian, Fedora, Arch, QEMU's own.
const DIRECTORIES: &[&str] =
    &["/usr/share/seabios", "/usr/share/qemu", "/usr/local/share/qemu", "/usr/share/qemu/firmware"];

/// Why there is no firmware.
#[derive(Debug, Error)]
pub enum FirmwareError {
    /// Not in any of the places.
    #[error(
        "{name} was not found in {places}: install the package seabios (Debian: apt-get install seabios), or name a BIOS image with --bios FILE"
    )]
    Missing {
        /// The file's name.
        name: &'static str,
        /// Where it was looked for.
        places: String,
    },
    /// It cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        error: std::io::Error,
    },
    /// It is no BIOS image.
    #[error(
        "{path}: {size} bytes: a BIOS image has a multiple of 4096 bytes, from 64 KiB to 16 MiB"
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
}

fn find(name: &'static str) -> Result<PathBuf, FirmwareError> {
    DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| FirmwareError::Missing { name, places: DIRECTORIES.join(", ") })
}

fn read(path: &Path) -> Result<Vec<u8>, FirmwareError> {
    std::fs::read(path).map_err(|error| FirmwareError::Io { path: path.into(), error })
}

/// The BIOS image at `path`, or SeaBIOS from its standard places.
///
/// # Errors
/// [`FirmwareError`] if there is none or it cannot be one.
pub fn bios(path: Option<&Path>) -> Result<Vec<u8>, FirmwareError> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => find("bios-256k.bin")?,
    };
    // A device or a pipe may have no end: look at the size before reading.
    let size = std::fs::metadata(&path)
        .map_err(|error| FirmwareError::Io { path: path.clone(), error })?
        .len();
    if !super::BIOS_SIZES.contains(&size) || size % 4096 != 0 {
        return Err(FirmwareError::Size { path, size });
    }
    read(&path)
}

/// The option ROM of the VGA adapter.
///
/// # Errors
/// [`FirmwareError`] if there is none.
pub fn vga_bios() -> Result<Vec<u8>, FirmwareError> {
    read(&find("vgabios-stdvga.bin")?)
}
