//! `--lockstep`: both engines side by side.

use crate::cli::{MachineArgs, MediaArgs};
use crate::session;
use crate::status;
use anyhow::Result;
use machine::config::Kernel;
use machine::lockstep::{self, Board, Options, Verdict};
use std::process::ExitCode;

/// Runs a kernel, or firmware from the drives. The images stay as they are: each machine keeps its
/// own changes.
pub(crate) fn run(
    kernel: Option<Kernel>,
    media: &MediaArgs,
    args: &MachineArgs,
) -> Result<ExitCode> {
    let with_kernel = kernel.is_some();
    let board = || {
        let media = media.open_alike(with_kernel)?;
        Ok::<_, anyhow::Error>(if with_kernel {
            Board::Kernel(media.peripherals())
        } else {
            Board::Firmware(media.firmware())
        })
    };
    let options = Options {
        kernel: kernel.unwrap_or_default(),
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
