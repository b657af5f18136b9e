//! Where guest registers live while translated code runs.
//!
//! Most sit in the host register of the same name; RSP sits in host R9. R9 to R11, which compilers
//! use least, stay in the context. Host R10 and R11 are scratch; host RSP is a host stack.

use iced_x86::Register;

/// Guest register numbers and the host registers they are pinned to.
pub(crate) const PINNED: [(u8, u8); 13] = [
    (0, 0),
    (1, 1),
    (2, 2),
    (3, 3),
    (5, 5),
    (6, 6),
    (7, 7),
    (8, 8),
    (12, 12),
    (13, 13),
    (14, 14),
    (15, 15),
    (4, STACK),
];

/// Hardware numbers of CS and SS.
pub(crate) const CS: u8 = 1;
pub(crate) const SS: u8 = 2;

/// The host register that holds guest RSP.
pub(crate) const STACK: u8 = 9;

/// The host register that holds guest register `guest`; none for those in the context.
pub(crate) fn host(guest: u8) -> Option<u8> {
    match guest {
        4 => Some(STACK),
        9..=11 => None,
        _ => Some(guest),
    }
}

/// Whether a register is, or is part of, a general-purpose one that lives in the context.
pub(crate) fn is_in_context(register: Register) -> bool {
    register.is_gpr() && host(register.full_register().number() as u8).is_none()
}

/// The 64-bit register of a number.
pub(crate) fn gpr64(number: u8) -> Register {
    Register::RAX + u32::from(number & 15)
}

/// The same part (low byte, word, doubleword, whole) of register `number` as `like` is of its
/// register; none for AH, BH, CH, DH.
pub(crate) fn same_part(like: Register, number: u8) -> Option<Register> {
    let n = u32::from(number & 15);
    Some(if like.is_gpr64() {
        Register::RAX + n
    } else if like.is_gpr32() {
        Register::EAX + n
    } else if like.is_gpr16() {
        Register::AX + n
    } else if is_high_byte(like) || !like.is_gpr8() {
        return None;
    } else {
        // iced's order: AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8L...
        Register::AL + if n < 4 { n } else { n + 4 }
    })
}

/// AH, CH, DH or BH.
pub(crate) fn is_high_byte(r: Register) -> bool {
    matches!(r, Register::AH | Register::CH | Register::DH | Register::BH)
}
