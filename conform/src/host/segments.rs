//! Segments that cases run with: those of the host's Linux, and a few in an LDT of the case's own.

use super::layout::{PAGE, WINDOW};
use x86::Segment;

/// Flat 64-bit user code.
pub const CODE64: u16 = 0x33;
/// Flat 32-bit user code.
pub const CODE32: u16 = 0x23;
/// Flat user data.
pub const DATA: u16 = 0x2B;
/// 16-bit code over the window: LDT entry 0.
pub const CODE16: u16 = 0x07;
/// 16-bit data over the window: LDT entry 1.
pub const DATA16: u16 = 0x0F;

/// The first sixteen entries of Linux's GDT on x86-64 (arch/x86/kernel/cpu/common.c). The TSS and
/// LDT descriptors (8 to 11), which user code can only see refused, and what threads put into 12 to
/// 14, are left out.
pub const GDT: [u64; 16] = [
    0,
    0x00CF_9B00_0000_FFFF,
    0x00AF_9B00_0000_FFFF,
    0x00CF_9300_0000_FFFF,
    0x00CF_FB00_0000_FFFF,
    0x00CF_F300_0000_FFFF,
    0x00AF_FB00_0000_FFFF,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    // The processor's number is in the limit, at which only LSL looks: see the masks.
    0x0040_F500_0000_0000,
];

/// What modify_ldt(2) needs to know of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LdtEntry {
    /// Base address.
    pub base: u32,
    /// Limit in bytes.
    pub limit: u32,
    /// D or B bit.
    pub wide: bool,
    /// Bits 2 and 3 of the type: 0 data, 1 expand-down data, 2 code, 3 conforming code.
    pub contents: u8,
    /// Data that cannot be written, code that cannot be read.
    pub read_or_execute_only: bool,
    /// Present.
    pub present: bool,
}

const fn entry(limit: u32, wide: bool, contents: u8, restricted: bool, present: bool) -> LdtEntry {
    LdtEntry {
        base: WINDOW as u32,
        limit,
        wide,
        contents,
        read_or_execute_only: restricted,
        present,
    }
}

/// The LDT.
pub const LDT: [LdtEntry; 8] = [
    entry(0xFFFF, false, 2, false, true),
    entry(0xFFFF, false, 0, false, true),
    // Ends in the middle of data page 2.
    entry(0x2A37, true, 0, false, true),
    // Expand-down: valid from the middle of page 1 on.
    entry(0x17FF, true, 1, false, true),
    entry(0xFFFF, true, 0, true, true),
    entry(0xFFFF, true, 0, false, false),
    // 32-bit code that cannot be read.
    entry(0xFFFF, true, 2, true, true),
    // Expand-down with a 16-bit top.
    entry(PAGE as u32 - 1, false, 1, false, true),
];

impl LdtEntry {
    /// The descriptor that Linux makes of it.
    pub const fn descriptor(&self) -> u64 {
        let kind = (!self.read_or_execute_only as u64) << 1 | (self.contents as u64) << 2 | 1;
        let access = kind | 1 << 4 | 3 << 5 | (self.present as u64) << 7;
        let base = self.base as u64;
        let limit = self.limit as u64;
        limit & 0xFFFF
            | (base & 0xFF_FFFF) << 16
            | access << 40
            | (limit >> 16 & 0xF) << 48
            | (self.wide as u64) << 54
            | (base >> 24) << 56
    }
}

/// What a segment register holds after it was loaded with a selector.
pub fn segment(selector: u16) -> Segment {
    let index = usize::from(selector >> 3);
    let descriptor = if selector & !3 == 0 {
        return Segment::null(selector);
    } else if selector & 4 != 0 {
        LDT.get(index).map_or(0, LdtEntry::descriptor)
    } else {
        GDT.get(index).copied().unwrap_or(0)
    };
    Segment::from_descriptor(selector, descriptor)
}

/// The selector of an LDT entry at privilege level 3.
pub const fn ldt_selector(entry: u16) -> u16 {
    entry << 3 | 7
}

/// Selectors that are tried in segment loads, far transfers and their checks: good ones, and ones
/// that fault in every way.
pub const TRIED: [u16; 22] = [
    0,
    1,
    2,
    3,
    CODE32,
    DATA,
    CODE64,
    0x28,
    0x30,
    0x10,
    0x1B,
    0x3B,
    0xFFFB,
    ldt_selector(0),
    ldt_selector(1),
    ldt_selector(2),
    ldt_selector(3),
    ldt_selector(4),
    ldt_selector(5),
    ldt_selector(6),
    ldt_selector(7),
    ldt_selector(8),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_say_what_the_entries_say() {
        let code = Segment::from_descriptor(CODE16, LDT[0].descriptor());
        assert_eq!((code.base, code.limit), (WINDOW, 0xFFFF));
        assert!(code.is_code() && code.readable() && !code.is_32bit() && code.dpl() == 3);
        let down = Segment::from_descriptor(ldt_selector(3), LDT[3].descriptor());
        assert!(down.expands_down() && down.is_32bit() && down.writable());
        let absent = Segment::from_descriptor(ldt_selector(5), LDT[5].descriptor());
        assert!(!absent.present());
    }
}
