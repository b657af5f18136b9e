//! A difference for people: the instruction, what it started from, what differed, and how to see
//! it again.

use super::Engine;
use super::compare::{Difference, GPR_NAMES};
use super::generate::{base_of, offset_of};
use super::state::{Case, State, legacy};
use iced_x86::{Formatter, Instruction, InstructionInfoFactory, IntelFormatter, Register};
use std::fmt::Write;

/// Bytes of memory shown around each operand.
const SHOWN: usize = 16;

/// The text. Without an engine, the command runs all of them; where the case does not show it
/// `alone`, those before it, too.
pub(super) fn describe(
    case: &Case,
    found: &[Difference],
    seed: u64,
    engine: Option<Engine>,
    alone: bool,
) -> String {
    let insn = case.instruction();
    let mut text = String::new();
    IntelFormatter::new().format(&insn, &mut text);
    let hex: Vec<String> = case.bytes().iter().map(|b| format!("{b:02X}")).collect();
    let _ = write!(text, "\n  bytes {} at {:#x}", hex.join(" "), case.state.rip);
    text.push_str("\n  from");
    describe_state(case, &mut text);
    describe_memory(case, &insn, &mut text);
    for difference in found.iter().take(8) {
        let _ = write!(text, "\n  {difference}");
    }
    if found.len() > 8 {
        let _ = write!(text, "\n  and {} more", found.len() - 8);
    }
    if !alone {
        text.push_str("\n  only behind other cases: the command runs those of the form");
    }
    let _ = write!(
        text,
        "\n  again: ringshift conform host --bits {} --seed {seed}{} --form {:?} {}",
        case.bits,
        engine.map(|engine| format!(" --engine {}", engine.name())).unwrap_or_default(),
        case.form,
        if alone {
            format!("--case {}", case.number)
        } else {
            format!("--count {}", case.number.saturating_add(1))
        }
    );
    text
}

fn describe_state(case: &Case, text: &mut String) {
    let (state, plain) = (&case.state, State::new());
    for (name, value) in GPR_NAMES.iter().zip(state.gpr).filter(|(_, value)| *value != 0) {
        let _ = write!(text, " {name}={value:x}");
    }
    let _ = write!(text, " RFLAGS={:x}", state.rflags);
    if case.bits != 64 {
        for (name, s) in ["ES", "CS", "SS", "DS", "FS", "GS"].iter().zip(state.selectors) {
            let _ = write!(text, " {name}={s:x}");
        }
    }
    if state.fs_base != 0 || state.gs_base != 0 {
        let _ = write!(text, " FSBASE={:x} GSBASE={:x}", state.fs_base, state.gs_base);
    }
    if state.dword(legacy::MXCSR) != plain.dword(legacy::MXCSR) {
        let _ = write!(text, " MXCSR={:x}", state.dword(legacy::MXCSR));
    }
    if state.legacy[..legacy::MXCSR] != plain.legacy[..legacy::MXCSR] {
        let _ = write!(
            text,
            " FCW={:x} FSW={:x} FTW={:x}",
            state.word(legacy::FCW),
            state.word(legacy::FSW),
            state.legacy[legacy::FTW]
        );
    }
    for i in 0..8 {
        let at = legacy::ST + 16 * i;
        if state.legacy[at..at + 10] != [0; 10] {
            let (exponent, fraction) = (state.word(at + 8), state.qword(at));
            let _ = write!(text, " ST{i}={exponent:04x}:{fraction:016x}");
        }
    }
    for i in 0..32 {
        let bytes = state.vector(i);
        if bytes != [0; 64] {
            let _ = write!(text, " {}", vector(i, &bytes));
        }
    }
    for (i, k) in state.opmask.iter().enumerate().filter(|(_, k)| **k != 0) {
        let _ = write!(text, " K{i}={k:x}");
    }
}

/// A vector register by the name of its narrowest part that holds everything.
fn vector(i: usize, bytes: &[u8; 64]) -> String {
    let wide = i >= 16 || bytes[32..] != [0; 32];
    let (name, end) = if wide { ("ZMM", 64) } else { ("YMM", 32) };
    format!("{name}{i}={}", vector_text(&bytes[..end]))
}

/// The bytes of a vector register, the highest first, in lanes of 16.
pub(super) fn vector_text(bytes: &[u8]) -> String {
    let lane = |lane: &[u8]| lane.iter().rev().map(|b| format!("{b:02x}")).collect::<String>();
    bytes.chunks(16).rev().map(lane).collect::<Vec<_>>().join("_")
}

fn describe_memory(case: &Case, insn: &Instruction, text: &mut String) {
    let mut factory = InstructionInfoFactory::new();
    for used in factory.info(insn).used_memory().iter().take(4) {
        let value = |r: Register, _, _| Some(register(case, r));
        let Some(address) = used.virtual_address(0, value) else { continue };
        let _ = write!(text, "\n  memory {:?} at {address:#x}:", used.access());
        for i in 0..SHOWN as u64 {
            match offset_of(address.wrapping_add(i)) {
                Some(at) => {
                    let _ = write!(text, " {:02x}", case.memory.byte(at));
                }
                None => text.push_str(" --"),
            }
        }
    }
}

/// Linear address of the explicit memory operand.
pub(super) fn operand_address(case: &Case, insn: &Instruction) -> Option<u64> {
    let operand = (0..insn.op_count()).find(|&i| insn.op_kind(i) == iced_x86::OpKind::Memory)?;
    insn.virtual_address(operand, 0, |r, _, _| Some(register(case, r)))
}

fn register(case: &Case, r: Register) -> u64 {
    register_of(case, &case.state, r)
}

/// The value of a register in some state of a case: the base of a segment register.
pub(super) fn register_of(case: &Case, state: &State, r: Register) -> u64 {
    match r {
        Register::FS => state.fs_base,
        Register::GS => state.gs_base,
        _ if r.is_segment_register() && case.bits == 64 => 0,
        _ if r.is_segment_register() => base_of(state.selectors[r.number() % 6]),
        _ if r.is_gpr() => {
            let full = state.gpr[r.full_register().number() & 15];
            match r.size() {
                1 => full & 0xFF,
                2 => full & 0xFFFF,
                4 => full & 0xFFFF_FFFF,
                _ => full,
            }
        }
        _ => 0,
    }
}
