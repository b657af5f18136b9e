//! Code from an ELF file, linked or not.

use goblin::elf::Elf;
use goblin::elf::header::{EM_386, EM_X86_64, ET_REL};
use goblin::elf::program_header::{PF_X, PT_LOAD};
use thiserror::Error;

/// The longest block, with room.
const MOST: usize = 0x2000;

/// Why there is no code.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// Not ELF, or a broken one.
    #[error("malformed ELF file: {0}")]
    Malformed(#[from] goblin::error::Error),
    /// Another processor's.
    #[error("an ELF file for machine {number} ({name}), not for x86", number = .0, name = goblin::elf::header::machine_to_str(*.0))]
    Machine(u16),
    /// Object files are at no address.
    #[error(
        "an object file, which is at no address yet: link it, or cut its code out with objcopy -O binary"
    )]
    Object,
    /// No such symbol.
    #[error("no symbol {0:?} in the file")]
    NoSymbol(String),
    /// Nothing there.
    #[error("the file has no code at {0:#x}")]
    NoCode(u64),
}

/// An ELF file.
pub struct Program<'a> {
    elf: Elf<'a>,
    file: &'a [u8],
}

/// Code in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Where it is linked to.
    pub rip: u64,
    /// The bytes from there on, far enough for a block.
    pub bytes: &'a [u8],
    /// 32 or 64.
    pub bits: u32,
}

/// Whether a file is to be read as ELF.
pub(crate) fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

/// A number as people write addresses: hexadecimal with 0x, or decimal.
pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

impl<'a> Program<'a> {
    /// Whether a file is one, by its first bytes.
    pub fn is_one(file: &[u8]) -> bool {
        is_elf(file)
    }

    /// Reads a file's tables.
    ///
    /// # Errors
    /// [`ProgramError`]
    pub fn parse(file: &'a [u8]) -> Result<Program<'a>, ProgramError> {
        let elf = Elf::parse(file)?;
        let machine = elf.header.e_machine;
        if !elf.little_endian || !matches!(machine, EM_386 | EM_X86_64) {
            return Err(ProgramError::Machine(machine));
        }
        if elf.header.e_type == ET_REL {
            return Err(ProgramError::Object);
        }
        Ok(Program { elf, file })
    }

    /// The address of a symbol.
    ///
    /// # Errors
    /// [`ProgramError::NoSymbol`]
    pub fn symbol(&self, name: &str) -> Result<u64, ProgramError> {
        let tables = [(&self.elf.syms, &self.elf.strtab), (&self.elf.dynsyms, &self.elf.dynstrtab)];
        let mut symbols = tables.iter().flat_map(|(symbols, names)| {
            symbols.iter().map(|symbol| (symbol, names.get_at(symbol.st_name)))
        });
        symbols
            .find(|(symbol, found)| *found == Some(name) && symbol.st_shndx != 0)
            .map(|(symbol, _)| symbol.st_value)
            .ok_or_else(|| ProgramError::NoSymbol(name.into()))
    }

    /// The code at `at`, a number or a symbol; at the entry point where nothing is said.
    ///
    /// # Errors
    /// [`ProgramError`]
    pub fn find(&self, at: Option<&str>) -> Result<Found<'a>, ProgramError> {
        let rip = match at {
            None => self.elf.entry,
            Some(text) => match number(text) {
                Some(number) => number,
                None => self.symbol(text)?,
            },
        };
        let bits = if self.elf.is_64 { 64 } else { 32 };
        let bytes = self.bytes(rip).ok_or(ProgramError::NoCode(rip))?;
        Ok(Found { rip, bytes, bits })
    }

    /// What is loaded at a linear address, from an executable segment.
    fn bytes(&self, rip: u64) -> Option<&'a [u8]> {
        let holds = |header: &&goblin::elf::ProgramHeader| {
            header.p_type == PT_LOAD
                && header.p_flags & PF_X != 0
                && rip.checked_sub(header.p_vaddr).is_some_and(|offset| offset < header.p_filesz)
        };
        let header = self.elf.program_headers.iter().find(holds)?;
        let offset = rip - header.p_vaddr;
        let start = usize::try_from(header.p_offset.checked_add(offset)?).ok()?;
        let left = usize::try_from(header.p_filesz - offset).ok()?.min(MOST);
        let rest = self.file.get(start..)?;
        Some(&rest[..rest.len().min(left)]).filter(|bytes| !bytes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file of one executable segment at `vaddr`, all of the file, entered at its end.
    fn elf(machine: u16, class: u8, kind: u16, vaddr: u64, code: &[u8]) -> Vec<u8> {
        assert_eq!(class, 2);
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend(kind.to_le_bytes());
        file.extend(machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        let size = 64 + 56;
        for word in [vaddr + size, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 56, 1, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        file.extend(PT_LOAD.to_le_bytes());
        file.extend(5u32.to_le_bytes());
        let length = size + code.len() as u64;
        for word in [0, vaddr, vaddr, length, length, 0x1000] {
            file.extend(word.to_le_bytes());
        }
        file.extend(code);
        file
    }

    #[test]
    fn the_entry_point_and_addresses() {
        let file = elf(EM_X86_64, 2, 2, 0x40_0000, &[0x90, 0xC3]);
        let program = Program::parse(&file).unwrap();
        let entry = program.find(None).unwrap();
        assert_eq!(entry, Found { rip: 0x40_0078, bytes: &[0x90, 0xC3], bits: 64 });
        let second = program.find(Some("0x400079")).unwrap();
        assert_eq!((second.rip, second.bytes), (0x40_0079, &[0xC3][..]));
        assert!(matches!(program.find(Some("0x40007a")), Err(ProgramError::NoCode(0x40_007A))));
        assert!(matches!(program.find(Some("main")), Err(ProgramError::NoSymbol(_))));
    }

    #[test]
    fn other_files_are_refused() {
        let arm = elf(40, 2, 2, 0, &[0; 4]);
        assert!(matches!(Program::parse(&arm), Err(ProgramError::Machine(40))));
        let object = elf(EM_X86_64, 2, 1, 0, &[0; 4]);
        assert!(matches!(Program::parse(&object), Err(ProgramError::Object)));
        assert!(matches!(Program::parse(b"#!/bin/sh\n"), Err(ProgramError::Malformed(_))));
        let whole = elf(EM_X86_64, 2, 2, 0x40_0000, &[0x90; 40]);
        for length in 0..whole.len() {
            if let Ok(program) = Program::parse(&whole[..length]) {
                let _ = program.find(None);
            }
        }
    }

    #[test]
    fn this_test_explains_itself() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let program = Program::parse(&file).unwrap();
        let found = program.find(Some("main")).unwrap();
        assert!(!found.bytes.is_empty() && found.bits == 64);
        assert!(Program::is_one(&file));
    }
}
