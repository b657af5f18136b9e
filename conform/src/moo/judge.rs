//! Runs the tests of a file and says what each came to.

use super::format::{self, FormatError, MooFile, Reg, Test};
use super::machine::{Machine, MachineError, Outcome};
use super::masks::Masks;
use super::rules::{RULES, Verdict};
use super::summary::{Failure, FileResult, Score};
use super::{Options, stem};
use crate::Progress;
use crate::host::Engine;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// A worker.
pub(super) struct Judge<'a> {
    machine: Machine,
    engine: Engine,
    masks: &'a Masks,
}

/// What a test came to.
enum Judged {
    Strict,
    Masked,
    /// By these of the [`RULES`].
    ByRule(Vec<usize>),
    Different(String),
}

impl<'a> Judge<'a> {
    pub(super) fn new(masks: &'a Masks, engine: Engine) -> Result<Judge<'a>, MachineError> {
        Ok(Judge { machine: Machine::new(engine)?, engine, masks })
    }

    pub(super) fn file(
        &mut self,
        path: &Path,
        options: &Options,
        progress: &Progress,
    ) -> Result<FileResult, MachineError> {
        let stem = stem(path);
        let mut result = FileResult {
            path: path.to_owned(),
            stem: stem.clone(),
            score: Score::default(),
            unreadable: None,
            failures: Vec::new(),
        };
        let file: Result<MooFile, FormatError> = format::read(path);
        let tests = match file {
            Ok(file) => file.tests,
            Err(error) => {
                result.unreadable = Some(error.to_string());
                progress.expect(1);
                progress.advance(true);
                return Ok(result);
            }
        };
        let wanted = |t: &&Test| options.index.is_none_or(|i| i == t.index);
        progress.expect(tests.iter().filter(wanted).count() as u64);
        for test in tests.iter().filter(wanted) {
            let judged = catch_unwind(AssertUnwindSafe(|| self.test(&stem, test)));
            let judged = match judged {
                Ok(judged) => judged,
                Err(panic) => {
                    // Whatever it was doing is unfinished.
                    self.machine = Machine::new(self.engine)?;
                    let text = panic
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or_else(|| panic.downcast_ref::<&str>().copied());
                    Judged::Different(format!("PANIC: {}", text.unwrap_or("no message")))
                }
            };
            let score = &mut result.score;
            score.run += 1;
            match judged {
                Judged::Strict => {
                    score.strict += 1;
                    score.masked += 1;
                }
                Judged::Masked => score.masked += 1,
                Judged::ByRule(ref rules) => {
                    score.masked += 1;
                    score.explained += 1;
                    rules.iter().for_each(|&rule| score.by_rule[rule] += 1);
                }
                Judged::Different(ref difference) => {
                    if result.failures.len() < options.keep {
                        let failure =
                            Failure { index: test.index, text: describe(test, difference) };
                        result.failures.push(failure);
                    }
                }
            }
            progress.advance(matches!(judged, Judged::Different(_)));
        }
        Ok(result)
    }

    fn test(&mut self, stem: &str, test: &Test) -> Judged {
        let outcome = self.machine.run(test, None);
        if differences(test, &outcome, u16::MAX).is_empty() {
            return Judged::Strict;
        }
        let mask = self.masks.compare(stem, test);
        let different = differences(test, &outcome, mask);
        if different.is_empty() {
            return Judged::Masked;
        }
        let (mut outcome, mut applied) = (outcome, Vec::new());
        for (i, rule) in RULES.iter().enumerate() {
            let right = match rule.judge(stem, test, &outcome) {
                Verdict::No => continue,
                Verdict::Right => true,
                Verdict::RightIfRedirected(from, to) => {
                    outcome = self.machine.run(test, Some((from, to)));
                    differences(test, &outcome, mask).is_empty()
                }
            };
            applied.push(i);
            if right {
                return Judged::ByRule(applied);
            }
        }
        Judged::Different(different.join(", "))
    }
}

/// What is not as the test expects. Only FLAGS bits in `mask` count, in the register and in the
/// exception frame.
fn differences(test: &Test, outcome: &Outcome, mask: u16) -> Vec<String> {
    let mut different: Vec<String> = outcome.trouble.iter().cloned().collect();
    for r in Reg::ALL {
        let before = test.initial.registers.get(r);
        // An 80286 in real mode has no FLAGS bits 12 to 15.
        let start = if r == Reg::Flags { before.map(|v| v & 0xFFF) } else { before };
        let Some(expected) = test.last.registers.get(r).or(start) else { continue };
        let found = outcome.registers.get(r).unwrap_or_default();
        let counts = if r == Reg::Flags { mask } else { u16::MAX };
        if (found ^ expected) & counts != 0 {
            different.push(format!("{r:?} is {found:04X}, expected {expected:04X}"));
        }
    }
    let frame = pushed_flags(test);
    for &(address, found, expected) in &outcome.memory {
        let counts = match frame {
            Some((low, _)) if address == low => mask as u8,
            Some((_, high)) if address == high => (mask >> 8) as u8,
            _ => 0xFF,
        };
        if (found ^ expected) & counts != 0 {
            different.push(format!("[{address:05X}] is {found:02X}, expected {expected:02X}"));
        }
    }
    if !different.is_empty() {
        for vector in (0..32).filter(|v| outcome.raised >> v & 1 != 0) {
            different.push(format!("took {}", x86::fault::vector_name(vector)));
        }
    }
    different
}

/// Addresses of the low and the high byte of the FLAGS in the exception's frame. (The format's own
/// field is one too low where SP is odd.)
fn pushed_flags(test: &Test) -> Option<(u32, u32)> {
    test.exception?;
    let last = |r| test.last.registers.get(r).or(test.initial.registers.get(r));
    let (ss, sp) = (u32::from(last(Reg::Ss)?) << 4, last(Reg::Sp)?);
    let at = |n| ss + u32::from(sp.wrapping_add(n));
    Some((at(4), at(5)))
}

fn describe(test: &Test, difference: &str) -> String {
    use std::fmt::Write;
    let mut text = format!("test {}: {} (", test.index, test.name);
    for (i, byte) in test.bytes.iter().enumerate() {
        let _ = write!(text, "{}{byte:02X}", if i == 0 { "" } else { " " });
    }
    text.push(')');
    if let Some(e) = test.exception {
        let _ = write!(text, ", expects exception {}", e.vector);
    }
    text.push_str("\n  from");
    for r in Reg::ALL {
        let _ = write!(text, " {r:?}={:04X}", test.initial.registers.get(r).unwrap_or(0));
    }
    let _ = write!(text, "\n  {difference}");
    text
}
