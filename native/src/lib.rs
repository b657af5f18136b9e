//! The host CPU as the definition of instructions: stubs that execute one guest instruction on
//! the silicon, between loading its operands and storing its results.
//!
//! - [`thunk`] runs vector and x87 instructions, which have no software definition: [`prepare`]
//!   finds or makes the stub when an instruction is decoded.
//! - [`oracle`] runs one integer instruction, for tests that compare the interpreter with the
//!   host.
//!
//! DESIGN.md puts single-instruction thunks in `jit`. The interpreter needs them and must not
//! depend on the translator, so they are a crate below both.

pub mod arena;
mod cache;
pub mod executable;
mod facts;
mod features;
mod masking;
pub mod oracle;
mod recovery;
mod stub;
pub mod thunk;
mod undefined;

pub use arena::NativeError;
pub use cache::{Prepared, prepare, run_uncached, thunk};
pub use facts::{MemoryUse, Traits, Unit, is_candidate, traits};
pub use masking::{MaskKind, Masking};
pub use oracle::{GprState, HostFault, OracleError, run_gpr, run_gpr_mem};
pub use thunk::{Scratch, Thunk, ThunkFault};
pub use undefined::{BitScanFlags, bit_scan_flags};
