//! What this host offers, and what Ringshift makes of it: `ringshift check`.
//!
//! [`report`] looks and changes nothing. What it finds is data in a
//! [`HostReport`], whose `Display` says it in words.

mod cpu;
mod kernel;
mod words;

pub use cpu::{Cpu, Nesting, Virtualization};
pub use kernel::{Kernel, KvmDevice, Limits};

/// Everything found out about the host.
#[derive(Clone, Debug)]
pub struct HostReport {
    /// The processor.
    pub cpu: Cpu,
    /// The kernel and its settings.
    pub kernel: Kernel,
    /// Limits on this process.
    pub limits: Limits,
}

/// Looks at the host.
pub fn report() -> HostReport {
    HostReport { cpu: Cpu::detect(), kernel: Kernel::detect(), limits: Limits::detect() }
}

impl HostReport {
    /// Why no guest can run here, in words; empty on a usable host.
    pub fn obstacles(&self) -> Vec<String> {
        let mut obstacles = Vec::new();
        if self.cpu.level < 2 {
            obstacles.push(
                "the processor lacks features of x86-64-v2 (CMPXCHG16B, POPCNT, SSE4.2)".into(),
            );
        }
        if !self.kernel.memfd {
            obstacles.push("memfd_create fails, and guest memory lives in a memfd".into());
        }
        obstacles
    }
}
