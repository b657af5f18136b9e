//! Which of VMDK's sub-formats an image has, told before the driver looks at it: only flat extents
//! can be read.
//!
//! Source: VMware, "Virtual Disk Format 5.0" (2011), sections 1.1 (descriptor) and 2.1 (sparse
//! header).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::ImageError;

/// Magic of a sparse extent, which may have the descriptor inside.
const SPARSE_MAGIC: &[u8] = b"KDMV";
const SECTOR: u64 = 512;
/// Longest descriptor looked at.
const DESCRIPTOR: usize = 64 << 10;
/// Offsets in a sparse extent's header: flags, and the embedded descriptor's place in sectors.
const FLAGS: usize = 8;
const DESCRIPTOR_OFFSET: usize = 28;
/// Header flag: grains are compressed.
const COMPRESSED: u32 = 1 << 16;
/// Extents that are plain bytes or nothing.
const READABLE: [&str; 2] = ["FLAT", "ZERO"];

/// Refuses what has other extents than flat ones; `start` are the file's first bytes.
///
/// # Errors
/// [`ImageError::Unsupported`], which names the sub-format.
pub(super) fn check(path: &Path, file: &File, start: &[u8]) -> Result<(), ImageError> {
    let refused = |what: String| {
        Err(ImageError::Unsupported {
            path: path.into(),
            what,
            advice: "only VMDK images with flat extents (monolithicFlat, twoGbMaxExtentFlat) can be read: convert it with `qemu-img convert -O qcow2`".into(),
        })
    };
    if start.starts_with(SPARSE_MAGIC) {
        let compressed = word(start, FLAGS).is_some_and(|flags| flags & COMPRESSED != 0);
        let place = word(start, DESCRIPTOR_OFFSET).map_or(0, u64::from);
        let text = if place == 0 { String::new() } else { read(file, place * SECTOR) };
        return refused(match create_type(&text) {
            Some(name) => format!("a sparse VMDK image, of the sub-format {name}"),
            None if compressed => "a sparse VMDK extent with compressed grains".into(),
            None => "a sparse VMDK extent without a descriptor, which another file may have".into(),
        });
    }
    let text = read(file, 0);
    let name = create_type(&text).unwrap_or("unknown");
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().take(3).collect();
        match words[..] {
            ["RW" | "RDONLY" | "NOACCESS", _, kind] if !READABLE.contains(&kind) => {
                return refused(format!(
                    "a VMDK image of the sub-format {name}, with {kind} extents"
                ));
            }
            _ if line.trim_start().starts_with("parentFileNameHint") => {
                return refused(format!(
                    "a VMDK image of the sub-format {name}, which is a difference to another image"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

/// The descriptor's text, as far as there is one.
fn read(file: &File, offset: u64) -> String {
    let mut text = vec![0; DESCRIPTOR];
    let mut have = 0;
    while have < text.len() {
        match file.read_at(&mut text[have..], offset + have as u64) {
            Ok(count @ 1..) => have += count,
            Ok(0) | Err(_) => break,
        }
    }
    text.truncate(have);
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(have);
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// The sub-format's name.
fn create_type(text: &str) -> Option<&str> {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "createType").then(|| value.trim().trim_matches('"'))
    })?;
    (!value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric())).then_some(value)
}
