//! `--boot-protocol`: how a kernel is started.

use anyhow::{Context, Result};
use clap::ValueEnum;
use machine::boot::{Protocol, wants_setup_code};
use machine::{Kernel, Model};

/// How a Linux image is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BootProtocol {
    /// The 64-bit entry, else the 32-bit one; the setup code where the image has no other entry, or
    /// where the processor lacks what the setup code looks for
    #[default]
    Auto,
    /// The 16-bit setup code, through the BIOS
    #[value(name = "16")]
    Setup,
    /// The 32-bit entry
    #[value(name = "32")]
    Protected,
    /// The 64-bit entry
    #[value(name = "64")]
    Long,
}

/// A kernel, and whether a BIOS starts it.
pub(crate) struct Start {
    pub(crate) kernel: Kernel,
    pub(crate) by_bios: bool,
}

impl Start {
    /// Without a BIOS.
    pub(crate) fn direct(kernel: Kernel) -> Start {
        Start { kernel, by_bios: false }
    }

    /// Decides for `kernel` on the processor `cpu`.
    pub(crate) fn choose(mut kernel: Kernel, choice: BootProtocol, cpu: &Model) -> Result<Start> {
        let by_bios = match choice {
            BootProtocol::Auto => wants_setup_code(&kernel.image, &cpu.policy(1)?),
            BootProtocol::Setup => true,
            BootProtocol::Protected | BootProtocol::Long => false,
        };
        kernel.protocol = match choice {
            BootProtocol::Auto | BootProtocol::Setup => Protocol::Best,
            BootProtocol::Protected => Protocol::Linux32,
            BootProtocol::Long => Protocol::Linux64,
        };
        Ok(Start { kernel, by_bios })
    }
}

/// Adds to an error why there must be a BIOS.
pub(crate) fn explain_bios<T>(result: Result<T>) -> Result<T> {
    result.context(
        "this kernel is started by its 16-bit setup code, which needs a BIOS; --boot-protocol 32 enters it behind that, if it can be",
    )
}
