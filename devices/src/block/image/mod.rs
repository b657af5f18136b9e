//! Image files: opened by format, locked, with the files that they refer to.
//!
//! | file | holds |
//! |---|---|
//! | `probe.rs` | telling formats by their first bytes |
//! | `guard.rs` | keeping a raw image that was probed from becoming something else |
//! | `lock.rs` | one writer or many readers, among Ringshift's and QEMU's programs |
//! | `qcow2.rs` | what a qcow2 header may say |
//! | `vmdk.rs` | which of vmdk's sub-formats an image has |
//! | `driver.rs` | `imago`'s drivers as media |
//! | `error.rs` | what is told when an image cannot be opened |
//!
//! A qcow2 image names its backing file, which is opened too, read only: an image from somebody who
//! is not trusted can so name any file that the user may read.

mod driver;
mod error;
mod guard;
mod lock;
mod probe;
mod qcow2;
#[cfg(test)]
mod tests;
mod vmdk;

pub use error::ImageError;
pub use probe::{ImageFormat, PROBE_BYTES, Probed, probe};

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use imago::file::File;
use imago::format::builder::FormatCreateBuilder;
use imago::format::gate::ImplicitOpenGate;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::vmdk::Vmdk;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, StorageOpenOptions};

use super::{BlockDevice, Overlay};
use lock::Lock;

/// Longest chain of backing files.
const MAX_DEPTH: usize = 64;

/// Which image to open, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOptions {
    /// The file.
    pub path: PathBuf,
    /// Its format; `None` tells it by the content.
    pub format: Option<ImageFormat>,
    /// Refuse writes.
    pub read_only: bool,
    /// Keep writes in a temporary file that nobody sees, and the image as it is.
    pub snapshot: bool,
}

impl ImageOptions {
    /// `path`, its format told by the content, to be written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), format: None, read_only: false, snapshot: false }
    }

    /// Opens the image.
    ///
    /// # Errors
    /// [`ImageError`]: what is wrong with which file.
    pub fn open(&self) -> Result<Box<dyn BlockDevice>, ImageError> {
        let writable = !self.read_only && !self.snapshot;
        let source = Source::open(&self.path, writable)?;
        let format = match self.format {
            Some(format) => format,
            None => source.probe()?,
        };
        let name = self.path.display().to_string();
        let mut locks = Vec::new();
        let access = source.driver(format, writable, 0, &mut locks)?;
        let image = driver::Image::new(self.path.clone(), access, !writable, locks);
        let mut medium: Box<dyn BlockDevice> = Box::new(image);
        if writable && format == ImageFormat::Raw && self.format.is_none() {
            medium = Box::new(guard::Guard::new(medium, name));
        }
        if self.snapshot && !self.read_only {
            let overlay = Overlay::new(medium)
                .map_err(|error| ImageError::Io { path: std::env::temp_dir(), error })?;
            medium = Box::new(overlay);
        }
        Ok(medium)
    }
}

/// Makes the file `path` an empty qcow2 image of `size` bytes, over `backing`, if there is one: its
/// name, from the image's directory on, and its format.
///
/// # Errors
/// [`ImageError`] if the host refuses it, or there is something already.
pub fn create_qcow2(
    path: &Path,
    size: u64,
    backing: Option<(&str, ImageFormat)>,
) -> Result<(), ImageError> {
    let format = ImageFormat::Qcow2;
    let failed = |error| ImageError::Driver { path: path.into(), format, error };
    let file = fs::File::options().read(true).write(true).create_new(true).open(path);
    let file = file.map_err(|error| ImageError::Io { path: path.into(), error })?;
    let options = StorageOpenOptions::new().filename(path).write(true);
    let storage = File::from_open_file(file, options).map_err(failed)?;
    let mut builder = Qcow2::<File>::create_builder(storage).size(size);
    if let Some((name, format)) = backing {
        builder = builder.backing(name.to_owned(), format.to_string());
    }
    builder.create().map_err(failed)
}

/// An open, locked file.
struct Source {
    path: PathBuf,
    file: fs::File,
    lock: Lock,
    writable: bool,
    size: u64,
    /// Its first bytes: [`PROBE_BYTES`], less if there are no more.
    start: Vec<u8>,
}

impl Source {
    fn open(path: &Path, writable: bool) -> Result<Source, ImageError> {
        let io = |error| ImageError::Io { path: path.into(), error };
        // Opening a pipe would wait for its other end.
        let kind = fs::metadata(path).map_err(io)?.file_type();
        let wrong = |what| Err(ImageError::Kind { path: path.into(), what });
        if kind.is_dir() {
            return wrong("a directory");
        }
        if !kind.is_file() && !kind.is_block_device() {
            return wrong("a special file");
        }
        let file = fs::File::options().read(true).write(writable).open(path).map_err(io)?;
        let lock = lock::lock(&file, path, writable)?;
        // The end of a block device is found by seeking; its metadata do not tell it.
        let size = io::Seek::seek(&mut &file, io::SeekFrom::End(0)).map_err(io)?;
        if size == 0 {
            return Err(io(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty")));
        }
        let mut start = vec![0; size.min(PROBE_BYTES as u64) as usize];
        file.read_exact_at(&mut start, 0).map_err(io)?;
        Ok(Source { path: path.into(), file, lock, writable, size, start })
    }

    /// The format that the content tells.
    fn probe(&self) -> Result<ImageFormat, ImageError> {
        match probe(&self.start) {
            Probed::Format(format) => Ok(format),
            Probed::Foreign(name) => Err(ImageError::Unsupported {
                path: self.path.clone(),
                what: format!("its content is that of a {name} image, which is not supported"),
                advice: "convert it with `qemu-img convert -O qcow2`, or give format=raw if these are a guest's own bytes".into(),
            }),
        }
    }

    /// The file for `imago`; its lock goes to the others.
    fn storage(self, locks: &mut Vec<Lock>) -> io::Result<File> {
        locks.push(self.lock);
        let options = StorageOpenOptions::new().filename(&self.path).write(self.writable);
        File::from_open_file(self.file, options)
    }

    /// `imago`'s driver for the image, with what it refers to. `depth` counts the images above it.
    fn driver(
        self,
        format: ImageFormat,
        writable: bool,
        depth: usize,
        locks: &mut Vec<Lock>,
    ) -> Result<FormatAccess<File>, ImageError> {
        let path = self.path.clone();
        let failed = |error| ImageError::Driver { path: path.clone(), format, error };
        match format {
            ImageFormat::Raw => {
                let storage = self.storage(locks).map_err(failed)?;
                let raw = Raw::open_image(storage, writable).map_err(failed)?;
                Ok(FormatAccess::new(raw))
            }
            ImageFormat::Qcow2 => self.qcow2(writable, depth, locks),
            ImageFormat::Vmdk => self.vmdk(writable, locks),
        }
    }

    fn qcow2(
        self,
        writable: bool,
        depth: usize,
        locks: &mut Vec<Lock>,
    ) -> Result<FormatAccess<File>, ImageError> {
        let path = self.path.clone();
        let failed =
            |error| ImageError::Driver { path: path.clone(), format: ImageFormat::Qcow2, error };
        qcow2::check(&path, &self.start, self.size)?;
        let storage = self.storage(locks).map_err(failed)?;
        let mut image: Qcow2<File> = Qcow2::open_image(storage, writable).map_err(failed)?;
        let reference = |role, error| ImageError::Reference {
            path: path.clone(),
            role,
            error: Box::new(error),
        };
        let data = if image.requires_external_data_file() {
            const ROLE: &str = "data file";
            let Some(name) = image.implicit_external_data_file() else {
                return Err(ImageError::Unsupported {
                    path,
                    what: "the image's data are in another file, whose name it does not hold"
                        .into(),
                    advice: "name it with `qemu-img amend -o data_file=FILE`".into(),
                });
            };
            let file = local_file(&path, name).map_err(|error| reference(ROLE, error))?;
            let source = Source::open(&file, writable).map_err(|error| reference(ROLE, error))?;
            Some(source.storage(locks).map_err(failed)?)
        } else {
            None
        };
        image.set_data_file(data);
        let backing = match image.implicit_backing_file() {
            None => None,
            Some(name) => {
                let format = image.implicit_backing_format().map(String::as_str);
                let backing = backing(&path, name, format, depth + 1, locks);
                Some(backing.map_err(|error| reference("backing file", error))?)
            }
        };
        image.set_backing(backing);
        // Everything was opened here: there is nothing left to open by itself.
        image.open_implicit_dependencies_gated(DenyImplicitOpenGate::default()).map_err(failed)?;
        Ok(FormatAccess::new(image))
    }

    fn vmdk(self, writable: bool, locks: &mut Vec<Lock>) -> Result<FormatAccess<File>, ImageError> {
        let path = self.path.clone();
        let failed =
            |error| ImageError::Driver { path: path.clone(), format: ImageFormat::Vmdk, error };
        vmdk::check(&path, &self.file, &self.start)?;
        if writable {
            return Err(ImageError::Unsupported {
                path,
                what: "VMDK images cannot be written".into(),
                advice: "give snapshot=on or readonly=on, or convert it with `qemu-img convert -O qcow2`".into(),
            });
        }
        let storage = self.storage(locks).map_err(failed)?;
        let mut image: Vmdk<File> = Vmdk::open_image(storage, false).map_err(failed)?;
        let mut gate = Extents { image: &path, locks, error: None };
        let opened = image.open_implicit_dependencies_gated(&mut gate);
        if let Some(error) = gate.error {
            let role = "extent";
            return Err(ImageError::Reference { path, role, error: Box::new(error) });
        }
        opened.map_err(failed)?;
        Ok(FormatAccess::new(image))
    }
}

/// The file that `image` names: relative names start at the image's directory.
fn local_file(image: &Path, name: &str) -> Result<PathBuf, ImageError> {
    let local = name.strip_prefix("file:").unwrap_or(name);
    let protocol = local.split_once(':').is_some_and(|(scheme, _)| !scheme.contains('/'));
    if protocol || local.is_empty() {
        return Err(ImageError::Unsupported {
            path: name.into(),
            what: "this is no local file".into(),
            advice: "copy it to one, and name that with `qemu-img rebase -u -b FILE`".into(),
        });
    }
    Ok(image.parent().unwrap_or(Path::new("")).join(local))
}

/// Opens the backing file `name` of `image`.
fn backing(
    image: &Path,
    name: &str,
    format: Option<&str>,
    depth: usize,
    locks: &mut Vec<Lock>,
) -> Result<FormatAccess<File>, ImageError> {
    let path = local_file(image, name)?;
    if depth > MAX_DEPTH {
        return Err(ImageError::Unsupported {
            path,
            what: format!("the chain of backing files is longer than {MAX_DEPTH}"),
            advice: "an image may name itself; see `qemu-img info --backing-chain`".into(),
        });
    }
    let source = Source::open(&path, false)?;
    let format = match format {
        Some("file") => ImageFormat::Raw,
        Some(name) => name.parse().map_err(|_| ImageError::Unsupported {
            path: path.clone(),
            what: format!("a backing file of the format {name:?}"),
            advice: "raw, qcow2 and vmdk are supported".into(),
        })?,
        // A guest may have written what looks like a header here while the image was raw, and named
        // a file of the host's in it.
        None => match source.probe()? {
            ImageFormat::Raw => ImageFormat::Raw,
            found => {
                return Err(ImageError::Unsupported {
                    path: path.clone(),
                    what: format!(
                        "it looks like {found}, and the image over it does not say its format"
                    ),
                    advice: format!(
                        "if it is {found}, say so with `qemu-img rebase -u -F {found} -b {} {}`",
                        path.display(),
                        image.display()
                    ),
                });
            }
        },
    };
    source.driver(format, false, depth, locks)
}

/// Opens a VMDK image's extents, read only and locked.
struct Extents<'a> {
    image: &'a Path,
    locks: &'a mut Vec<Lock>,
    error: Option<ImageError>,
}

impl ImplicitOpenGate<File> for &mut Extents<'_> {
    fn open_format<F: FormatDriverBuilder<File>>(
        &mut self,
        _builder: F,
    ) -> io::Result<FormatAccess<File>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "an extent is a plain file"))
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<File> {
        let path = options.get_filename().unwrap_or(self.image).to_owned();
        match Source::open(&path, false) {
            Ok(source) => source.storage(self.locks),
            Err(error) => {
                let told = io::Error::other(error.to_string());
                self.error = Some(error);
                Err(told)
            }
        }
    }
}
