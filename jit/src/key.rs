//! What a translation depends on besides its bytes.

use softmmu::{Mmu, Rights};
use x86::control::{cr0, cr4};
use x86::mode::ModeKey;
use x86::{Cpu, SegReg, Segment, flags};

/// A [`ModeKey`] with the TLB table in use and what the floating-point units may do.
///
/// Bits 0 to 9: the mode key. Bits 10 to 11: [`Rights`]. Bit 12: SSE instructions run without
/// #UD, #NM or #XM. Bit 13: AVX ones too. Bit 14: x87 and MMX instructions run without #NM or
/// #MF. Bits 15 and 16: outside 64-bit mode, FS and GS need no checks. Bit 17: EVEX and opmask
/// instructions run like AVX ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Key(pub(crate) u32);

const RIGHTS_SHIFT: u32 = 10;

/// MXCSR's mask bits.
const MXCSR_MASKS: u32 = 0x1F80;
/// The x87 control word's mask bits.
const FCW_MASKS: u16 = 0x3F;

/// XCR0's bits for opmasks and both halves of the ZMM registers (SDM vol. 1, section 13.3).
const AVX512_STATE: u64 = 0xE6;

/// Whether every offset lies inside the segment's limit.
fn covers_everything(segment: &Segment) -> bool {
    segment.limit == 0xFFFF_FFFF && !segment.expands_down()
}

impl Key {
    const SSE: u32 = 1 << 12;
    const AVX: u32 = 1 << 13;
    const X87: u32 = 1 << 14;
    const FS: u32 = 1 << 15;
    const GS: u32 = 1 << 16;
    const AVX512: u32 = 1 << 17;

    /// The key of the CPU's state, or none where only the interpreter can run it.
    #[inline]
    pub(crate) fn of(cpu: &Cpu, mmu: &Mmu) -> Option<Key> {
        let mode = cpu.key;
        let flat32 = ModeKey::FLAT | ModeKey::PROTECTED | ModeKey::STACK32;
        if mode.bits() != 64 && (mode.bits() != 32 || mode.0 & flat32 != flat32) {
            return None;
        }
        // Alignment checks would be needed at every access.
        if cpu.rflags & flags::AC != 0 && cpu.cpl == 3 && cpu.cr0 & cr0::AM != 0 {
            return None;
        }
        let mut bits = u32::from(mode.0) | (mmu.rights() as u32) << RIGHTS_SHIFT;
        if cpu.cr0 & (cr0::TS | cr0::EM) == 0 {
            if cpu.cr4 & cr4::OSFXSR != 0 && cpu.mxcsr & MXCSR_MASKS == MXCSR_MASKS {
                bits |= Self::SSE;
                if cpu.cr4 & cr4::OSXSAVE != 0 && cpu.xcr0 & 6 == 6 {
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
            let free = |r: SegReg| cpu.seg(r).writable() && covers_everything(cpu.seg(r));
            bits |= if free(SegReg::FS) { Self::FS } else { 0 };
            bits |= if free(SegReg::GS) { Self::GS } else { 0 };
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
    /// Whether accesses through the segment register need no check.
    pub(crate) fn is_free(self, segment: u8) -> bool {
        let segments = match segment {
            0 | 2 | 3 => return true,
            4 => Self::FS,
            5 => Self::GS,
            _ => return self.is_long(),
        };
        self.is_long() || self.0 & segments != 0
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
