//! One writer, or any number of readers: locks on image files that QEMU's programs honour too.
//!
//! The locks are shared ones (`F_RDLCK`) on single bytes of the file by `F_OFD_SETLK`, so that they
//! belong to the open file and go with it, and two drives of one process exclude each other. Byte
//! 100 + n says "I use permission n", byte 200 + n "nobody else may use it": with n 0 for reading,
//! 1 for writing and 3 for changing the size. Whoever opens the image sets his bytes first and then
//! asks whether others hold theirs against him, so that of two who come at once at least one sees
//! the other.
//!
//! Source: QEMU, `docs/system/images.rst` (section on image locking) for the meaning of the bytes.

use std::fs::File;
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

/// Locks `file`, which was opened from `path`, for writing or for reading only. The lock lasts as
/// long as the file is open.
///
/// A file system without locks has none: that is only told in the log.
pub(super) fn lock(file: &File, path: &Path, write: bool) -> Result<(), ImageError> {
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
                return Ok(());
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
    Ok(())
}
