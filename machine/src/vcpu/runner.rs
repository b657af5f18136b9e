//! What executes a vCPU's code.

use crate::config::EngineKind;
use interp::Exit;
use jit::EngineError;
use softmmu::Mmu;
use x86::Cpu;

/// An engine of either kind.
pub enum Runner {
    /// The interpreter.
    Interp(Box<interp::Engine>),
    /// The translator, with an interpreter inside.
    Jit(Box<jit::Engine>),
}

impl Runner {
    /// An engine with empty caches.
    ///
    /// # Errors
    /// The host refuses what the translator needs.
    pub fn new(kind: EngineKind) -> Result<Runner, EngineError> {
        Runner::with(kind, jit::Config::default())
    }

    /// An engine whose translator, if it is one, works as `config` says.
    ///
    /// # Errors
    /// As [`Runner::new`].
    pub fn with(kind: EngineKind, config: jit::Config) -> Result<Runner, EngineError> {
        Ok(match kind {
            EngineKind::Interp => Runner::Interp(Box::default()),
            EngineKind::Jit => Runner::Jit(Box::new(jit::Engine::new(config)?)),
        })
    }

    /// Runs guest code: see `interp::Engine::run`.
    pub fn run(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, limit: u64) -> Exit {
        match self {
            Runner::Interp(engine) => engine.run(cpu, mmu, limit),
            Runner::Jit(engine) => engine.run(cpu, mmu, limit),
        }
    }

    /// The interpreter's counters.
    pub fn interpreter_stats(&self) -> &interp::engine::Stats {
        match self {
            Runner::Interp(engine) => &engine.stats,
            Runner::Jit(engine) => &engine.interp.stats,
        }
    }

    /// The translator, where there is one.
    pub fn translator(&self) -> Option<&jit::Engine> {
        match self {
            Runner::Interp(_) => None,
            Runner::Jit(engine) => Some(engine),
        }
    }
}
