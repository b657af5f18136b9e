//! Operands of a decoded instruction.

use iced_x86::Register;

/// Register numbers that are not general-purpose registers, in [`MemOperand`].
pub mod reg {
    /// No register.
    pub const NONE: u8 = 0xFF;
    /// RIP or EIP of the next instruction, as a base.
    pub const RIP: u8 = 0x10;
}

/// What an operand is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[repr(u8)]
pub enum OpKind {
    /// There is no operand here.
    #[default]
    None,
    /// 8-bit register; numbers 16 to 19 are AH, CH, DH, BH.
    Gpr8,
    /// 16-bit register.
    Gpr16,
    /// 32-bit register.
    Gpr32,
    /// 64-bit register.
    Gpr64,
    /// Segment register by hardware number.
    Seg,
    /// Control register.
    Cr,
    /// Debug register.
    Dr,
    /// MMX register.
    Mm,
    /// XMM register.
    Xmm,
    /// YMM register.
    Ymm,
    /// ZMM register.
    Zmm,
    /// Opmask register.
    K,
    /// x87 stack register.
    St,
    /// Any other register file (TMM, BND, TR).
    OtherReg,
    /// The memory operand, [`crate::Insn::mem`].
    Mem,
    /// Memory that string instructions imply: DS:rSI.
    StringSource,
    /// Memory that string instructions imply: ES:rDI.
    StringDest,
    /// Immediate, in [`crate::Insn::imm`].
    Imm,
    /// The second immediate, in [`crate::Insn::imm2`].
    Imm2,
    /// Near branch: [`crate::Insn::imm`] is the displacement from the next instruction.
    Near,
    /// Far pointer: offset in [`crate::Insn::imm`], selector in [`crate::Insn::imm2`].
    Far,
}

/// One operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Operand {
    /// What it is.
    pub kind: OpKind,
    /// Register number within its file, for register kinds.
    pub reg: u8,
}

impl Operand {
    /// Whether the operand is a general-purpose register.
    pub fn is_gpr(self) -> bool {
        matches!(self.kind, OpKind::Gpr8 | OpKind::Gpr16 | OpKind::Gpr32 | OpKind::Gpr64)
    }

    pub(crate) fn from_register(r: Register) -> Operand {
        let n = |base: Register| (r as u8).wrapping_sub(base as u8);
        let (kind, reg) = if r.is_gpr8() {
            // iced's order: AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8L...
            let reg = match n(Register::AL) {
                k @ 0..=3 => k,
                k @ 4..=7 => k + 12,
                k => k - 4,
            };
            (OpKind::Gpr8, reg)
        } else if r.is_gpr16() {
            (OpKind::Gpr16, n(Register::AX))
        } else if r.is_gpr32() {
            (OpKind::Gpr32, n(Register::EAX))
        } else if r.is_gpr64() {
            (OpKind::Gpr64, n(Register::RAX))
        } else if r.is_segment_register() {
            (OpKind::Seg, n(Register::ES))
        } else if r.is_xmm() {
            (OpKind::Xmm, n(Register::XMM0))
        } else if r.is_ymm() {
            (OpKind::Ymm, n(Register::YMM0))
        } else if r.is_zmm() {
            (OpKind::Zmm, n(Register::ZMM0))
        } else if r.is_mm() {
            (OpKind::Mm, n(Register::MM0))
        } else if r.is_st() {
            (OpKind::St, n(Register::ST0))
        } else if r.is_k() {
            (OpKind::K, n(Register::K0))
        } else if r.is_cr() {
            (OpKind::Cr, n(Register::CR0))
        } else if r.is_dr() {
            (OpKind::Dr, n(Register::DR0))
        } else {
            (OpKind::OtherReg, 0)
        };
        Operand { kind, reg }
    }
}

/// The memory operand: `seg:[base + index << shift + disp]`, truncated to the address size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct MemOperand {
    /// Displacement, sign-extended; relative to the next instruction when `base` is
    /// [`reg::RIP`].
    pub disp: u64,
    /// Base register number, [`reg::RIP`] or [`reg::NONE`].
    pub base: u8,
    /// Index register number or [`reg::NONE`]. A vector register number for VSIB.
    pub index: u8,
    /// Shift of the index, 0 to 3.
    pub shift: u8,
    /// Segment register number (defaults and overrides applied).
    pub seg: u8,
    /// Address size in bytes: 2, 4 or 8.
    pub addr_size: u8,
    /// Size of the access in bytes, 0 where there is none or it varies (LEA, INVLPG, XSAVE).
    pub size: u8,
}
