//! What counts as a difference, and the documented facts by which something does not.

use super::layout::{MEMORY, PAGE, address_of};
use super::state::{Case, Outcome, State, legacy};
use iced_x86::{Instruction, Mnemonic, RflagsBits};
use std::fmt;
use std::sync::OnceLock;
use x86::fault::vector_name;
use x86::{Vector, flags};

/// Flags that are compared: RF is set or not by the way of delivery, and IF, IOPL, VM, VIF and VIP
/// are the kernel's.
const FLAGS: u64 = flags::ARITHMETIC | flags::TF | flags::DF | flags::NT | flags::AC | flags::ID;

/// First linear address that no user program has (48-bit addresses).
const USER_END: u64 = 0x7FFF_FFFF_F000;

/// A documented fact by which a difference is none.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    /// Its name.
    pub name: &'static str,
    /// What it leaves out, and who says so.
    pub source: &'static str,
}

/// Every fact that the comparison uses.
pub const MASKS: &[Mask] = &[
    Mask {
        name: "undefined-flags",
        source: "Flags that the SDM calls undefined after an instruction: the table of iced-x86 \
                 (rflags_undefined), taken from SDM vol. 2.",
    },
    Mask {
        name: "resume-flag",
        source: "RFLAGS.RF in the image that a fault pushes: SDM vol. 3B, section 18.3.1.1; Linux \
                 and the CPU set it, and nothing reads it back.",
    },
    Mask {
        name: "kernel-half",
        source: "Bit 0 (P) of the page-fault error code for addresses of the kernel's half: Linux \
                 always sets it in what user code sees (arch/x86/mm/fault.c, \
                 set_signal_archinfo), so that nobody can probe the kernel's mappings.",
    },
    Mask {
        name: "upper-halves",
        source: "Bits 32 to 63 of registers in 16- and 32-bit code: undefined after a change to \
                 64-bit mode (SDM vol. 1, section 3.4.1.1).",
    },
    Mask {
        name: "x87-pointers",
        source: "FOP, FIP and FDP while no unmasked x87 exception is pending, on AMD processors: \
                 they save and restore the pointers only when FSW.ES is set (AMD APM vol. 2, \
                 section 11.4.4; vol. 5, FXSAVE), so that no signal frame holds them.",
    },
    Mask {
        name: "x87-selectors",
        source: "FCS and FDS: deprecated, and not in the 64-bit form that Linux saves (SDM vol. \
                 1, section 8.1.8).",
    },
];

/// What differs between the host and an engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The part of the state: a register, a flag group, memory.
    pub what: String,
    /// The host's.
    pub host: String,
    /// The engine's.
    pub ours: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: host {}, ours {}", self.what, self.host, self.ours)
    }
}

/// How an instruction ended, apart from registers and memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It completed; execution went on, or a trap followed.
    Completed,
    /// It faulted.
    Fault {
        /// Vector.
        vector: u8,
        /// Error code.
        error: u32,
        /// Address of a page fault.
        address: u64,
    },
}

/// The ending of an outcome. What happens behind the instruction (INT3 there, or no page) is not
/// an ending of its own: RIP tells how far it came.
pub fn ending(case: &Case, outcome: &Outcome) -> (Ending, u64) {
    let start = case.state.rip;
    let width = if case.bits == 64 { u64::MAX } else { 0xFFFF_FFFF };
    let next = start.wrapping_add(case.len as u64) & width;
    let rip = outcome.state.rip;
    let is = |v: Vector| outcome.vector == v as u8;
    if is(Vector::BP) && rip == next.wrapping_add(1) & width {
        return (Ending::Completed, next);
    }
    if is(Vector::DB) && (rip != start || case.state.rflags & flags::TF != 0) {
        return (Ending::Completed, rip);
    }
    // Behind the last code page there is nothing to fetch.
    let behind = outcome.address & !(PAGE as u64 - 1) == outcome.address;
    if is(Vector::PF) && rip == next && rip != start && outcome.error & 0x10 != 0 && behind {
        return (Ending::Completed, next);
    }
    let mut error = outcome.error;
    let mut address = 0;
    if is(Vector::PF) {
        address = outcome.address;
        if address >= USER_END {
            error &= !1;
        }
    }
    (Ending::Fault { vector: outcome.vector, error, address }, rip)
}

/// The differences between the host's outcome and an engine's.
pub fn differences(case: &Case, host: &Outcome, ours: &Outcome) -> Vec<Difference> {
    let mut found = Vec::new();
    let insn = case.instruction();
    let (host_end, host_rip) = ending(case, host);
    let (our_end, our_rip) = ending(case, ours);
    if host_end != our_end {
        let name = |end: Ending| match end {
            Ending::Completed => "completed".to_owned(),
            Ending::Fault { vector, error, address } if vector == Vector::PF as u8 => {
                format!("#PF({error:#x}) at {address:#x}")
            }
            Ending::Fault { vector, error, .. } => format!("{}({error:#x})", vector_name(vector)),
        };
        found.push(difference("ending", name(host_end), name(our_end)));
    }
    let mut number = |what: &str, host: u64, ours: u64| {
        if host != ours {
            found.push(difference(what, format!("{host:#x}"), format!("{ours:#x}")));
        }
    };
    number("RIP", host_rip, our_rip);
    let completed = host_end == Ending::Completed;
    let (a, b) = (&host.state, &ours.state);
    for (i, (&x, &y)) in a.gpr.iter().zip(&b.gpr).enumerate() {
        let mask = if case.bits == 64 || i >= 8 { u64::MAX } else { 0xFFFF_FFFF };
        number(GPR_NAMES[i], x & mask, y & mask);
    }
    let flags = FLAGS & !if completed { undefined_flags(&insn) } else { 0 };
    number("RFLAGS", a.rflags & flags, b.rflags & flags);
    for (i, name) in ["ES", "CS", "SS", "DS", "FS", "GS"].iter().enumerate() {
        number(name, a.selectors[i].into(), b.selectors[i].into());
    }
    number("FS base", a.fs_base, b.fs_base);
    number("GS base", a.gs_base, b.gs_base);
    number("MXCSR", a.dword(legacy::MXCSR).into(), b.dword(legacy::MXCSR).into());
    compare_x87(case, a, b, &mut number);
    for i in 0..16 {
        let at = legacy::XMM + 16 * i;
        let ymm = |s: &State| (s.qword(at), s.qword(at + 8), s.ymm_high[i]);
        if ymm(a) != ymm(b) {
            found.push(difference(&format!("YMM{i}"), vector(a, i), vector(b, i)));
        }
    }
    compare_memory(&host.memory, &ours.memory, &mut found);
    found
}

fn compare_x87(case: &Case, a: &State, b: &State, number: &mut impl FnMut(&str, u64, u64)) {
    number("FCW", a.word(legacy::FCW).into(), b.word(legacy::FCW).into());
    number("FSW", a.word(legacy::FSW).into(), b.word(legacy::FSW).into());
    number("FTW", a.legacy[legacy::FTW].into(), b.legacy[legacy::FTW].into());
    let pending = (a.word(legacy::FSW) & b.word(legacy::FSW)) & 0x80 != 0;
    if is_amd() && !pending {
        return compare_stack(a, b, number);
    }
    number("FOP", (a.word(legacy::FOP) & 0x7FF).into(), (b.word(legacy::FOP) & 0x7FF).into());
    let mask = if case.bits == 64 { u64::MAX } else { 0xFFFF_FFFF };
    number("FIP", a.qword(legacy::FIP) & mask, b.qword(legacy::FIP) & mask);
    number("FDP", a.qword(legacy::FDP) & mask, b.qword(legacy::FDP) & mask);
    compare_stack(a, b, number);
}

fn compare_stack(a: &State, b: &State, number: &mut impl FnMut(&str, u64, u64)) {
    for i in 0..8 {
        let at = legacy::ST + 16 * i;
        number(&format!("ST({i}) significand"), a.qword(at), b.qword(at));
        number(&format!("ST({i}) exponent"), a.word(at + 8).into(), b.word(at + 8).into());
    }
}

/// Whether the host is an AMD or Hygon processor.
fn is_amd() -> bool {
    static AMD: OnceLock<bool> = OnceLock::new();
    *AMD.get_or_init(|| x86::cpuid::Policy::host(1).is_amd())
}

fn compare_memory(a: &[u8; MEMORY], b: &[u8; MEMORY], found: &mut Vec<Difference>) {
    if a == b {
        return;
    }
    let Some(first) = (0..MEMORY).find(|&i| a[i] != b[i]) else { return };
    let last = (0..MEMORY).rfind(|&i| a[i] != b[i]).unwrap_or(first);
    let count = (first..=last).filter(|&i| a[i] != b[i]).count();
    let end = (first + 16).min(MEMORY);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    found.push(Difference {
        what: format!("memory at {:#x} ({count} bytes differ)", address_of(first)),
        host: hex(&a[first..end]),
        ours: hex(&b[first..end]),
    });
}

fn difference(what: &str, host: String, ours: String) -> Difference {
    Difference { what: what.to_owned(), host, ours }
}

fn vector(s: &State, i: usize) -> String {
    let at = legacy::XMM + 16 * i;
    let high = u128::from_le_bytes(s.ymm_high[i]);
    format!("{high:032x}_{:016x}{:016x}", s.qword(at + 8), s.qword(at))
}

/// Names of the general-purpose registers by hardware number.
pub const GPR_NAMES: [&str; 16] = [
    "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13",
    "R14", "R15",
];

/// Flags that are undefined after an instruction.
pub fn undefined_flags(insn: &Instruction) -> u64 {
    let bits = insn.rflags_undefined();
    let mut mask = [
        (RflagsBits::OF, flags::OF),
        (RflagsBits::SF, flags::SF),
        (RflagsBits::ZF, flags::ZF),
        (RflagsBits::AF, flags::AF),
        (RflagsBits::CF, flags::CF),
        (RflagsBits::PF, flags::PF),
    ]
    .iter()
    .filter(|(iced, _)| bits & iced != 0)
    .fold(0, |mask, (_, flag)| mask | flag);
    if matches!(insn.mnemonic(), Mnemonic::Bsf | Mnemonic::Bsr) {
        mask |= flags::ARITHMETIC & !flags::ZF;
    }
    mask
}
