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
use sandbox::{BATCH, Limits, Remote, Sandbox, Trouble};
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
}

/// Makes an engine under test, one for each thread, each in a process of its own, and again when
/// that has died. Its segments are those of [`segments::GDT`] and [`segments::LDT`].
pub type MakeSubject<'a> = dyn Fn(Engine) -> Result<Box<dyn Subject>, GuestError> + Sync + 'a;

/// Runs the suite. The engines run in copies of this process: it should not have run any itself.
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
    // Before there are threads: see `Remote::new`.
    let subject = |&engine: &Engine| Ok((engine, Remote::new(&|| make(engine))?));
    let subjects = || options.engines.iter().map(subject).collect::<Result<Vec<_>, SandboxError>>();
    let threads = options.threads.clamp(1, forms.len());
    let all = (0..threads).map(|_| subjects()).collect::<Result<Vec<_>, _>>()?;
    let work = |subjects| -> Result<(), HostError> {
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
        let work = &work;
        let threads: Vec<_> =
            all.into_iter().map(|subjects| scope.spawn(move || work(subjects))).collect();
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

/// A worker: a child process for the host CPU, and one for each engine.
pub(crate) struct Bench {
    sandbox: Sandbox,
    subjects: Vec<(Engine, Remote)>,
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
    /// The engine did not run it, after too many crashes or hangs.
    NotRun,
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
        let mut limits = vec![Limits::FORM; self.subjects.len()];
        let mut cases = Vec::with_capacity(BATCH);
        let (mut number, mut missing) = (numbers.start, 0);
        while number < numbers.end {
            cases.clear();
            while number < numbers.end && cases.len() < BATCH {
                match generator.case(code, number) {
                    Some(case) => cases.push(case),
                    None => missing += 1,
                }
                number += 1;
            }
            self.batch(&cases, &mut limits, &mut result, options, progress)?;
        }
        if result.ran == 0 && missing > 0 {
            result.not_generated = Some("no random encoding decodes to it");
        }
        Ok(result)
    }

    /// Runs cases on the host and in each engine, and counts them.
    fn batch(
        &mut self,
        cases: &[Case],
        limits: &mut [Limits],
        result: &mut FormResult,
        options: &Options,
        progress: &Progress,
    ) -> Result<(), HostError> {
        let mut answered = Vec::with_capacity(cases.len());
        for (case, host) in cases.iter().zip(self.sandbox.run(cases)?) {
            match host {
                Ok(host) => answered.push((case, host)),
                Err(why) => {
                    result.no_answer(case, &why, options.seed);
                    progress.advance(false);
                }
            }
        }
        let cases: Vec<&Case> = answered.iter().map(|(case, _)| *case).collect();
        let mut troubles = Vec::with_capacity(limits.len());
        for ((_, remote), limits) in self.subjects.iter_mut().zip(limits) {
            troubles.push(remote.run(&cases, false, limits)?);
        }
        // Simplifying runs other cases, and what these came to is lost: first all are counted.
        let mut found = Vec::new();
        for (n, (case, host)) in answered.iter().enumerate() {
            result.ran += 1;
            result.not_fetched += u64::from(ending(case, host).0.is_fetch());
            let (mut undefined, mut differs) = (true, false);
            for (i, troubles) in troubles.iter_mut().enumerate() {
                let ours = match troubles[n].take() {
                    Some(trouble) => Err(trouble),
                    None => self.subjects[i].1.outcome(n, case),
                };
                let how = How::of(&ours);
                let verdict = self.judge(case, host, ours);
                undefined &= matches!(verdict, Verdict::Same { undefined: true, .. });
                result.scores[i].count(&verdict);
                if let Verdict::Different(differences) = verdict {
                    differs = true;
                    found.push((i, *case, differences, how));
                }
            }
            result.undefined += u64::from(undefined);
            progress.advance(differs);
        }
        for (i, case, differences, how) in found {
            if result.scores[i].findings.len() < options.keep {
                let text = self.finding(i, case, differences, how, options.seed);
                result.scores[i].findings.push(Finding { number: case.number, text });
            }
        }
        Ok(())
    }

    /// The text of a difference, simplified where that takes no hangs.
    fn finding(
        &mut self,
        subject: usize,
        case: &Case,
        found: Vec<compare::Difference>,
        how: How,
        seed: u64,
    ) -> String {
        let engine = Some(self.subjects[subject].0);
        // A crash or a hang may need what the engine had cached in the cases before, now lost.
        let alone = how == How::Came
            || matches!(self.judge_alone(subject, case), Some(Verdict::Different(_)));
        let (simple, found) = if alone && how != How::Hung {
            shrink::shrink(self, subject, case.clone(), found)
        } else {
            (case.clone(), found)
        };
        describe::describe(&simple, &found, seed, engine, alone)
    }

    /// Runs a case on the host and in one engine. None where one of the processes gives no answer.
    pub(crate) fn judge_alone(&mut self, subject: usize, case: &Case) -> Option<Verdict> {
        self.judge_again(subject, case, false)
    }

    /// As [`Bench::judge_alone`]; with `fresh`, the engine drops what it has cached first.
    pub(crate) fn judge_again(
        &mut self,
        subject: usize,
        case: &Case,
        fresh: bool,
    ) -> Option<Verdict> {
        let host = self.sandbox.run(std::slice::from_ref(case)).ok()?.pop()?.ok()?;
        let mut limits = Limits::FORM;
        let remote = &mut self.subjects[subject].1;
        let ours = match remote.run(&[case], fresh, &mut limits).ok()?.pop()? {
            Some(trouble) => Err(trouble),
            None => remote.outcome(0, case),
        };
        Some(self.judge(case, &host, ours))
    }

    fn judge(&self, case: &Case, host: &Outcome, ours: Result<Outcome, Trouble>) -> Verdict {
        let ours = match ours {
            Ok(ours) => ours,
            Err(trouble) => {
                return match trouble.difference(ending(case, host).0.to_string()) {
                    Some(difference) => Verdict::Different(vec![difference]),
                    None => Verdict::NotRun,
                };
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

/// How an engine ended a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// It came back.
    Came,
    /// Its process died.
    Crashed,
    /// It did not come back.
    Hung,
}

impl How {
    fn of(ours: &Result<Outcome, Trouble>) -> How {
        match ours {
            Ok(_) | Err(Trouble::Failed(_) | Trouble::NotRun) => How::Came,
            Err(Trouble::Crash(..)) => How::Crashed,
            Err(Trouble::Hang(_)) => How::Hung,
        }
    }
}
