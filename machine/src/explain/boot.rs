//! A block of a guest: it is booted until the block has been translated.

use super::{Explanation, Program};
use crate::config::{EngineKind, Kernel};
use crate::lockstep::{Options, Side};
use crate::machine::MachineError;
use std::io::Write;
use thiserror::Error;

/// Instructions between two looks.
const SLICE: u64 = 10_000;
/// Instructions to go on behind the translation, so that the block is linked as it will be.
const SETTLE: u64 = 2_000_000;

/// A guest, and which of its blocks is wanted.
pub struct Boot {
    /// What to boot.
    pub kernel: Kernel,
    /// Bytes of RAM.
    pub memory: u64,
    /// Linear address in the block, or a symbol of an ELF kernel; the block entered most often
    /// where nothing is said.
    pub at: Option<String>,
    /// Instructions to boot for at most.
    pub instructions: u64,
}

/// Why there is nothing to explain.
#[derive(Debug, Error)]
pub enum BootError {
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The address.
    #[error("{0}")]
    At(String),
    /// It was never hot.
    #[error(
        "no block at {at:#x} was translated in {executed} instructions (the guest {state}); code \
         is translated when it has run about 30 times"
    )]
    Cold {
        /// The address.
        at: u64,
        /// Instructions executed.
        executed: u64,
        /// What became of the guest.
        state: &'static str,
    },
    /// Nothing was.
    #[error("no block was translated in {0} instructions")]
    NothingHot(u64),
}

/// Boots the guest on deterministic time, and explains the block. What the guest writes to COM1
/// goes to `output`.
///
/// # Errors
/// [`BootError`]
pub fn explain(boot: &Boot, output: Box<dyn Write + Send>) -> Result<Explanation, BootError> {
    let (mut side, at) = match &boot.at {
        Some(at) => {
            let at = address(at, &boot.kernel.image)?;
            (Side::new(&boot.options(), EngineKind::Jit, output)?, at)
        }
        None => {
            // Again without the counters: it goes the same way.
            let at = hottest(boot, output)?;
            (Side::new(&boot.options(), EngineKind::Jit, Box::new(std::io::sink()))?, at)
        }
    };
    let config = jit::Config { notes: true, ..jit::Config::default() };
    side.machine.set_translator(config)?.watch(at);
    let mut found: Option<Explanation> = None;
    let mut limit = boot.instructions;
    while side.cpu().instructions < limit && side.machine.control().reason().is_none() {
        side.slice(SLICE);
        if found.is_none() {
            found = side.machine.translator().and_then(jit::Engine::watched);
            if found.is_some() {
                limit = side.cpu().instructions + SETTLE;
            }
        }
    }
    // As it is now; as it was, where it was dropped since.
    let state = if side.machine.control().reason().is_some() { "ended" } else { "still runs" };
    let executed = side.cpu().instructions;
    let now = side.machine.translator().and_then(jit::Engine::watched);
    now.or(found).ok_or(BootError::Cold { at, executed, state })
}

impl Boot {
    fn options(&self) -> Options {
        Options {
            kernel: self.kernel.clone(),
            memory: self.memory,
            instructions: None,
            strict: false,
        }
    }
}

/// The block entered most often of those that are translated when the guest has run for long
/// enough.
fn hottest(boot: &Boot, output: Box<dyn Write + Send>) -> Result<u64, BootError> {
    let mut side = Side::new(&boot.options(), EngineKind::Jit, output)?;
    let engine = side.machine.set_translator(jit::Config::default())?;
    engine.count_strategies().map_err(MachineError::from)?;
    while side.cpu().instructions < boot.instructions && side.machine.control().reason().is_none() {
        side.slice(SLICE);
    }
    let executed = side.cpu().instructions;
    let engine = side.machine.translator();
    engine.and_then(jit::Engine::hottest_block).ok_or(BootError::NothingHot(executed))
}

/// A number, or a symbol of an ELF kernel.
fn address(at: &str, image: &[u8]) -> Result<u64, BootError> {
    if let Some(number) = super::program::number(at) {
        return Ok(number);
    }
    let no = |error: &dyn std::fmt::Display| BootError::At(format!("--at {at}: {error}"));
    let program = Program::parse(image).map_err(|_| {
        no(&"give a number such as 0xffffffff81000000; only ELF kernels have symbols")
    })?;
    program.symbol(at).map_err(|error| no(&error))
}
