//! What selectors ask about an instruction when it is decoded.

use decoder::{Insn, OpKind};

/// Width of operand `n` in bytes: of the register or the memory access, else the operand size.
pub(crate) fn width(insn: &Insn, n: usize) -> u8 {
    match insn.op[n].kind {
        OpKind::Gpr8 => 1,
        OpKind::Gpr16 | OpKind::Seg => 2,
        OpKind::Gpr32 => 4,
        OpKind::Gpr64 => 8,
        OpKind::Mem | OpKind::StringSource | OpKind::StringDest => insn.mem.size,
        OpKind::None
        | OpKind::Cr
        | OpKind::Dr
        | OpKind::Mm
        | OpKind::Xmm
        | OpKind::Ymm
        | OpKind::Zmm
        | OpKind::K
        | OpKind::St
        | OpKind::OtherReg
        | OpKind::Imm
        | OpKind::Imm2
        | OpKind::Near
        | OpKind::Far => insn.op_size,
    }
}

/// Whether operand `n` is in memory.
pub(crate) fn is_mem(insn: &Insn, n: usize) -> bool {
    insn.op[n].kind == OpKind::Mem
}

/// Whether operand `n` is an immediate.
pub(crate) fn is_imm(insn: &Insn, n: usize) -> bool {
    insn.op[n].kind == OpKind::Imm
}

/// The instance of a handler for a width in bytes: `by_width!(width, handler, Params)` is
/// `handler::<Params, u8>` to `handler::<Params, u64>`. A width that is no integer's (which the
/// decoder does not give) is #UD.
macro_rules! by_width {
    ($width:expr, $handler:ident $(, $param:ty)*) => {
        match $width {
            1 => $handler::<$($param,)* u8> as $crate::flow::Handler,
            2 => $handler::<$($param,)* u16>,
            4 => $handler::<$($param,)* u32>,
            8 => $handler::<$($param,)* u64>,
            _ => $crate::flow::undefined,
        }
    };
}
pub(crate) use by_width;

/// As [`by_width`], for instructions without a byte form.
macro_rules! by_wide_width {
    ($width:expr, $handler:ident $(, $param:ty)*) => {
        match $width {
            2 => $handler::<$($param,)* u16> as $crate::flow::Handler,
            4 => $handler::<$($param,)* u32>,
            8 => $handler::<$($param,)* u64>,
            _ => $crate::flow::undefined,
        }
    };
}
pub(crate) use by_wide_width;
