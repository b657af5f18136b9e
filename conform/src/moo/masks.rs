//! Which FLAGS bits count for the masked score.

use super::format::Test;
use iced_x86::{Decoder, DecoderOptions};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use thiserror::Error;
use x86::flags;

/// Control flags that every instruction defines: they count whatever a file of masks says.
const ALWAYS: u16 = (flags::TF | flags::IF | flags::DF) as u16;
/// FLAGS bits that an 80286 has in real mode.
const REAL_MODE: u16 = (flags::ARITHMETIC | flags::TF | flags::IF | flags::DF) as u16;

/// Why masks could not be read.
#[derive(Debug, Error)]
pub enum MaskError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It does not hold masks.
    #[error("{} holds no masks: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Masks by file stem (`F6.7`).
#[derive(Clone, Debug, Default)]
pub struct Masks(BTreeMap<String, u16>);

#[derive(Deserialize)]
struct Entry {
    compare_mask: String,
}

impl Masks {
    /// Reads a file that maps stems to objects with a hexadecimal `compare_mask`.
    ///
    /// # Errors
    /// [`MaskError`].
    pub fn read(path: &Path) -> Result<Masks, MaskError> {
        let text = fs::read_to_string(path)
            .map_err(|source| MaskError::Io { path: path.to_owned(), source })?;
        let bad = |reason: String| MaskError::Format { path: path.to_owned(), reason };
        let entries: BTreeMap<String, Entry> =
            serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        let mut masks = BTreeMap::new();
        for (stem, entry) in entries {
            let mask = u16::from_str_radix(&entry.compare_mask, 16)
                .map_err(|_| bad(format!("{stem}: {:?} is not hexadecimal", entry.compare_mask)))?;
            masks.insert(stem, mask);
        }
        Ok(Masks(masks))
    }

    /// The file `80286-masks.json` beside `path` or one directory above it.
    pub fn find_beside(path: &Path) -> Option<PathBuf> {
        path.ancestors().take(3).map(|dir| dir.join("80286-masks.json")).find(|f| f.is_file())
    }

    /// The FLAGS bits to compare for a test of the file with this stem. Where no mask is known:
    /// what iced-x86 lists as undefined does not count.
    pub fn compare(&self, stem: &str, test: &Test) -> u16 {
        self.0.get(stem).copied().unwrap_or_else(|| REAL_MODE & !undefined(&test.bytes)) | ALWAYS
    }
}

fn undefined(bytes: &[u8]) -> u16 {
    let insn = Decoder::new(16, bytes, DecoderOptions::NONE).decode();
    decoder::rflags_of(insn.rflags_undefined()) as u16
}
