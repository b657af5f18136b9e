//! The host CPU as the definition of instructions: stubs that execute one guest instruction on
//! the silicon, between loading its operands and storing its results.
//!
//! - [`oracle`] runs one integer instruction, for tests that compare the interpreter with the
//!   host.
//!
//! DESIGN.md puts single-instruction thunks in `jit`. The interpreter needs them and must not
//! depend on the translator, so they are a crate below both.

pub mod arena;
pub mod oracle;
mod recovery;

pub use arena::NativeError;
pub use oracle::{GprState, HostFault, OracleError, run_gpr};
