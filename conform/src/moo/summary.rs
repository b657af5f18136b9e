//! What a run came to.

use super::rules::RULES;
use crate::report::{Group, Report, Suite};
use std::fmt;
use std::path::PathBuf;

/// Counts of tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Score {
    /// Run.
    pub run: u64,
    /// Matched in every bit.
    pub strict: u64,
    /// Matched in what is defined: these, those explained by a rule, and the strict ones.
    pub masked: u64,
    /// Explained by one or more rules.
    pub explained: u64,
    /// Applications of each rule.
    pub by_rule: [u64; RULES.len()],
}

impl Score {
    fn add(&mut self, other: &Score) {
        self.run += other.run;
        self.strict += other.strict;
        self.masked += other.masked;
        self.explained += other.explained;
        for (sum, n) in self.by_rule.iter_mut().zip(other.by_rule) {
            *sum += n;
        }
    }
}

/// A test that did not match.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Index of the test in its file's full set.
    pub index: u32,
    /// The test, its initial registers and what differed.
    pub text: String,
}

/// Results of a file.
#[derive(Clone, Debug)]
pub struct FileResult {
    /// The file.
    pub path: PathBuf,
    /// Opcode: the file's name.
    pub stem: String,
    /// Counts.
    pub score: Score,
    /// Why the file could not be read.
    pub unreadable: Option<String>,
    /// The first tests that did not match.
    pub failures: Vec<Failure>,
}

/// Results of the suite.
#[derive(Clone, Debug)]
pub struct Summary {
    /// By file.
    pub files: Vec<FileResult>,
    /// The masks used.
    pub masks: Option<PathBuf>,
}

impl Summary {
    /// All counts together.
    pub fn score(&self) -> Score {
        let mut sum = Score::default();
        for file in &self.files {
            sum.add(&file.score);
        }
        sum
    }

    /// Whether every file could be read and every test matched in what is defined.
    pub fn passed(&self) -> bool {
        let score = self.score();
        score.masked == score.run && self.files.iter().all(|f| f.unreadable.is_none())
    }

    /// For machines.
    pub fn report(&self) -> Report {
        let masks = self.masks.as_ref().map_or("none".to_owned(), |p| p.display().to_string());
        let groups = self.files.iter().map(|file| {
            let failures = file.unreadable.iter().cloned();
            Group {
                name: file.stem.clone(),
                run: file.score.run,
                matched: file.score.masked,
                skipped: None,
                failures: failures.chain(file.failures.iter().map(|f| f.text.clone())).collect(),
            }
        });
        Suite {
            suite: "moo".to_owned(),
            parameters: vec![("masks".to_owned(), masks)],
            groups: groups.collect(),
        }
        .into()
    }

    /// One line for each file: strict and masked score.
    pub fn table(&self) -> String {
        let mut text = format!("{:10} {:>8} {:>8} {:>8}\n", "opcode", "tests", "strict", "masked");
        for file in &self.files {
            let s = &file.score;
            let mark =
                if s.masked == s.run && file.unreadable.is_none() { "" } else { "  DIFFERS" };
            text +=
                &format!("{:10} {:>8} {:>8} {:>8}{mark}\n", file.stem, s.run, s.strict, s.masked);
        }
        text
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 100.0 } else { 100.0 * part as f64 / whole as f64 }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            if let Some(reason) = &file.unreadable {
                writeln!(f, "{}: {reason}", file.path.display())?;
            }
            let failed = file.score.run - file.score.masked;
            if failed != 0 {
                writeln!(f, "{}: {failed} of {} differ", file.stem, file.score.run)?;
            }
            for failure in &file.failures {
                writeln!(f, "  {}", failure.text.replace('\n', "\n  "))?;
            }
        }
        let s = self.score();
        writeln!(f, "{} tests of {} files", s.run, self.files.len())?;
        writeln!(f, "strict: {} ({:.3} %)", s.strict, percent(s.strict, s.run))?;
        writeln!(f, "masked: {} ({:.3} %)", s.masked, percent(s.masked, s.run))?;
        writeln!(f, "explained by rules: {}", s.explained)?;
        for (rule, n) in RULES.iter().zip(s.by_rule) {
            writeln!(f, "  {n:6}  {}", rule.name)?;
        }
        if self.masks.is_none() {
            writeln!(f, "no masks file: undefined flags as iced-x86 lists them")?;
        }
        Ok(())
    }
}
