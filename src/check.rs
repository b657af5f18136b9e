//! `ringshift check`: the host, in words.

use crate::status;
use anyhow::Result;
use std::process::ExitCode;

pub(crate) fn run() -> Result<ExitCode> {
    let report = machine::check::report();
    print!("{report}");
    let usable = report.obstacles().is_empty();
    Ok(ExitCode::from(if usable { status::OK } else { status::UNUSABLE }))
}
