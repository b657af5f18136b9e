//! The guest's text screen in a terminal.
//!
//! | file | holds |
//! |---|---|
//! | `draw.rs` | the screen as terminal output: what changed since the last time |
//! | `keyboard.rs` | the terminal's keys as scan codes, and Ctrl-A |

mod draw;
mod keyboard;
#[cfg(test)]
mod tests;

pub use draw::Painter;
pub use keyboard::{Action, Keyboard, Press};

/// Enters the terminal's alternate screen.
pub const ENTER: &str = "\x1b[?1049h\x1b[2J";
/// Leaves it: colors, cursor and screen as they were.
pub const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";
