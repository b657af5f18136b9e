//! ELF kernels: program headers, the PVH entry note, and loading.
//!
//! goblin decodes headers and notes; what they claim is checked here against
//! the file and guest memory.

use std::ops::Range;

use goblin::container::{Container, Ctx};
use goblin::elf::header::{EM_386, EM_X86_64, ET_DYN, ET_EXEC};
use goblin::elf::note::NoteDataIterator;
use goblin::elf::program_header::{PT_LOAD, PT_NOTE};
use goblin::elf::{Elf, Header, ProgramHeader};
use vm_memory::GuestMemory;

use super::placement::Loader;
use super::{ElfClass, ImageError};

/// Program headers read at most: far more than any kernel has, few enough that
/// a hostile file costs nothing.
const MAX_PROGRAM_HEADERS: u16 = 256;
/// XEN_ELFNOTE_PHYS32_ENTRY (Xen, include/public/elfnote.h).
const PHYS32_ENTRY: u32 = 18;

/// Why an ELF file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The headers cannot be decoded.
    #[error("malformed ELF {what}: {source}")]
    Malformed {
        /// The part at fault.
        what: &'static str,
        /// The decoder's reason.
        source: goblin::error::Error,
    },
    /// The byte order is not x86's.
    #[error("a big-endian ELF file, not one for x86")]
    BigEndian,
    /// The processor is another one.
    #[error("an ELF file for machine {number} ({name}), not for x86", number = .0, name = goblin::elf::header::machine_to_str(*.0))]
    Machine(u16),
    /// The file is not linked to run.
    #[error("an ELF file of type {number} ({name}), not an executable", number = .0, name = goblin::elf::header::et_to_str(*.0))]
    Type(u16),
    /// The program headers have an unknown size.
    #[error("ELF program headers of {have} bytes, {expected} expected")]
    HeaderSize {
        /// The size the file states.
        have: u16,
        /// The size for its class.
        expected: usize,
    },
    /// There are more program headers than sensible.
    #[error("{0} ELF program headers, at most {MAX_PROGRAM_HEADERS} are read")]
    TooManyHeaders(u16),
    /// Nothing is to be loaded.
    #[error("an ELF file without loadable segments")]
    NothingToLoad,
    /// A segment's content is not in the file.
    #[error(
        "the file is cut short: ELF segment {index} takes {size:#x} bytes from offset {offset:#x}, the file has {have:#x}"
    )]
    SegmentTruncated {
        /// Index of the program header.
        index: usize,
        /// Offset in the file.
        offset: u64,
        /// Bytes wanted.
        size: u64,
        /// Size of the file.
        have: u64,
    },
    /// A segment holds more than it occupies.
    #[error("ELF segment {index} has {file:#x} bytes in the file but {memory:#x} in memory")]
    SegmentShrinks {
        /// Index of the program header.
        index: usize,
        /// `p_filesz`.
        file: u64,
        /// `p_memsz`.
        memory: u64,
    },
    /// The PVH note does not hold an address.
    #[error("the PVH entry note holds {0} bytes, not a 32-bit or 64-bit address")]
    PvhNoteSize(usize),
}

/// A loadable segment.
struct Segment {
    index: usize,
    physical: u64,
    virtual_: u64,
    content: Range<usize>,
    size: u64,
}

/// An ELF kernel whose headers have been checked against the file.
pub(super) struct Image<'a> {
    bytes: &'a [u8],
    pub(super) class: ElfClass,
    /// `e_entry`.
    entry: u64,
    /// The value of the PVH note, if there is one.
    pub(super) pvh_entry: Option<u64>,
    segments: Vec<Segment>,
}

/// Whether `image` has the magic number of ELF.
pub(super) fn is_elf(image: &[u8]) -> bool {
    image.starts_with(b"\x7FELF")
}

impl<'a> Image<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let malformed = |what| move |source| ElfError::Malformed { what, source };
        let header = Elf::parse_header(bytes).map_err(malformed("header"))?;
        let (class, context) = check_header(&header)?;
        let headers = ProgramHeader::parse(
            bytes,
            usize::try_from(header.e_phoff).unwrap_or(usize::MAX),
            header.e_phnum.into(),
            context,
        )
        .map_err(malformed("program headers"))?;

        let mut segments = Vec::new();
        let mut pvh_entry = None;
        for (index, program) in headers.iter().enumerate() {
            match program.p_type {
                PT_LOAD if program.p_memsz > 0 || program.p_filesz > 0 => {
                    segments.push(Segment::check(bytes, index, program)?);
                }
                PT_NOTE if pvh_entry.is_none() => {
                    pvh_entry = find_pvh_note(bytes, index, program, context)?;
                }
                _ => {}
            }
        }
        if segments.is_empty() {
            return Err(ElfError::NothingToLoad.into());
        }
        Ok(Self { bytes, class, entry: header.e_entry, pvh_entry, segments })
    }

    /// Writes the segments to guest memory, each with its zeroed rest.
    pub(super) fn load<M: GuestMemory + ?Sized>(
        &self,
        loader: &mut Loader<'_, M>,
    ) -> Result<(), ImageError> {
        for segment in &self.segments {
            let what = format!("ELF segment {}", segment.index);
            loader.claim(&what, segment.physical, segment.size)?;
            let content = &self.bytes[segment.content.clone()];
            loader.write(segment.physical, content)?;
            let length = content.len() as u64;
            loader.clear(segment.physical + length, segment.size - length)?;
        }
        Ok(())
    }

    /// First address after all segments, which must have been loaded.
    pub(super) fn end(&self) -> u64 {
        self.segments.iter().map(|segment| segment.physical + segment.size).max().unwrap_or(0)
    }

    /// The physical address of `e_entry`, which is one already in most kernels
    /// and a virtual address in the others.
    pub(super) fn physical_entry(&self) -> Result<u32, ImageError> {
        if self.holds(self.entry) {
            return self.checked_entry(self.entry);
        }
        let offset_in = |segment: &Segment| {
            let offset = self.entry.wrapping_sub(segment.virtual_);
            (offset < segment.size).then(|| segment.physical.wrapping_add(offset))
        };
        match self.segments.iter().find_map(offset_in) {
            Some(physical) => self.checked_entry(physical),
            None => Err(ImageError::EntryOutside(self.entry)),
        }
    }

    /// `entry`, if it is a physical address in a segment and below 4 GiB.
    pub(super) fn checked_entry(&self, entry: u64) -> Result<u32, ImageError> {
        u32::try_from(entry)
            .ok()
            .filter(|_| self.holds(entry))
            .ok_or(ImageError::EntryOutside(entry))
    }

    fn holds(&self, physical: u64) -> bool {
        self.segments.iter().any(|segment| physical.wrapping_sub(segment.physical) < segment.size)
    }
}

impl Segment {
    fn check(bytes: &[u8], index: usize, program: &ProgramHeader) -> Result<Self, ElfError> {
        if program.p_filesz > program.p_memsz {
            return Err(ElfError::SegmentShrinks {
                index,
                file: program.p_filesz,
                memory: program.p_memsz,
            });
        }
        Ok(Self {
            index,
            physical: program.p_paddr,
            virtual_: program.p_vaddr,
            content: content(bytes, index, program)?,
            size: program.p_memsz,
        })
    }
}

/// The segment's bytes in the file.
fn content(bytes: &[u8], index: usize, program: &ProgramHeader) -> Result<Range<usize>, ElfError> {
    let (offset, size, have) = (program.p_offset, program.p_filesz, bytes.len() as u64);
    match offset.checked_add(size) {
        // A segment that is all zeroes may lie anywhere, even past the end.
        _ if size == 0 => Ok(0..0),
        Some(end) if end <= have => Ok(offset as usize..end as usize),
        _ => Err(ElfError::SegmentTruncated { index, offset, size, have }),
    }
}

fn check_header(header: &Header) -> Result<(ElfClass, Ctx), ElfError> {
    let malformed = |source| ElfError::Malformed { what: "header", source };
    let container = header.container().map_err(malformed)?;
    let endianness = header.endianness().map_err(malformed)?;
    if !endianness.is_little() {
        return Err(ElfError::BigEndian);
    }
    let class = match container {
        Container::Little => ElfClass::Elf32,
        Container::Big => ElfClass::Elf64,
    };
    match (class, header.e_machine) {
        // A 64-bit kernel is at times wrapped in a 32-bit ELF for Multiboot.
        (ElfClass::Elf32, EM_386 | EM_X86_64) | (ElfClass::Elf64, EM_X86_64) => {}
        (_, machine) => return Err(ElfError::Machine(machine)),
    }
    if !matches!(header.e_type, ET_EXEC | ET_DYN) {
        return Err(ElfError::Type(header.e_type));
    }
    if header.e_phnum > MAX_PROGRAM_HEADERS {
        return Err(ElfError::TooManyHeaders(header.e_phnum));
    }
    let context = Ctx::new(container, endianness);
    let expected = ProgramHeader::size(context);
    if header.e_phnum > 0 && usize::from(header.e_phentsize) != expected {
        return Err(ElfError::HeaderSize { have: header.e_phentsize, expected });
    }
    Ok((class, context))
}

/// Looks for the PVH entry in the notes of one segment. Notes after one that
/// cannot be decoded are lost, as they are to every reader.
fn find_pvh_note(
    bytes: &[u8],
    index: usize,
    program: &ProgramHeader,
    context: Ctx,
) -> Result<Option<u64>, ElfError> {
    let data = &bytes[content(bytes, index, program)?];
    let alignment = if program.p_align == 8 { 8 } else { 4 };
    let notes = NoteDataIterator { data, size: data.len(), offset: 0, ctx: (alignment, context) };
    for note in notes.flatten() {
        if note.name == "Xen" && note.n_type == PHYS32_ENTRY {
            return match *note.desc {
                [a, b, c, d] => Ok(Some(u32::from_le_bytes([a, b, c, d]).into())),
                [a, b, c, d, e, f, g, h] => Ok(Some(u64::from_le_bytes([a, b, c, d, e, f, g, h]))),
                _ => Err(ElfError::PvhNoteSize(note.desc.len())),
            };
        }
    }
    Ok(None)
}
