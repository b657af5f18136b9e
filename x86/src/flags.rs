//! RFLAGS (SDM vol. 1, section 3.4.3).

/// Carry.
pub const CF: u64 = 1 << 0;
/// Always one.
pub const FIXED_ONE: u64 = 1 << 1;
/// Parity of the low byte of the result (set when even).
pub const PF: u64 = 1 << 2;
/// Auxiliary carry, out of bit 3.
pub const AF: u64 = 1 << 4;
/// Zero.
pub const ZF: u64 = 1 << 6;
/// Sign.
pub const SF: u64 = 1 << 7;
/// Trap: single-step.
pub const TF: u64 = 1 << 8;
/// Maskable interrupts enabled.
pub const IF: u64 = 1 << 9;
/// Direction of string instructions.
pub const DF: u64 = 1 << 10;
/// Overflow.
pub const OF: u64 = 1 << 11;
/// I/O privilege level, two bits.
pub const IOPL: u64 = 3 << 12;
/// Shift of [`IOPL`].
pub const IOPL_SHIFT: u32 = 12;
/// Nested task.
pub const NT: u64 = 1 << 14;
/// Resume: suppresses instruction breakpoints for one instruction.
pub const RF: u64 = 1 << 16;
/// Virtual-8086 mode.
pub const VM: u64 = 1 << 17;
/// Alignment check, or SMAP override at CPL 0 to 2.
pub const AC: u64 = 1 << 18;
/// Virtual interrupt flag.
pub const VIF: u64 = 1 << 19;
/// Virtual interrupt pending.
pub const VIP: u64 = 1 << 20;
/// CPUID is available when software can toggle this.
pub const ID: u64 = 1 << 21;

/// The six arithmetic status flags.
pub const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;
/// Every bit that exists in RFLAGS (bit 1 excepted, which is always set).
pub const ALL: u64 = ARITHMETIC | TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;
