//! What a qcow2 header may say, checked before the driver believes it.
//!
//! The driver checks what it needs to be safe; here is said which field is wrong, and what it does
//! not look at is looked at: encryption, and tables that lie outside the file.
//!
//! Source: QEMU, `docs/interop/qcow2.txt`.

use std::path::Path;

use super::{ImageError, ImageFormat};

/// Bytes of a version 3 header without optional fields.
const HEADER_BYTES: usize = 104;
/// Bytes of a version 2 header.
const VERSION_2_BYTES: u64 = 72;
/// Largest L1 table, in bytes, and largest refcount table: QEMU's limits.
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// No offset of the format has more bits.
const MAX_SIZE: u64 = 1 << 56;

/// Looks at the header: `start` are the file's first bytes, `file_size` all there are.
pub(super) fn check(path: &Path, start: &[u8], file_size: u64) -> Result<(), ImageError> {
    let be32 = |at: usize| -> u32 {
        let mut bytes = [0; 4];
        bytes.iter_mut().zip(start.iter().skip(at)).for_each(|(to, from)| *to = *from);
        u32::from_be_bytes(bytes)
    };
    let be64 = |at: usize| u64::from(be32(at)) << 32 | u64::from(be32(at + 4));
    let wrong = |field: &'static str, value: String, reason: &str| {
        Err(ImageError::Field {
            path: path.into(),
            format: ImageFormat::Qcow2,
            field,
            value,
            reason: reason.into(),
        })
    };
    let unsupported = |what: &str, advice: &str| {
        Err(ImageError::Unsupported { path: path.into(), what: what.into(), advice: advice.into() })
    };
    let hex = |value: u64| format!("{value:#x}");

    if start.get(..4) != Some(b"QFI\xfb") {
        let bytes: Vec<String> = start.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        return wrong("the magic number", bytes.join(" "), "a qcow2 image begins with 51 46 49 fb");
    }
    if file_size < VERSION_2_BYTES {
        let reason = format!("a header has at least {VERSION_2_BYTES} bytes");
        return wrong("the file's length", file_size.to_string(), &reason);
    }
    let version = be32(4);
    if !matches!(version, 2 | 3) {
        return unsupported(
            &format!("qcow2 version {version}"),
            "versions 2 and 3 are supported: `qemu-img convert -O qcow2` makes one",
        );
    }
    if version == 3 && file_size < HEADER_BYTES as u64 {
        let reason = format!("a version 3 header has at least {HEADER_BYTES} bytes");
        return wrong("the file's length", file_size.to_string(), &reason);
    }
    let cluster_bits = be32(20);
    if !(9..=21).contains(&cluster_bits) {
        return wrong("cluster_bits", cluster_bits.to_string(), "it must be 9 to 21");
    }
    let cluster = 1u64 << cluster_bits;
    match be32(32) {
        0 => {}
        1 | 2 => {
            return unsupported(
                "the image is encrypted (crypt_method)",
                "encrypted images are not supported: decrypt it with `qemu-img convert`",
            );
        }
        method => {
            return wrong("crypt_method", method.to_string(), "it must be 0, 1 or 2");
        }
    }
    if version == 3 {
        incompatible_features(be64(72)).or_else(|(what, advice)| unsupported(&what, advice))?;
        let order = be32(96);
        if order > 6 {
            return wrong("refcount_order", order.to_string(), "it must be 0 to 6");
        }
        let length = u64::from(be32(100));
        if length < HEADER_BYTES as u64 || length > cluster || length % 8 != 0 {
            return wrong(
                "header_length",
                length.to_string(),
                &format!(
                    "it must be a multiple of 8 from {HEADER_BYTES} to the cluster's {cluster}"
                ),
            );
        }
    }
    let (name_offset, name_length) = (be64(8), u64::from(be32(16)));
    if name_offset != 0 {
        if !(1..=1023).contains(&name_length) {
            return wrong("backing_file_size", name_length.to_string(), "it must be 1 to 1023");
        }
        if name_offset.saturating_add(name_length) > cluster {
            return wrong(
                "backing_file_offset",
                hex(name_offset),
                "the name must lie in the first cluster",
            );
        }
    }
    let size = be64(24);
    if size > MAX_SIZE {
        return wrong("size", size.to_string(), "a medium has at most 2^56 bytes");
    }
    let table = |field, offset: u64, bytes: u64, limit: u64| {
        if !offset.is_multiple_of(cluster) {
            wrong(field, hex(offset), &format!("it must be a multiple of the cluster's {cluster}"))
        } else if bytes > limit {
            wrong(field, hex(offset), &format!("a table of {bytes} bytes; {limit} are allowed"))
        } else if offset.saturating_add(bytes) > file_size {
            wrong(
                field,
                hex(offset),
                &format!("{bytes} bytes from there are beyond the file's {file_size}"),
            )
        } else {
            Ok(())
        }
    };
    let l1_entries = u64::from(be32(36));
    table("l1_table_offset", be64(40), l1_entries * 8, MAX_L1_BYTES)?;
    // One L2 table of 8-byte entries fills a cluster and covers as many clusters.
    let covered = cluster * (cluster / 8);
    if l1_entries < size.div_ceil(covered) {
        return wrong(
            "l1_size",
            l1_entries.to_string(),
            &format!("{size} bytes need {} entries", size.div_ceil(covered)),
        );
    }
    let refcount_clusters = u64::from(be32(56));
    if refcount_clusters == 0 || be64(48) == 0 {
        return wrong(
            "refcount_table_offset",
            hex(be64(48)),
            &format!("a table of {refcount_clusters} clusters there: there must be one"),
        );
    }
    let bytes = refcount_clusters.saturating_mul(cluster);
    if bytes > MAX_REFCOUNT_TABLE_BYTES {
        return wrong(
            "refcount_table_clusters",
            refcount_clusters.to_string(),
            &format!("{bytes} bytes; {MAX_REFCOUNT_TABLE_BYTES} are allowed"),
        );
    }
    // The file's last cluster may end short, so only the first entry must be there.
    table("refcount_table_offset", be64(48), 8, MAX_REFCOUNT_TABLE_BYTES)
}

/// Features that an implementation must know to open an image.
fn incompatible_features(bits: u64) -> Result<(), (String, &'static str)> {
    /// An external data file: the driver's business.
    const KNOWN: u64 = 1 << 2;
    const REFUSED: &[(u32, &str, &str)] = &[
        (
            0,
            "the image was not closed properly (incompatible_features: dirty)",
            "repair it with `qemu-img check -r all`",
        ),
        (
            1,
            "the image is marked as corrupt (incompatible_features: corrupt)",
            "repair it with `qemu-img check -r all`",
        ),
        (
            3,
            "clusters are not compressed by zlib (incompatible_features: compression type)",
            "`qemu-img convert -O qcow2` makes an image without",
        ),
        (
            4,
            "the image has subclusters (incompatible_features: extended L2 entries)",
            "`qemu-img convert -O qcow2` makes an image without",
        ),
    ];
    for (bit, what, advice) in REFUSED {
        if bits >> bit & 1 != 0 {
            return Err(((*what).into(), advice));
        }
    }
    match bits & !KNOWN {
        0 => Ok(()),
        unknown => Err((
            format!("incompatible_features has unknown bits {unknown:#x}"),
            "a newer program made it, or it is corrupt: see `qemu-img check`",
        )),
    }
}
