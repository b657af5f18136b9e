//! Writing a cpio archive in the "newc" format, which Linux unpacks as its
//! initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! The same calls make the same bytes: times and owners are zero, and inode
//! numbers count up.

use std::collections::BTreeSet;

const MODE_FILE: u32 = 0o100_000;
const MODE_DIRECTORY: u32 = 0o040_000;
const MODE_SYMLINK: u32 = 0o120_000;
const MODE_CHARACTER_DEVICE: u32 = 0o020_000;
const MODE_BLOCK_DEVICE: u32 = 0o060_000;
const PERMISSIONS: u32 = 0o7777;
const TRAILER: &str = "TRAILER!!!";

/// Why an entry cannot be stored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CpioError {
    /// The path has no name in it, climbs, or holds a NUL.
    #[error("{0:?} is not a path inside an archive")]
    Path(String),
    /// The path is taken.
    #[error("{0:?} is in the archive twice")]
    Duplicate(String),
    /// The content does not fit the format's 32-bit size.
    #[error("{path:?} has {size} bytes, a cpio archive holds less than 4 GiB in a file")]
    TooLarge {
        /// Path in the archive.
        path: String,
        /// Size in bytes.
        size: usize,
    },
}

/// What a device node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// A character device with major and minor number.
    Character(u32, u32),
    /// A block device with major and minor number.
    Block(u32, u32),
}

/// An archive being written. Directories on the way to an entry are made, mode
/// 0755, unless they were added before it with a mode of their own.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    paths: BTreeSet<String>,
}

/// The fields of an entry's header that differ.
struct Header {
    mode: u32,
    links: u32,
    device: (u32, u32),
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory with permission bits `mode`.
    ///
    /// # Errors
    /// [`CpioError`] if the path is invalid or taken.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), CpioError> {
        let path = self.claim(path)?;
        let mode = MODE_DIRECTORY | mode & PERMISSIONS;
        self.entry(&path, &Header { mode, links: 2, device: (0, 0) }, &[])
    }

    /// Adds a file with permission bits `mode`.
    ///
    /// # Errors
    /// [`CpioError`] if the path is invalid or taken, or the file is too large.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), CpioError> {
        let path = self.claim(path)?;
        let mode = MODE_FILE | mode & PERMISSIONS;
        self.entry(&path, &Header { mode, links: 1, device: (0, 0) }, content)
    }

    /// Adds a symbolic link to `target`.
    ///
    /// # Errors
    /// [`CpioError`] if the path is invalid or taken.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), CpioError> {
        let path = self.claim(path)?;
        let mode = MODE_SYMLINK | 0o777;
        self.entry(&path, &Header { mode, links: 1, device: (0, 0) }, target.as_bytes())
    }

    /// Adds a device node with permission bits `mode`.
    ///
    /// # Errors
    /// [`CpioError`] if the path is invalid or taken.
    pub fn device(&mut self, path: &str, mode: u32, device: Device) -> Result<(), CpioError> {
        let path = self.claim(path)?;
        let (kind, device) = match device {
            Device::Character(major, minor) => (MODE_CHARACTER_DEVICE, (major, minor)),
            Device::Block(major, minor) => (MODE_BLOCK_DEVICE, (major, minor)),
        };
        let mode = kind | mode & PERMISSIONS;
        self.entry(&path, &Header { mode, links: 1, device }, &[])
    }

    /// Ends the archive and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.write(TRAILER, &Header { mode: 0, links: 1, device: (0, 0) }, &[], 0, 0);
        self.bytes
    }

    /// Checks `path`, makes its parents, and returns it without leading slash.
    fn claim(&mut self, path: &str) -> Result<String, CpioError> {
        let relative = path.trim_matches('/');
        let valid = relative
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
        if !valid || relative == TRAILER {
            return Err(CpioError::Path(path.into()));
        }
        if self.paths.contains(relative) {
            return Err(CpioError::Duplicate(path.into()));
        }
        if let Some((parent, _)) = relative.rsplit_once('/')
            && !self.paths.contains(parent)
        {
            self.directory(parent, 0o755)?;
        }
        self.paths.insert(relative.into());
        Ok(relative.into())
    }

    fn entry(&mut self, path: &str, header: &Header, content: &[u8]) -> Result<(), CpioError> {
        let size = u32::try_from(content.len())
            .map_err(|_| CpioError::TooLarge { path: path.into(), size: content.len() })?;
        let inode = self.paths.len() as u32;
        self.write(path, header, content, size, inode);
        Ok(())
    }

    fn write(&mut self, path: &str, header: &Header, content: &[u8], size: u32, inode: u32) {
        let (major, minor) = header.device;
        let name_size = path.len() as u32 + 1;
        // c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, c_maj,
        // c_min, c_rmaj, c_rmin, c_namesize, c_chksum
        let fields =
            [inode, header.mode, 0, 0, header.links, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_documented_layout() {
        let mut archive = Archive::new();
        archive.file("/etc/motd", 0o644, b"hello").unwrap();
        let bytes = archive.finish();
        let directory = "070701\
            00000001000041ED00000000000000000000000200000000000000000000000000000000\
            000000000000000000000004000000";
        assert_eq!(&bytes[..directory.len()], directory.as_bytes());
        assert_eq!(&bytes[110..116], b"etc\0\0\0"[..].get(..6).unwrap());
        let file = &bytes[116..];
        assert_eq!(&file[..14], b"07070100000002");
        assert_eq!(&file[14..22], b"000081A4");
        assert_eq!(&file[54..62], b"00000005");
        assert_eq!(&file[110..128], b"etc/motd\0\0hello\0\0\0");
        assert!(file[128..].starts_with(b"070701"));
        assert!(bytes.len().is_multiple_of(4));
    }

    #[test]
    fn the_same_calls_make_the_same_bytes() {
        let build = || {
            let mut archive = Archive::new();
            archive.directory("dev", 0o755).unwrap();
            archive.device("dev/console", 0o600, Device::Character(5, 1)).unwrap();
            archive.symlink("bin/sh", "busybox").unwrap();
            archive.finish()
        };
        assert_eq!(build(), build());
    }

    #[test]
    fn paths_that_leave_the_archive_or_repeat_are_refused() {
        let mut archive = Archive::new();
        for path in ["", "/", "a//b", "../a", "a/./b", "a\0b", TRAILER] {
            assert_eq!(archive.file(path, 0o644, &[]), Err(CpioError::Path(path.into())));
        }
        archive.file("a/b", 0o644, &[]).unwrap();
        assert_eq!(archive.directory("a", 0o700), Err(CpioError::Duplicate("a".into())));
        assert_eq!(archive.file("/a/b", 0o644, &[]), Err(CpioError::Duplicate("/a/b".into())));
    }

    /// The host's own cpio reads what is written here.
    #[test]
    fn the_hosts_cpio_lists_the_archive() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let mut archive = Archive::new();
        archive.device("dev/console", 0o600, Device::Character(5, 1)).unwrap();
        archive.file("init", 0o755, b"#!/bin/sh\n").unwrap();
        archive.symlink("bin/sh", "busybox").unwrap();
        let cpio = Command::new("cpio")
            .args(["-itv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut cpio) = cpio else {
            eprintln!("SKIPPED: this host has no cpio");
            return;
        };
        cpio.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let output = cpio.wait_with_output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = listing.lines().collect();
        assert!(output.status.success());
        assert_eq!(lines.len(), 5, "{listing}");
        assert!(lines[1].starts_with("crw-------") && lines[1].contains("5,   1"), "{listing}");
        assert!(lines[2].starts_with("-rwxr-xr-x") && lines[2].ends_with("init"), "{listing}");
        assert!(lines[4].ends_with("bin/sh -> busybox"), "{listing}");
    }
}
