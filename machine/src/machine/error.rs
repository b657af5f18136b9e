//! Why a machine could not be built.

use crate::boot::ImageError;
use crate::config::MAX_CPUS;
use devices::BusError;
use devices::acpi::AcpiError;
use softmmu::{LowError, MmuError, RamError};
use thiserror::Error;
use x86::cpuid::ModelError;

/// Why a machine could not be built.
#[derive(Debug, Error)]
pub enum MachineError {
    /// Guest RAM.
    #[error("guest memory: {0}")]
    Ram(#[from] RamError),
    /// The MMU's tables.
    #[error("software MMU: {0}")]
    Mmu(#[from] MmuError),
    /// The registers' place in memory.
    #[error(transparent)]
    Low(#[from] LowError),
    /// The translator.
    #[error("translator: {0}; --engine interp does without it")]
    Engine(#[from] jit::EngineError),
    /// What firmware is told.
    #[error("firmware configuration: {0}")]
    Configuration(#[from] devices::fw_cfg::FwCfgError),
    /// Two devices at one address.
    #[error("board: {0}")]
    Bus(#[from] BusError),
    /// Firmware tables.
    #[error("firmware tables: {0}")]
    Acpi(#[from] AcpiError),
    /// The kernel.
    #[error("{name}: {error}")]
    Kernel {
        /// The kernel file's name.
        name: String,
        /// What is wrong with it.
        error: ImageError,
    },
    /// 64-bit entry into a processor without it.
    #[error("the 64-bit boot protocol on a processor without long mode")]
    NoLongMode,
    /// A size of RAM that cannot be.
    #[error("{0} bytes of guest memory: give a multiple of 4 KiB from 1 MiB to 512 GiB")]
    MemorySize(u64),
    /// A number of virtual CPUs that cannot be.
    #[error("{0} virtual CPUs: give 1 to {MAX_CPUS}")]
    CpuCount(u32),
    /// A processor that cannot be.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Writing the firmware tables.
    #[error("firmware tables do not fit {0} bytes of guest memory")]
    NoRoom(u64),
    /// A host thread.
    #[error("starting a host thread: {0}")]
    Thread(std::io::Error),
}
