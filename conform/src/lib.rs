//! Conformance suites: the silicon as reference.
//!
//! - [`moo`] runs hardware-captured single-instruction tests (SingleStepTests, MOO format).
//! - [`host`] fuzzes the engines against the CPU that they run on.
//! - [`lockstep`] runs kernels on both engines side by side.
//!
//! Each suite is a function from a plain options struct to a summary that can be displayed and
//! turned into a [`report::Report`]; the command line adds nothing but parsing.

pub mod host;
pub mod lockstep;
pub mod moo;
pub mod progress;
pub mod report;
pub mod shard;

pub use progress::Progress;
pub use report::Report;
pub use shard::Shard;
