//! The guest's screen for people: in a terminal, or for VNC clients; and their keys and mouse for
//! the guest.
//!
//! | file | holds |
//! |---|---|
//! | `source.rs` | the adapter, keyboard and power button of the machine that runs at the moment |
//! | `keys.rs` | X11 keysyms and XT scan codes to the PS/2 keyboard's scan codes |
//! | `text/` | a text screen as terminal output, terminal keys as scan codes |
//! | `rfb/` | a VNC server: RFB 3.8 |
#![forbid(unsafe_code)]

pub mod keys;
pub mod rfb;
mod source;
pub mod text;

pub use source::Source;
