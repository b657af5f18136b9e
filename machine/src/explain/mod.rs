//! Where `ringshift explain` gets code from: a guest that boots, or a program's file.
//!
//! What happens to it then, and the listing, is [`jit::explain`].

mod boot;
mod program;

pub use boot::{Boot, BootError, explain as boot};
pub use jit::explain::{Code, ExplainError, Explanation, View};
pub use program::{Found, Program, ProgramError};
