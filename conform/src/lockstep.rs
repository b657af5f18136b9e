//! Whole kernels on both engines side by side: the machine's lockstep mode as a suite.

use crate::report::{Group, Report, Suite};
use crate::{Progress, Shard};
use machine::Kernel;
use machine::lockstep::{self, Verdict};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Kernels, and directories that are searched for files named `*.flat`, `*.elf` and `*.bin`.
    pub paths: Vec<PathBuf>,
    /// Initial RAM disk of all of them.
    pub initrd: Option<PathBuf>,
    /// Command line of all of them.
    pub append: String,
    /// Bytes of RAM.
    pub memory: u64,
    /// Instructions of each kernel, if it does not end before.
    pub instructions: u64,
    /// Whether translations are kept until the guest invalidates them.
    pub strict: bool,
    /// The part of the kernels to run.
    pub shard: Shard,
}

/// Why the suite could not run.
#[derive(Debug, Error)]
pub enum LockstepError {
    /// A file or directory.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Directories without kernels.
    #[error("no kernels: name them, or directories with files *.flat, *.elf or *.bin")]
    NoKernels,
}

/// How a kernel did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// No difference.
    Same {
        /// Instructions compared.
        instructions: u64,
        /// How the guest ended, where it did before the limit.
        reason: Option<String>,
    },
    /// The engines differ: the report.
    Differ(String),
    /// It could not be run: why.
    Error(String),
}

/// The result of a kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelResult {
    /// The file.
    pub path: PathBuf,
    /// What happened.
    pub ending: Ending,
}

/// Results of the suite.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What was asked for.
    pub options: Options,
    /// By kernel.
    pub kernels: Vec<KernelResult>,
}

/// Runs the suite.
///
/// # Errors
/// [`LockstepError`], when nothing could be run. A file that is no kernel is a result.
pub fn run(options: &Options, progress: &Progress) -> Result<Summary, LockstepError> {
    let kernels = kernels(&options.paths)?;
    if kernels.is_empty() {
        return Err(LockstepError::NoKernels);
    }
    let initrd = options.initrd.as_deref().map(read).transpose()?;
    let mine = kernels.into_iter().enumerate().filter(|(n, _)| options.shard.owns(*n as u64));
    let mine: Vec<PathBuf> = mine.map(|(_, path)| path).collect();
    progress.expect(mine.len() as u64);
    let mut results = Vec::with_capacity(mine.len());
    for path in mine {
        let kernel = Kernel {
            image: read(&path)?,
            name: path.display().to_string(),
            initrd: initrd.clone(),
            command_line: options.append.clone(),
            ..Kernel::default()
        };
        let ending = run_kernel(options, kernel);
        progress.advance(!matches!(ending, Ending::Same { .. }));
        results.push(KernelResult { path, ending });
    }
    Ok(Summary { options: options.clone(), kernels: results })
}

fn run_kernel(options: &Options, kernel: Kernel) -> Ending {
    let options = lockstep::Options {
        kernel,
        memory: options.memory,
        instructions: Some(options.instructions),
        strict: options.strict,
    };
    match lockstep::run(&options, Box::new(io::sink())) {
        Ok(Verdict::Same { instructions, reason }) => {
            Ending::Same { instructions, reason: reason.map(|reason| format!("{reason:?}")) }
        }
        Ok(Verdict::Differ(report)) => Ending::Differ(report.to_string()),
        Err(error) => Ending::Error(error.to_string()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LockstepError> {
    fs::read(path).map_err(|source| LockstepError::Read { path: path.to_owned(), source })
}

/// The kernels that the paths name, those of a directory by name.
fn kernels(paths: &[PathBuf]) -> Result<Vec<PathBuf>, LockstepError> {
    let mut all = Vec::new();
    for path in paths {
        let error = |source| LockstepError::Read { path: path.clone(), source };
        if !fs::metadata(path).map_err(error)?.is_dir() {
            all.push(path.clone());
            continue;
        }
        let entries: Result<Vec<_>, _> = fs::read_dir(path).map_err(error)?.collect();
        let mut found: Vec<PathBuf> =
            entries.map_err(error)?.into_iter().map(|entry| entry.path()).collect();
        found.retain(|file| {
            file.extension().is_some_and(|e| e == "flat" || e == "elf" || e == "bin")
        });
        found.sort();
        all.extend(found);
    }
    Ok(all)
}

impl KernelResult {
    /// Whether the engines agreed.
    pub fn passed(&self) -> bool {
        matches!(self.ending, Ending::Same { .. })
    }

    fn failure(&self, options: &Options) -> Option<String> {
        let text = match &self.ending {
            Ending::Same { .. } => return None,
            Ending::Differ(text) | Ending::Error(text) => text.trim_end(),
        };
        Some(format!("{text}\nagain: {}", again(options, &self.path)))
    }
}

/// The command that shows a kernel's difference again.
fn again(options: &Options, path: &Path) -> String {
    let mut command = format!(
        "ringshift conform lockstep {} --instructions {}",
        path.display(),
        options.instructions
    );
    command += &format!(" --memory {}", options.memory);
    if let Some(initrd) = &options.initrd {
        command += &format!(" --initrd {}", initrd.display());
    }
    if !options.append.is_empty() {
        command += &format!(" --append {:?}", options.append);
    }
    if options.strict {
        command += " --strict";
    }
    command
}

impl Summary {
    /// Whether all kernels ran, and nothing differed.
    pub fn passed(&self) -> bool {
        self.kernels.iter().all(KernelResult::passed)
    }

    /// For machines: a group for each kernel.
    pub fn report(&self) -> Report {
        let groups = self.kernels.iter().map(|kernel| Group {
            name: kernel.path.display().to_string(),
            run: 1,
            matched: u64::from(kernel.passed()),
            skipped: None,
            failures: kernel.failure(&self.options).into_iter().collect(),
        });
        Suite {
            suite: "lockstep".to_owned(),
            parameters: vec![
                ("instructions".to_owned(), self.options.instructions.to_string()),
                ("memory".to_owned(), self.options.memory.to_string()),
                ("strict".to_owned(), self.options.strict.to_string()),
            ],
            groups: groups.collect(),
        }
        .into()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kernel in &self.kernels {
            let path = kernel.path.display();
            match &kernel.ending {
                Ending::Same { instructions, reason: None } => {
                    writeln!(f, "{path}: no difference in {instructions} instructions")?;
                }
                Ending::Same { instructions, reason: Some(reason) } => {
                    writeln!(
                        f,
                        "{path}: no difference in {instructions} instructions, to {reason}"
                    )?;
                }
                Ending::Differ(_) => writeln!(f, "{path}: the engines differ")?,
                Ending::Error(_) => writeln!(f, "{path}: not run")?,
            }
            if let Some(text) = kernel.failure(&self.options) {
                writeln!(f, "  {}", text.replace('\n', "\n  "))?;
            }
        }
        let same = self.kernels.iter().filter(|kernel| kernel.passed()).count();
        writeln!(f, "{same} of {} kernels without a difference", self.kernels.len())
    }
}
