//! `ringshift conform`: the conformance suites.

use crate::status;
use ::conform::report::Destination;
use ::conform::{Progress, Report, Shard, host, lockstep, moo};
use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What `ringshift conform --help` says about exit statuses.
pub(crate) const HELP: &str = "\
Exit status:
  0  nothing differed
  1  something differed, or got no answer
  2  bad usage, or nothing could be run";

#[derive(Debug, Args)]
pub(crate) struct ConformArgs {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// Fuzz against the host CPU: every instruction form that a user program may execute
    #[command(after_help = HELP)]
    Host(HostArgs),
    /// Run hardware-captured tests (SingleStepTests for the 80286, MOO format)
    #[command(after_help = HELP)]
    Moo(MooArgs),
    /// Run kernels on both engines side by side, on deterministic time
    #[command(after_help = HELP)]
    Lockstep(LockstepArgs),
}

#[derive(Debug, Args)]
struct HostArgs {
    /// Seed of everything random: the same cases on any machine
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Cases for each instruction form
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Code size; all three where not given
    #[arg(long, value_name = "16|32|64")]
    bits: Option<u32>,
    /// What is compared with the host: engines, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "both")]
    engine: Vec<Engines>,
    /// Only this mnemonic; with a final *, those that begin with it
    #[arg(long, value_name = "MNEMONIC")]
    filter: Option<String>,
    /// Only this instruction form, as a finding names it
    #[arg(long)]
    form: Option<String>,
    /// Only the case with this number
    #[arg(long, value_name = "N")]
    case: Option<u64>,
    /// Differences shown for each form
    #[arg(long, default_value_t = 1)]
    keep: usize,
    /// Report differences that this mask would cover; may be given again, or "all"
    #[arg(long, value_name = "MASK")]
    without_mask: Vec<String>,
    /// Print the coverage table by mnemonic, in Markdown
    #[arg(long)]
    coverage: bool,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct MooArgs {
    /// Test files, or directories to search for *.MOO and *.MOO.gz
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// FLAGS masks (default: 80286-masks.json beside the tests)
    #[arg(long, value_name = "FILE")]
    masks: Option<PathBuf>,
    /// Only files whose name begins with this, such as F6.7
    #[arg(long, value_name = "OPCODE")]
    filter: Option<String>,
    /// Only the test with this index
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// What runs the tests
    #[arg(long, value_enum, default_value_t = Engine::Interp)]
    engine: Engine,
    /// Differences shown for each file
    #[arg(long, default_value_t = 3)]
    keep: usize,
    /// Print the score of every opcode
    #[arg(long)]
    table: bool,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct LockstepArgs {
    /// Kernels (bzImage, or ELF with a PVH note or a Multiboot header), or directories to search
    /// for *.flat, *.elf and *.bin
    #[arg(required = true, value_name = "KERNEL")]
    paths: Vec<PathBuf>,
    /// Initial RAM disk, or the module of a Multiboot kernel
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line
    #[arg(
        long,
        value_name = "STRING",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    append: String,
    /// Guest memory in bytes, or with a suffix K, M or G
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = crate::cli::parse_size)]
    memory: u64,
    /// Instructions of each kernel, if it does not end before
    #[arg(long, value_name = "N", default_value_t = 20_000_000)]
    instructions: u64,
    /// Keep each translation of an address until the guest invalidates it
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// Run part I of N
    #[arg(long, value_name = "I/N", default_value = "1/1", hide_default_value = true)]
    shard: Shard,
    /// Write a report; may be given again
    #[arg(long, value_name = "junit:FILE|json:FILE")]
    report: Vec<Destination>,
    /// Threads (default: one for each processor)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// Interpret
    Interp,
    /// Translate from the first execution on
    Jit,
    /// Translate, calling the interpreter for every instruction
    JitHelpers,
}

impl From<Engine> for host::Engine {
    fn from(engine: Engine) -> host::Engine {
        match engine {
            Engine::Interp => host::Engine::Interp,
            Engine::Jit => host::Engine::Jit,
            Engine::JitHelpers => host::Engine::JitHelpers,
        }
    }
}

/// An engine, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engines {
    /// Interpret
    Interp,
    /// Translate from the first execution on
    Jit,
    /// Translate, calling the interpreter for every instruction
    JitHelpers,
    /// interp and jit
    Both,
    /// interp, jit and jit-helpers
    All,
}

impl Engines {
    fn list(self) -> &'static [host::Engine] {
        match self {
            Engines::Interp => &[host::Engine::Interp],
            Engines::Jit => &[host::Engine::Jit],
            Engines::JitHelpers => &[host::Engine::JitHelpers],
            Engines::Both => &host::Engine::BOTH,
            Engines::All => &host::Engine::ALL,
        }
    }
}

/// The engines that were asked for, each once.
fn engines(asked: &[Engines]) -> Vec<host::Engine> {
    let mut engines = Vec::new();
    for &engine in asked.iter().flat_map(|asked| asked.list()) {
        if !engines.contains(&engine) {
            engines.push(engine);
        }
    }
    engines
}

pub(crate) fn run(args: &ConformArgs) -> Result<ExitCode> {
    match &args.suite {
        Suite::Host(args) => run_host(args),
        Suite::Moo(args) => run_moo(args),
        Suite::Lockstep(args) => run_lockstep(args),
    }
}

fn run_host(args: &HostArgs) -> Result<ExitCode> {
    let all = [64, 32, 16];
    let sizes = args.bits.as_ref().map_or(&all[..], std::slice::from_ref);
    let defaults = host::Options::default();
    let mut passed = true;
    for &bits in sizes {
        let options = host::Options {
            seed: args.seed,
            count: args.count,
            bits,
            engines: engines(&args.engine),
            filter: args.filter.clone(),
            form: args.form.clone(),
            case: args.case,
            shard: args.common.shard,
            threads: args.common.threads.unwrap_or(defaults.threads),
            keep: args.keep,
            without: masks(&args.without_mask)?,
        };
        let summary = match watched(|progress| host::run(&options, progress)) {
            // An instruction need not exist in every code size.
            Err(host::HostError::NoForms(..)) if sizes.len() > 1 => continue,
            other => other?,
        };
        if args.coverage {
            print!("{}", summary.coverage());
        }
        passed &= summary.passed();
        let name = (sizes.len() > 1).then(|| bits.to_string());
        end(&summary, &summary.report(), &args.common, name.as_deref())?;
    }
    Ok(status_of(passed))
}

/// The masks with these names.
fn masks(names: &[String]) -> Result<host::masks::Masks> {
    let mut masks = host::masks::Masks::NONE;
    for name in names {
        match host::masks::Mask::by_name(name) {
            Some(mask) => masks.insert(mask),
            None if name == "all" => {
                host::masks::Mask::ALL.into_iter().for_each(|m| masks.insert(m))
            }
            None => {
                let known: Vec<_> = host::masks::Mask::ALL.into_iter().map(|m| m.name()).collect();
                bail!("there is no mask {name:?}; there are {}, and all", known.join(", "));
            }
        }
    }
    Ok(masks)
}

fn run_moo(args: &MooArgs) -> Result<ExitCode> {
    let defaults = moo::Options::default();
    let options = moo::Options {
        paths: args.paths.clone(),
        masks: args.masks.clone(),
        filter: args.filter.clone(),
        index: args.index,
        engine: args.engine.into(),
        shard: args.common.shard,
        threads: args.common.threads.unwrap_or(defaults.threads),
        keep: args.keep,
    };
    let summary = watched(|progress| moo::run(&options, progress))?;
    if args.table {
        print!("{}", summary.table());
    }
    end(&summary, &summary.report(), &args.common, None)?;
    Ok(status_of(summary.passed()))
}

fn run_lockstep(args: &LockstepArgs) -> Result<ExitCode> {
    let options = lockstep::Options {
        paths: args.paths.clone(),
        initrd: args.initrd.clone(),
        append: args.append.clone(),
        memory: args.memory,
        instructions: args.instructions,
        strict: args.strict,
        shard: args.common.shard,
    };
    let summary = watched(|progress| lockstep::run(&options, progress))?;
    end(&summary, &summary.report(), &args.common, None)?;
    Ok(status_of(summary.passed()))
}

fn status_of(passed: bool) -> ExitCode {
    ExitCode::from(if passed { status::OK } else { status::DIFFERENT })
}

/// Prints the summary and writes the reports; `part` goes into their file names.
fn end(
    summary: &dyn Display,
    report: &Report,
    args: &CommonArgs,
    part: Option<&str>,
) -> Result<()> {
    print!("{summary}");
    for to in &args.report {
        report.write(&to.for_part(part))?;
    }
    Ok(())
}

/// Runs a suite, with its progress on the terminal.
fn watched<T>(suite: impl FnOnce(&Progress) -> T) -> T {
    const PERIOD: Duration = Duration::from_millis(200);
    let (progress, done) = (Progress::new(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        if stderr().is_terminal() {
            scope.spawn(|| {
                let start = Instant::now();
                while !done.load(Ordering::Relaxed) {
                    std::thread::park_timeout(PERIOD);
                    let p = progress.snapshot();
                    let seconds = start.elapsed().as_secs();
                    // The terminal may be gone: then nobody is told.
                    let _ = write!(
                        stderr(),
                        "\r{} of {} cases, {} differ, {seconds} s\x1b[K",
                        p.done,
                        p.total,
                        p.failed
                    );
                }
                let _ = write!(stderr(), "\r\x1b[K");
            });
        }
        let result = suite(&progress);
        done.store(true, Ordering::Relaxed);
        result
    })
}
