//! Drives for tests: files of Debian packages, and SeaBIOS to boot them.

use machine::block::Medium;
use machine::guests::debian::Architecture;
use machine::guests::{self, FileSet};
use machine::{BootOrder, Drives, Firmware};
use std::path::Path;

/// The content of files of a Debian package, by their whole paths in it. `None`, with the reason
/// on standard error, where they cannot be had.
pub fn debian_files(
    name: &'static str,
    architecture: Architecture,
    paths: &'static [&'static str],
) -> Option<Vec<Vec<u8>>> {
    let files = guests::available_files(&FileSet { name, architecture, paths }).ok()?;
    let read = |path: &_| std::fs::read::<&Path>(path).expect("a fetched file is readable");
    Some(files.iter().map(|path| read(path)).collect())
}

/// One file of a Debian package, as [`debian_files`].
pub fn debian_file(name: &'static str, path: &'static [&'static str; 1]) -> Option<Vec<u8>> {
    debian_files(name, Architecture::Amd64, path)?.pop()
}

/// SeaBIOS with no drives: the host's, or else Debian's package. `None`, with the reason on
/// standard error, where neither can be had.
pub fn seabios() -> Option<Firmware> {
    if let Ok(firmware) = Firmware::seabios() {
        return Some(firmware);
    }
    let mut files = debian_files(
        "seabios",
        Architecture::Amd64,
        &["usr/share/seabios/bios-256k.bin", "usr/share/seabios/vgabios-stdvga.bin"],
    )?;
    let vga_bios = files.pop();
    let bios = files.pop()?;
    let (drives, boot) = (Drives::default(), BootOrder::default());
    Some(Firmware { bios, vga_bios, serial_console: false, drives, boot })
}

/// These bytes as a medium, which changes in memory only.
fn medium(content: Vec<u8>) -> Medium {
    Medium::threaded(Box::new(content), "medium").expect("the host gives a thread")
}

/// SeaBIOS that boots this CD-ROM.
pub fn cdrom(content: Vec<u8>) -> Option<Firmware> {
    let mut firmware = seabios()?;
    firmware.drives.cdroms.push(medium(content));
    firmware.boot = BootOrder::Cdrom;
    Some(firmware)
}

/// SeaBIOS that boots this hard disk.
pub fn disk(content: Vec<u8>) -> Option<Firmware> {
    let mut firmware = seabios()?;
    firmware.drives.disks.push(medium(content));
    firmware.boot = BootOrder::Disk;
    Some(firmware)
}

/// SeaBIOS that boots this floppy.
pub fn floppy(content: Vec<u8>) -> Option<Firmware> {
    let mut firmware = seabios()?;
    firmware.drives.floppies.push(medium(content));
    firmware.boot = BootOrder::Floppy;
    Some(firmware)
}
