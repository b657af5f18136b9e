//! The same-ISA translator: guest code copied, with memory operands redirected and what is
//! privileged rewritten, and run on the host CPU.
//!
//! | module | what it holds |
//! |---|---|
//! | `config`, `engine` | the run loop: cold code interpreted, hot code translated |
//! | `strategy` | how each instruction is emitted: one table |
//! | `emit` | emission, by kind of instruction |
//! | `liveness` | which flags matter where |
//! | `regs` | where guest registers live |
//! | `key`, `segments` | what a translation depends on besides its bytes |
//! | `cache`, `indirect`, `pages` | blocks, links, the caches that indirect branches probe |
//! | `arena`, `addresses`, `stubs`, `runtime` | executable memory, entries and exits, state they share |
//! | `explain` | listings of blocks: guest code beside host code |
//! | `stats`, `profile` | what is counted, always and on request |
//! | `helper` | calling the interpreter's definition of an instruction |

// dynasm! converts register numbers even where they have the right type.
#![allow(clippy::useless_conversion)]

mod addresses;
mod arena;
mod cache;
mod config;
mod emit;
mod engine;
pub mod explain;
#[cfg(test)]
mod golden;
mod helper;
mod indirect;
mod key;
mod liveness;
mod pages;
mod profile;
mod regs;
mod runtime;
mod segments;
mod stats;
mod strategy;
mod stubs;
#[cfg(test)]
mod tests;

pub use arena::ArenaError;
pub use config::{Config, EngineError};
pub use engine::Engine;
pub use profile::Mix;
pub use stats::{Left, Stats};
