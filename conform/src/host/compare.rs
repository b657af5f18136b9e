//! What counts as a difference.

use super::accesses::Accesses;
use super::faults::{self, Context};
use super::generate::{base_of, offset_of};
use super::layout::{MEMORY, PAGE, address_of};
use super::masks::{Mask, Masks};
use super::segments::CODE64;
use super::state::{Case, Outcome, State, legacy};
use iced_x86::{Instruction, MemorySize, Mnemonic, Register};
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;
use x86::fault::{pf, vector_name};
use x86::regs::gpr::RSP;
use x86::{Vector, flags};

/// Flags that are compared.
const FLAGS: u64 = flags::ALL;

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
    Fault(Taken),
}

/// A fault that was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Vector.
    pub vector: u8,
    /// Error code.
    pub error: u32,
    /// Address of a page fault.
    pub address: u64,
}

impl Taken {
    /// Whether it is one of these exceptions.
    pub(super) fn is(&self, vectors: &[Vector]) -> bool {
        vectors.iter().any(|&vector| self.vector == vector as u8)
    }
}

impl Ending {
    /// Whether nothing was there to be executed.
    pub(super) fn is_fetch(&self) -> bool {
        matches!(self, Ending::Fault(t) if t.is(&[Vector::PF]) && t.error & pf::FETCH != 0)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Completed => f.write_str("completed"),
            Ending::Fault(t) if t.is(&[Vector::PF]) => {
                write!(f, "#PF({:#x}) at {:#x}", t.error, t.address)
            }
            Ending::Fault(t) => write!(f, "{}({:#x})", vector_name(t.vector), t.error),
        }
    }
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
    let address = if is(Vector::PF) { outcome.address } else { 0 };
    (Ending::Fault(Taken { vector: outcome.vector, error: outcome.error, address }), rip)
}

/// What a comparison came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Comparison {
    /// Differences that no mask covers.
    pub found: Vec<Difference>,
    /// The masks without which there would be more.
    pub masks: Masks,
}

/// Compares the host's outcome with an engine's, without the masks in `without`.
pub fn compare(case: &Case, host: &Outcome, ours: &Outcome, without: Masks) -> Comparison {
    let insn = case.instruction();
    let (host_end, host_rip) = ending(case, host);
    let (our_end, our_rip) = ending(case, ours);
    let mut comparer = Comparer {
        case,
        insn,
        completed: host_end == Ending::Completed,
        without,
        result: Comparison::default(),
    };
    if host_end != our_end {
        match comparer.excuse_ending(host, host_end, our_end) {
            Some(mask) => {
                comparer.result.masks.insert(mask);
                // One of them has not done what the other did.
                if host_end == Ending::Completed || our_end == Ending::Completed {
                    return comparer.result;
                }
            }
            None => comparer.report("ending", host_end.to_string(), our_end.to_string()),
        }
    }
    if host_rip != our_rip
        && insn_has_reserved_prefix(case, &insn)
        && comparer.excuse(Mask::ReservedPrefix)
    {
        return comparer.result;
    }
    comparer.number("RIP", host_rip, our_rip);
    comparer.registers(host, &ours.state);
    comparer.x87(&host.state, &ours.state);
    comparer.vectors(&host.state, &ours.state);
    comparer.memory(host, ours);
    comparer.result
}

/// LOOPE, LOOPNE and CLZERO with a repeat prefix.
fn insn_has_reserved_prefix(case: &Case, insn: &Instruction) -> bool {
    let affected = matches!(insn.mnemonic(), Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Clzero);
    affected && case.bytes().iter().any(|b| matches!(b, 0xF2 | 0xF3))
}

/// LSL of the GDT's entry 15, by any privilege level.
fn loads_processor_number(case: &Case, insn: &Instruction, host: &Outcome) -> bool {
    insn.mnemonic() == Mnemonic::Lsl
        && Accesses::new(case, insn, host).inspected_selector().is_some_and(|s| s >> 2 == 15 << 1)
}

struct Comparer<'a> {
    case: &'a Case,
    insn: Instruction,
    completed: bool,
    without: Masks,
    result: Comparison,
}

impl Comparer<'_> {
    fn report(&mut self, what: impl fmt::Display, host: String, ours: String) {
        self.result.found.push(Difference { what: what.to_string(), host, ours });
    }

    fn number(&mut self, what: impl fmt::Display, host: u64, ours: u64) {
        if host != ours {
            self.report(what, format!("{host:#x}"), format!("{ours:#x}"));
        }
    }

    /// [`Comparer::number`], where `mask` makes a difference none.
    fn masked(&mut self, mask: Mask, what: impl fmt::Display, host: u64, ours: u64) {
        if host != ours && !self.excuse(mask) {
            self.number(what, host, ours);
        }
    }

    /// Applies a mask to something that differs. False where it is not to be applied.
    fn excuse(&mut self, mask: Mask) -> bool {
        if self.without.contains(mask) {
            return false;
        }
        self.result.masks.insert(mask);
        true
    }

    fn excuse_ending(&self, host: &Outcome, a: Ending, b: Ending) -> Option<Mask> {
        let context = Context { case: self.case, insn: &self.insn, host };
        let allowed = |mask| !self.without.contains(mask);
        if insn_has_reserved_prefix(self.case, &self.insn) && allowed(Mask::ReservedPrefix) {
            return Some(Mask::ReservedPrefix);
        }
        faults::excuse(&context, a, b).into_iter().find(|&mask| allowed(mask))
    }

    fn registers(&mut self, host: &Outcome, b: &State) {
        let a = &host.state;
        let loads_number = self.completed && loads_processor_number(self.case, &self.insn, host);
        let pops_all = matches!(self.insn.mnemonic(), Mnemonic::Popa | Mnemonic::Popad);
        let long = self.case.bits == 64 && a.selectors[1] == CODE64;
        for (i, (&x, &y)) in a.gpr.iter().zip(&b.gpr).enumerate() {
            let name = GPR_NAMES[i];
            if !self.completed && pops_all && i < 8 && i != 4 {
                self.masked(Mask::PartialPop, name, x, y);
            } else if loads_number && self.insn.op0_register().full_register().number() == i {
                self.masked(Mask::ProcessorNumber, name, x, y);
            } else if !long && i < 8 && (x ^ y) >> 32 != 0 && self.excuse(Mask::UpperHalves) {
                self.number(name, x & 0xFFFF_FFFF, y & 0xFFFF_FFFF);
            } else {
                self.number(name, x, y);
            }
        }
        self.flags(a.rflags & FLAGS, b.rflags & FLAGS);
        for (i, name) in ["ES", "CS", "SS", "DS", "FS", "GS"].iter().enumerate() {
            let (x, y) = (u64::from(a.selectors[i]), u64::from(b.selectors[i]));
            if x < 4 && y < 4 {
                self.masked(Mask::NullSelectors, name, x, y);
            } else {
                self.number(name, x, y);
            }
        }
        self.number("FS base", a.fs_base, b.fs_base);
        self.number("GS base", a.gs_base, b.gs_base);
    }

    fn flags(&mut self, a: u64, b: u64) {
        let undefined = if self.completed { undefined_flags(&self.insn) } else { 0 };
        let mut differ = a ^ b;
        let repeats = self.insn.is_string_instruction()
            && (self.insn.has_rep_prefix() || self.insn.has_repne_prefix());
        let resume = if repeats { flags::RF } else { 0 };
        for (mask, bits) in [(Mask::UndefinedFlags, undefined), (Mask::ResumeFlag, resume)] {
            if differ & bits != 0 && self.excuse(mask) {
                differ &= !bits;
            }
        }
        self.number("RFLAGS", a, a ^ differ);
    }

    fn x87(&mut self, a: &State, b: &State) {
        self.number("MXCSR", a.dword(legacy::MXCSR).into(), b.dword(legacy::MXCSR).into());
        self.number("FCW", a.word(legacy::FCW).into(), b.word(legacy::FCW).into());
        self.number("FSW", a.word(legacy::FSW).into(), b.word(legacy::FSW).into());
        self.number("FTW", a.legacy[legacy::FTW].into(), b.legacy[legacy::FTW].into());
        for i in 0..8 {
            let at = legacy::ST + 16 * i;
            self.number(format_args!("ST({i}) significand"), a.qword(at), b.qword(at));
            let (x, y) = (a.word(at + 8).into(), b.word(at + 8).into());
            self.number(format_args!("ST({i}) exponent"), x, y);
        }
        self.x87_pointers(a, b);
    }

    fn x87_pointers(&mut self, a: &State, b: &State) {
        let error = |state: &State| state.word(legacy::FSW) & 0x80 != 0;
        let width = if self.case.bits == 64 { u64::MAX } else { 0xFFFF_FFFF };
        // Which of them the signal frame holds: see the mask. FLDCW alone makes an exception pending
        // without pointers of its own.
        let loaded = error(&self.case.state) || self.insn.mnemonic() != Mnemonic::Fldcw;
        let saved = !is_amd() || error(a) && error(b) && loaded;
        let sets_data = super::describe::operand_address(self.case, &self.insn).is_some();
        let data = saved && (!is_amd() || error(&self.case.state) || sets_data);
        let fields = [
            (
                "FOP",
                saved,
                (a.word(legacy::FOP) & 0x7FF).into(),
                (b.word(legacy::FOP) & 0x7FF).into(),
            ),
            ("FIP", saved, a.qword(legacy::FIP) & width, b.qword(legacy::FIP) & width),
            ("FDP", data, a.qword(legacy::FDP) & width, b.qword(legacy::FDP) & width),
        ];
        for (name, known, x, y) in fields {
            if known && (x ^ y) & POINTER != 0 {
                self.number(name, x, y);
            } else {
                self.masked(Mask::X87Pointers, name, x, y);
            }
        }
    }

    fn vectors(&mut self, a: &State, b: &State) {
        let registers = if host_has_avx512() { 32 } else { 16 };
        let width = if host_has_avx512() { 64 } else { 32 };
        let partial = self.insn.is_vsib() && !self.completed;
        let insn = self.insn;
        let in_progress =
            |register| partial && (0..insn.op_count()).any(|op| insn.op_register(op) == register);
        for i in 0..registers {
            let (x, y) = (a.vector(i), b.vector(i));
            if x[..width] == y[..width] {
                continue;
            }
            let names = [Register::XMM0, Register::YMM0, Register::ZMM0].map(|r| r + i as u32);
            if names.into_iter().any(in_progress) && self.excuse(Mask::GatherOrder) {
                continue;
            }
            let wide = i >= 16 || x[32..] != y[32..];
            let (name, end) = if wide { ("ZMM", width) } else { ("YMM", 32) };
            let text = |bytes: &[u8]| super::describe::vector_text(&bytes[..end]);
            self.report(format_args!("{name}{i}"), text(&x), text(&y));
        }
        for i in 0..8 {
            let (name, x, y) = (format_args!("K{i}"), a.opmask[i], b.opmask[i]);
            if partial && insn.op_mask() == Register::K0 + i as u32 {
                self.masked(Mask::GatherOrder, name, x, y);
            } else if host_has_avx512() {
                self.number(name, x, y);
            }
        }
    }

    fn memory(&mut self, host: &Outcome, ours: &Outcome) {
        if host.memory == ours.memory {
            return;
        }
        let (host, mut ours) = (host.memory.bytes(), ours.memory.bytes());
        for (mask, bytes) in self.memory_masks(&host) {
            let differs = |&at: &usize| ours[at] != host[at];
            let bytes: Vec<usize> = bytes.filter_map(offset_of).filter(differs).collect();
            if !bytes.is_empty() && self.excuse(mask) {
                bytes.into_iter().for_each(|at| ours[at] = host[at]);
            }
        }
        let memory_of_scatter = self.insn.is_vsib() && !self.completed;
        if host != ours && !(memory_of_scatter && self.excuse(Mask::GatherOrder)) {
            self.report_memory(&host, &ours);
        }
    }

    /// Linear addresses where memory may differ.
    fn memory_masks(&self, host: &[u8; MEMORY]) -> Vec<(Mask, Range<u64>)> {
        let mut masks = Vec::new();
        let from = |start: u64, range: Range<u64>| {
            start.wrapping_add(range.start)..start.wrapping_add(range.end)
        };
        if let Some(start) = super::describe::operand_address(self.case, &self.insn) {
            let pointers = match (self.insn.mnemonic(), self.insn.memory_size()) {
                (
                    Mnemonic::Fnstenv | Mnemonic::Fnsave,
                    MemorySize::FpuEnv14 | MemorySize::FpuState94,
                ) => 6..14,
                // FCS and FDS. Where all are zero, the system may have switched processes behind the
                // loading of the pointers, which it does by XSAVE.
                (Mnemonic::Fnstenv | Mnemonic::Fnsave, _)
                    if keeps_x87_pointers()
                        && from(start, 12..24).filter_map(offset_of).any(|at| host[at] != 0) =>
                {
                    masks.push((Mask::X87Pointers, from(start, 16..18)));
                    24..26
                }
                (Mnemonic::Fnstenv | Mnemonic::Fnsave, _) => 12..28,
                (
                    Mnemonic::Fxsave | Mnemonic::Fxsave64 | Mnemonic::Xsave | Mnemonic::Xsave64,
                    _,
                ) => {
                    masks.push((Mask::MxcsrMask, from(start, 28..32)));
                    match (keeps_x87_pointers(), self.insn.mnemonic()) {
                        (true, Mnemonic::Fxsave64 | Mnemonic::Xsave64) => 0..0,
                        // FCS and FDS.
                        (true, _) => {
                            masks.push((Mask::X87Pointers, from(start, 12..14)));
                            20..22
                        }
                        (false, _) => 6..24,
                    }
                }
                _ => 0..0,
            };
            masks.push((Mask::X87Pointers, from(start, pointers)));
        }
        let frame = faults::frame_of(self.case, &self.insn);
        if !self.completed && frame != 0 {
            // A fault leaves the stack pointer as it was.
            let rsp = match self.case.bits {
                16 => self.case.state.gpr[RSP] & 0xFFFF,
                32 => self.case.state.gpr[RSP] & 0xFFFF_FFFF,
                _ => self.case.state.gpr[RSP],
            };
            let base = if self.case.bits == 64 { 0 } else { base_of(self.case.state.selectors[2]) };
            masks.push((
                Mask::PartialFrame,
                from(base.wrapping_add(rsp), 0u64.wrapping_sub(frame)..0),
            ));
        }
        masks
    }

    fn report_memory(&mut self, a: &[u8; MEMORY], b: &[u8; MEMORY]) {
        let Some(first) = (0..MEMORY).find(|&i| a[i] != b[i]) else { return };
        let last = (0..MEMORY).rfind(|&i| a[i] != b[i]).unwrap_or(first);
        let count = (first..=last).filter(|&i| a[i] != b[i]).count();
        let end = (first + 16).min(MEMORY);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let what = format_args!("memory at {:#x} ({count} bytes differ)", address_of(first));
        self.report(what, hex(&a[first..end]), hex(&b[first..end]));
    }
}

/// Bits of x87 pointers that every processor with 64-bit mode keeps.
const POINTER: u64 = 0xFFFF_FFFF_FFFF;

/// Whether the host is an AMD or Hygon processor.
pub(super) fn is_amd() -> bool {
    static AMD: OnceLock<bool> = OnceLock::new();
    *AMD.get_or_init(|| x86::cpuid::Policy::host(1).is_amd())
}

/// Whether x87 pointers that the sandbox loads are in place without a pending error, and the images
/// of FXSAVE and XSAVE have zeros for them then.
fn keeps_x87_pointers() -> bool {
    static KEEPS: OnceLock<bool> = OnceLock::new();
    *KEEPS.get_or_init(|| {
        let host = x86::cpuid::Policy::host(1);
        host.is_amd() && host.has(x86::cpuid::Feature::Xsaveerptr)
    })
}

/// Whether guests have the AVX-512 registers, which they have where the host has them.
fn host_has_avx512() -> bool {
    static AVX512: OnceLock<bool> = OnceLock::new();
    *AVX512.get_or_init(|| x86::cpuid::Policy::host(1).has(x86::cpuid::Feature::Avx512F))
}

/// Names of the general-purpose registers by hardware number.
pub const GPR_NAMES: [&str; 16] = [
    "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13",
    "R14", "R15",
];

/// Flags that are undefined after an instruction.
pub fn undefined_flags(insn: &Instruction) -> u64 {
    let mut mask = decoder::rflags_of(insn.rflags_undefined());
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
