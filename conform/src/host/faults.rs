//! When two different faults, or a fault and none, are both right.

use super::compare::{Ending, Taken, is_amd};
use super::layout::PAGE;
use super::masks::Mask;
use super::state::{Case, Outcome, legacy};
use iced_x86::{Instruction, MemorySize, Mnemonic, OpKind, Register};
use x86::Vector;
use x86::fault::pf;

/// First linear address that no user program has (48-bit addresses).
const USER_END: u64 = 0x7FFF_FFFF_F000;

/// MXCSR.MM.
const MISALIGNED_MASK: u32 = 1 << 17;

/// Faults of a memory operand.
const OPERAND: [Vector; 4] = [Vector::PF, Vector::GP, Vector::SS, Vector::AC];

/// What a rule looks at.
pub(super) struct Context<'a> {
    pub(super) insn: &'a Instruction,
    pub(super) host: &'a Outcome,
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
    (Mask::EmptyMaskedStore, |c, _, _| is_byte_masked_store(c.insn)),
    (Mask::SeveralAccesses, |c, fault, on_host| {
        c.insn.mnemonic() == Mnemonic::Enter && on_host && fault.is(&[Vector::AC])
    }),
    (Mask::MxcsrMask, |c, fault, on_host| {
        let set = c.host.state.dword(legacy::MXCSR) & MISALIGNED_MASK != 0;
        set && !on_host && fault.is(&[Vector::GP])
    }),
    (Mask::XrstorExtent, |c, fault, on_host| {
        is_xrstor(c.insn) && on_host && fault.is(&[Vector::PF])
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
    strings && c.insn.op0_kind() != OpKind::Register && both(a, b, &OPERAND)
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
            Retf | Iret | Iretd | Iretq | Enter | Call | Lds | Les | Lfs | Lgs | Lss
        );
    several && both(a, b, &OPERAND)
}

fn pending_x87(_: &Context<'_>, a: Taken, b: Taken) -> bool {
    a.is(&[Vector::MF]) && b.is(&OPERAND) || b.is(&[Vector::MF]) && a.is(&OPERAND)
}

fn x87_environment(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    let environment = matches!(
        c.insn.memory_size(),
        MemorySize::FpuEnv14
            | MemorySize::FpuEnv28
            | MemorySize::FpuState94
            | MemorySize::FpuState108
    );
    environment && both(a, b, &OPERAND)
}

fn alignment_order(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    let size = c.insn.memory_size().size();
    let alignment = a.is(&[Vector::AC]) || b.is(&[Vector::AC]);
    alignment && (size > 16 || size == 0) && both(a, b, &OPERAND)
}

fn misaligned_stack(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    let size = c.insn.memory_size().size();
    (size >= 16 || size == 0) && both(a, b, &[Vector::GP, Vector::SS])
}

fn undefined_fetch(_: &Context<'_>, a: Taken, b: Taken) -> bool {
    let undefined =
        |x: Taken, y: Taken| x.is(&[Vector::UD]) && y.is(&[Vector::PF]) && y.error & pf::FETCH != 0;
    undefined(a, b) || undefined(b, a)
}

fn gather_order(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    c.insn.is_vsib() && both(a, b, &OPERAND)
}

fn fault_address(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    let size = c.insn.memory_size().size();
    let large = size > 8 || size == 0 || is_byte_masked_store(c.insn);
    large && both(a, b, &[Vector::PF]) && a.address.abs_diff(b.address) <= PAGE as u64
}

fn masked_store_order(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    is_byte_masked_store(c.insn) && both(a, b, &OPERAND)
}

fn canonical_offset(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    let overrides = matches!(c.insn.memory_segment(), Register::FS | Register::GS);
    is_amd() && overrides && a.is(&[Vector::GP]) && b.is(&[Vector::PF])
}

fn xrstor_order(c: &Context<'_>, a: Taken, b: Taken) -> bool {
    is_xrstor(c.insn) && a.is(&[Vector::PF]) && b.is(&[Vector::GP])
}

fn is_byte_masked_store(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu)
}

fn is_xrstor(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Xrstor | Mnemonic::Xrstor64)
}

/// Bytes of the frame that a far CALL or ENTER pushes; 0 for other instructions.
pub(super) fn frame_of(case: &Case, insn: &Instruction) -> u64 {
    let slot = super::generate::slot_size(insn, case.bits) as u64;
    match insn.mnemonic() {
        Mnemonic::Call if insn.is_call_far() || insn.is_call_far_indirect() => 2 * slot,
        Mnemonic::Enter => 33 * slot,
        _ => 0,
    }
}
