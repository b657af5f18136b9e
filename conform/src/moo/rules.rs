//! Where a modern CPU rightly differs from the 80286 that the tests were captured from. Each rule
//! is counted where it is applied; a test that a rule explains still has to match in everything
//! else.

use super::format::{Reg, Test};
use super::machine::Outcome;
use iced_x86::{Decoder, DecoderOptions, Instruction, Register};
use x86::Vector;

/// What a rule makes of a test that did not match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The rule does not concern the test.
    No,
    /// The outcome is right on a modern CPU.
    Right,
    /// It is right if the test matches when the first vector's handler also handles the second.
    /// Other rules may explain what remains.
    RightIfRedirected(u8, u8),
}

/// A named difference.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name in reports.
    pub name: &'static str,
    /// What differs and who says so.
    pub source: &'static str,
    judge: fn(stem: &str, test: &Test, outcome: &Outcome) -> Verdict,
}

impl Rule {
    /// Whether the rule explains the outcome.
    pub fn judge(&self, stem: &str, test: &Test, outcome: &Outcome) -> Verdict {
        (self.judge)(stem, test, outcome)
    }
}

/// The rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "stack-limit-vector",
        source: "An access through SS beyond the limit: #GP (13) on the 80286 in real mode, #SS \
                 (12) since the 80386. Intel 80386 Programmer's Reference Manual, section 14.7 \
                 (\"Differences From 8086\"); SDM vol. 3B, chapter \"8086 Emulation\"; seen on a Xeon in 590 cases of the full set.",
        judge: stack_limit_vector,
    },
    Rule {
        name: "instruction-length",
        source: "An instruction longer than 10 bytes: #GP on the 80286, legal up to 15 bytes \
                 since the 80386. Intel 80386 Programmer's Reference Manual, section 14.7 (\"Differences From \
                 8086\"); \
                 SDM vol. 2A, section 2.3.11; seen on a Xeon in 37 cases of the full set.",
        judge: instruction_length,
    },
    Rule {
        name: "idiv-byte-overflow",
        source: "IDIV of bytes: the 80286 misses an overflow that a modern CPU reports as #DE. \
                 SDM vol. 2A, IDIV; seen on a Xeon in F6.7, tests 952, 1085, 2653 and 4297.",
        judge: idiv_byte_overflow,
    },
    Rule {
        name: "fs-and-gs",
        source: "MOV to and from FS and GS: #UD on the 80286, which has no such registers; they \
                 came with the 80386. SDM vol. 2B, MOV; vol. 3B, chapter \"Architecture Compatibility\".",
        judge: fs_and_gs,
    },
    Rule {
        name: "string-registers-at-fault",
        source: "A string instruction that faults: the 80286 has already stepped SI, DI and CX, the \
                 latter by one or two. \
                 Since the 80386 a fault leaves the registers as they were before the iteration. \
                 SDM vol. 3A, section 6.5 (faults restore the state before the instruction); \
                 seen on an AMD Zen 3 by `conform host --bits 16`.",
        judge: string_registers_at_fault,
    },
];

fn expects(test: &Test, vector: Vector) -> bool {
    test.exception.is_some_and(|e| e.vector == vector as u8)
}

fn stack_limit_vector(_: &str, test: &Test, outcome: &Outcome) -> Verdict {
    if expects(test, Vector::GP) && outcome.has_raised(Vector::SS) {
        Verdict::RightIfRedirected(Vector::GP as u8, Vector::SS as u8)
    } else {
        Verdict::No
    }
}

/// The longest instruction of an 80286.
const LONGEST_286: usize = 10;

fn instruction_length(_: &str, test: &Test, outcome: &Outcome) -> Verdict {
    let insn = decode(test);
    let long = !insn.is_invalid() && insn.len() > LONGEST_286;
    let executed = !outcome.has_raised(Vector::GP);
    if expects(test, Vector::GP) && long && executed { Verdict::Right } else { Verdict::No }
}

fn idiv_byte_overflow(stem: &str, test: &Test, outcome: &Outcome) -> Verdict {
    let known = stem == "F6.7" && [952, 1085, 2653, 4297].contains(&test.index);
    if known && test.exception.is_none() && outcome.has_raised(Vector::DE) {
        Verdict::Right
    } else {
        Verdict::No
    }
}

fn fs_and_gs(_: &str, test: &Test, outcome: &Outcome) -> Verdict {
    let insn = decode(test);
    let named =
        (0..insn.op_count()).any(|i| matches!(insn.op_register(i), Register::FS | Register::GS));
    let executed = !outcome.has_raised(Vector::UD);
    if expects(test, Vector::UD) && named && executed { Verdict::Right } else { Verdict::No }
}

fn string_registers_at_fault(_: &str, test: &Test, outcome: &Outcome) -> Verdict {
    let step = |r| match r {
        Reg::Si | Reg::Di => &[2, 0xFFFE][..],
        Reg::Cx => &[0xFFFF, 0xFFFE],
        _ => &[],
    };
    let explained = Reg::ALL.into_iter().all(|r| {
        let expected = test.last.registers.get(r).or(test.initial.registers.get(r));
        let (Some(expected), Some(found)) = (expected, outcome.registers.get(r)) else {
            return false;
        };
        let stepped = step(r).contains(&expected.wrapping_sub(found));
        r == Reg::Flags || found == expected || stepped
    });
    let string = decode(test).is_string_instruction();
    let raised = outcome.has_raised(Vector::GP) || outcome.has_raised(Vector::SS);
    let faulted = expects(test, Vector::GP) && raised;
    if string && faulted && explained && outcome.memory.is_empty() {
        Verdict::Right
    } else {
        Verdict::No
    }
}

fn decode(test: &Test) -> Instruction {
    Decoder::new(16, &test.bytes, DecoderOptions::NONE).decode()
}
