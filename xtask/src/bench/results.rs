//! What the runs measured.

use super::guest::{DONE, MARKER};
use super::process::{self, End, Limits};
use super::workload;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The measurements of one run of one contender.
#[derive(Default)]
pub(crate) struct Run {
    /// Units per second by workload.
    pub(crate) rates: HashMap<String, f64>,
    /// Wall time and CPU time from the start of the process to the guest's first program.
    pub(crate) init: Option<(Duration, Duration)>,
    /// Wall time of the whole process.
    pub(crate) wall: Duration,
    /// What was wrong.
    pub(crate) problem: Option<String>,
}

impl Run {
    /// Runs `command` and collects what its output reports; all of the output goes to `log`.
    pub(crate) fn follow(command: Command, limits: Limits, log: &Path) -> Result<Run> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        let mut file = BufWriter::new(file);
        writeln!(file, "{command:?}")?;
        let guest =
            command.get_args().any(|argument| argument.to_string_lossy().contains("rdinit"));
        let mut run = Run::default();
        let (mut done, mut last) = (false, String::new());
        let (end, wall) = process::observe(command, limits, |line, pid| {
            if line.text.ends_with(MARKER) && run.init.is_none() {
                run.init = Some((line.at, process::cpu_time(pid).unwrap_or_default()));
            }
            run.rates.extend(workload::rate(&line.text));
            done |= line.text.ends_with(DONE);
            // The log is for people; a full disk must not stop the measurement.
            let _ = writeln!(file, "{:9.3} {}", line.at.as_secs_f64(), line.text);
            if !line.text.is_empty() {
                last = line.text;
            }
        })?;
        let _ = file.flush();
        run.wall = wall;
        run.problem = match end {
            End::Silent(time) => Some(format!("stopped after {time:?} of silence")),
            End::TooLong(time) => Some(format!("stopped after {time:?}")),
            End::Exit(status) if !status.success() => Some(format!("ended with {status}")),
            End::Exit(_) if guest && !done => Some("ended before it was done".into()),
            End::Exit(_) => None,
        };
        if let Some(problem) = &mut run.problem {
            *problem = format!("{problem}, the last line being: {last}");
        }
        Ok(run)
    }

    /// Adds the rates of another run of the same contender in the same round.
    pub(crate) fn join(&mut self, other: &Run) {
        self.rates.extend(other.rates.iter().map(|(name, &rate)| (name.clone(), rate)));
        self.wall += other.wall;
        self.problem = self.problem.take().or_else(|| other.problem.clone());
    }

    /// One line for the person who waits.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        if let Some((wall, cpu)) = self.init {
            let (wall, cpu) = (wall.as_secs_f64(), cpu.as_secs_f64());
            text = format!("init after {wall:.2} s (CPU {cpu:.2} s), ");
        }
        if !self.rates.is_empty() {
            text += &format!("{} workloads, ", self.rates.len());
        }
        text + &format!("{:.1} s altogether", self.wall.as_secs_f64())
    }
}

/// All runs, by contender, in the order of rounds.
#[derive(Default)]
pub(crate) struct Results {
    columns: Vec<(&'static str, Vec<Run>)>,
}

impl Results {
    pub(crate) fn add(&mut self, contender: &'static str, run: Run) {
        match self.columns.iter_mut().find(|column| column.0 == contender) {
            Some((_, runs)) => runs.push(run),
            None => self.columns.push((contender, vec![run])),
        }
    }

    pub(crate) fn any_problem(&self) -> bool {
        self.columns.iter().flat_map(|column| &column.1).any(|run| run.problem.is_some())
    }

    pub(crate) fn contenders(&self) -> Vec<&'static str> {
        self.columns.iter().map(|column| column.0).collect()
    }

    fn runs(&self, contender: &str) -> &[Run] {
        self.columns.iter().find(|column| column.0 == contender).map_or(&[], |column| &column.1)
    }

    /// The median over the rounds of what `value` finds in a run.
    pub(crate) fn median(
        &self,
        contender: &str,
        value: impl Fn(&Run) -> Option<f64>,
    ) -> Option<f64> {
        median(self.runs(contender).iter().filter_map(value).collect())
    }

    /// The median over the rounds of the ratio of two contenders' values in the same round.
    pub(crate) fn ratio(
        &self,
        contender: &str,
        reference: &str,
        value: impl Fn(&Run) -> Option<f64>,
    ) -> Option<f64> {
        let pairs = self.runs(contender).iter().zip(self.runs(reference));
        median(pairs.filter_map(|(a, b)| Some(value(a)? / value(b)?)).collect())
    }
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 0 => Some((values[middle - 1] + values[middle]) / 2.0),
        _ => Some(values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: Option<f64>) -> Run {
        Run { rates: rate.map(|rate| ("alu".into(), rate)).into_iter().collect(), ..Run::default() }
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut results = Results::default();
        for (a, b) in [(Some(2.0), Some(1.0)), (Some(60.0), Some(20.0)), (Some(9.0), None)] {
            results.add("a", run(a));
            results.add("b", run(b));
        }
        let alu = |run: &Run| run.rates.get("alu").copied();
        assert_eq!(results.median("a", alu), Some(9.0));
        assert_eq!(results.ratio("a", "b", alu), Some(2.5));
        assert_eq!(results.ratio("a", "c", alu), None);
    }
}
