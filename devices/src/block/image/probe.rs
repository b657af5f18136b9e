//! Telling an image's format by its first bytes.
//!
//! A raw image has no header of its own: its first bytes are the guest's. A guest that writes
//! another format's header there would choose how its image is opened the next time, and with it
//! the backing file, which may be any file of the host's. So whoever opened an image as raw because
//! it looked like it keeps it looking like it: see [`super::guard`].

use std::fmt;
use std::str::FromStr;

/// Bytes that [`probe`] looks at.
pub const PROBE_BYTES: usize = 512;

/// A format that can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// The file's bytes are the medium's.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
    /// VMware's format: a descriptor with flat extents; read only.
    Vmdk,
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
        })
    }
}

impl FromStr for ImageFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            "vmdk" => Ok(Self::Vmdk),
            _ => Err(format!("{text:?} is no image format: give raw, qcow2 or vmdk")),
        }
    }
}

/// What an image's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// A format that can be opened; raw where nothing says otherwise.
    Format(ImageFormat),
    /// The header of a format that cannot.
    Foreign(&'static str),
}

/// Looks at the first [`PROBE_BYTES`] of an image; less for a smaller one.
pub fn probe(start: &[u8]) -> Probed {
    let has = |at: usize, magic: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(magic));
    if has(0, b"QFI\xfb") {
        // Version 1 is another format, of which nothing but the magic is the same.
        return if has(4, &[0, 0, 0, 1]) {
            Probed::Foreign("qcow (version 1)")
        } else {
            Probed::Format(ImageFormat::Qcow2)
        };
    }
    if has(0, b"KDMV") || has(0, b"# Disk DescriptorFile") {
        return Probed::Format(ImageFormat::Vmdk);
    }
    const FOREIGN: &[(usize, &[u8], &str)] = &[
        (0, b"COWD", "VMDK (ESX sparse)"),
        (0, b"QED\0", "QED"),
        (0, b"vhdxfile", "VHDX"),
        (0, b"conectix", "VHD"),
        (0x40, b"\x7f\x10\xda\xbe", "VDI"),
        (0, b"LUKS\xba\xbe", "LUKS"),
        (0, b"WithoutFreeSpace", "Parallels"),
        (0, b"WithouFreSpacExt", "Parallels"),
    ];
    FOREIGN
        .iter()
        .find(|(at, magic, _)| has(*at, magic))
        .map_or(Probed::Format(ImageFormat::Raw), |(_, _, name)| Probed::Foreign(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_magic() {
        let vdi = [[b'<'; 0x40].as_slice(), b"\x7f\x10\xda\xbe"].concat();
        for (start, expected) in [
            (&b""[..], Probed::Format(ImageFormat::Raw)),
            (b"\xeb\x63\x90", Probed::Format(ImageFormat::Raw)),
            (b"QFI\xfb\0\0\0\x03", Probed::Format(ImageFormat::Qcow2)),
            (b"QFI\xfb", Probed::Format(ImageFormat::Qcow2)),
            (b"QFI\xfb\0\0\0\x01", Probed::Foreign("qcow (version 1)")),
            (b"KDMV\x01\0\0\0", Probed::Format(ImageFormat::Vmdk)),
            (b"# Disk DescriptorFile\nversion=1\n", Probed::Format(ImageFormat::Vmdk)),
            (b"vhdxfile", Probed::Foreign("VHDX")),
            (&vdi, Probed::Foreign("VDI")),
        ] {
            assert_eq!(probe(start), expected, "{start:?}");
        }
    }

    #[test]
    fn formats_are_named() {
        for format in [ImageFormat::Raw, ImageFormat::Qcow2, ImageFormat::Vmdk] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("vdi".parse::<ImageFormat>().is_err());
    }
}
