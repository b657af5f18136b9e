//! Architecture facts and guest CPU state. No I/O and no unsafe code.
//!
//! Everything here is data: registers, flags, segments, control-register and MSR
//! definitions, and [`Fault`]. What instructions do with them lives in `interp`.
#![forbid(unsafe_code)]

pub mod compare;
pub mod control;
pub mod cpu;
pub mod cpuid;
pub mod fault;
pub mod flags;
pub mod fpu;
pub mod mode;
pub mod msr;
pub mod regs;
pub mod segment;

pub use cpu::{Activity, Cpu};
pub use fault::{Fault, Vector};
pub use mode::Mode;
pub use segment::{DescriptorTable, SegReg, Segment};
