//! Developer chores: `cargo xtask <task>`, described by `cargo xtask --help`.

#![forbid(unsafe_code)]

mod bench;
mod boot;
mod fetch;
mod golden;
mod guest_files;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use machine::guests::Guest;

/// Developer chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Fetch every guest that the tests use into the user's cache
    Fetch,
    /// Write a guest's files to a directory, for any virtual machine
    GuestFiles(guest_files::Args),
    /// Boot a Debian kernel to user space and power-off, and print the counters
    Boot(boot::Args),
    /// Write the golden host-code listings of jit/src/golden anew, to be reviewed with git diff
    Golden,
    /// Measure Ringshift beside QEMU and the host itself
    Bench(Box<bench::Args>),
}

/// A Debian kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Debian {
    /// linux-image-cloud-amd64
    Cloud,
    /// linux-image-amd64
    Amd64,
    /// linux-image-686-pae
    Pae,
}

impl Debian {
    fn guest(self) -> Guest {
        match self {
            Debian::Cloud => Guest::CloudAmd64,
            Debian::Amd64 => Guest::Amd64,
            Debian::Pae => Guest::Pae686,
        }
    }
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Fetch => fetch::run(),
        Task::GuestFiles(args) => guest_files::run(&args),
        Task::Boot(args) => boot::run(&args),
        Task::Golden => golden::run(),
        Task::Bench(args) => bench::run(&args),
    }
}
