//! `ringshift demo`: a guest at work, without anything to prepare.

use crate::boot_protocol::{BootProtocol, Start};
use crate::cli::{DemoArgs, DemoGuest, MachineArgs, MediaArgs, Serial};
use crate::console::Copy;
use crate::lockstep;
use crate::session::{self, Session};
use crate::status;
use anyhow::{Context, Result};
use guest::Options;
use machine::config::Kernel;
use machine::control::StopReason;
use machine::guests::{self, Guest, initramfs::Initramfs};
use std::process::ExitCode;

/// `quiet` keeps what the kernel says about its devices from scrolling the greeting away. The self
/// tests of the kernel's cryptography are half of its start, and nothing here depends on them.
const LINUX_COMMAND_LINE: &str = "console=ttyS0 quiet cryptomgr.notests";

const INTRODUCTION: &str = "\
This is Ringshift's own guest, a small kernel that expects the whole computer to itself:
real mode, protected mode, long mode, ring 3, paging, interrupts, faults. Each line below is
its report of one step, checked against the processor manual's promise. It runs in this
process, as an ordinary program: no root, no VT-x, no /dev/kvm.
";

pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode> {
    match args.guest {
        None => embedded(&args.machine),
        Some(DemoGuest::Linux) => linux(&args.machine),
    }
}

fn embedded(machine: &MachineArgs) -> Result<ExitCode> {
    let image = guest::build(&Options::default())?;
    println!("{INTRODUCTION}");
    let kernel = Kernel {
        image: image.bytes.clone(),
        name: "the built-in guest".into(),
        ..Kernel::default()
    };
    let kernel = Start::direct(kernel);
    if machine.lockstep {
        return lockstep::run(Some(kernel), &MediaArgs::default(), machine);
    }
    let copy = Copy::default();
    let end = Session {
        kernel: Some(kernel),
        media: &MediaArgs::default(),
        machine,
        serial: Serial::Stdio,
        no_reboot: true,
        copy: Some(copy.clone()),
    }
    .run()?;
    println!();
    if end == StopReason::Quit {
        println!("You left before the guest was done.");
        return Ok(ExitCode::from(status::OK));
    }
    let output = copy.text();
    let problem = match (&end, image.missing_line(&output)) {
        (StopReason::PowerOff, None) => {
            println!(
                "Verdict: all as promised. The guest did its {} checks and powered off.",
                image.checks
            );
            return Ok(ExitCode::from(status::OK));
        }
        (StopReason::PowerOff, Some(line)) => format!("the guest never said \"{line}\""),
        (StopReason::Reset, _) => "the guest reset instead of powering off".into(),
        (StopReason::DebugExit(_), _) => "a check failed: see above".into(),
        (StopReason::TripleFault(_), _) => "triple fault".into(),
        (StopReason::Timeout, _) => "the guest was not done in time".into(),
        (StopReason::Quit, _) => "the guest was stopped".into(),
    };
    println!("Verdict: FAILED, {problem}.");
    session::report(&end);
    Ok(ExitCode::from(match end {
        StopReason::TripleFault(_) | StopReason::Timeout => status::of(&end),
        StopReason::PowerOff | StopReason::Reset | StopReason::DebugExit(_) | StopReason::Quit => {
            status::DEMO_FAILED
        }
    }))
}

fn linux(machine: &MachineArgs) -> Result<ExitCode> {
    let files = guests::fetch(Guest::CloudAmd64, &|line| eprintln!("{line}"))?;
    let read =
        |path: &std::path::Path| std::fs::read(path).with_context(|| path.display().to_string());
    let image = read(&files.kernel)?;
    let busybox = read(&files.busybox)?;
    let initrd = Initramfs::shell(&busybox).build()?;
    let kernel = Kernel {
        image,
        name: files.kernel.display().to_string(),
        initrd: Some(initrd),
        command_line: LINUX_COMMAND_LINE.into(),
        ..Kernel::default()
    };
    let kernel = Start::choose(kernel, BootProtocol::Auto, &machine.cpu)?;
    if machine.lockstep {
        return lockstep::run(Some(kernel), &MediaArgs::default(), machine);
    }
    println!(
        "Booting Debian's own kernel to a shell. Leave with Ctrl-A X; `poweroff -f` works too."
    );
    let end = Session {
        kernel: Some(kernel),
        media: &MediaArgs::default(),
        machine,
        serial: Serial::Stdio,
        no_reboot: false,
        copy: None,
    }
    .run()?;
    session::report(&end);
    Ok(ExitCode::from(status::of(&end)))
}
