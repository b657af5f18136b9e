//! What a run came to, and the coverage table.

use super::generate::forms::not_offered;
use super::masks::Mask;
use super::{Engine, Verdict};
use crate::report::{Group, Report};
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

/// Results of a form.
#[derive(Clone, Debug)]
pub struct FormResult {
    /// The form.
    pub code: Code,
    /// Cases run on both.
    pub ran: u64,
    /// Of these, cases in which both did the same.
    pub matched: u64,
    /// Of these, cases in which both took #UD.
    pub undefined: u64,
    /// Of the cases run, those that only the host executes, as the guest's CPUID says.
    pub not_offered: u64,
    /// Of the cases run, those that differed.
    pub differed: u64,
    /// Cases that the host did not answer.
    pub no_answer: u64,
    /// Cases that matched by each mask, in the order of [`Mask::ALL`].
    pub masked: [u64; Mask::ALL.len()],
    /// Why nothing was run.
    pub not_generated: Option<&'static str>,
    /// The first differences.
    pub findings: Vec<Finding>,
}

impl FormResult {
    pub(super) fn new(code: Code) -> FormResult {
        FormResult {
            code,
            ran: 0,
            matched: 0,
            undefined: 0,
            not_offered: 0,
            differed: 0,
            no_answer: 0,
            masked: [0; Mask::ALL.len()],
            not_generated: None,
            findings: Vec::new(),
        }
    }

    pub(super) fn not_generated(code: Code, reason: &'static str) -> FormResult {
        FormResult { not_generated: Some(reason), ..FormResult::new(code) }
    }

    pub(super) fn count(&mut self, verdict: &Verdict) {
        if !matches!(verdict, Verdict::NoAnswer(_)) {
            self.ran += 1;
        }
        match verdict {
            Verdict::Same { undefined, masks } => {
                masks.iter().for_each(|mask| self.masked[mask as usize] += 1);
                self.matched += 1;
                self.undefined += u64::from(*undefined);
            }
            Verdict::NotOffered => self.not_offered += 1,
            Verdict::NoAnswer(_) => self.no_answer += 1,
            Verdict::Different(_) => self.differed += 1,
        }
    }

    fn add(&mut self, other: &FormResult) {
        self.ran += other.ran;
        self.matched += other.matched;
        self.undefined += other.undefined;
        self.not_offered += other.not_offered;
        self.differed += other.differed;
        self.no_answer += other.no_answer;
        self.masked.iter_mut().zip(other.masked).for_each(|(sum, n)| *sum += n);
    }

    /// What there is to say besides numbers.
    pub fn note(&self) -> String {
        if let Some(reason) = self.not_generated {
            return format!("not generated: {reason}");
        }
        let mut notes = Vec::new();
        if self.ran > 0 && self.undefined == self.ran {
            notes.push("not supported by the host: #UD in both".to_owned());
        }
        if self.not_offered > 0 {
            let reason = not_offered(self.code).unwrap_or("not offered");
            notes.push(format!("not offered to guests: {reason}"));
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
    pub engine: Engine,
    /// By form.
    pub forms: Vec<FormResult>,
}

impl Summary {
    /// All counts together.
    pub fn total(&self) -> FormResult {
        let mut sum = FormResult::new(Code::INVALID);
        self.forms.iter().for_each(|form| sum.add(form));
        sum
    }

    /// Whether nothing differed, and the host answered everything.
    pub fn passed(&self) -> bool {
        let total = self.total();
        total.differed == 0 && total.no_answer == 0
    }

    /// For machines: a group for each form.
    pub fn report(&self) -> Report {
        let groups = self.forms.iter().map(|form| {
            let mut failures: Vec<String> = form.findings.iter().map(|f| f.text.clone()).collect();
            if form.no_answer > 0 {
                failures.push(form.note());
            }
            Group {
                name: format!("{:?}", form.code),
                run: form.ran,
                matched: form.matched,
                skipped: form.not_generated.map(str::to_owned),
                failures,
            }
        });
        Report {
            suite: format!("host-{}", self.bits),
            parameters: vec![
                ("seed".to_owned(), self.seed.to_string()),
                ("count".to_owned(), self.count.to_string()),
                ("bits".to_owned(), self.bits.to_string()),
                ("engine".to_owned(), self.engine.name().to_owned()),
            ],
            groups: groups.collect(),
        }
    }

    /// The coverage table by mnemonic, in Markdown.
    pub fn coverage(&self) -> String {
        let mut lines: BTreeMap<String, (u64, FormResult, Vec<String>)> = BTreeMap::new();
        for form in &self.forms {
            let name = format!("{:?}", form.code.mnemonic()).to_uppercase();
            let line =
                lines.entry(name).or_insert_with(|| (0, FormResult::new(form.code), Vec::new()));
            line.0 += 1;
            line.1.add(form);
            let note = form.note();
            if !note.is_empty() && !line.2.contains(&note) {
                line.2.push(note);
            }
        }
        let mut text = String::from(
            "| mnemonic | forms | ran | matched | differed | both #UD | note |\n\
             |---|---:|---:|---:|---:|---:|---|\n",
        );
        for (name, (forms, sum, notes)) in lines {
            text += &format!(
                "| {name} | {forms} | {} | {} | {} | {} | {} |\n",
                sum.ran,
                sum.matched,
                sum.differed,
                sum.undefined,
                notes.join("; ")
            );
        }
        text
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for form in self.forms.iter().filter(|form| form.differed + form.no_answer > 0) {
            writeln!(
                f,
                "{:?}: {} of {} differ{}",
                form.code,
                form.differed,
                form.ran,
                if form.no_answer > 0 { format!(", {}", form.note()) } else { String::new() }
            )?;
            for finding in &form.findings {
                writeln!(f, "  {}", finding.text.replace('\n', "\n  "))?;
            }
        }
        let t = self.total();
        let generated = self.forms.iter().filter(|form| form.not_generated.is_none()).count();
        writeln!(
            f,
            "{}-bit code, {}, seed {}: {} forms, {generated} generated, {} cases",
            self.bits,
            self.engine.name(),
            self.seed,
            self.forms.len(),
            t.ran
        )?;
        writeln!(
            f,
            "matched {} (of these #UD in both: {}), differed {}, not offered to guests {}, \
             without an answer {}",
            t.matched, t.undefined, t.differed, t.not_offered, t.no_answer
        )?;
        writeln!(f, "matched by masks: {}", mask_counts(&t))
    }
}

/// How many cases each mask covered.
fn mask_counts(total: &FormResult) -> String {
    let counted = Mask::ALL.into_iter().zip(total.masked).filter(|(_, n)| *n > 0);
    let texts: Vec<String> = counted.map(|(mask, n)| format!("{mask} {n}")).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}
