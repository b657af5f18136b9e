//! `ringshift run`: boots a kernel from files, or drives through firmware.

use crate::boot_protocol::Start;
use crate::cli::{BootFrom, MediaArgs, RunArgs, Serial};
use crate::display::Display;
use crate::drive_image::DriveImage;
use crate::lockstep;
use crate::session::{self, Session};
use crate::status;
use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use machine::config::{Kernel, KernelModule};
use machine::recognise::{Bootable, Image, recognise};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let mut media = args.media.clone();
    let kernel = match &args.image {
        Some(path) => recognised(path, &mut media)?,
        None => args.kernel.as_deref(),
    };
    match kernel {
        Some(path) => run_kernel(args, &media, path),
        None if !media.any() => bail!(
            "nothing to boot: give an IMAGE, --kernel, --disk, --cdrom or --floppy FILE, or try `ringshift demo`, which needs no file"
        ),
        None if args.initrd.is_some() => bail!("--initrd belongs to a kernel: give --kernel FILE"),
        None if !args.module.is_empty() => {
            bail!("--module belongs to a kernel: give --kernel FILE")
        }
        None => run_drives(args, &media),
    }
}

/// Recognises an image. A kernel is returned; others go into their drive.
fn recognised<'a>(path: &'a Path, media: &mut MediaArgs) -> Result<Option<&'a Path>> {
    let image = recognise(path)?;
    // What was named by its own option boots if the image cannot.
    let first = match image {
        Image::Kernel => return Ok(Some(path)),
        Image::Cdrom(bootable) => {
            let others = !(media.disk.is_empty() && media.floppy.is_empty());
            let why = match bootable {
                Bootable::Yes => None,
                Bootable::OtherPlatforms => Some("boots by UEFI only, not from a BIOS"),
                Bootable::No => Some("has no El Torito boot catalog"),
            };
            if let Some(why) = why.filter(|_| !others) {
                bail!(
                    "{}: an ISO 9660 volume that {why}: give it as --cdrom to a guest that boots from a --disk or --floppy",
                    path.display()
                );
            }
            media.cdrom.insert(0, DriveImage::new(path));
            why.is_none().then_some(BootFrom::Cdrom)
        }
        Image::Floppy => {
            media.floppy.insert(0, DriveImage::new(path));
            Some(BootFrom::Floppy)
        }
        Image::Disk(_) => {
            media.disk.insert(0, DriveImage::new(path));
            Some(BootFrom::Disk)
        }
    };
    media.boot = media.boot.or(first);
    Ok(None)
}

/// Boots a kernel.
fn run_kernel(args: &RunArgs, media: &MediaArgs, path: &Path) -> Result<ExitCode> {
    let limit = args.machine.memory;
    let image = unpack(read(path, "kernel", limit)?, limit)
        .with_context(|| format!("kernel {}", path.display()))?;
    let initrd = match &args.initrd {
        Some(path) => Some(read(path, "initrd", limit)?),
        None => None,
    };
    let modules = args.module.iter().map(|text| module(text, limit)).collect::<Result<_>>()?;
    let kernel = Kernel {
        image,
        name: path.display().to_string(),
        initrd,
        modules,
        command_line: args.append.clone(),
        ..Kernel::default()
    };
    let kernel = Start::choose(kernel, args.boot_protocol, &args.machine.cpu)?;
    if args.machine.lockstep {
        return lockstep::run(Some(kernel), media, &args.machine);
    }
    let end = Session {
        kernel: Some(kernel),
        media,
        machine: &args.machine,
        serial: args.serial()?,
        no_reboot: args.no_reboot,
        copy: None,
    }
    .run()?;
    session::report(&end);
    Ok(ExitCode::from(status::of(&end)))
}

/// Boots drives through firmware.
fn run_drives(args: &RunArgs, media: &MediaArgs) -> Result<ExitCode> {
    if args.machine.lockstep {
        return lockstep::run(None, media, &args.machine);
    }
    let end = Session {
        kernel: None,
        media,
        machine: &args.machine,
        serial: args.serial()?,
        no_reboot: args.no_reboot,
        copy: None,
    }
    .run()?;
    session::report(&end);
    Ok(ExitCode::from(status::of(&end)))
}

/// A module from a file's path and its arguments. The kernel is told both, as by a boot loader.
fn module(text: &str, limit: u64) -> Result<KernelModule> {
    let path = text.split_whitespace().next().unwrap_or_default();
    Ok(KernelModule {
        data: read(Path::new(path), "module", limit)?,
        command_line: text.trim().to_owned(),
    })
}

/// Kernels that are not Linux often come compressed, and boot loaders unpack them.
fn unpack(image: Vec<u8>, limit: u64) -> Result<Vec<u8>> {
    const GZIP: &[u8] = b"\x1F\x8B";
    if !image.starts_with(GZIP) {
        return Ok(image);
    }
    let mut content = Vec::new();
    MultiGzDecoder::new(&image[..])
        .take(limit.saturating_add(1))
        .read_to_end(&mut content)
        .context("the gzip archive is damaged")?;
    if content.len() as u64 > limit {
        bail!("unpacked, it is larger than the {limit} bytes of guest memory (see --memory)");
    }
    Ok(content)
}

impl RunArgs {
    /// Where the first serial port goes: the terminal has room for one.
    fn serial(&self) -> Result<Serial> {
        match (&self.serial, &self.media.display) {
            (Some(Serial::Stdio), Display::Text) => bail!(
                "--display text and --serial stdio both want the terminal: give --serial file:PATH or none"
            ),
            (Some(serial), _) => Ok(serial.clone()),
            (None, Display::Text) => Ok(Serial::None),
            (None, Display::None | Display::Vnc(_)) => Ok(Serial::Stdio),
        }
    }
}

/// Reads a file that must fit `limit` bytes of guest memory: the path may name a pipe or a device
/// without end.
pub(crate) fn read(path: &Path, what: &str, limit: u64) -> Result<Vec<u8>> {
    let name = || format!("{what} {}", path.display());
    let file = File::open(path).with_context(name)?;
    let mut content = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut content).with_context(name)?;
    if content.is_empty() {
        bail!("{}: the file is empty", name());
    }
    if content.len() as u64 > limit {
        bail!("{}: larger than the {limit} bytes of guest memory (see --memory)", name());
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn kernels_are_unpacked() {
        let content = vec![7; 5000];
        assert_eq!(unpack(content.clone(), 5000).unwrap(), content);
        assert_eq!(unpack(gzip(&content), 5000).unwrap(), content);
        let error = unpack(gzip(&content), 4999).unwrap_err().to_string();
        assert!(error.contains("4999 bytes of guest memory"), "{error}");
        let packed = gzip(&content);
        let error = unpack(packed[..packed.len() / 2].to_vec(), 5000).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }

    #[test]
    fn a_module_has_a_file_and_arguments() {
        let path = std::env::temp_dir().join(format!("ringshift-module-{}", std::process::id()));
        std::fs::write(&path, b"content").unwrap();
        let text = format!("{} a=b c", path.display());
        let module = module(&text, 100).unwrap();
        assert_eq!((module.data.as_slice(), module.command_line), (&b"content"[..], text));
        std::fs::remove_file(&path).unwrap();
    }
}
