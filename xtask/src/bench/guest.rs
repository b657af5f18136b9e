//! The guest that every virtual machine boots: Debian's cloud kernel and an initramfs with the
//! workload.

use super::Args;
use super::workload::Workload;
use anyhow::{Context, Result};
use machine::guests::{self, initramfs::Initramfs};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The line by which the guest says that its first program runs.
pub(crate) const MARKER: &str = "BENCH: init";
/// The line by which it says that all is done.
pub(crate) const DONE: &str = "BENCH: done";

/// The guest's files on the host.
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) command_line: String,
}

impl Guest {
    pub(crate) fn build(workload: &Workload, args: &Args) -> Result<Guest> {
        let program = read(&workload.program)?;
        let init = init(if args.boot_only { None } else { Some(workload) });
        Guest::with_files(&init, &[("mb", &program)], args)
    }

    /// A guest whose first program is this script.
    pub(crate) fn with_init(init: &str, args: &Args) -> Result<Guest> {
        Guest::with_files(init, &[], args)
    }

    fn with_files(init: &str, programs: &[(&str, &[u8])], args: &Args) -> Result<Guest> {
        let files = guests::fetch(guests::Guest::CloudAmd64, &|line| eprintln!("{line}"))?;
        let busybox = read(&files.busybox)?;
        let initrd = Initramfs::shell(&busybox).file("bench", 0o755, init.as_bytes());
        let initrd = programs
            .iter()
            .fold(initrd, |initrd, (name, content)| initrd.file(name, 0o755, content))
            .build()?;
        let path = args.to.join("initrd");
        std::fs::write(&path, initrd).with_context(|| path.display().to_string())?;
        let command_line = format!("console=ttyS0 panic=-1 rdinit=/bench {}", args.append);
        let command_line = command_line.trim_end().to_owned();
        Ok(Guest { kernel: files.kernel, initrd: path, command_line })
    }
}

/// The guest's first program, a script. The marker comes before anything else; the kernel's own
/// messages are kept off the console after it, lest one falls into a line with a rate.
fn init(workload: Option<&Workload>) -> String {
    let mut text = format!("#!/bin/busybox sh\necho '{MARKER}'\n");
    if let Some(workload) = workload {
        text.push_str("/bin/busybox dmesg -n 1\n/bin/busybox mkdir -p /proc\n");
        text.push_str("/bin/busybox mount -t proc proc /proc\n");
        for [name, seconds] in workload.arguments() {
            let _ = writeln!(text, "/mb {name} {seconds}");
        }
    }
    let _ = write!(text, "echo '{DONE}'\n/bin/busybox poweroff -f\n");
    text
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}
