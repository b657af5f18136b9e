//! What runs the workload.

use super::Args;
use super::guest::Guest;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const QEMU: &str = "qemu-system-x86_64";
const RINGSHIFT: &str = "target/release/ringshift";

/// Ringshift's `--engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// The interpreter
    Interp,
    /// The translator
    Jit,
}

/// One column of the table.
pub(crate) enum Contender {
    /// The host itself, no virtual machine.
    Native,
    /// QEMU's translator (TCG), one virtual CPU.
    Qemu { cpu: String, version: String },
    /// Ringshift.
    Ringshift { program: PathBuf, engine: Engine, stats: bool },
}

/// The contenders asked for, in the order of their runs, as far as their programs are there.
pub(crate) fn choose(args: &Args) -> Result<Vec<Contender>> {
    let mut contenders = Vec::new();
    if !args.no_native && !args.boot_only && !args.boot_disk {
        contenders.push(Contender::Native);
    }
    if !args.no_qemu {
        match Command::new(QEMU).arg("--version").stderr(Stdio::null()).output() {
            Ok(output) => {
                let version = String::from_utf8_lossy(&output.stdout);
                let version = version.lines().next().unwrap_or(QEMU).to_owned();
                contenders.push(Contender::Qemu { cpu: args.qemu_cpu.clone(), version });
            }
            Err(error) => eprintln!(
                "{QEMU} does not run ({error}): the comparison leaves it out \
                 (Debian: qemu-system-x86)"
            ),
        }
    }
    if !args.engines.is_empty() {
        let program = match &args.ringshift {
            Some(program) => program.clone(),
            None => build()?,
        };
        ensure!(program.exists(), "{}: no such program", program.display());
        for &engine in &args.engines {
            let (program, stats) = (program.clone(), args.stats);
            contenders.push(Contender::Ringshift { program, engine, stats });
        }
    }
    ensure!(!contenders.is_empty(), "nothing is left to be measured");
    Ok(contenders)
}

fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "ringshift"])
        .status()
        .context("cargo does not run")?;
    ensure!(status.success(), "ringshift does not build");
    let directory = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    Ok(directory.map_or_else(|| RINGSHIFT.into(), |path| path.join("release/ringshift")))
}

impl Contender {
    /// The column's name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Contender::Native => "native",
            Contender::Qemu { .. } => "qemu",
            Contender::Ringshift { engine: Engine::Interp, .. } => "interp",
            Contender::Ringshift { engine: Engine::Jit, .. } => "jit",
        }
    }

    /// What exactly it is, for the table's heading.
    pub(crate) fn description(&self) -> String {
        match self {
            Contender::Native => "the workload on the host itself".into(),
            Contender::Qemu { cpu, version } => {
                format!(
                    "{version}, -accel tcg -cpu {cpu}, one CPU, no devices but the machine's own"
                )
            }
            Contender::Ringshift { engine, stats, .. } => {
                let engine = engine.to_possible_value();
                let engine = engine.as_ref().map_or("", |value| value.get_name());
                let stats = if *stats { " --stats" } else { "" };
                format!("ringshift run --engine {engine}{stats}")
            }
        }
    }

    /// The command that boots the guest with its first serial port on standard output.
    pub(crate) fn boot(&self, guest: &Guest, memory: u64) -> Command {
        let mut command;
        match self {
            Contender::Native => command = Command::new("false"),
            Contender::Qemu { cpu, .. } => {
                command = Command::new(QEMU);
                // Without -nodefaults QEMU would also initialise a display and a network card.
                command.args(["-nodefaults", "-display", "none", "-serial", "stdio"]);
                command.args(["-accel", "tcg", "-smp", "1", "-no-reboot", "-cpu", cpu]);
                command.arg("-m").arg(format!("{memory}M"));
                command.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initrd);
            }
            Contender::Ringshift { program, engine, stats } => {
                command = Command::new(program);
                command.args(["run", "--no-reboot"]);
                if *stats {
                    command.arg("--stats");
                }
                command.arg("--engine");
                command.arg(match engine {
                    Engine::Interp => "interp",
                    Engine::Jit => "jit",
                });
                command.arg("--memory").arg(format!("{memory}M"));
                command.arg("--kernel").arg(&guest.kernel).arg("--initrd").arg(&guest.initrd);
            }
        }
        let append =
            if matches!(self, Contender::Ringshift { .. }) { "--append" } else { "-append" };
        command.arg(append).arg(&guest.command_line);
        command
    }

    /// The command that boots a raw disk through firmware, with the first serial port on standard
    /// output. Both have the same firmware and VGA adapter.
    pub(crate) fn boot_disk(&self, image: &Path, memory: u64) -> Command {
        let mut command;
        match self {
            Contender::Native => command = Command::new("false"),
            Contender::Qemu { cpu, .. } => {
                command = Command::new(QEMU);
                command.args(["-nodefaults", "-display", "none", "-vga", "std"]);
                command.args(["-serial", "stdio", "-accel", "tcg", "-smp", "1", "-cpu", cpu]);
                command.arg("-m").arg(format!("{memory}M"));
                let drive = format!("if=ide,format=raw,snapshot=on,file={}", escaped(image));
                command.arg("-drive").arg(drive);
            }
            Contender::Ringshift { program, engine, .. } => {
                command = Command::new(program);
                command.args(["run", "--engine"]).arg(match engine {
                    Engine::Interp => "interp",
                    Engine::Jit => "jit",
                });
                command.arg("--memory").arg(format!("{memory}M"));
                let drive = format!("{},format=raw,snapshot=on", escaped(image));
                command.arg("--disk").arg(drive);
            }
        }
        command
    }
}

/// A file's name where commas separate options.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
