//! Exceptions as data (SDM vol. 3A, chapter 6).

use std::fmt;

/// Exception vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Vector {
    /// Divide error.
    DE = 0,
    /// Debug.
    DB = 1,
    /// Non-maskable interrupt.
    NMI = 2,
    /// Breakpoint (INT3).
    BP = 3,
    /// Overflow (INTO).
    OF = 4,
    /// BOUND range exceeded.
    BR = 5,
    /// Invalid opcode.
    UD = 6,
    /// Device not available.
    NM = 7,
    /// Double fault.
    DF = 8,
    /// Invalid TSS.
    TS = 10,
    /// Segment not present.
    NP = 11,
    /// Stack-segment fault.
    SS = 12,
    /// General protection.
    GP = 13,
    /// Page fault.
    PF = 14,
    /// x87 floating-point error.
    MF = 16,
    /// Alignment check.
    AC = 17,
    /// Machine check.
    MC = 18,
    /// SIMD floating-point exception.
    XM = 19,
}

/// A guest exception on its way to delivery.
///
/// It is a packed word, so that `Result<u64, Fault>` travels in two registers: bits 0 to 7
/// hold the vector, bit 8 says that an error code is pushed, bit 9 that RIP shall be left
/// behind the instruction (a trap), bit 10 that it is [`Fault::WAIT`], bits 32 to 63 hold the error code. The address of a page
/// fault stays in the MMU (`Mmu::fault_address`) until delivery writes CR2.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Fault(u64);

const HAS_ERROR: u64 = 1 << 8;
const TRAP: u64 = 1 << 9;
const WAITS: u64 = 1 << 10;

/// Page-fault error code bits (SDM vol. 3A, figure 4-12).
pub mod pf {
    /// The page was present: a protection violation.
    pub const PRESENT: u32 = 1 << 0;
    /// The access was a write.
    pub const WRITE: u32 = 1 << 1;
    /// The access was made in user mode.
    pub const USER: u32 = 1 << 2;
    /// A reserved bit was set in a paging-structure entry.
    pub const RESERVED: u32 = 1 << 3;
    /// The access was an instruction fetch.
    pub const FETCH: u32 = 1 << 4;
    /// A protection key forbade the access.
    pub const PROTECTION_KEY: u32 = 1 << 5;
}

impl Fault {
    /// A fault without an error code.
    pub const fn new(vector: Vector) -> Fault {
        Fault(vector as u64)
    }

    /// A fault that pushes `code`.
    pub const fn with_code(vector: Vector, code: u32) -> Fault {
        Fault(vector as u64 | HAS_ERROR | (code as u64) << 32)
    }

    /// A trap: RIP is left behind the instruction that caused it.
    pub const fn trap(vector: Vector) -> Fault {
        Fault(vector as u64 | TRAP)
    }

    /// Not an exception: the instruction does not begin yet, because it waits for an interrupt (an
    /// x87 error that goes out by FERR#). The engine tries it again.
    pub const WAIT: Fault = Fault(WAITS);

    /// #DE.
    pub const DE: Fault = Fault::new(Vector::DE);
    /// #UD.
    pub const UD: Fault = Fault::new(Vector::UD);
    /// #NM.
    pub const NM: Fault = Fault::new(Vector::NM);
    /// #MF.
    pub const MF: Fault = Fault::new(Vector::MF);
    /// #XM.
    pub const XM: Fault = Fault::new(Vector::XM);
    /// #BR.
    pub const BR: Fault = Fault::new(Vector::BR);
    /// #GP(0).
    pub const GP0: Fault = Fault::gp(0);
    /// #SS(0).
    pub const SS0: Fault = Fault::ss(0);
    /// #AC(0).
    pub const AC0: Fault = Fault::with_code(Vector::AC, 0);

    /// #GP with a selector-shaped error code.
    pub const fn gp(code: u16) -> Fault {
        Fault::with_code(Vector::GP, code as u32)
    }
    /// #SS with a selector-shaped error code.
    pub const fn ss(code: u16) -> Fault {
        Fault::with_code(Vector::SS, code as u32)
    }
    /// #NP with a selector-shaped error code.
    pub const fn np(code: u16) -> Fault {
        Fault::with_code(Vector::NP, code as u32)
    }
    /// #TS with a selector-shaped error code.
    pub const fn ts(code: u16) -> Fault {
        Fault::with_code(Vector::TS, code as u32)
    }
    /// #PF with the bits of [`pf`]; the address is in `Mmu::fault_address`.
    pub const fn page(code: u32) -> Fault {
        Fault::with_code(Vector::PF, code)
    }

    /// The vector number, 0 to 31.
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }
    /// The error code, where the vector pushes one.
    pub const fn error_code(self) -> Option<u32> {
        if self.0 & HAS_ERROR != 0 { Some((self.0 >> 32) as u32) } else { None }
    }
    /// Whether RIP stays behind the instruction.
    pub const fn is_trap(self) -> bool {
        self.0 & TRAP != 0
    }
    /// Whether this is the given exception.
    pub fn is(self, vector: Vector) -> bool {
        self.vector() == vector as u8
    }
    /// The packed word, for passing through translated code.
    pub const fn to_bits(self) -> u64 {
        self.0
    }
    /// The inverse of [`Fault::to_bits`].
    pub const fn from_bits(bits: u64) -> Fault {
        Fault(bits)
    }
}

/// The mnemonic of an exception vector, such as `#GP`.
pub fn vector_name(vector: u8) -> &'static str {
    match vector {
        0 => "#DE",
        1 => "#DB",
        2 => "NMI",
        3 => "#BP",
        4 => "#OF",
        5 => "#BR",
        6 => "#UD",
        7 => "#NM",
        8 => "#DF",
        10 => "#TS",
        11 => "#NP",
        12 => "#SS",
        13 => "#GP",
        14 => "#PF",
        16 => "#MF",
        17 => "#AC",
        18 => "#MC",
        19 => "#XM",
        _ => "interrupt",
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(vector_name(self.vector()))?;
        match self.error_code() {
            Some(code) => write!(f, "({code:#x})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
