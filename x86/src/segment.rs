//! Segment registers with their hidden parts (SDM vol. 3A, section 3.4).

/// The six segment registers, by hardware number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SegReg {
    /// ES.
    ES = 0,
    /// CS.
    CS = 1,
    /// SS.
    SS = 2,
    /// DS.
    DS = 3,
    /// FS.
    FS = 4,
    /// GS.
    GS = 5,
}

impl SegReg {
    /// The register with hardware number `n` (0 to 5).
    pub const fn from_number(n: u8) -> Option<SegReg> {
        Some(match n {
            0 => SegReg::ES,
            1 => SegReg::CS,
            2 => SegReg::SS,
            3 => SegReg::DS,
            4 => SegReg::FS,
            5 => SegReg::GS,
            _ => return None,
        })
    }
}

/// Access-rights bits, at their places in the descriptor's high doubleword.
pub mod ar {
    /// Accessed.
    pub const ACCESSED: u32 = 1 << 8;
    /// Data: writable. Code: readable.
    pub const RW: u32 = 1 << 9;
    /// Data: expand-down. Code: conforming.
    pub const DC: u32 = 1 << 10;
    /// Code segment.
    pub const CODE: u32 = 1 << 11;
    /// Code or data, not a system descriptor.
    pub const S: u32 = 1 << 12;
    /// Shift of the DPL.
    pub const DPL_SHIFT: u32 = 13;
    /// Present.
    pub const P: u32 = 1 << 15;
    /// Available to software.
    pub const AVL: u32 = 1 << 20;
    /// 64-bit code.
    pub const L: u32 = 1 << 21;
    /// Default operation size (D) or stack size (B): 32 bits.
    pub const DB: u32 = 1 << 22;
    /// Granularity: the limit counts 4 KiB units.
    pub const G: u32 = 1 << 23;
    /// The bits that the hidden part keeps.
    pub const MASK: u32 = 0x00F0_FF00;
}

/// A segment register: its selector and the cached descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Segment {
    /// Base address. 64 bits wide only for FS, GS, LDTR and TR.
    pub base: u64,
    /// Limit in bytes, granularity applied: the last valid offset (the last invalid one when
    /// the segment expands down).
    pub limit: u32,
    /// Access rights: the bits of [`ar`]. Zero when the register holds a null selector.
    pub access: u32,
    /// The visible selector.
    pub selector: u16,
    #[doc(hidden)]
    pub _pad: [u16; 3],
}

impl Segment {
    /// A segment as real mode loads it: base = selector × 16. Limit and rights stay as `self` has
    /// them (SDM vol. 3B, section 21.1.2).
    pub fn real(selector: u16, limit: u32, access: u32) -> Segment {
        Segment { base: u64::from(selector) << 4, limit, access, selector, _pad: [0; 3] }
    }

    /// Builds the hidden part from an 8-byte code or data descriptor, or from the lower half of
    /// a 16-byte system descriptor.
    pub fn from_descriptor(selector: u16, descriptor: u64) -> Segment {
        let low = descriptor as u32;
        let high = (descriptor >> 32) as u32;
        let base = (low >> 16) | (high & 0xFF) << 16 | (high & 0xFF00_0000);
        let raw = (low & 0xFFFF) | (high & 0x000F_0000);
        let limit = if high & ar::G != 0 { raw << 12 | 0xFFF } else { raw };
        Segment { base: u64::from(base), limit, access: high & ar::MASK, selector, _pad: [0; 3] }
    }

    /// A null segment: every access through it faults outside 64-bit mode.
    pub fn null(selector: u16) -> Segment {
        Segment { selector, ..Segment::default() }
    }

    /// Descriptor privilege level.
    pub const fn dpl(&self) -> u8 {
        (self.access >> ar::DPL_SHIFT) as u8 & 3
    }
    /// Present.
    pub const fn present(&self) -> bool {
        self.access & ar::P != 0
    }
    /// Type field, 4 bits.
    pub const fn kind(&self) -> u8 {
        (self.access >> 8) as u8 & 0xF
    }
    /// Code segment (S set).
    pub const fn is_code(&self) -> bool {
        self.access & (ar::S | ar::CODE) == ar::S | ar::CODE
    }
    /// The D or B bit.
    pub const fn is_32bit(&self) -> bool {
        self.access & ar::DB != 0
    }
    /// The L bit.
    pub const fn is_64bit(&self) -> bool {
        self.access & ar::L != 0
    }
    /// Whether data may be read through this segment.
    pub const fn readable(&self) -> bool {
        self.access & (ar::P | ar::S) == ar::P | ar::S
            && (self.access & ar::CODE == 0 || self.access & ar::RW != 0)
    }
    /// Whether data may be written through this segment.
    pub const fn writable(&self) -> bool {
        self.access & (ar::P | ar::S | ar::CODE | ar::RW) == ar::P | ar::S | ar::RW
    }
    /// Whether the segment is an expand-down data segment.
    pub const fn expands_down(&self) -> bool {
        self.access & (ar::S | ar::CODE | ar::DC) == ar::S | ar::DC
    }
    /// Whether `size` bytes (at least 1) at `offset` lie inside the limit (SDM vol. 3A, section
    /// 5.3).
    pub const fn contains(&self, offset: u32, size: u32) -> bool {
        let last = offset as u64 + size as u64 - 1;
        if self.expands_down() {
            let top = if self.is_32bit() { 0xFFFF_FFFF } else { 0xFFFF };
            offset > self.limit && last <= top
        } else {
            last <= self.limit as u64
        }
    }
    /// Whether the segment covers 4 GiB from address 0 and is neither expand-down nor null, so
    /// that no limit check can fail.
    pub const fn is_flat(&self) -> bool {
        self.base == 0 && self.limit == 0xFFFF_FFFF && self.present() && !self.expands_down()
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct DescriptorTable {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes: offset of the last byte.
    pub limit: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_code_descriptor() {
        let s = Segment::from_descriptor(8, 0x00CF_9A00_0000_FFFF);
        assert_eq!((s.base, s.limit), (0, 0xFFFF_FFFF));
        assert!(s.is_code() && s.is_32bit() && s.present() && s.is_flat() && s.readable());
        assert!(!s.writable());
    }

    #[test]
    fn expand_down_limits() {
        // 16-bit expand-down data segment, limit 0x0FFF: offsets 0x1000 to 0xFFFF are valid.
        let s = Segment::from_descriptor(8, 0x0000_9600_0000_0FFF);
        assert!(!s.contains(0x0FFF, 1));
        assert!(s.contains(0x1000, 1));
        assert!(s.contains(0xFFFE, 2));
        assert!(!s.contains(0xFFFF, 2));
    }
}
