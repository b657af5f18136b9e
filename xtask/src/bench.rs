//! `cargo xtask bench`: the same guest under Ringshift and under QEMU's translator, and the same
//! program on the host itself, side by side.
//!
//! Everything is run in alternation, round by round, and ratios are taken within a round: what
//! else the host does at the time then weighs on both sides of a ratio.

mod boot_disk;
mod contender;
mod guest;
mod process;
mod report;
mod results;
mod two_cpus;
mod workload;

use anyhow::{Context, Result, ensure};
use contender::{Contender, Engine};
use guest::Guest;
use process::Limits;
use results::{Results, Run};
use std::path::PathBuf;
use std::time::Duration;
use workload::Workload;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often everything is run; tables show medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these workloads, by the names in the table
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',')]
    only: Vec<String>,
    /// Ringshift's engines to be measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Engine::Interp, Engine::Jit])]
    engines: Vec<Engine>,
    /// Power off as soon as user space is reached
    #[arg(long)]
    boot_only: bool,
    /// Boot a disk through BIOS and GRUB up to its login prompt, instead of a kernel
    #[arg(long, conflicts_with = "boot_only")]
    boot_disk: bool,
    /// Measure what a second virtual CPU is worth: one loop against two side by side, of as many
    /// seconds as --seconds says at least, in as many rounds as --rounds says
    #[arg(long, conflicts_with_all = ["boot_only", "boot_disk"])]
    two_cpus: bool,
    /// Seconds for each workload
    #[arg(long, default_value_t = 0.7, value_parser = seconds)]
    seconds: f64,
    /// The workloads' source
    #[arg(long, value_name = "FILE", default_value = "../shared/bench/mb.c")]
    workload: PathBuf,
    /// Megabytes of guest memory
    #[arg(long, default_value_t = 512)]
    memory: u64,
    /// More words for the guest kernel's command line
    #[arg(long, value_name = "STRING", default_value = "")]
    append: String,
    /// QEMU's CPU model
    #[arg(long, value_name = "MODEL", default_value = "max")]
    qemu_cpu: String,
    /// Leave QEMU out
    #[arg(long)]
    no_qemu: bool,
    /// Leave the host itself out
    #[arg(long)]
    no_native: bool,
    /// Let Ringshift count instructions, which slows it down, and keep its counters in the logs
    #[arg(long)]
    stats: bool,
    /// A ringshift program that is there already (default: build this source)
    #[arg(long, value_name = "FILE")]
    ringshift: Option<PathBuf>,
    /// Seconds that a guest may be silent before it counts as hung
    #[arg(long, default_value_t = 120.0, value_parser = seconds)]
    silence: f64,
    /// Seconds that one run may take altogether
    #[arg(long, default_value_t = 1200.0, value_parser = seconds)]
    timeout: f64,
    /// Where the guest's files and each run's log go
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench")]
    to: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    std::fs::create_dir_all(&args.to).with_context(|| args.to.display().to_string())?;
    if args.boot_disk {
        return boot_disk::run(args);
    }
    if args.two_cpus {
        return two_cpus::run(args);
    }
    let workload = Workload::build(&args.workload, &args.to, &args.only, args.seconds)?;
    let guest = Guest::build(&workload, args)?;
    let contenders = contender::choose(args)?;
    let limits = Limits {
        silence: Duration::from_secs_f64(args.silence),
        total: Duration::from_secs_f64(args.timeout),
    };

    let load_before = load_average();
    let mut results = Results::default();
    for round in 1..=args.rounds {
        for contender in &contenders {
            eprint!("round {round} of {}: {:<16} ", args.rounds, contender.name());
            let log = args.to.join(format!("{}-{round}.log", contender.name()));
            let run = match contender {
                Contender::Native => workload.run_natively(limits, &log),
                Contender::Qemu { .. } | Contender::Ringshift { .. } => {
                    let command = contender.boot(&guest, args.memory);
                    Run::follow(command, limits, &log)
                }
            }?;
            eprintln!("{}", run.summary());
            if let Some(problem) = &run.problem {
                eprintln!("    {problem}; see {}", log.display());
            }
            results.add(contender.name(), run);
        }
    }

    let description = format!(
        "{}, `{}`",
        guest.kernel.file_name().unwrap_or_default().to_string_lossy(),
        guest.command_line
    );
    println!("{}", report::heading(args, &contenders, &description, load_before, load_average()));
    if !args.boot_only {
        println!("{}", report::workloads(&results, &workload.names));
    }
    println!("{}", report::starts(&results, "init", args.boot_only));
    ensure!(!results.any_problem(), "not every run was complete");
    Ok(())
}

/// The host's load average over the last minute.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1e6 => Ok(value),
        _ => Err("give a number of seconds above 0".into()),
    }
}
