//! x87, MMX and vector register state (SDM vol. 1, chapters 8 to 15).

/// One vector register: XMM in the low 16 bytes, YMM in the low 32, ZMM in all 64.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(64))]
pub struct VectorReg(pub [u64; 8]);

/// The x87 state as the legacy region and header of an XSAVE area (SDM vol. 1, section 13.4), so
/// that the host's XRSTOR and XSAVE with only bit 0 of the requested-feature bitmap load and store
/// it. The XMM part of the region is not used: vector registers are in [`crate::Cpu::vector`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub struct X87 {
    /// Control word.
    pub fcw: u16,
    /// Status word.
    pub fsw: u16,
    /// Abridged tag word: one bit for each physical register, set when not empty.
    pub ftw: u8,
    #[doc(hidden)]
    pub _reserved0: u8,
    /// Last opcode, 11 bits.
    pub fop: u16,
    /// Last instruction pointer (64-bit form, or offset and selector).
    pub fip: u64,
    /// Last data pointer (64-bit form, or offset and selector).
    pub fdp: u64,
    /// Not used: the guest's MXCSR is [`crate::Cpu::mxcsr`].
    pub mxcsr: u32,
    #[doc(hidden)]
    pub mxcsr_mask: u32,
    /// ST(0) to ST(7), 80 bits each in 16 bytes; MM0 to MM7 alias the low 64 bits by physical
    /// number.
    pub st: [[u8; 16]; 8],
    #[doc(hidden)]
    pub _unused: [u8; 352],
    /// XSTATE_BV of the header: bit 0 always set.
    pub xstate_bv: u64,
    #[doc(hidden)]
    pub _header: [u64; 7],
}

impl X87 {
    /// State after FNINIT or INIT (SDM vol. 3A, table 9-1).
    pub const INIT: X87 = X87 {
        fcw: 0x37F,
        fsw: 0,
        ftw: 0,
        _reserved0: 0,
        fop: 0,
        fip: 0,
        fdp: 0,
        mxcsr: MXCSR_INIT,
        mxcsr_mask: 0,
        st: [[0; 16]; 8],
        _unused: [0; 352],
        xstate_bv: 1,
        _header: [0; 7],
    };

    /// Top of stack, 0 to 7.
    pub const fn top(&self) -> u8 {
        (self.fsw >> 11) as u8 & 7
    }

    /// Whether an unmasked exception is pending (the ES bit), which the next waiting x87
    /// instruction reports as #MF.
    pub const fn error_pending(&self) -> bool {
        self.fsw & 0x80 != 0
    }
}

/// MXCSR after reset.
pub const MXCSR_INIT: u32 = 0x1F80;
/// MXCSR bits that exist (DAZ included).
pub const MXCSR_MASK: u32 = 0xFFFF;
