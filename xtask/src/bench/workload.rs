//! The program that is measured.

use super::process::Limits;
use super::results::Run;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The copy of the source that comes with the project.
const OWN_SOURCE: &str = "benches/guest/mb.c";

/// What a line with a rate starts with: `MB name rate`, in the workload's units per second.
const LINE: &str = "MB ";

/// A static program of many small workloads, each of which prints its rate.
pub(crate) struct Workload {
    /// The program on the host.
    pub(crate) program: PathBuf,
    /// Its workloads, those asked for, in its own order.
    pub(crate) names: Vec<String>,
    /// Whether these are all.
    complete: bool,
    /// Seconds for each.
    seconds: f64,
}

impl Workload {
    /// Compiles `source` (or the project's copy where that file does not exist) into `directory`
    /// and picks the workloads named by `only`, all if it is empty.
    pub(crate) fn build(
        source: &Path,
        directory: &Path,
        only: &[String],
        seconds: f64,
    ) -> Result<Workload> {
        let own = Path::new(OWN_SOURCE);
        let source = if source.exists() { source } else { own };
        ensure!(source.exists(), "no workload at {}: give --workload FILE", source.display());
        let program = directory.join("mb");
        let status = Command::new("gcc")
            .args(["-O2", "-static", "-o"])
            .arg(&program)
            .arg(source)
            .arg("-lm")
            .status()
            .context("gcc is needed to build the workload (Debian: gcc, libc6-dev)")?;
        ensure!(status.success(), "gcc failed to build {}", source.display());
        let text = std::fs::read_to_string(source)?;
        let all = names(&text);
        ensure!(!all.is_empty(), "{}: no table of workloads in it", source.display());
        if let Some(unknown) = only.iter().find(|name| !all.contains(name)) {
            bail!("no workload is called {unknown}; there are {}", all.join(", "));
        }
        let complete = only.is_empty();
        let names = all.into_iter().filter(|name| complete || only.contains(name)).collect();
        Ok(Workload { program, names, complete, seconds })
    }

    /// Arguments of each start of the program that it takes.
    pub(crate) fn arguments(&self) -> Vec<[String; 2]> {
        let one = |name: &str| [name.to_owned(), self.seconds.to_string()];
        if self.complete {
            return vec![one("all")];
        }
        self.names.iter().map(|name| one(name)).collect()
    }

    /// Runs it on the host.
    pub(crate) fn run_natively(&self, limits: Limits, log: &Path) -> Result<Run> {
        let program = self.program.canonicalize()?;
        let mut whole: Option<Run> = None;
        for arguments in self.arguments() {
            let mut command = Command::new(&program);
            command.args(arguments);
            let mut run = Run::follow(command, limits, log)?;
            if let Some(whole) = &whole {
                run.join(whole);
            }
            whole = Some(run);
        }
        whole.context("no workload")
    }
}

/// The workload and the rate that a line of the program's output reports.
pub(crate) fn rate(line: &str) -> Option<(String, f64)> {
    let mut words = line.strip_prefix(LINE)?.split_whitespace();
    let (name, rate) = (words.next()?, words.next()?.parse::<f64>().ok()?);
    (rate.is_finite() && rate > 0.0).then(|| (name.to_owned(), rate))
}

/// The names in the source's table of workloads, `W[]={{"name",function,unit},...}`.
fn names(source: &str) -> Vec<String> {
    let Some((_, table)) = source.split_once("W[]={") else { return Vec::new() };
    let table = table.split_once(';').map_or(table, |(table, _)| table);
    table.split("{\"").skip(1).filter_map(|row| Some(row.split_once('"')?.0.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        assert_eq!(rate("MB alu            385091998.63"), Some(("alu".into(), 385_091_998.63)));
        for other in ["", "MB", "MB alu", "MB alu x", "MB alu 0", "MB alu inf", "[ 1.0] MB alu 1"] {
            assert_eq!(rate(other), None, "{other}");
        }
    }

    #[test]
    fn the_projects_own_source_has_its_table() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/guest/mb.c");
        let names = names(&std::fs::read_to_string(source).unwrap());
        assert_eq!(names.len(), 17);
        assert_eq!((names[0].as_str(), names[16].as_str()), ("alu", "smc-jit"));
    }
}
