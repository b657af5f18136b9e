//! Media of the storage devices: something of a fixed size that is read and written by offset.
//!
//! | file | holds |
//! |---|---|
//! | `image/` | image files: raw, qcow2, vmdk |
//! | `overlay.rs` | changes kept aside, over a medium that stays as it is |
//! | `medium.rs` | a medium as a drive uses it: requests, carried out by a thread of its own |

pub mod image;
mod medium;
mod overlay;

pub use image::{ImageError, ImageFormat, ImageOptions};
pub use medium::{Answer, Medium, Request};
pub use overlay::Overlay;

use std::io;

/// A medium. Offsets and lengths may be any; those of drives are multiples of their sector.
pub trait BlockDevice: Send {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Whether writes are refused.
    fn read_only(&self) -> bool;

    /// Fills `data` from `offset`.
    ///
    /// # Errors
    /// If part of the range is not there or the host cannot read it.
    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Stores `data` at `offset`.
    ///
    /// # Errors
    /// If part of the range is not there, the medium is read-only or the host cannot write it.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Returns when everything written is on stable storage.
    ///
    /// # Errors
    /// If the host cannot say so.
    fn flush(&mut self) -> io::Result<()>;
}

/// Refuses a range that is not within `size` bytes.
fn check_range(size: u64, offset: u64, len: usize) -> io::Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{len} bytes at {offset} are beyond the medium's {size} bytes"),
        )),
    }
}

fn read_only_error() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the medium is write-protected")
}

/// Bytes in memory: for tests and for images made on the fly.
impl BlockDevice for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        check_range(BlockDevice::size(self), offset, data.len())?;
        if let Some(source) = self.get(offset as usize..offset as usize + data.len()) {
            data.copy_from_slice(source);
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        check_range(BlockDevice::size(self), offset, data.len())?;
        if let Some(target) = self.get_mut(offset as usize..offset as usize + data.len()) {
            target.copy_from_slice(data);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
