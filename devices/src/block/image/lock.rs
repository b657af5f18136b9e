//! One writer, or any number of readers: locks on image files that QEMU's programs honour too.
//!
//! The locks are shared ones (`F_RDLCK`) on single bytes of the file by `F_OFD_SETLK`, so that they
//! belong to the open file and go with it, and two drives of one process exclude each other. Since a
//! child process shares its parent's open files until it executes a program of its own, the locks are
//! given up explicitly too ([`Lock`]). Byte
//! 100 + n says "I use permission n", byte 200 + n "nobody else may use it": with n 0 for reading,
//! 1 for writing and 3 for changing the size. Whoever opens the image sets his bytes first and then
//! asks whether others hold theirs against him, so that of two who come at once at least one sees
//! the other.
//!
//! Source: QEMU, `docs/system/images.rst` (section on image locking) for the meaning of the bytes.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::ImageError;

const USES: i64 = 100;
const DENIES: i64 = 200;
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

fn byte(kind: libc::c_int, at: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at,
        l_len: 1,
        l_pid: 0,
    }
}

/// The locks on a file, until dropped.
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Whole: what belongs to other open files stays.
        let all = libc::flock { l_len: 0, ..byte(libc::F_UNLCK, 0) };
        // Where this fails there were no locks.
        let _ = fcntl(&self.0, FcntlArg::F_OFD_SETLK(&all));
    }
}

/// Locks `file`, which was opened from `path`, for writing or for reading only.
///
/// A file system without locks has none: that is only told in the log.
pub(super) fn lock(file: &File, path: &Path, write: bool) -> Result<Lock, ImageError> {
    let io = |error: io::Error| ImageError::Io { path: path.into(), error };
    let lock = Lock(file.try_clone().map_err(io)?);
    let uses: &[i64] = if write { &[READ, WRITE, RESIZE] } else { &[READ] };
    let denies = [WRITE, RESIZE];
    let bytes = uses.iter().map(|n| USES + n).chain(denies.map(|n| DENIES + n));
    for at in bytes {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, at))) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => {
                // Another program locks whole files for itself.
                return Err(ImageError::Locked { path: path.into(), held: "locks it" });
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the image cannot be locked");
                return Ok(lock);
            }
        }
    }
    let against = |at| {
        let mut asked = byte(libc::F_WRLCK, at);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked)).is_ok()
            && asked.l_type != libc::F_UNLCK as libc::c_short
    };
    for (held, bytes) in [
        ("writes it", denies.map(|n| USES + n).to_vec()),
        ("lets nobody else write it", uses.iter().map(|n| DENIES + n).collect()),
    ] {
        if bytes.into_iter().any(against) {
            return Err(ImageError::Locked { path: path.into(), held });
        }
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child process has the parent's open files until it executes a program: any thread may have
    /// forked while the image was open.
    #[test]
    fn a_lock_that_is_dropped_is_gone_although_the_file_is_still_open_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, b"content").unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let first = open();
        let held = lock(&first, &path, true).unwrap();
        let elsewhere = first.try_clone().unwrap();
        assert!(matches!(lock(&open(), &path, true), Err(ImageError::Locked { .. })));
        assert!(matches!(lock(&open(), &path, false), Err(ImageError::Locked { .. })));
        drop((first, held));
        assert!(lock(&open(), &path, true).is_ok());
        drop(elsewhere);
    }
}
