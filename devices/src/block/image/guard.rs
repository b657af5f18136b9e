//! A raw image that nobody said is raw: its guest must not turn it into something else.

use std::io;

use super::probe::{ImageFormat, PROBE_BYTES, Probed, probe};
use crate::block::BlockDevice;

/// Refuses writes after which the image would no longer be probed as raw. An image opened with
/// `format=raw` has no use for it.
pub(super) struct Guard {
    image: Box<dyn BlockDevice>,
    name: String,
}

impl Guard {
    pub(super) fn new(image: Box<dyn BlockDevice>, name: String) -> Self {
        Self { image, name }
    }
}

impl BlockDevice for Guard {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read_only(&self) -> bool {
        self.image.read_only()
    }

    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.image.read_at(offset, data)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset < PROBE_BYTES as u64 && !data.is_empty() {
            let mut start = vec![0; self.image.size().min(PROBE_BYTES as u64) as usize];
            self.image.read_at(0, &mut start)?;
            for (byte, new) in start.iter_mut().skip(offset as usize).zip(data) {
                *byte = *new;
            }
            let what = match probe(&start) {
                Probed::Format(ImageFormat::Raw) => None,
                Probed::Format(format) => Some(format.to_string()),
                Probed::Foreign(name) => Some(name.to_owned()),
            };
            if let Some(what) = what {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "{}: the guest writes the header of a {what} image into the first sector of an image whose format was not given; with format=raw it may",
                        self.name
                    ),
                ));
            }
        }
        self.image.write_at(offset, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.image.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_other_formats_are_refused_however_they_are_written() {
        let mut guard = Guard::new(Box::new(vec![0; 2048]), "disk".into());
        assert!(guard.write_at(0, b"QFI\xfb\0\0\0\x03").is_err());
        guard.write_at(0, b"QF").unwrap();
        guard.write_at(3, b"\xfb").unwrap();
        let error = guard.write_at(2, b"I").unwrap_err().to_string();
        assert!(error.contains("format=raw") && error.contains("qcow2"), "{error}");
        guard.write_at(512, b"QFI\xfb\0\0\0\x03").unwrap();
        guard.write_at(510, b"\x55\xaa").unwrap();
        let mut byte = [0xff];
        guard.read_at(2, &mut byte).unwrap();
        assert_eq!(byte, [0]);
    }
}
