//! Golden listings: the host code of about a hundred guest snippets, for review. A change of
//! emission shows here as a difference of text.
//!
//! `cargo xtask golden` writes the files in `snapshots/` anew. One file of snippets is one file of
//! listings. They are the same on every host: addresses have names, and what the emitter asks of
//! the host is fixed here.
//!
//! A line of a listing has the guest instruction with its strategy (P: copy, C: by hand, H:
//! helper), then one host instruction; `=` marks the copy. Cold code is one line for each part. The
//! entry and the trampolines are alike everywhere, so only the family `block` shows them.

mod arithmetic;
mod atomics;
mod block;
mod branches;
mod calls;
mod flags;
mod floating_point;
mod memory;
mod modes;
mod segments;
mod stack;
mod strings;
mod system;

use crate::explain::{Code, Explanation, Purpose, Strategy};
use crate::{Config, Engine};
use iced_x86::IcedError;
use iced_x86::code_asm::CodeAssembler;
use std::fmt::Write;

/// Where the snippets lie, with room for branches backwards.
const ORIGIN: u64 = 0x40_1000;

/// Writes a snippet.
type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Code to translate.
struct Snippet {
    name: &'static str,
    bits: u32,
    ring: u8,
    body: Body,
}

/// A snippet of 64-bit code in ring 3.
const fn user(name: &'static str, body: Body) -> Snippet {
    Snippet { name, bits: 64, ring: 3, body }
}

/// A snippet of 64-bit code in ring 0.
const fn kernel(name: &'static str, body: Body) -> Snippet {
    Snippet { name, bits: 64, ring: 0, body }
}

/// A snippet of 32-bit code in ring 3.
const fn user32(name: &'static str, body: Body) -> Snippet {
    Snippet { name, bits: 32, ring: 3, body }
}

/// What a listing shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    /// What differs from snippet to snippet.
    Code,
    /// Entry and trampolines as well.
    Everything,
}

/// Compares the listings of a family with its file.
fn check(family: &str, show: Show, snippets: &[Snippet]) {
    let mut listing = String::new();
    for snippet in snippets {
        let explanation = translate(snippet);
        list(&mut listing, snippet, &explanation, show).expect("text can be written");
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(family, listing.trim_end());
    });
}

fn translate(snippet: &Snippet) -> Explanation {
    let mut assembler = CodeAssembler::new(snippet.bits).expect("a code size");
    (snippet.body)(&mut assembler).expect("the snippet is well formed");
    // Real mode does not reach as far.
    let origin = if snippet.bits == 16 { ORIGIN & 0xFFFF } else { ORIGIN };
    let bytes = assembler.assemble(origin).expect("the snippet assembles");
    let config = Config { notes: true, exact_limit: false, count: false, ..Config::default() };
    let mut engine = Engine::new(config).expect("an engine");
    engine.host.bmi2 = true;
    engine.host.avx512 = false;
    let code = Code { bytes: &bytes, rip: origin, bits: snippet.bits, ring: snippet.ring };
    code.explain_by(&mut engine).unwrap_or_else(|error| panic!("{}: {error}", snippet.name))
}

fn list(
    out: &mut String,
    snippet: &Snippet,
    explanation: &Explanation,
    show: Show,
) -> std::fmt::Result {
    let mode = match (snippet.bits, snippet.ring) {
        (64, 3) => String::new(),
        (bits, ring) => format!(" ({bits}-bit, ring {ring})"),
    };
    writeln!(out, "## {}{mode}", snippet.name)?;
    for piece in &explanation.pieces {
        let guest = match piece.purpose {
            Purpose::Instruction(index) => {
                let insn = explanation.guest(index);
                let sign = match insn.strategy {
                    Strategy::Passthrough => 'P',
                    Strategy::Custom => 'C',
                    Strategy::Helper => 'H',
                };
                format!("{:>2} {sign} {}", index + 1, insn.text)
            }
            Purpose::Entry | Purpose::Poll | Purpose::Trampoline(_) if show == Show::Code => {
                continue;
            }
            cold if cold.is_cold() => {
                let lines: Vec<_> = (piece.lines.iter().enumerate())
                    .map(|(i, line)| match &line.label {
                        Some(label) if i != 0 => format!("{label}: {}", line.text),
                        _ => line.text.clone(),
                    })
                    .collect();
                writeln!(out, "  {}: {}", cold.label(), lines.join("; "))?;
                continue;
            }
            other => format!("     ({})", other.label()),
        };
        for row in 0..piece.lines.len().max(1) {
            let guest = if row == 0 { guest.as_str() } else { "" };
            let Some(line) = piece.lines.get(row) else {
                writeln!(out, "{guest}")?;
                continue;
            };
            let sign = if line.copy { '=' } else { ' ' };
            // Labels of instructions say nothing new.
            let label = match &line.label {
                Some(label) if label.starts_with('.') || label.starts_with("entry") => {
                    format!("{label}: ")
                }
                _ => String::new(),
            };
            writeln!(out, "{guest:<44}|{sign} {label}{}", line.text)?;
        }
    }
    writeln!(out)
}

/// Whether the host has what a snippet's instructions need: those of AVX are refused elsewhere.
fn host_has_avx() -> bool {
    let policy = x86::cpuid::Policy::single();
    let has = policy.has(x86::cpuid::Feature::Avx2);
    if !has {
        eprintln!("SKIPPED: this host has no AVX2");
    }
    has
}
