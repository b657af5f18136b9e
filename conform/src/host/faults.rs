//! When two different faults, or a fault and none, are both right.

use super::accesses::{Accesses, USER_END, push_size};
use super::compare::{Ending, Taken, is_amd};
use super::layout::{CODE, CODE_SIZE, WINDOW};
use super::masks::Mask;
use super::state::{Case, Outcome, legacy};
use iced_x86::{Instruction, MemorySize, Mnemonic, OpKind};
use x86::Vector;
use x86::fault::pf;

/// ES, in the x87 status word: an unmasked exception is pending.
const X87_ERROR: u16 = 0x80;

/// Bytes of the longest instruction.
const LONGEST: u64 = 15;

/// MXCSR.MM.
const MISALIGNED_MASK: u32 = 1 << 17;

/// What a rule looks at.
pub(super) struct Context<'a> {
    pub(super) case: &'a Case,
    pub(super) insn: &'a Instruction,
    pub(super) host: &'a Outcome,
}

impl Context<'_> {
    fn accesses(&self) -> Accesses<'_> {
        Accesses::new(self.case, self.insn, self.host)
    }

    /// Whether the instruction has accesses that can give either.
    fn both_given(&self, a: Taken, b: Taken) -> bool {
        let accesses = self.accesses();
        accesses.give(a) && accesses.give(b)
    }
}

/// The masks that cover two endings that differ.
pub(super) fn excuse(context: &Context<'_>, host: Ending, ours: Ending) -> Vec<Mask> {
    match (host, ours) {
        (Ending::Fault(a), Ending::Fault(b)) => {
            FAULTS.iter().filter(|(_, rule)| rule(context, a, b)).map(|(mask, _)| *mask).collect()
        }
        (Ending::Fault(fault), Ending::Completed) | (Ending::Completed, Ending::Fault(fault)) => {
            let on_host = ours == Ending::Completed;
            OPTIONAL
                .iter()
                .filter(|(_, rule)| rule(context, fault, on_host))
                .map(|(mask, _)| *mask)
                .collect()
        }
        (Ending::Completed, Ending::Completed) => Vec::new(),
    }
}

type Rule = fn(&Context<'_>, Taken, Taken) -> bool;
/// The fault, and whether it was the host that took it.
type OptionalRule = fn(&Context<'_>, Taken, bool) -> bool;

const FAULTS: &[(Mask, Rule)] = &[
    (Mask::KernelHalf, kernel_half),
    (Mask::StringOperands, string_operands),
    (Mask::SeveralAccesses, several_accesses),
    (Mask::PendingX87, pending_x87),
    (Mask::X87Environment, x87_environment),
    (Mask::AlignmentOrder, alignment_order),
    (Mask::MisalignedStack, misaligned_stack),
    (Mask::UndefinedFetch, undefined_fetch),
    (Mask::GatherOrder, gather_order),
    (Mask::FaultAddress, fault_address),
    (Mask::EmptyMaskedStore, masked_store_order),
    (Mask::CanonicalOffset, canonical_offset),
    (Mask::XrstorExtent, xrstor_order),
];

const OPTIONAL: &[(Mask, OptionalRule)] = &[
    (Mask::EmptyMaskedStore, |c, fault, _| {
        is_byte_masked_store(c.insn) && c.accesses().give(fault)
    }),
    (Mask::SeveralAccesses, |c, fault, on_host| {
        let enter = c.insn.mnemonic() == Mnemonic::Enter;
        enter && on_host && fault.is(&[Vector::AC]) && c.accesses().give(fault)
    }),
    (Mask::MxcsrMask, |c, fault, on_host| {
        let set = c.host.state.dword(legacy::MXCSR) & MISALIGNED_MASK != 0;
        set && !on_host && fault.is(&[Vector::GP])
    }),
    (Mask::XrstorExtent, |c, fault, on_host| {
        let accesses = c.accesses();
        let given = fault.is(&[Vector::PF]) && accesses.give(fault) || accesses.refuse(fault);
        is_xrstor(c.insn) && on_host && given
    }),
];

fn both(a: Taken, b: Taken, vectors: &[Vector]) -> bool {
    a.is(vectors) && b.is(vectors)
}

fn kernel_half(_: &Context<'_>, a: Taken, b: Taken) -> bool {
    both(a, b, &[Vector::PF])
        && a.address >= USER_END
        && Taken { error: a.error & !pf::PRESENT, ..a } == b
}

fn string_operands(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    use Mnemonic::*;
    let strings =
        matches!(c.insn.mnemonic(), Cmpsb | Cmpsw | Cmpsd | Cmpsq | Movsb | Movsw | Movsd | Movsq);
    strings && c.insn.op0_kind() != OpKind::Register && c.both_given(a, b)
}

fn several_accesses(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    use Mnemonic::*;
    let insn = c.insn;
    let several = insn.is_jmp_far_indirect()
        || insn.is_call_far_indirect()
        || insn.is_call_far()
        || insn.is_jmp_far()
        || matches!(
            insn.mnemonic(),
            Bound | Retf | Iret | Iretd | Iretq | Enter | Call | Lds | Les | Lfs | Lgs | Lss
        );
    if !several {
        return false;
    }
    let accesses = c.accesses();
    match [a, b].map(|fault| accesses.give(fault)) {
        [true, true] => true,
        [true, false] => accesses.target_gives(b),
        [false, true] => accesses.target_gives(a),
        // Of a return from 64-bit code: the instruction pointer against the outer stack's selector.
        [false, false] => {
            matches!(insn.mnemonic(), Retf | Iret | Iretd | Iretq)
                && accesses.target_gives(a)
                && accesses.stack_gives(b)
        }
    }
}

fn pending_x87(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    let pending = c.case.state.word(legacy::FSW) & X87_ERROR != 0;
    let against = |x: Taken, y: Taken| x.is(&[Vector::MF]) && c.accesses().give(y);
    pending && (against(a, b) || against(b, a))
}

fn x87_environment(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    let environment = matches!(
        c.insn.memory_size(),
        MemorySize::FpuEnv14
            | MemorySize::FpuEnv28
            | MemorySize::FpuState94
            | MemorySize::FpuState108
            | MemorySize::Float80
            | MemorySize::Bcd
            | MemorySize::Fxsave_512Byte
            | MemorySize::Fxsave64_512Byte
            | MemorySize::Xsave
            | MemorySize::Xsave64
    );
    environment && c.both_given(a, b)
}

fn alignment_order(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    let size = c.insn.memory_size().size();
    let alignment = a.is(&[Vector::AC]) || b.is(&[Vector::AC]);
    alignment && (size > 16 || size == 0) && c.both_given(a, b)
}

fn misaligned_stack(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    let size = c.insn.memory_size().size();
    (size >= 16 || size == 0) && both(a, b, &[Vector::GP, Vector::SS]) && c.both_given(a, b)
}

fn undefined_fetch(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    let behind = (CODE + CODE_SIZE) as u64 + WINDOW;
    let undefined = |x: Taken, y: Taken| {
        let fetch = y.is(&[Vector::PF]) && y.error == pf::FETCH | pf::USER && y.address == behind;
        x.is(&[Vector::UD]) && fetch && behind - c.case.linear < LONGEST
    };
    undefined(a, b) || undefined(b, a)
}

fn gather_order(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    c.insn.is_vsib() && c.both_given(a, b)
}

fn fault_address(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    let size = c.insn.memory_size().size();
    let large = size > 8 || size == 0 || is_byte_masked_store(c.insn);
    large && both(a, b, &[Vector::PF]) && c.both_given(a, b)
}

fn masked_store_order(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    is_byte_masked_store(c.insn) && c.both_given(a, b)
}

fn canonical_offset(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    let accesses = c.accesses();
    let given = a.is(&[Vector::GP]) && accesses.offset_alone_not_canonical(b);
    is_amd() && given && accesses.give(b)
}

fn xrstor_order(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    is_xrstor(c.insn) && a.is(&[Vector::PF]) && c.accesses().give(a) && b.is(&[Vector::GP])
}

fn is_byte_masked_store(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu)
}

fn is_xrstor(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Xrstor | Mnemonic::Xrstor64)
}

/// Bytes of the frame that a far CALL or ENTER pushes; 0 for other instructions.
pub(super) fn frame_of(case: &Case, insn: &Instruction) -> u64 {
    let slot = push_size(case, insn);
    match insn.mnemonic() {
        Mnemonic::Call if insn.is_call_far() || insn.is_call_far_indirect() => 2 * slot,
        Mnemonic::Enter => 33 * slot,
        _ => 0,
    }
}
