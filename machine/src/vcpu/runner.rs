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
    /// An engine with empty caches whose translator, if it is one, works as `config` says; the
    /// interpreter, and why, where the host refuses what the translator needs.
    pub fn new(kind: EngineKind, config: jit::Config) -> (Runner, Option<EngineError>) {
        match Runner::with(kind, config) {
            Ok(runner) => (runner, None),
            Err(refusal) => (Runner::Interp(Box::default()), Some(refusal)),
        }
    }

    /// [`Runner::new`] that insists.
    ///
    /// # Errors
    /// The host refuses what the translator needs.
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

    /// Instructions executed that are not in `Cpu::instructions`.
    pub fn counted(&self) -> u64 {
        self.translator().map_or(0, jit::Engine::counted)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_leaves_the_interpreter() {
        let (runner, refusal) = Runner::new(EngineKind::Jit, jit::Config::default());
        assert!(runner.translator().is_some(), "{refusal:?}");
        let unreasonable = jit::Config { cache_size: usize::MAX / 4, ..jit::Config::default() };
        let (runner, refusal) = Runner::new(EngineKind::Jit, unreasonable);
        assert!(runner.translator().is_none());
        assert!(refusal.expect("a reason").to_string().contains("bytes for translated code"));
    }
}
