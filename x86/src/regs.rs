//! Register numbers, as the hardware encodes them (SDM vol. 2A, table 2-2 and 3-1).

/// General-purpose register numbers, indices into [`crate::Cpu::gpr`].
pub mod gpr {
    /// RAX, EAX, AX, AL.
    pub const RAX: usize = 0;
    /// RCX, ECX, CX, CL.
    pub const RCX: usize = 1;
    /// RDX, EDX, DX, DL.
    pub const RDX: usize = 2;
    /// RBX, EBX, BX, BL.
    pub const RBX: usize = 3;
    /// RSP, ESP, SP, SPL.
    pub const RSP: usize = 4;
    /// RBP, EBP, BP, BPL.
    pub const RBP: usize = 5;
    /// RSI, ESI, SI, SIL.
    pub const RSI: usize = 6;
    /// RDI, EDI, DI, DIL.
    pub const RDI: usize = 7;
}

/// First number of the high-byte registers AH, CH, DH, BH in an 8-bit register operand:
/// 16 is AH, 17 CH, 18 DH, 19 BH. Numbers 0 to 15 are the low bytes.
pub const HIGH_BYTE: u8 = 16;
