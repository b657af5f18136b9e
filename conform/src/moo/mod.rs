//! Hardware-captured single-instruction tests (SingleStepTests) in MOO format, in real mode.

pub mod format;
mod judge;
mod machine;
mod masks;
pub mod rules;
mod summary;

pub use format::FormatError;
pub use machine::MachineError;
pub use masks::{MaskError, Masks};
pub use summary::{Failure, FileResult, Score, Summary};

use crate::host::Engine;
use crate::{Progress, Shard};
use judge::Judge;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use thiserror::Error;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files, or directories that are searched for `*.MOO` and `*.MOO.gz`.
    pub paths: Vec<PathBuf>,
    /// FLAGS masks; found beside the paths where not given.
    pub masks: Option<PathBuf>,
    /// Only files whose name begins with this (`F6`, `F6.7`).
    pub filter: Option<String>,
    /// Only the test with this index, of each file.
    pub index: Option<u32>,
    /// What runs the tests.
    pub engine: Engine,
    /// The part of the files to run.
    pub shard: Shard,
    /// Threads.
    pub threads: usize,
    /// Differences kept for each file.
    pub keep: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            paths: Vec::new(),
            masks: None,
            filter: None,
            index: None,
            engine: Engine::Interp,
            shard: Shard::ALL,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            keep: 3,
        }
    }
}

/// Why the suite could not start.
#[derive(Debug, Error)]
pub enum MooError {
    /// A path cannot be searched.
    #[error("cannot search {}: {source}", path.display())]
    Search {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Nothing to run.
    #[error("no *.MOO or *.MOO.gz file found in {0}; is the filter right?")]
    NoFiles(String),
    /// Masks.
    #[error(transparent)]
    Masks(#[from] MaskError),
    /// No machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// Runs the suite. Files that cannot be read, and tests that make the interpreter panic, are
/// results, not errors.
///
/// # Errors
/// [`MooError`], when nothing could be run.
pub fn run(options: &Options, progress: &Progress) -> Result<Summary, MooError> {
    let files = find(options)?;
    let masks_path =
        options.masks.clone().or_else(|| files.first().and_then(|f| Masks::find_beside(f)));
    let masks = masks_path.as_deref().map(Masks::read).transpose()?.unwrap_or_default();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let work = || -> Result<(), MachineError> {
        let mut judge = Judge::new(&masks, options.engine)?;
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = judge.file(path, options, progress)?;
            results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(result);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..options.threads.clamp(1, files.len().max(1))).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or(Ok(())))
    })?;
    let mut files = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Summary { files, masks: masks_path })
}

fn find(options: &Options) -> Result<Vec<PathBuf>, MooError> {
    let mut found = Vec::new();
    for path in &options.paths {
        search(path, 0, &mut found)
            .map_err(|source| MooError::Search { path: path.clone(), source })?;
    }
    found.sort();
    found.dedup();
    if let Some(prefix) = &options.filter {
        found.retain(|path| stem(path).starts_with(prefix.as_str()));
    }
    let mut n = 0..;
    found.retain(|_| n.next().is_some_and(|n| options.shard.owns(n)));
    if found.is_empty() {
        let paths: Vec<_> = options.paths.iter().map(|p| p.display().to_string()).collect();
        return Err(MooError::NoFiles(paths.join(", ")));
    }
    Ok(found)
}

/// Directory levels searched below a path.
const MAX_DEPTH: u32 = 8;

fn search(path: &Path, depth: u32, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?.path();
        let name = entry.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let moo = name.ends_with(".moo") || name.ends_with(".moo.gz");
        if moo || entry.is_dir() && depth < MAX_DEPTH {
            search(&entry, depth + 1, found)?;
        }
    }
    Ok(())
}

/// The file's name up to `.MOO`.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let end = name.to_lowercase().find(".moo").unwrap_or(name.len());
    name[..end].to_owned()
}
