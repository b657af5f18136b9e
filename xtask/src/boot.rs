//! `cargo xtask boot`

use crate::Debian;
use anyhow::{Context, Result, ensure};
use machine::guests::{self, initramfs::Initramfs};
use machine::{Config, EngineKind, Kernel, Machine, StopReason};
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel
    #[arg(value_enum, default_value_t = Debian::Cloud)]
    guest: Debian,
    /// Shell commands for the guest to run before it powers off
    #[arg(long, default_value = "uname -a; cat /proc/uptime")]
    script: String,
    /// More words for the kernel's command line
    #[arg(long, default_value = "")]
    append: String,
    /// Megabytes of memory
    #[arg(long, default_value_t = 256)]
    memory: u64,
    /// Seconds to give it
    #[arg(long, default_value_t = 300)]
    timeout: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let files = guests::fetch(args.guest.guest(), &|line| eprintln!("{line}"))?;
    let read =
        |path: &std::path::Path| std::fs::read(path).with_context(|| path.display().to_string());
    let busybox = read(&files.busybox)?;
    let machine = Machine::new(Config {
        cpus: 1,
        cpu: Default::default(),
        memory: args.memory << 20,
        engine: EngineKind::default(),
        kernel: Kernel {
            image: read(&files.kernel)?,
            name: files.kernel.display().to_string(),
            initrd: Some(Initramfs::script(&busybox, &args.script).build()?),
            command_line: format!("console=ttyS0 panic=-1 {}", args.append),
            ..Kernel::default()
        },
        serial_output: Box::new(std::io::stdout()),
        timeout: Some(Duration::from_secs(args.timeout)),
        count: true,
    })?;
    let outcome = machine.run()?;
    println!("{}", outcome.stats);
    ensure!(outcome.reason == StopReason::PowerOff, "the guest ended by {:?}", outcome.reason);
    Ok(())
}
