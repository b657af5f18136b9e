//! How the translator works, and why there may be none.

use crate::arena::ArenaError;
use softmmu::LowError;
use thiserror::Error;

/// Why there is no translator on this host.
#[derive(Debug, Error)]
pub enum EngineError {
    /// No code cache.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// No low memory.
    #[error(transparent)]
    Low(#[from] LowError),
}

/// How the translator works.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of host code before everything is translated anew.
    pub cache_size: usize,
    /// Executions by the interpreter before a block is translated; 0 translates at once.
    pub threshold: u8,
    /// Calls the interpreter's definition for every instruction.
    pub helpers_only: bool,
    /// Keeps arithmetic flags that no instruction will read, so that exception frames hold what
    /// the interpreter puts there, and hands flags that an instruction leaves undefined to the host
    /// as the guest has them. For lockstep runs.
    pub precise_flags: bool,
    /// Keeps notes of what host code is for: [`Engine::explain`] needs them.
    pub notes: bool,
    /// Ends a run after exactly as many instructions as were asked for. Without it translated code
    /// does not look at the limit, and what it executes is counted by [`Engine::counted`] instead
    /// of in [`Cpu::instructions`]: blocks need not wait for one another's count.
    pub exact_limit: bool,
    /// Counts instructions and their strategies without an exact limit, too, by an addition to
    /// memory at each block's entry and side exit.
    pub count: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cache_size: 32 << 20,
            threshold: 30,
            helpers_only: false,
            precise_flags: false,
            notes: false,
            exact_limit: true,
            count: true,
        }
    }
}
