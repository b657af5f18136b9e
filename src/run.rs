//! `ringshift run`: boots a kernel from files, or drives through firmware.

use crate::cli::RunArgs;
use crate::lockstep;
use crate::session::{self, Session};
use crate::status;
use anyhow::{Context, Result, bail};
use machine::config::Kernel;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    if args.kernel.is_none() && args.media.any() {
        return run_drives(args);
    }
    let Some(path) = &args.kernel else {
        bail!(
            "nothing to boot: give --kernel, --disk, --cdrom or --floppy FILE, or try `ringshift demo`, which needs no file"
        );
    };
    let limit = args.machine.memory;
    let image = read(path, "kernel", limit)?;
    let initrd = match &args.initrd {
        Some(path) => Some(read(path, "initrd", limit)?),
        None => None,
    };
    let kernel = Kernel {
        image,
        name: path.display().to_string(),
        initrd,
        command_line: args.append.clone(),
    };
    if args.machine.lockstep {
        return lockstep::run(kernel, &args.machine);
    }
    let end = Session {
        kernel: Some(kernel),
        media: &args.media,
        machine: &args.machine,
        serial: args.serial.clone(),
        no_reboot: args.no_reboot,
        copy: None,
    }
    .run()?;
    session::report(&end);
    Ok(ExitCode::from(status::of(&end)))
}

/// Boots drives through firmware.
fn run_drives(args: &RunArgs) -> Result<ExitCode> {
    if args.machine.lockstep {
        bail!("--lockstep runs kernels only: give --kernel FILE");
    }
    let end = Session {
        kernel: None,
        media: &args.media,
        machine: &args.machine,
        serial: args.serial.clone(),
        no_reboot: args.no_reboot,
        copy: None,
    }
    .run()?;
    session::report(&end);
    Ok(ExitCode::from(status::of(&end)))
}

/// Reads a file that must fit `limit` bytes of guest memory: the path may name a pipe or a device
/// without end.
fn read(path: &Path, what: &str, limit: u64) -> Result<Vec<u8>> {
    let name = || format!("{what} {}", path.display());
    let file = File::open(path).with_context(name)?;
    let mut content = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut content).with_context(name)?;
    if content.is_empty() {
        bail!("{}: the file is empty", name());
    }
    if content.len() as u64 > limit {
        bail!("{}: larger than the {limit} bytes of guest memory (see --memory)", name());
    }
    Ok(content)
}
