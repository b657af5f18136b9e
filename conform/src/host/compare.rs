//! What counts as a difference, and the documented facts by which something does not.

use super::layout::{MEMORY, PAGE, address_of};
use super::segments::CODE64;
use super::state::{Case, Outcome, State, legacy};
use iced_x86::{Instruction, MemorySize, Mnemonic, Register, RflagsBits};
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
        name: "null-selectors",
        source: "Selectors 0 to 3 in a segment register: all are null (SDM vol. 3A, section \
                 3.4.2), and the return to the signal handler makes them 0 on some processors \
                 (SDM vol. 3A, section 5.8.6.1; AMD APM vol. 3, IRET).",
    },
    Mask {
        name: "fault-order",
        source: "Which of several faults is reported, where an instruction has several: the two \
                 operands of CMPS and MOVS, the accesses of far transfers, far \
                 pointers, x87 environments and ENTER, and #GP by misalignment against \
                 #SS by a bad address of a vector, a pending #MF and the fault of an operand. The order of the accesses of one \
                 instruction is not defined (SDM vol. 3A, section 6.9 orders kinds of faults).",
    },
    Mask {
        name: "undefined-fetch",
        source: "#UD against a page fault of the fetch, for an undefined instruction that runs \
                 into a missing page: how much of it is fetched before it is known to be \
                 undefined is left to the processor (SDM vol. 3A, section 6.9, table 6-2).",
    },
    Mask {
        name: "alignment-order",
        source: "#AC against #PF or #GP for operands that are no power of two or larger than 16 \
                 bytes (x87 environments, FXSAVE, XSAVE, 256-bit vectors): whether and how their \
                 alignment is checked is left to the processor (SDM vol. 2, FXSAVE, MOVUPS).",
    },
    Mask {
        name: "gather-progress",
        source: "Destination and mask of a gather that faults: elements may have completed or \
                 not, in any order (SDM vol. 2C, VPGATHERDD).",
    },
    Mask {
        name: "partial-frame",
        source: "Memory below the stack pointer after a CALL or ENTER that faulted: the frame \
                 may have been written in part, and ENTER may probe the stack's new end (SDM vol. \
                 2A, ENTER; memory below the stack pointer is nobody's).",
    },
    Mask {
        name: "partial-pop",
        source: "Registers other than ESP after a POPA that faulted: some may have been loaded \
                 already, which a restart loads again (observed on Zen 3; SDM vol. 2B, POPA, is \
                 silent).",
    },
    Mask {
        name: "empty-masked-store",
        source: "Faults of MASKMOVQ and MASKMOVDQU for bytes that the mask leaves out: \
                 implementation-dependent (SDM vol. 2B, MASKMOVDQU).",
    },
    Mask {
        name: "xrstor-extent",
        source: "Page faults of XRSTOR in components that it initializes rather than loads: the \
                 processor may access the whole area (SDM vol. 1, section 13.8).",
    },
    Mask {
        name: "mxcsr-mask",
        source: "MXCSR_MASK in the images of FXSAVE and XSAVE: AMD processors have bit 17, which \
                 guests are not offered (AMD APM vol. 2, section 11.3.3).",
    },
    Mask {
        name: "reserved-prefix",
        source: "Whether LOOPE and LOOPNE with a repeat prefix branch: a reserved use (SDM vol. \
                 2A, section 2.1.1); AMD's take the condition from the prefix.",
    },
    Mask {
        name: "fault-address-in-page",
        source: "The address of a page fault of an operand of more than 8 bytes, or of a masked \
                 store: which of its bytes is accessed first is not defined (SDM vol. 3A, section 4.7 \
                 promises an address that the access used).",
    },
    Mask {
        name: "canonical-offset",
        source: "#GP against a page fault, for an operand with FS or GS whose offset is not \
                 canonical but whose linear address is, on AMD processors: observed on Zen 3; the \
                 AMD APM (vol. 2, section 5.3.1) speaks of the linear address only.",
    },
    Mask {
        name: "x87-pointers",
        source: "FOP, FIP and FDP while no unmasked x87 exception is pending, on AMD processors: \
                 they save and restore the pointers only when FSW.ES is set (AMD APM vol. 2, \
                 section 11.4.4; vol. 5, FXSAVE), so that no signal frame holds them. Nor are \
                 they compared in the images that FNSTENV, FNSAVE, FXSAVE and XSAVE write.",
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

/// Whether two faults differ only in what is not defined.
fn same_fault(insn: &Instruction, host: Ending, ours: Ending) -> bool {
    let (
        Ending::Fault { vector: a, error: e, address: x },
        Ending::Fault { vector: b, error: f, address: y },
    ) = (host, ours)
    else {
        return false;
    };
    let faults = [Vector::PF as u8, Vector::GP as u8, Vector::SS as u8, Vector::AC as u8];
    let compares = insn.op_kind(0) != iced_x86::OpKind::Register
        && matches!(
            insn.mnemonic(),
            Mnemonic::Cmpsb
                | Mnemonic::Cmpsw
                | Mnemonic::Cmpsd
                | Mnemonic::Cmpsq
                | Mnemonic::Movsb
                | Mnemonic::Movsw
                | Mnemonic::Movsd
                | Mnemonic::Movsq
        );
    if compares && faults.contains(&a) && faults.contains(&b) {
        return true;
    }
    if has_several_accesses(insn) && faults.contains(&a) && faults.contains(&b) {
        return true;
    }
    let aligned = insn.memory_size().size() >= 16 || insn.memory_size().size() == 0;
    let addressing = [Vector::GP as u8, Vector::SS as u8];
    if aligned && addressing.contains(&a) && addressing.contains(&b) {
        return true;
    }
    let pending = Vector::MF as u8;
    if (a == pending || b == pending) && (faults.contains(&a) || faults.contains(&b)) {
        return true;
    }
    let undefined =
        |v, other, error| v == Vector::UD as u8 && other == Vector::PF as u8 && error & FETCH != 0;
    if undefined(a, b, f) || undefined(b, a, e) {
        return true;
    }
    let page = !(PAGE as u64 - 1);
    let size = insn.memory_size().size();
    let masked = matches!(
        insn.mnemonic(),
        Mnemonic::Maskmovq | Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu
    );
    let large = size > 8 || size == 0 || masked;
    let alignment = Vector::AC as u8;
    let involves_alignment = a == alignment || b == alignment;
    let in_pieces = matches!(
        insn.memory_size(),
        MemorySize::FpuEnv14
            | MemorySize::FpuEnv28
            | MemorySize::FpuState94
            | MemorySize::FpuState108
    );
    if size != 16 && large && involves_alignment || in_pieces {
        return faults.contains(&a) && faults.contains(&b);
    }
    if is_amd() && a == Vector::GP as u8 && b == Vector::PF as u8 && overrides_base(insn) {
        return true;
    }
    if insn.is_vsib() && faults.contains(&a) && faults.contains(&b) {
        return true;
    }
    // One of the two pages that the operand is in.
    let near = x.abs_diff(y) <= PAGE as u64;
    large && a == Vector::PF as u8 && b == a && (near || x & page == y & page)
}

fn overrides_base(insn: &Instruction) -> bool {
    matches!(insn.memory_segment(), Register::FS | Register::GS)
}

/// Page-fault error code: an instruction fetch.
const FETCH: u32 = x86::fault::pf::FETCH;

/// Whether one of the two faulted in a way that the manuals leave open, and the other did not.
fn optional_fault(insn: &Instruction, host: Ending, ours: Ending) -> bool {
    match insn.mnemonic() {
        Mnemonic::Maskmovq | Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu => {
            matches!(
                (host, ours),
                (Ending::Fault { .. }, Ending::Completed)
                    | (Ending::Completed, Ending::Fault { .. })
            )
        }
        Mnemonic::Enter => {
            let alignment =
                |end| matches!(end, Ending::Fault { vector, .. } if vector == Vector::AC as u8);
            alignment(host) && ours == Ending::Completed
        }
        Mnemonic::Xrstor | Mnemonic::Xrstor64 => {
            let page_fault =
                |end| matches!(end, Ending::Fault { vector, .. } if vector == Vector::PF as u8);
            page_fault(host) && !page_fault(ours)
        }
        _ => false,
    }
}

fn has_several_accesses(insn: &Instruction) -> bool {
    insn.is_jmp_far_indirect()
        || insn.is_call_far_indirect()
        || insn.is_jmp_far()
        || insn.is_call_far()
        || matches!(
            insn.mnemonic(),
            Mnemonic::Retf
                | Mnemonic::Iret
                | Mnemonic::Iretd
                | Mnemonic::Iretq
                | Mnemonic::Enter
                | Mnemonic::Call
                | Mnemonic::Maskmovdqu
                | Mnemonic::Vmaskmovdqu
                | Mnemonic::Maskmovq
                | Mnemonic::Lds
                | Mnemonic::Les
                | Mnemonic::Lfs
                | Mnemonic::Lgs
                | Mnemonic::Lss
        )
}

/// Whether LOOPE or LOOPNE has a repeat prefix.
fn has_reserved_prefix(case: &Case, insn: &Instruction) -> bool {
    insn.is_loopcc() && case.bytes().iter().any(|b| matches!(b, 0xF2 | 0xF3))
}

/// The differences between the host's outcome and an engine's.
pub fn differences(case: &Case, host: &Outcome, ours: &Outcome) -> Vec<Difference> {
    let mut found = Vec::new();
    let insn = case.instruction();
    let (host_end, host_rip) = ending(case, host);
    let (our_end, our_rip) = ending(case, ours);
    if optional_fault(&insn, host_end, our_end) || has_reserved_prefix(case, &insn) {
        return found;
    }
    if host_end != our_end && !same_fault(&insn, host_end, our_end) {
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
    let pops_all = matches!(insn.mnemonic(), Mnemonic::Popa | Mnemonic::Popad);
    let (a, b) = (&host.state, &ours.state);
    for (i, (&x, &y)) in a.gpr.iter().zip(&b.gpr).enumerate() {
        let long = case.bits == 64 && a.selectors[1] == CODE64;
        let mask = if long || i >= 8 { u64::MAX } else { 0xFFFF_FFFF };
        if !completed && pops_all && i < 8 && i != 4 {
            continue;
        }
        number(GPR_NAMES[i], x & mask, y & mask);
    }
    let flags = FLAGS & !if completed { undefined_flags(&insn) } else { 0 };
    number("RFLAGS", a.rflags & flags, b.rflags & flags);
    for (i, name) in ["ES", "CS", "SS", "DS", "FS", "GS"].iter().enumerate() {
        number(name, null_is_zero(a.selectors[i]), null_is_zero(b.selectors[i]));
    }
    number("FS base", a.fs_base, b.fs_base);
    number("GS base", a.gs_base, b.gs_base);
    number("MXCSR", a.dword(legacy::MXCSR).into(), b.dword(legacy::MXCSR).into());
    compare_x87(case, a, b, &mut number);
    for i in 0..16 {
        let at = legacy::XMM + 16 * i;
        let partial = insn.is_vsib() && !completed;
        let gathers = |op| insn.op_register(op).full_register().number() == i;
        if partial && (gathers(0) || gathers(2)) {
            continue;
        }
        let ymm = |s: &State| (s.qword(at), s.qword(at + 8), s.ymm_high[i]);
        if ymm(a) != ymm(b) {
            found.push(difference(&format!("YMM{i}"), vector(a, i), vector(b, i)));
        }
    }
    if !completed && insn.mnemonic() == Mnemonic::Call {
        // See the mask "partial-frame".
    } else if is_amd() && stores_pointers(&insn) {
        let mut masked = ours.memory.clone();
        mask_pointers(case, &insn, &host.memory, &mut masked);
        compare_memory(&host.memory, &masked, &mut found);
    } else {
        compare_memory(&host.memory, &ours.memory, &mut found);
    }
    found
}

/// A selector; every null selector is 0.
fn null_is_zero(selector: u16) -> u64 {
    if selector < 4 { 0 } else { selector.into() }
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

fn stores_pointers(insn: &Instruction) -> bool {
    matches!(
        insn.mnemonic(),
        Mnemonic::Fnstenv
            | Mnemonic::Fnsave
            | Mnemonic::Fxsave
            | Mnemonic::Fxsave64
            | Mnemonic::Xsave
            | Mnemonic::Xsave64
    )
}

/// Copies the pointers in the image that `insn` writes from the host's memory.
fn mask_pointers(case: &Case, insn: &Instruction, host: &[u8; MEMORY], ours: &mut [u8; MEMORY]) {
    let Some(start) = super::describe::operand_address(case, insn) else { return };
    let range = match (insn.mnemonic(), insn.memory_size()) {
        (Mnemonic::Fnstenv | Mnemonic::Fnsave, MemorySize::FpuEnv14 | MemorySize::FpuState94) => {
            6..14
        }
        (Mnemonic::Fnstenv | Mnemonic::Fnsave, _) => 12..28,
        _ => 6..24,
    };
    let mask_of_mxcsr = if range.start == 6 && range.end == 24 { 28..32 } else { 0..0 };
    for address in range.chain(mask_of_mxcsr).map(|i| start.wrapping_add(i)) {
        if let Some(at) = super::generate::offset_of(address) {
            ours[at] = host[at];
        }
    }
}

/// Whether the host is an AMD or Hygon processor.
pub(super) fn is_amd() -> bool {
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
    let rotates = matches!(insn.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr);
    if rotates && insn.op1_kind() == iced_x86::OpKind::Immediate8 && insn.immediate8() & 31 > 1 {
        // Undefined for every count but one, even where the count is a whole turn.
        mask |= flags::OF;
    }
    if matches!(insn.mnemonic(), Mnemonic::Bsf | Mnemonic::Bsr) {
        mask |= flags::ARITHMETIC & !flags::ZF;
    }
    mask
}
