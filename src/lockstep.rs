//! `--lockstep`: both engines side by side.

use crate::boot_protocol::{Start, explain_bios};
use crate::cli::{MachineArgs, MediaArgs};
use crate::session;
use crate::status;
use anyhow::{Result, bail};
use machine::lockstep::{self, Board, Options, Verdict};
use std::process::ExitCode;

/// Runs a kernel, or firmware from the drives. The images stay as they are: each machine keeps its
/// own changes.
pub(crate) fn run(
    kernel: Option<Start>,
    media: &MediaArgs,
    args: &MachineArgs,
) -> Result<ExitCode> {
    refuse_what_has_no_effect(args)?;
    let (direct, by_bios) = match &kernel {
        Some(kernel) => (!kernel.by_bios, kernel.by_bios),
        None => (false, false),
    };
    let board = || {
        let media = media.open_alike(!direct);
        let media = if by_bios { explain_bios(media)? } else { media? };
        Ok::<_, anyhow::Error>(if direct {
            Board::Kernel(media.peripherals())
        } else {
            Board::Firmware(media.firmware())
        })
    };
    let options = Options {
        kernel: kernel.map(|start| start.kernel).unwrap_or_default(),
        memory: args.memory,
        instructions: args.instructions,
        strict: args.strict,
    };
    match lockstep::run_board(&options, &board, Box::new(std::io::stdout()))? {
        Verdict::Same { instructions, reason } => {
            if let Some(reason) = &reason {
                session::report(reason);
            }
            eprintln!("lockstep: no difference in {instructions} instructions");
            Ok(ExitCode::from(status::OK))
        }
        Verdict::Differ(report) => {
            eprint!("{report}");
            Ok(ExitCode::from(status::DIFFERENT))
        }
    }
}

/// Both machines are always the same one: what would not be run must not be reported as compared.
fn refuse_what_has_no_effect(args: &MachineArgs) -> Result<()> {
    if args.timeout.is_some() {
        bail!("--lockstep: time is a count of instructions: give --instructions, not --timeout");
    }
    if args.cpus != 1 {
        bail!("--lockstep: the engines are compared on 1 virtual CPU: leave --cpus out");
    }
    if args.cpu != machine::Model::default() {
        bail!("--lockstep: the engines are compared on the processor host: leave --cpu out");
    }
    Ok(())
}
