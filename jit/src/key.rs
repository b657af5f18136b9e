//! What a translation depends on besides its bytes.

use softmmu::{Mmu, Rights};
use x86::control::{cr0, cr4};
use x86::mode::ModeKey;
use x86::{Cpu, SegReg, flags};

/// A [`ModeKey`] with the TLB table in use, what the floating-point units may do, and what kind of
/// segment each segment register holds.
///
/// Bits 0 to 9: the mode key. Bits 10 to 11: [`Rights`]. Bit 12: SSE instructions run without
/// #UD, #NM or #XM. Bit 13: AVX ones too. Bit 14: x87 and MMX instructions run without #NM or
/// #MF. Bit 15: EVEX and opmask instructions run like AVX ones. Bits 16 to 27: outside 64-bit
/// mode, two bits with the [`Class`] of each of ES, CS, SS, DS, FS and GS. Bases and limits are not
/// in the key: translated code reads them as it runs, and what they are for CS belongs to the place
/// of a block (`segments.rs`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Key(pub(crate) u32);

const RIGHTS_SHIFT: u32 = 10;
const CLASS_SHIFT: u32 = 16;

/// MXCSR's mask bits.
const MXCSR_MASKS: u32 = 0x1F80;
/// The x87 control word's mask bits.
pub(crate) const FCW_MASKS: u16 = 0x3F;

/// XCR0's bits for opmasks and both halves of the ZMM registers (SDM vol. 1, section 13.3).
const AVX512_STATE: u64 = 0xE6;

/// What accesses through a segment register have to check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Class {
    /// Something that the interpreter knows: null, expand-down, or access rights that forbid some
    /// of the accesses.
    Odd = 0,
    /// The limit.
    Limited = 1,
    /// The limit, which is not below 0xFFFF: real mode's and V86 mode's. 16-bit addresses need a
    /// look only where an operand could reach beyond 64 KiB.
    Wide = 2,
    /// Nothing: the segment has 4 GiB.
    Free = 3,
}

/// The class of a segment register. Outside protected mode access rights are not looked at; in it,
/// CS is only read.
#[inline]
fn class(cpu: &Cpu, register: SegReg, protected: bool) -> Class {
    let segment = cpu.seg(register);
    let allowed = match (protected, register) {
        (false, _) => segment.present(),
        (true, SegReg::CS) => segment.readable(),
        (true, SegReg::ES | SegReg::SS | SegReg::DS | SegReg::FS | SegReg::GS) => {
            segment.writable()
        }
    };
    match segment.limit {
        _ if !allowed || segment.expands_down() => Class::Odd,
        0xFFFF_FFFF => Class::Free,
        0xFFFF.. if !protected => Class::Wide,
        _ => Class::Limited,
    }
}

const DATA_SEGMENTS: [SegReg; 6] =
    [SegReg::ES, SegReg::CS, SegReg::SS, SegReg::DS, SegReg::FS, SegReg::GS];

impl Key {
    const SSE: u32 = 1 << 12;
    const AVX: u32 = 1 << 13;
    const X87: u32 = 1 << 14;
    const AVX512: u32 = 1 << 15;

    /// The key of the CPU's state, or none where only the interpreter can run it.
    #[inline]
    pub(crate) fn of(cpu: &Cpu, mmu: &Mmu) -> Option<Key> {
        let mode = cpu.key;
        // Alignment checks would be needed at every access.
        if cpu.rflags & flags::AC != 0 && cpu.cpl == 3 && cpu.cr0 & cr0::AM != 0 {
            return None;
        }
        let mut bits = u32::from(mode.0) | (mmu.rights() as u32) << RIGHTS_SHIFT;
        if cpu.cr0 & (cr0::TS | cr0::EM) == 0 {
            if cpu.cr4 & cr4::OSFXSR != 0 && cpu.mxcsr & MXCSR_MASKS == MXCSR_MASKS {
                bits |= Self::SSE;
                let vex = mode.0 & ModeKey::PROTECTED != 0;
                if vex && cpu.cr4 & cr4::OSXSAVE != 0 && cpu.xcr0 & 6 == 6 {
                    bits |= Self::AVX;
                    if cpu.xcr0 & AVX512_STATE == AVX512_STATE {
                        bits |= Self::AVX512;
                    }
                }
            }
            if cpu.x87.fcw & FCW_MASKS == FCW_MASKS && !cpu.x87.error_pending() {
                bits |= Self::X87;
            }
        }
        if mode.bits() != 64 {
            let protected = mode.0 & ModeKey::PROTECTED != 0;
            for register in DATA_SEGMENTS {
                let class = class(cpu, register, protected) as u32;
                bits |= class << (CLASS_SHIFT + 2 * register as u32);
            }
        }
        Some(Key(bits))
    }

    pub(crate) fn mode(self) -> ModeKey {
        ModeKey(self.0 as u16 & 0x3FF)
    }
    pub(crate) fn rights(self) -> Rights {
        match self.0 >> RIGHTS_SHIFT & 3 {
            0 => Rights::User,
            1 => Rights::SupervisorSmap,
            _ => Rights::Supervisor,
        }
    }
    /// Whether mode and rights are those of the CPU's state.
    #[inline(always)]
    pub(crate) fn has_mode_of(self, cpu: &Cpu, mmu: &Mmu) -> bool {
        cpu.key == self.mode() && mmu.rights() == self.rights()
    }

    /// The key behind STAC (`on`) or CLAC, where that is another one.
    pub(crate) fn with_access_override(self, on: bool) -> Option<Key> {
        let rights = if on { Rights::Supervisor } else { Rights::SupervisorSmap };
        let (from, bit) = match (on, self.rights()) {
            (true, Rights::SupervisorSmap) => (0, u32::from(ModeKey::SMAP_OFF)),
            (false, Rights::Supervisor) => (u32::from(ModeKey::SMAP_OFF), 0),
            _ => return None,
        };
        if self.0 & u32::from(ModeKey::SMAP_OFF) != from || self.mode().cpl() != 0 {
            return None;
        }
        let rest = self.0 & !u32::from(ModeKey::SMAP_OFF) & !(3 << RIGHTS_SHIFT);
        Some(Key(rest | bit | (rights as u32) << RIGHTS_SHIFT))
    }

    pub(crate) fn is_long(self) -> bool {
        self.mode().is_long()
    }
    /// Protected or long mode: not real mode, not V86 mode.
    pub(crate) fn is_protected(self) -> bool {
        self.mode().0 & ModeKey::PROTECTED != 0
    }
    /// V86 mode.
    pub(crate) fn is_v86(self) -> bool {
        self.mode().0 & ModeKey::V86 != 0
    }
    /// Whether instruction pointers are linear addresses and have no limit.
    pub(crate) fn has_flat_code(self) -> bool {
        self.mode().0 & ModeKey::FLAT != 0
    }
    /// Whether this is 64-bit mode, or 32-bit code on flat segments with a 32-bit stack.
    pub(crate) fn is_plain(self) -> bool {
        let mode = self.mode();
        let flat = ModeKey::FLAT | ModeKey::STACK32;
        mode.is_long() || mode.bits() == 32 && mode.0 & flat == flat
    }
    /// Whether the stack pointer has 16 bits.
    pub(crate) fn has_stack16(self) -> bool {
        !self.is_long() && self.mode().0 & ModeKey::STACK32 == 0
    }
    /// What accesses through segment register number `segment` have to check. Outside protected
    /// mode that goes for writes through CS, too; in it those are the interpreter's.
    pub(crate) fn class(self, segment: u8) -> Class {
        if self.is_long() {
            return Class::Free;
        }
        match self.0 >> (CLASS_SHIFT + 2 * u32::from(segment)) & 3 {
            1 => Class::Limited,
            2 => Class::Wide,
            3 => Class::Free,
            _ => Class::Odd,
        }
    }
    /// Whether offsets in a segment are linear addresses, without a check. (CS is one of them in
    /// name only: see [`Class`].)
    pub(crate) fn is_plain_segment(self, segment: u8) -> bool {
        segment < 4 && self.has_flat_code()
    }
    pub(crate) fn sse(self) -> bool {
        self.0 & Self::SSE != 0
    }
    pub(crate) fn avx(self) -> bool {
        self.0 & Self::AVX != 0
    }
    pub(crate) fn avx512(self) -> bool {
        self.0 & Self::AVX512 != 0
    }
    pub(crate) fn x87(self) -> bool {
        self.0 & Self::X87 != 0
    }
    /// Cuts an instruction pointer to the width that this mode gives it.
    pub(crate) fn wrap(self, rip: u64) -> u64 {
        if self.is_long() { rip } else { rip & 0xFFFF_FFFF }
    }
}
