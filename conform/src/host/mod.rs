//! Differential fuzzing against the host CPU: every form of every instruction that a user-mode
//! program may execute, from random and boundary states, on the silicon and in our engines.

mod accesses;
pub mod compare;
mod describe;
mod faults;
pub mod generate;
mod guest;
pub mod layout;
pub mod masks;
pub mod memory;
mod random;
mod sandbox;
pub mod segments;
mod shrink;
pub mod state;
mod summary;

pub use guest::{Executor, Guest, GuestError, Interpreter, Subject, Translate};
pub use sandbox::SandboxError;
pub use summary::{Finding, FormResult, Score, Summary};

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
    /// The two that define and translate instructions.
    pub const BOTH: [Engine; 2] = [Engine::Interp, Engine::Jit];
    /// All of them.
    pub const ALL: [Engine; 3] = [Engine::Interp, Engine::Jit, Engine::JitHelpers];

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
    /// What is compared with the host, each case with all of them.
    pub engines: Vec<Engine>,
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
            engines: Engine::BOTH.to_vec(),
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

/// Makes an engine under test, one for each thread. Its segments are those of
/// [`segments::GDT`] and [`segments::LDT`].
pub type MakeSubject<'a> = dyn Fn(Engine) -> Result<Box<dyn Subject>, GuestError> + Sync + 'a;

/// Runs the suite.
///
/// # Errors
/// [`HostError`], when nothing could be run. Differences, crashes and hangs are results.
pub fn run(options: &Options, progress: &Progress) -> Result<Summary, HostError> {
    run_with(options, progress, &|engine| match engine {
        Engine::Interp => Ok(Box::new(Interpreter::new(&LDT)?)),
        Engine::Jit => Ok(Box::new(Guest::<Translate<false>>::new(&LDT)?)),
        Engine::JitHelpers => Ok(Box::new(Guest::<Translate<true>>::new(&LDT)?)),
    })
}

/// Runs the suite with engines that `make` makes.
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
        let subject = |&engine: &Engine| Ok((engine, make(engine)?));
        let subjects = options.engines.iter().map(subject).collect::<Result<_, GuestError>>()?;
        let mut bench = Bench { sandbox: Sandbox::new(&LDT)?, subjects, without: options.without };
        while let Some(&(code, reason)) = forms.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = match reason {
                Some(reason) => FormResult::not_generated(code, reason, &options.engines),
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
        engines: options.engines.clone(),
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

/// A worker: a child process and a guest for each engine.
pub(crate) struct Bench {
    sandbox: Sandbox,
    subjects: Vec<(Engine, Box<dyn Subject>)>,
    without: Masks,
}

/// What a case came to in an engine.
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
        let mut result = FormResult::new(code, &options.engines);
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
                let differs = self.case(case, host, &mut result, options);
                progress.advance(differs);
            }
        }
        if result.ran == 0 && missing > 0 {
            result.not_generated = Some("no random encoding decodes to it");
        }
        Ok(result)
    }

    /// Runs a case in each engine and counts it. Whether any differs.
    fn case(
        &mut self,
        case: &Case,
        host: Result<Outcome, NoAnswer>,
        result: &mut FormResult,
        options: &Options,
    ) -> bool {
        let host = match host {
            Ok(host) => host,
            Err(why) => {
                result.no_answer += 1;
                if result.unanswered.is_none() {
                    let text = describe::describe(case, &[], options.seed, None);
                    let text = format!("{text}\n  the host gave no answer: {why:?}");
                    result.unanswered = Some(Finding { number: case.number, text });
                }
                return false;
            }
        };
        result.ran += 1;
        result.not_fetched += u64::from(ending(case, &host).0.is_fetch());
        let mut undefined = true;
        let mut differs = false;
        for i in 0..self.subjects.len() {
            let verdict = self.judge(i, case, &host);
            undefined &= matches!(verdict, Verdict::Same { undefined: true, .. });
            let score = &mut result.scores[i];
            score.count(&verdict);
            let Verdict::Different(found) = verdict else { continue };
            differs = true;
            if score.findings.len() < options.keep {
                let (simple, found) = shrink::shrink(self, i, case.clone(), found);
                let engine = Some(self.subjects[i].0);
                let text = describe::describe(&simple, &found, options.seed, engine);
                result.scores[i].findings.push(Finding { number: case.number, text });
            }
        }
        result.undefined += u64::from(undefined);
        differs
    }

    /// Runs a case on the host and in one engine. None where the host gives no answer.
    pub(crate) fn judge_alone(&mut self, subject: usize, case: &Case) -> Option<Verdict> {
        let host = self.sandbox.run(std::slice::from_ref(case)).ok()?.pop()?.ok()?;
        Some(self.judge(subject, case, &host))
    }

    /// Makes an engine drop what it has cached.
    pub(crate) fn forget(&mut self, subject: usize) {
        self.subjects[subject].1.forget();
    }

    fn judge(&mut self, subject: usize, case: &Case, host: &Outcome) -> Verdict {
        let ours = match self.subjects[subject].1.run(case) {
            Ok(ours) => ours,
            Err(text) => {
                return Verdict::Different(vec![compare::Difference {
                    what: "ending".to_owned(),
                    host: ending(case, host).0.to_string(),
                    ours: text,
                }]);
            }
        };
        let undefined = |outcome: &Outcome| matches!(ending(case, outcome).0, Ending::Fault(taken) if taken.is(&[Vector::UD]));
        if undefined(&ours) && !undefined(host) && generate::forms::not_offered(case.form).is_some()
        {
            return Verdict::NotOffered;
        }
        let compared = compare(case, host, &ours, self.without);
        if compared.found.is_empty() {
            Verdict::Same { undefined: undefined(host), masks: compared.masks }
        } else {
            Verdict::Different(compared.found)
        }
    }
}
