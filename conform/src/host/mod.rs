//! Differential fuzzing against the host CPU: every form of every instruction that a user-mode
//! program may execute, from random and boundary states, on the silicon and in the interpreter.

pub mod compare;
mod describe;
mod faults;
pub mod generate;
mod guest;
pub mod layout;
pub mod masks;
mod random;
mod sandbox;
pub mod segments;
mod shrink;
pub mod state;
mod summary;

pub use guest::{Executor, Guest, GuestError, Interpreter, Subject, Translate};
pub use sandbox::SandboxError;
pub use summary::{Finding, FormResult, Summary};

use crate::{Progress, Shard};
use compare::{Ending, compare, ending};
use generate::Generator;
use iced_x86::Code;
use masks::Masks;
use sandbox::{NoAnswer, Sandbox};
use segments::LDT;
use state::{Case, Outcome};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use thiserror::Error;
use x86::Vector;

/// An engine of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// The interpreter.
    Interp,
    /// The translator, from the first execution on.
    Jit,
    /// The translator, calling the interpreter's definition of every instruction.
    JitHelpers,
}

impl Engine {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Interp => "interp",
            Engine::Jit => "jit",
            Engine::JitHelpers => "jit-helpers",
        }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of everything random.
    pub seed: u64,
    /// Cases for each form.
    pub count: u64,
    /// Code size: 16, 32 or 64.
    pub bits: u32,
    /// What is compared with the host.
    pub engine: Engine,
    /// Only mnemonics that are this, ignoring case; with a final `*`, that begin with it.
    pub filter: Option<String>,
    /// Only the form with this name.
    pub form: Option<String>,
    /// Only the case with this number.
    pub case: Option<u64>,
    /// The part of the forms to run.
    pub shard: Shard,
    /// Threads.
    pub threads: usize,
    /// Differences kept for each form.
    pub keep: usize,
    /// Masks that are not applied.
    pub without: Masks,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 1,
            count: 100,
            bits: 64,
            engine: Engine::Interp,
            filter: None,
            form: None,
            case: None,
            shard: Shard::ALL,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            keep: 1,
            without: Masks::NONE,
        }
    }
}

/// Why the suite could not run.
#[derive(Debug, Error)]
pub enum HostError {
    /// Not a code size.
    #[error("{0} is no code size; give 16, 32 or 64")]
    Bits(u32),
    /// The filters leave nothing.
    #[error("no instruction form matches {0:?} in {1}-bit code")]
    NoForms(String, u32),
    /// The host.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

/// Makes the engine under test, one for each thread. Its segments are those of
/// [`segments::GDT`] and [`segments::LDT`].
pub type MakeSubject<'a> = dyn Fn() -> Result<Box<dyn Subject>, GuestError> + Sync + 'a;

/// Runs the suite.
///
/// # Errors
/// [`HostError`], when nothing could be run. Differences, crashes and hangs are results.
pub fn run(options: &Options, progress: &Progress) -> Result<Summary, HostError> {
    match options.engine {
        Engine::Interp => run_with(options, progress, &|| Ok(Box::new(Interpreter::new(&LDT)?))),
        Engine::Jit => {
            run_with(options, progress, &|| Ok(Box::new(Guest::<Translate<false>>::new(&LDT)?)))
        }
        Engine::JitHelpers => {
            run_with(options, progress, &|| Ok(Box::new(Guest::<Translate<true>>::new(&LDT)?)))
        }
    }
}

/// Runs the suite with any engine.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    options: &Options,
    progress: &Progress,
    make: &MakeSubject<'_>,
) -> Result<Summary, HostError> {
    if ![16, 32, 64].contains(&options.bits) {
        return Err(HostError::Bits(options.bits));
    }
    let forms: Vec<(Code, Option<&'static str>)> = generate::forms::forms(options.bits)
        .into_iter()
        .filter(|(code, _)| wanted(options, *code))
        .enumerate()
        .filter(|(n, _)| options.shard.owns(*n as u64))
        .map(|(_, form)| form)
        .collect();
    if forms.is_empty() {
        let filter = options.form.as_ref().or(options.filter.as_ref());
        return Err(HostError::NoForms(filter.cloned().unwrap_or_default(), options.bits));
    }
    let numbers = options.case.map_or(options.count, |_| 1);
    progress.expect(numbers * forms.iter().filter(|(_, reason)| reason.is_none()).count() as u64);
    let generator = Generator::new(options.seed, options.bits);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(forms.len()));
    let work = || -> Result<(), HostError> {
        let (sandbox, subject) = (Sandbox::new(&LDT)?, make()?);
        let (without, engine) = (options.without, options.engine);
        let mut bench = Bench { sandbox, subject, without, engine };
        while let Some(&(code, reason)) = forms.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = match reason {
                Some(reason) => FormResult::not_generated(code, reason),
                None => bench.form(code, &generator, options, progress)?,
            };
            results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..options.threads.clamp(1, forms.len())).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or(Ok(())))
    })?;
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|r| r.code as usize);
    Ok(Summary {
        seed: options.seed,
        count: options.count,
        bits: options.bits,
        engine: options.engine,
        forms: results,
    })
}

fn wanted(options: &Options, code: Code) -> bool {
    let mnemonic = format!("{:?}", code.mnemonic()).to_lowercase();
    let by_mnemonic = options.filter.as_ref().is_none_or(|filter| {
        let filter = filter.to_lowercase();
        match filter.strip_suffix('*') {
            Some(prefix) => mnemonic.starts_with(prefix),
            None => mnemonic == filter,
        }
    });
    let by_form =
        options.form.as_ref().is_none_or(|form| format!("{code:?}").eq_ignore_ascii_case(form));
    by_mnemonic && by_form
}

/// A worker: a child process and a guest.
pub(crate) struct Bench {
    sandbox: Sandbox,
    subject: Box<dyn Subject>,
    without: Masks,
    engine: Engine,
}

/// What a case came to.
pub(crate) enum Verdict {
    /// Both did the same.
    Same {
        /// Both took #UD.
        undefined: bool,
        /// By these masks.
        masks: Masks,
    },
    /// Only the host executes it: the guest's CPUID does not offer it.
    NotOffered,
    /// The host gave no answer.
    NoAnswer(NoAnswer),
    /// They differ.
    Different(Vec<compare::Difference>),
}

impl Bench {
    fn form(
        &mut self,
        code: Code,
        generator: &Generator,
        options: &Options,
        progress: &Progress,
    ) -> Result<FormResult, HostError> {
        let mut result = FormResult::new(code);
        let numbers = match options.case {
            Some(case) => case..case.saturating_add(1),
            None => 0..options.count,
        };
        let mut cases = Vec::with_capacity(sandbox::BATCH);
        let (mut number, mut missing) = (numbers.start, 0);
        while number < numbers.end {
            cases.clear();
            while number < numbers.end && cases.len() < sandbox::BATCH {
                match generator.case(code, number) {
                    Some(case) => cases.push(case),
                    None => missing += 1,
                }
                number += 1;
            }
            let host = self.sandbox.run(&cases)?;
            for (case, host) in cases.iter().zip(host) {
                let verdict = self.judge(case, host);
                progress.advance(matches!(verdict, Verdict::Different(_)));
                result.count(&verdict);
                if result.findings.len() < options.keep
                    && let Some(text) = self.explain(case, verdict, generator.seed())
                {
                    result.findings.push(Finding { number: case.number, text });
                }
            }
        }
        if result.ran == 0 && missing > 0 {
            result.not_generated = Some("no random encoding decodes to it");
        }
        Ok(result)
    }

    /// The text for a case that did not match.
    fn explain(&mut self, case: &Case, verdict: Verdict, seed: u64) -> Option<String> {
        match verdict {
            Verdict::Same { .. } | Verdict::NotOffered => None,
            Verdict::NoAnswer(why) => {
                let text = describe::describe(case, &[], seed, self.engine);
                Some(format!("{text}\n  the host gave no answer: {why:?}"))
            }
            Verdict::Different(found) => {
                let (case, found) = shrink::shrink(self, case.clone(), found);
                Some(describe::describe(&case, &found, seed, self.engine))
            }
        }
    }

    /// Runs a case on both.
    pub(crate) fn judge_alone(&mut self, case: &Case) -> Verdict {
        match self.sandbox.run(std::slice::from_ref(case)) {
            Ok(mut outcomes) => match outcomes.pop() {
                Some(host) => self.judge(case, host),
                None => Verdict::NoAnswer(NoAnswer::Hang),
            },
            Err(_) => Verdict::NoAnswer(NoAnswer::Hang),
        }
    }

    fn judge(&mut self, case: &Case, host: Result<Outcome, NoAnswer>) -> Verdict {
        let host = match host {
            Ok(host) => host,
            Err(none) => return Verdict::NoAnswer(none),
        };
        let ours = match self.subject.run(case) {
            Ok(ours) => ours,
            Err(text) => {
                return Verdict::Different(vec![compare::Difference {
                    what: "ending".to_owned(),
                    host: ending(case, &host).0.to_string(),
                    ours: text,
                }]);
            }
        };
        let undefined = |outcome: &Outcome| matches!(ending(case, outcome).0, Ending::Fault(taken) if taken.is(&[Vector::UD]));
        if undefined(&ours)
            && !undefined(&host)
            && generate::forms::not_offered(case.form).is_some()
        {
            return Verdict::NotOffered;
        }
        let compared = compare(case, &host, &ours, self.without);
        if compared.found.is_empty() {
            Verdict::Same { undefined: undefined(&host), masks: compared.masks }
        } else {
            Verdict::Different(compared.found)
        }
    }
}
