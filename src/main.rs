//! The `ringshift` command line: arguments, the terminal, exit statuses. Everything else is in the
//! crates below it.

#![forbid(unsafe_code)]

mod boot_protocol;
mod check;
mod cli;
mod conform;
mod console;
mod demo;
mod display;
mod drive_image;
mod explain;
mod lockstep;
mod log;
mod media;
mod run;
mod session;
mod status;
mod terminal;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    log::install();
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Check => check::run(),
        Command::Explain(args) => explain::run(&args),
        Command::Conform(args) => conform::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("ringshift: {error:#}");
        ExitCode::from(status::USAGE)
    })
}
