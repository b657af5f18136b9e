//! The virtual machine: vCPU run loop, board, boot loaders.
#![forbid(unsafe_code)]

pub mod board;
pub mod boot;
pub mod check;
mod chipset;
pub mod config;
pub mod control;
pub mod explain;
pub mod firmware;
pub mod guests;
mod interrupts;
pub mod lockstep;
pub mod machine;
pub mod recognise;
pub mod stats;
mod timers;
pub mod vcpu;

pub use chipset::Peripherals;
pub use config::{Config, EngineKind, Kernel, KernelModule, MAX_CPUS};
pub use control::{Control, StopReason};
pub use devices::block;
pub use devices::legacy::serial::Serial;
pub use devices::vga::{Frame, TextScreen, VgaDevice};
pub use firmware::{BootOrder, Drives, Firmware, FirmwareError};
pub use machine::{Machine, MachineError, Outcome};
pub use stats::Stats;
pub use x86::cpuid::Model;
