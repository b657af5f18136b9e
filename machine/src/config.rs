//! What a machine is made of.

use crate::boot::Protocol;
use std::io::Write;
use std::time::Duration;
use x86::cpuid::Model;

/// The most virtual CPUs in a machine.
pub const MAX_CPUS: u32 = 64;

/// Which engine executes guest code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EngineKind {
    /// Decoded blocks, interpreted.
    Interp,
    /// Hot blocks translated, the rest interpreted. Where the host refuses what the translator
    /// needs, everything is interpreted: see [`crate::Machine::refusal`].
    #[default]
    Jit,
}

/// A kernel to boot, with what goes along.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// The file's content.
    pub image: Vec<u8>,
    /// Its name, for messages and as word 0 of a Multiboot command line.
    pub name: String,
    /// Content of the initial RAM disk, or of the first Multiboot module.
    pub initrd: Option<Vec<u8>>,
    /// Further modules, in order. Linux takes them for more parts of its initial RAM disk.
    pub modules: Vec<KernelModule>,
    /// Command line.
    pub command_line: String,
    /// The boot protocol, where it is loaded without firmware and there is a choice.
    pub protocol: Protocol,
}

/// A file that goes along with a kernel.
#[derive(Clone, Debug, Default)]
pub struct KernelModule {
    /// The file's content.
    pub data: Vec<u8>,
    /// The string that goes with it: by custom its name and arguments.
    pub command_line: String,
}

/// A machine to be built.
pub struct Config {
    /// Bytes of RAM, a multiple of 4096.
    pub memory: u64,
    /// Number of virtual CPUs, 1 to [`MAX_CPUS`].
    pub cpus: u32,
    /// What kind they are.
    pub cpu: Model,
    /// Which engine.
    pub engine: EngineKind,
    /// What to boot.
    pub kernel: Kernel,
    /// Where COM1 writes.
    pub serial_output: Box<dyn Write + Send>,
    /// Longest run in wall time.
    pub timeout: Option<Duration>,
    /// Counts all instructions for [`crate::Stats`], which costs the translator a few percent of its
    /// speed. Without it only what is not in translated code is counted.
    pub count: bool,
}
