//! Why an image cannot be opened: the file, the field, the reason, and what to do.

use std::io;
use std::path::PathBuf;

use super::ImageFormat;

/// Why an image cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The host refuses the file.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        error: io::Error,
    },
    /// Neither a regular file nor a block device.
    #[error("{path}: {what}: an image is a regular file or a block device")]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Somebody else uses it.
    #[error(
        "{path}: in use by another program or drive, which {held}: an image that is written has one user; close the other, or open both with readonly=on"
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// What the other does with it.
        held: &'static str,
    },
    /// A field of the image's header says what cannot be.
    #[error("{path}: corrupt {format} image: {field} is {value}: {reason}")]
    Field {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: ImageFormat,
        /// The field, as the format's specification calls it.
        field: &'static str,
        /// What it holds.
        value: String,
        /// Why that cannot be.
        reason: String,
    },
    /// The image is well-formed, but uses what is not offered.
    #[error("{path}: {what}; {advice}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is or uses.
        what: String,
        /// What the user can do.
        advice: String,
    },
    /// The format's driver refuses it.
    #[error("{path}: as a {format} image: {error}")]
    Driver {
        /// The file.
        path: PathBuf,
        /// The format that it was opened as.
        format: ImageFormat,
        /// What the driver says.
        error: io::Error,
    },
    /// A file that the image refers to.
    #[error("{path}: its {role}: {error}")]
    Reference {
        /// The file that refers.
        path: PathBuf,
        /// What the other is to it.
        role: &'static str,
        /// What is wrong with the other.
        error: Box<ImageError>,
    },
}
