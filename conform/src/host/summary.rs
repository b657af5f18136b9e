//! What a run came to, and the coverage table.

use super::describe::describe;
use super::generate::forms::not_offered;
use super::masks::Mask;
use super::sandbox::NoAnswer;
use super::state::Case;
use super::{Engine, Verdict};
use crate::report::{Group, Report, Suite};
use iced_x86::Code;
use std::collections::BTreeMap;
use std::fmt;

/// A difference.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Number of the case.
    pub number: u64,
    /// Instruction, state, differences and the command that shows it again.
    pub text: String,
}

/// What an engine did with the cases of a form.
#[derive(Clone, Debug)]
pub struct Score {
    /// The engine.
    pub engine: Engine,
    /// Cases in which it did what the host did.
    pub matched: u64,
    /// Cases that only the host executes, as the guest's CPUID says.
    pub not_offered: u64,
    /// Cases that differed.
    pub differed: u64,
    /// Cases that it did not run, since it had crashed or hung in too many of the form.
    pub not_run: u64,
    /// Cases that matched by each mask, in the order of [`Mask::ALL`].
    pub masked: [u64; Mask::ALL.len()],
    /// The first differences.
    pub findings: Vec<Finding>,
}

impl Score {
    fn new(engine: Engine) -> Score {
        let masked = [0; Mask::ALL.len()];
        Score {
            engine,
            matched: 0,
            not_offered: 0,
            differed: 0,
            not_run: 0,
            masked,
            findings: Vec::new(),
        }
    }

    pub(super) fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Same { masks, .. } => {
                masks.iter().for_each(|mask| self.masked[mask as usize] += 1);
                self.matched += 1;
            }
            Verdict::NotOffered => self.not_offered += 1,
            Verdict::Different(_) => self.differed += 1,
            Verdict::NotRun => self.not_run += 1,
        }
    }

    fn add(&mut self, other: &Score) {
        self.matched += other.matched;
        self.not_offered += other.not_offered;
        self.differed += other.differed;
        self.not_run += other.not_run;
        self.masked.iter_mut().zip(other.masked).for_each(|(sum, n)| *sum += n);
    }
}

/// Results of a form.
#[derive(Clone, Debug)]
pub struct FormResult {
    /// The form.
    pub code: Code,
    /// Cases that the host and each engine ran.
    pub ran: u64,
    /// Of these, cases in which all took #UD.
    pub undefined: u64,
    /// Of these, cases of which the host could not fetch all bytes.
    pub not_fetched: u64,
    /// Cases that the host did not answer.
    pub no_answer: u64,
    /// The first of them.
    pub unanswered: Option<Finding>,
    /// Why nothing was run.
    pub not_generated: Option<&'static str>,
    /// By engine.
    pub scores: Vec<Score>,
}

impl FormResult {
    pub(super) fn new(code: Code, engines: &[Engine]) -> FormResult {
        FormResult {
            code,
            ran: 0,
            undefined: 0,
            not_fetched: 0,
            no_answer: 0,
            unanswered: None,
            not_generated: None,
            scores: engines.iter().map(|&engine| Score::new(engine)).collect(),
        }
    }

    pub(super) fn not_generated(
        code: Code,
        reason: &'static str,
        engines: &[Engine],
    ) -> FormResult {
        FormResult { not_generated: Some(reason), ..FormResult::new(code, engines) }
    }

    /// Counts a case that the host did not answer.
    pub(super) fn no_answer(&mut self, case: &Case, why: &NoAnswer, seed: u64) {
        self.no_answer += 1;
        if self.unanswered.is_none() {
            let text = describe(case, &[], seed, None, true);
            let text = format!("{text}\n  the host gave no answer: {why:?}");
            self.unanswered = Some(Finding { number: case.number, text });
        }
    }

    fn add(&mut self, other: &FormResult) {
        self.ran += other.ran;
        self.undefined += other.undefined;
        self.not_fetched += other.not_fetched;
        self.no_answer += other.no_answer;
        self.scores.iter_mut().zip(&other.scores).for_each(|(sum, score)| sum.add(score));
    }

    /// Cases that differed, each engine's counted.
    pub fn differed(&self) -> u64 {
        self.scores.iter().map(|score| score.differed).sum()
    }

    /// What there is to say besides numbers.
    pub fn note(&self) -> String {
        if let Some(reason) = self.not_generated {
            return format!("not generated: {reason}");
        }
        let mut notes = Vec::new();
        if self.undefined > 0 && self.undefined + self.not_fetched >= self.ran {
            notes.push("not supported by the host: #UD in all".to_owned());
        }
        if self.scores.iter().any(|score| score.not_offered > 0) {
            let reason = not_offered(self.code).unwrap_or("not offered");
            notes.push(format!("not offered to guests: {reason}"));
        }
        for score in self.scores.iter().filter(|score| score.not_run > 0) {
            let (engine, not_run) = (score.engine.name(), score.not_run);
            notes.push(format!("{engine} crashed or hung too often: {not_run} not run"));
        }
        if self.no_answer > 0 {
            notes.push(format!("{} without an answer of the host", self.no_answer));
        }
        notes.join("; ")
    }
}

/// Results of the suite.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Seed.
    pub seed: u64,
    /// Cases for each form.
    pub count: u64,
    /// Code size.
    pub bits: u32,
    /// What was compared with the host.
    pub engines: Vec<Engine>,
    /// By form.
    pub forms: Vec<FormResult>,
}

impl Summary {
    /// All counts together.
    pub fn total(&self) -> FormResult {
        let mut sum = FormResult::new(Code::INVALID, &self.engines);
        self.forms.iter().for_each(|form| sum.add(form));
        sum
    }

    /// Whether nothing differed, and the host answered everything.
    pub fn passed(&self) -> bool {
        let total = self.total();
        total.differed() == 0 && total.no_answer == 0
    }

    /// For machines: a suite for each engine, a group for each form.
    pub fn report(&self) -> Report {
        Report { suites: self.engines.iter().enumerate().map(|(i, e)| self.suite(i, *e)).collect() }
    }

    fn suite(&self, number: usize, engine: Engine) -> Suite {
        let groups = self.forms.iter().map(|form| {
            let score = &form.scores[number];
            let findings = score.findings.iter().chain(&form.unanswered);
            Group {
                name: format!("{:?}", form.code),
                run: form.ran,
                matched: score.matched,
                skipped: form.not_generated.map(str::to_owned),
                failures: findings.map(|finding| finding.text.clone()).collect(),
            }
        });
        Suite {
            suite: format!("host-{}-{}", self.bits, engine.name()),
            parameters: vec![
                ("seed".to_owned(), self.seed.to_string()),
                ("count".to_owned(), self.count.to_string()),
                ("bits".to_owned(), self.bits.to_string()),
                ("engine".to_owned(), engine.name().to_owned()),
            ],
            groups: groups.collect(),
        }
    }

    /// The coverage table by mnemonic, in Markdown.
    pub fn coverage(&self) -> String {
        let mut lines: BTreeMap<String, (u64, FormResult, Vec<String>)> = BTreeMap::new();
        for form in &self.forms {
            let name = format!("{:?}", form.code.mnemonic()).to_uppercase();
            let empty = || (0, FormResult::new(form.code, &self.engines), Vec::new());
            let line = lines.entry(name).or_insert_with(empty);
            line.0 += 1;
            line.1.add(form);
            let note = form.note();
            if !note.is_empty() && !line.2.contains(&note) {
                line.2.push(note);
            }
        }
        let mut text = String::from("| mnemonic | forms | ran |");
        self.engines.iter().for_each(|e| text += &format!(" matched, {} |", e.name()));
        text += " differed | all #UD | note |\n|---|---:|---:|";
        text += &"---:|".repeat(self.engines.len());
        text += "---:|---:|---|\n";
        for (name, (forms, sum, notes)) in lines {
            text += &format!("| {name} | {forms} | {} |", sum.ran);
            sum.scores.iter().for_each(|score| text += &format!(" {} |", score.matched));
            let (differed, undefined) = (sum.differed(), sum.undefined);
            text += &format!(" {differed} | {undefined} | {} |\n", notes.join("; "));
        }
        text
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for form in &self.forms {
            for score in form.scores.iter().filter(|score| score.differed > 0) {
                let (engine, differed) = (score.engine.name(), score.differed);
                write!(f, "{:?}, {engine}: {differed} of {} differ", form.code, form.ran)?;
                if score.not_run > 0 {
                    write!(f, ", {} not run after so many crashes or hangs", score.not_run)?;
                }
                writeln!(f)?;
                write_findings(f, &score.findings)?;
            }
            if form.no_answer > 0 {
                writeln!(f, "{:?}: {}", form.code, form.note())?;
                write_findings(f, form.unanswered.as_slice())?;
            }
        }
        let t = self.total();
        let generated = self.forms.iter().filter(|form| form.not_generated.is_none()).count();
        writeln!(
            f,
            "{}-bit code, seed {}: {} forms, {generated} generated, {} cases (of these #UD in all: \
             {}), without an answer {}",
            self.bits,
            self.seed,
            self.forms.len(),
            t.ran,
            t.undefined,
            t.no_answer
        )?;
        for score in &t.scores {
            writeln!(
                f,
                "{}: matched {}, differed {}, not run {}, not offered to guests {}; matched by masks: {}",
                score.engine.name(),
                score.matched,
                score.differed,
                score.not_run,
                score.not_offered,
                mask_counts(score)
            )?;
        }
        Ok(())
    }
}

fn write_findings(f: &mut fmt::Formatter<'_>, findings: &[Finding]) -> fmt::Result {
    findings.iter().try_for_each(|found| writeln!(f, "  {}", found.text.replace('\n', "\n  ")))
}

/// How many cases each mask covered.
fn mask_counts(total: &Score) -> String {
    let counted = Mask::ALL.into_iter().zip(total.masked).filter(|(_, n)| *n > 0);
    let texts: Vec<String> = counted.map(|(mask, n)| format!("{mask} {n}")).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}
