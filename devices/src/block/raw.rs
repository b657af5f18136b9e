//! A raw image: the file's bytes are the medium's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{BlockDevice, check_range, read_only_error};

/// An open image file. A size that is no multiple of 512 is rounded up; what is missing reads as
/// zeros.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    size: u64,
    read_only: bool,
}

impl RawFile {
    /// Opens `path`, for writing too unless `read_only`.
    ///
    /// # Errors
    /// If the host refuses it, or it is no regular file and no block device.
    pub fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        let file = File::options().read(true).write(!read_only).open(path)?;
        // The end of a block device is found by seeking; its metadata do not tell it.
        let end = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
        Ok(Self { file, size: end.next_multiple_of(512), read_only })
    }
}

impl BlockDevice for RawFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        check_range(self.size, offset, data.len())?;
        let mut done = 0;
        while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + done as u64) {
                Ok(0) => {
                    rest.fill(0);
                    break;
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.read_only {
            return Err(read_only_error());
        }
        check_range(self.size, offset, data.len())?;
        self.file.write_all_at(data, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.file.sync_data() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_written_and_padded() {
        let path = std::env::temp_dir().join(format!("ringshift-raw-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let mut image = RawFile::open(&path, false).unwrap();
        assert_eq!(image.size(), 512);
        image.write_at(2, b"ab").unwrap();
        image.flush().unwrap();
        let mut data = [0xff; 12];
        image.read_at(0, &mut data).unwrap();
        assert_eq!(&data, b"01ab456789\0\0");
        assert!(image.read_at(511, &mut data).is_err());
        let mut read_only = RawFile::open(&path, true).unwrap();
        assert!(read_only.write_at(0, b"x").is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
