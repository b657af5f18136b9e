//! What an image file is: a kernel, a CD-ROM, a floppy or a hard disk, told by its content.

use crate::boot;
use devices::block::image::{ImageFormat, PROBE_BYTES, Probed, probe};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// How a file is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// A kernel, loaded without firmware.
    Kernel,
    /// An ISO 9660 volume.
    Cdrom(Bootable),
    /// A floppy.
    Floppy,
    /// A hard disk.
    Disk(ImageFormat),
}

/// Whether firmware can boot a CD-ROM: what its El Torito boot catalog offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootable {
    /// An entry for PC firmware.
    Yes,
    /// Entries for other platforms only, such as UEFI.
    OtherPlatforms,
    /// No boot catalog.
    No,
}

/// Why nothing was recognised.
#[derive(Debug, Error)]
pub enum RecogniseError {
    /// The host refuses the file.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        error: io::Error,
    },
    /// Neither a regular file nor a block device: looking would wait for a pipe's other end, and
    /// take from the pipe what is to be booted.
    #[error(
        "{path}: a special file, whose content cannot be looked at: say what it is, with --kernel, or copy it to a file"
    )]
    Special {
        /// The file.
        path: PathBuf,
    },
    /// Content of no known kind.
    #[error(
        "{path}: {what}. Looked for: a Linux bzImage (\"HdrS\" at 0x202), an ELF file, a Multiboot header in the first 8 KiB, a qcow2 or vmdk header, an ISO 9660 volume (\"CD001\" at 0x8001), a boot sector (55 AA at 0x1FE) of a floppy or a hard disk. If you know better, say so with --kernel, --cdrom, --floppy or --disk"
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        what: String,
    },
}

/// Bytes of the file's start that are looked at; El Torito's catalog may lie anywhere.
const START: usize = 64 << 10;
const GZIP: &[u8] = b"\x1F\x8B";
const CD_SECTOR: usize = 2048;
const VOLUME_DESCRIPTORS: usize = 16 * CD_SECTOR;
/// Sizes of floppies that the controller's geometries have, in KiB.
const FLOPPY_KIB: [u64; 5] = [360, 720, 1200, 1440, 2880];

/// Recognises the file at `path`.
///
/// # Errors
/// [`RecogniseError`] if it cannot be read, or is nothing that is known.
pub fn recognise(path: &Path) -> Result<Image, RecogniseError> {
    let failed = |error| RecogniseError::Io { path: path.into(), error };
    let kind = std::fs::metadata(path).map_err(failed)?;
    if kind.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    if !kind.is_file() && !kind.file_type().is_block_device() {
        return Err(RecogniseError::Special { path: path.into() });
    }
    let mut file = File::open(path).map_err(failed)?;
    let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let start = read_at(&mut file, 0, START).map_err(failed)?;
    let sector = |sector: u32| {
        read_at(&mut file, u64::from(sector) * CD_SECTOR as u64, CD_SECTOR).unwrap_or_default()
    };
    image(&start, size, sector).ok_or_else(|| {
        let what = if size == 0 {
            "the file is empty".to_owned()
        } else {
            match (probe(start.get(..PROBE_BYTES).unwrap_or(&start)), boot::detect(&start)) {
                (Probed::Foreign(name), _) => format!(
                    "a {name} image, which is not supported (`qemu-img convert -O qcow2` converts it)"
                ),
                (Probed::Format(_), Err(reason)) => reason.to_string(),
                (Probed::Format(_), Ok(_)) => "no known content".to_owned(),
            }
        };
        RecogniseError::Unknown { path: path.into(), what }
    })
}

fn read_at(file: &mut File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.take(len as u64).read_to_end(&mut data)?;
    Ok(data)
}

/// Recognises an image by its start and size; `sector` reads one of a CD-ROM's sectors.
fn image(start: &[u8], size: u64, sector: impl FnMut(u32) -> Vec<u8>) -> Option<Image> {
    let has = |at: usize, magic: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(magic));
    match probe(start.get(..PROBE_BYTES).unwrap_or(start)) {
        Probed::Format(ImageFormat::Raw) => {}
        Probed::Format(format) => return Some(Image::Disk(format)),
        Probed::Foreign(_) => return None,
    }
    // A bzImage has a boot sector's signature too, and a disk with GRUB behind its boot sector has
    // GRUB's Multiboot header: so these come before and after the boot sectors.
    let signature = has(0x1FE, &[0x55, 0xAA]);
    if signature && has(0x202, b"HdrS") || has(0, b"\x7FELF") {
        return Some(Image::Kernel);
    }
    // Kernels may be compressed; whether this is one shows when it is loaded.
    if has(0, GZIP) {
        return Some(Image::Kernel);
    }
    if has(VOLUME_DESCRIPTORS + 1, b"CD001") {
        return Some(Image::Cdrom(el_torito(start, sector)));
    }
    let floppy = size.is_multiple_of(1024) && FLOPPY_KIB.contains(&(size / 1024));
    // Floppies of old lack the signature, and begin with a jump.
    if floppy && (signature || has(0, &[0xEB]) || has(0, &[0xE9])) {
        return Some(Image::Floppy);
    }
    if signature {
        return Some(Image::Disk(ImageFormat::Raw));
    }
    matches!(boot::detect(start), Ok(boot::Kind::Multiboot)).then_some(Image::Kernel)
}

/// What the boot catalog offers (El Torito 1.0, section 2).
fn el_torito(start: &[u8], mut sector: impl FnMut(u32) -> Vec<u8>) -> Bootable {
    const BOOTABLE: u8 = 0x88;
    const PC: u8 = 0;
    let record = start.get(VOLUME_DESCRIPTORS..).unwrap_or_default().chunks_exact(CD_SECTOR);
    let record = record
        .take_while(|descriptor| descriptor.get(1..6) == Some(b"CD001") && descriptor[0] != 0xFF)
        .find(|descriptor| descriptor[0] == 0 && descriptor[7..].starts_with(b"EL TORITO SPECIF"));
    let Some(record) = record else { return Bootable::No };
    let [a, b, c, d] = [0x47, 0x48, 0x49, 0x4A].map(|at| record[at]);
    let catalog = sector(u32::from_le_bytes([a, b, c, d]));
    let mut entries = catalog.chunks_exact(32);
    // The validation entry holds the platform of the initial entry.
    let Some(&[1, mut platform, ..]) = entries.next() else { return Bootable::No };
    let mut found = Bootable::No;
    for entry in entries {
        match entry {
            // A section header: the platform of the entries after it.
            [0x90 | 0x91, new, ..] => platform = *new,
            [BOOTABLE, ..] if platform == PC => return Bootable::Yes,
            [BOOTABLE, ..] => found = Bootable::OtherPlatforms,
            [_, ..] | [] => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(size: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut image = vec![0; size];
        for (at, bytes) in parts {
            image[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    fn of(content: &[u8]) -> Option<Image> {
        let sector = |n: u32| {
            let at = n as usize * CD_SECTOR;
            content.get(at..at + CD_SECTOR).unwrap_or_default().to_vec()
        };
        image(&content[..content.len().min(START)], content.len() as u64, sector)
    }

    const SIGNATURE: (usize, &[u8]) = (0x1FE, &[0x55, 0xAA]);
    const VOLUME: (usize, &[u8]) = (0x8000, b"\x01CD001\x01");

    #[test]
    fn images_are_told_by_their_content() {
        let multiboot: &[u8] = &[0x02, 0xB0, 0xAD, 0x1B, 0, 0, 0, 0, 0xFE, 0x4F, 0x52, 0xE4];
        for (content, expected) in [
            (with(4096, &[SIGNATURE, (0x202, b"HdrS")]), Some(Image::Kernel)),
            (with(4096, &[(0, b"\x7FELF")]), Some(Image::Kernel)),
            (with(1440 << 10, &[SIGNATURE]), Some(Image::Floppy)),
            (with(360 << 10, &[(0, &[0xEB, 0x3C])]), Some(Image::Floppy)),
            (with(1440 << 10, &[]), None),
            (with(8 << 20, &[SIGNATURE]), Some(Image::Disk(ImageFormat::Raw))),
            (with(8 << 20, &[SIGNATURE, (1024, multiboot)]), Some(Image::Disk(ImageFormat::Raw))),
            (with(8192, &[(1024, multiboot)]), Some(Image::Kernel)),
            (with(512, &[(0, b"QFI\xfb\0\0\0\x03")]), Some(Image::Disk(ImageFormat::Qcow2))),
            (with(512, &[(0, b"KDMV")]), Some(Image::Disk(ImageFormat::Vmdk))),
            (with(512, &[(0, b"vhdxfile")]), None),
            (with(1 << 20, &[VOLUME]), Some(Image::Cdrom(Bootable::No))),
            // A hybrid: it has a boot sector too.
            (with(1 << 20, &[VOLUME, SIGNATURE]), Some(Image::Cdrom(Bootable::No))),
            (b"\x1F\x8B\x08".to_vec(), Some(Image::Kernel)),
            (vec![], None),
            (b"#!/bin/sh\n".to_vec(), None),
        ] {
            assert_eq!(of(&content), expected, "{} bytes", content.len());
        }
    }

    #[test]
    fn the_boot_catalog_says_which_firmware_boots_a_cdrom() {
        const RECORD: (usize, &[u8]) = (0x8800, b"\x00CD001\x01EL TORITO SPECIFICATION");
        const POINTER: (usize, &[u8]) = (0x8847, &[20, 0, 0, 0]);
        let catalog = 20 * CD_SECTOR;
        let parts = [VOLUME, RECORD, POINTER];
        let disc = |more: &[(usize, &[u8])]| of(&with(1 << 20, &[&parts[..], more].concat()));
        let yes = disc(&[(catalog, &[1, 0]), (catalog + 32, &[0x88])]);
        assert_eq!(yes, Some(Image::Cdrom(Bootable::Yes)));
        let uefi = disc(&[(catalog, &[1, 0xEF]), (catalog + 32, &[0x88])]);
        assert_eq!(uefi, Some(Image::Cdrom(Bootable::OtherPlatforms)));
        let second = disc(&[
            (catalog, &[1, 0xEF]),
            (catalog + 32, &[0x88]),
            (catalog + 64, &[0x91, 0]),
            (catalog + 96, &[0x88]),
        ]);
        assert_eq!(second, Some(Image::Cdrom(Bootable::Yes)));
        assert_eq!(disc(&[]), Some(Image::Cdrom(Bootable::No)));
        let beyond = of(&with(1 << 20, &[VOLUME, RECORD, (0x8847, &[0xFF; 4])]));
        assert_eq!(beyond, Some(Image::Cdrom(Bootable::No)));
    }

    #[test]
    fn what_is_unknown_is_told_with_what_was_looked_for() {
        let path = std::env::temp_dir().join(format!("ringshift-unknown-{}", std::process::id()));
        std::fs::write(&path, b"#!/bin/sh\n").unwrap();
        let told = recognise(&path).unwrap_err().to_string();
        std::fs::write(&path, b"vhdxfile").unwrap();
        let foreign = recognise(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        for part in ["a script", "ELF", "CD001", "55 AA", "qcow2", "--disk"] {
            assert!(told.contains(part), "no {part} in: {told}");
        }
        assert!(foreign.contains("VHDX"), "{foreign}");
        assert!(recognise(&path).unwrap_err().to_string().contains("No such file"));
    }

    #[test]
    fn special_files_are_not_looked_at() {
        // Its content has no end, and its size is zero.
        let told = recognise(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(told.contains("/dev/zero: a special file") && told.contains("--kernel"), "{told}");
    }
}
