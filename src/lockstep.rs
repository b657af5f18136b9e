//! `--lockstep`: both engines side by side.

use crate::cli::MachineArgs;
use crate::session;
use crate::status;
use anyhow::Result;
use machine::config::Kernel;
use machine::lockstep::{self, Options, Verdict};
use std::process::ExitCode;

pub(crate) fn run(kernel: Kernel, args: &MachineArgs) -> Result<ExitCode> {
    let options = Options { kernel, memory: args.memory, instructions: args.instructions };
    match lockstep::run(&options, Box::new(std::io::stdout()))? {
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
