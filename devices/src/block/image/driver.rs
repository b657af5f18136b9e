//! An open image: `imago`'s driver as a medium.

use std::io;
use std::path::PathBuf;

use imago::FormatAccess;
use imago::file::File;
use imago::format::PreallocateMode;

use super::lock::Lock;
use crate::block::{BlockDevice, check_range, read_only_error};

/// The medium. A size that is no multiple of 512 is rounded up; what is missing reads as zeros.
pub(super) struct Image {
    path: PathBuf,
    access: FormatAccess<File>,
    size: u64,
    read_only: bool,
    /// Given up behind the driver's last words.
    _locks: Vec<Lock>,
}

impl Image {
    /// `locks` are those on all the files that `access` uses.
    pub(super) fn new(
        path: PathBuf,
        access: FormatAccess<File>,
        read_only: bool,
        locks: Vec<Lock>,
    ) -> Self {
        let size = access.size().next_multiple_of(512);
        Self { path, access, size, read_only, _locks: locks }
    }

    /// Names the file in an error.
    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }
}

impl BlockDevice for Image {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        check_range(self.size, offset, data.len())?;
        self.access.read(data, offset).map_err(|error| self.named(error))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.read_only {
            return Err(read_only_error());
        }
        check_range(self.size, offset, data.len())?;
        let write = || {
            if offset + data.len() as u64 > self.access.size() {
                // The last, incomplete sector.
                self.access.resize_grow(self.size, PreallocateMode::None)?;
            }
            self.access.write(data, offset)
        };
        write().map_err(|error| self.named(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        // The driver's tables first, then everything to stable storage.
        self.access.flush().and_then(|()| self.access.sync()).map_err(|error| self.named(error))
    }
}
