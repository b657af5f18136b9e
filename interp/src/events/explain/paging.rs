//! A page walk in words (SDM vol. 3A, sections 4.3 to 4.5).

use softmmu::{Mmu, PagingMode};
use std::fmt::Write;
use x86::Cpu;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Physical address in an 8-byte entry.
const FRAME: u64 = 0x000F_FFFF_FFFF_F000;

/// A level of the paging structures: its name, the lowest address bit of its index, and the
/// number of index bits.
type Level = (&'static str, u32, u32);

const LEVELS_64: [Level; 5] =
    [("PML5", 48, 9), ("PML4", 39, 9), ("PDPT", 30, 9), ("PD", 21, 9), ("PT", 12, 9)];
const LEVELS_PAE: [Level; 3] = [("PDPT", 30, 2), ("PD", 21, 9), ("PT", 12, 9)];
const LEVELS_32: [Level; 2] = [("PD", 22, 10), ("PT", 12, 10)];

/// Appends one line for each paging-structure entry that translating `linear` meets, up to the
/// page or the entry that is not present.
pub(super) fn walk(text: &mut String, cpu: &Cpu, mmu: &mut Mmu, linear: u64) {
    let (levels, entry_size): (&[Level], u64) = match mmu.paging_mode() {
        PagingMode::None => {
            line(text, format_args!("paging is off: {linear:#x} is a physical address"));
            return;
        }
        PagingMode::Legacy32 => (&LEVELS_32, 4),
        PagingMode::Pae => (&LEVELS_PAE, 8),
        PagingMode::Level4 => (&LEVELS_64[1..], 8),
        PagingMode::Level5 => (&LEVELS_64, 8),
    };
    let mut table = match mmu.paging_mode() {
        PagingMode::Pae => cpu.cr3 & 0xFFFF_FFE0,
        _ => cpu.cr3 & FRAME,
    };
    for &(name, shift, bits) in levels {
        let index = linear >> shift & ((1 << bits) - 1);
        let address = table + index * entry_size;
        let mut bytes = [0; 8];
        mmu.phys_read(address, &mut bytes[..entry_size as usize]);
        let entry = u64::from_le_bytes(bytes);
        let (present, rights) = describe(entry);
        line(text, format_args!("{name}[{index:#x}] at {address:#x} = {entry:#x}: {rights}"));
        if !present {
            return;
        }
        // PDPT entries of PAE paging map no pages.
        let may_map = matches!(name, "PD") || name == "PDPT" && bits == 9;
        if shift == 12 || may_map && entry & LARGE != 0 {
            let page = entry & FRAME & !((1 << shift) - 1);
            line(text, format_args!("maps the page to physical {page:#x}"));
            return;
        }
        table = entry & FRAME;
    }
}

/// Whether an entry is present, and its rights.
fn describe(entry: u64) -> (bool, String) {
    if entry & PRESENT == 0 {
        return (false, "not present".into());
    }
    let mut rights = String::from("present");
    rights += if entry & WRITABLE != 0 { ", writable" } else { ", read-only" };
    rights += if entry & USER != 0 { ", user" } else { ", supervisor" };
    if entry & NO_EXECUTE != 0 {
        rights += ", no execute";
    }
    (true, rights)
}

/// Appends an indented line.
pub(super) fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "     {words}");
}
