//! Operating modes (SDM vol. 3A, section 2.2).

/// What the CPU executes as, derived from CR0.PE, EFER.LMA, RFLAGS.VM and CS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Real-address mode.
    Real,
    /// Virtual-8086 mode.
    Virtual8086,
    /// Protected mode without long mode.
    Protected,
    /// Compatibility mode: a 16- or 32-bit code segment while EFER.LMA is set.
    Compatibility,
    /// 64-bit mode.
    Long,
}

/// Everything the decoding and the translation of a block depend on besides its bytes.
///
/// Bits 0 to 1: code size (0 is 16, 1 is 32, 2 is 64 bits). Bit 2: 32-bit stack pointer.
/// Bits 3 to 4: CPL. Bit 5: protected or long mode (not real, not V86). Bit 6: V86.
/// Bit 7: flat segments (CS, DS, ES, SS with base 0 and limit 4 GiB, or 64-bit mode).
/// Bit 8: SMAP suspended by RFLAGS.AC. Bit 9: paging.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct ModeKey(pub u16);

impl ModeKey {
    /// Bit 2.
    pub const STACK32: u16 = 1 << 2;
    /// Shift of the CPL.
    pub const CPL_SHIFT: u16 = 3;
    /// Bit 5.
    pub const PROTECTED: u16 = 1 << 5;
    /// Bit 6.
    pub const V86: u16 = 1 << 6;
    /// Bit 7.
    pub const FLAT: u16 = 1 << 7;
    /// Bit 8.
    pub const SMAP_OFF: u16 = 1 << 8;
    /// Bit 9.
    pub const PAGING: u16 = 1 << 9;

    /// Code size in bits: 16, 32 or 64.
    pub const fn bits(self) -> u32 {
        16 << (self.0 & 3)
    }
    /// Current privilege level.
    pub const fn cpl(self) -> u8 {
        (self.0 >> Self::CPL_SHIFT) as u8 & 3
    }
    /// Whether code runs in 64-bit mode.
    pub const fn is_long(self) -> bool {
        self.0 & 3 == 2
    }
}
