//! Recognising a kernel by its content.

use super::{ImageError, bzimage, elf, multiboot};

/// The word size of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfClass {
    /// ELFCLASS32.
    Elf32,
    /// ELFCLASS64.
    Elf64,
}

/// What a kernel file is, and so by which protocol it is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Linux bzImage.
    BzImage,
    /// A file with a Multiboot 1 header, ELF or not.
    Multiboot,
    /// An ELF file with a Xen PVH entry note.
    Pvh(ElfClass),
    /// An ELF file without note, taken for a Linux `vmlinux`, whose entry point
    /// speaks the Linux boot protocol of its word size.
    Vmlinux(ElfClass),
}

/// Recognises `image`. A Multiboot header goes before a PVH note, since a kernel
/// that has both was made to be started by any boot loader.
///
/// # Errors
/// [`ImageError`] if the content is of no known kind, or is an ELF file that is
/// malformed or made for another processor.
pub fn detect(image: &[u8]) -> Result<Kind, ImageError> {
    if image.is_empty() {
        return Err(ImageError::Empty);
    }
    if bzimage::is_linux(image) {
        return Ok(Kind::BzImage);
    }
    if multiboot::find_header(image).is_some() {
        return Ok(Kind::Multiboot);
    }
    if elf::is_elf(image) {
        let elf = elf::Image::parse(image)?;
        return Ok(match elf.pvh_entry {
            Some(_) => Kind::Pvh(elf.class),
            None => Kind::Vmlinux(elf.class),
        });
    }
    Err(ImageError::Unrecognised(describe(image)))
}

/// Says what an image without a known header looks like.
fn describe(image: &[u8]) -> String {
    const KNOWN: [(&[u8], &str); 8] = [
        (b"\x1F\x8B", "a gzip archive; unpack it first"),
        (b"\xFD7zXZ\0", "an xz archive; unpack it first"),
        (b"\x28\xB5\x2F\xFD", "a Zstandard archive; unpack it first"),
        (b"BZh", "a bzip2 archive; unpack it first"),
        (b"070701", "a cpio archive, which is an initrd"),
        (b"!<arch>\n", "an ar archive, perhaps a Debian package; unpack it first"),
        (b"MZ", "a PE/COFF (EFI) program without a Linux setup header"),
        (b"#!", "a script"),
    ];
    if let Some((_, what)) = KNOWN.iter().find(|(magic, _)| image.starts_with(magic)) {
        return format!("this is {what}");
    }
    if multiboot::is_multiboot2(image) {
        return "a Multiboot 2 header, of which only version 1 is supported".into();
    }
    let first: Vec<String> = image.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{} bytes that begin with {} are no Linux bzImage, ELF file or Multiboot kernel",
        image.len(),
        first.join(" ")
    )
}
