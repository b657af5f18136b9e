//! Whole-machine tests, in a few lines each.
//!
//! A [`Guest`] says what to boot; [`Guest::run`] takes it to its end, [`Guest::start`] lets a test
//! talk to it. [`kernels`] holds guests of a few instructions, for questions that need no system.
//!
//! ```
//! use testsuite::{Guest, StopReason, kernels};
//!
//! let end = Guest::kernel("hello", kernels::hello()).run();
//! assert_eq!(end.reason, StopReason::PowerOff);
//! assert_eq!(end.output, "hello\r\n");
//! ```
#![forbid(unsafe_code)]

pub mod fat;
pub mod iso;
pub mod kernels;
pub mod media;
pub mod programs;
pub mod random_guest;
mod runner;
mod screen;

pub use machine::guests::Guest as Debian;
pub use machine::{EngineKind, StopReason};
pub use runner::{End, Guest, Running};

/// Makes two tests of each function named: one that calls it with [`EngineKind::Interp`], in a
/// module `interpreted`, and one with [`EngineKind::Jit`], in a module `translated`.
#[macro_export]
macro_rules! both_engines {
    ($($name:ident),+ $(,)?) => {
        mod interpreted {
            $(#[test]
            fn $name() {
                super::$name($crate::EngineKind::Interp);
            })+
        }
        mod translated {
            $(#[test]
            fn $name() {
                super::$name($crate::EngineKind::Jit);
            })+
        }
    };
}
