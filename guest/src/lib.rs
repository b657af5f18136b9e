//! The embedded guest: a small kernel that climbs from real mode to ring 3 of long mode.
//!
//! It is loaded by Multiboot 1, drops to real mode, and from there makes its way up by itself:
//! real mode, unreal mode, protected mode with 32-bit paging, call gates, a task switch, a
//! virtual-8086 task, long mode, exceptions, ring 3, system calls, and two tasks that the timer
//! pre-empts. It reports every step as a line on COM1, checks each against the value the manual
//! promises, and switches the machine off.
//!
//! The kernel is assembled at run time, by [`build`], from the listings in this crate's modules;
//! there is no binary and no external assembler. Read it in the order it runs:
//!
//! | module | what happens |
//! |---|---|
//! | `layout` | where everything lies |
//! | `entry` | Multiboot's protected mode, and down |
//! | `real_mode` | segments, the IVT, unreal mode, A20 |
//! | `protected_mode` | descriptors, gates, 32-bit paging, a task switch |
//! | `call_gates` | down to ring 3 and up again |
//! | `virtual_8086` | a real-mode task and its monitor |
//! | `long_mode` | PAE, EFER, 64-bit code in the high half |
//! | `processor` | CPUID's own words |
//! | `paging` | four levels, the bits of an entry, address spaces |
//! | `exceptions` | faults and traps on purpose |
//! | `floating_point`, `computation` | work |
//! | `system_calls`, `user`, `compatibility` | ring 3 and the way back |
//! | `interrupts`, `tasks` | the timer and pre-emption |
//! | `serial`, `power` | output, and the end |
//! | `asm`, `arch` | the assembler and the architecture's names |

#![forbid(unsafe_code)]

mod arch;
mod asm;
mod call_gates;
mod compatibility;
mod computation;
mod entry;
mod exceptions;
mod floating_point;
mod image;
mod interrupts;
mod layout;
mod long_mode;
mod paging;
mod power;
mod processor;
mod protected_mode;
mod real_mode;
mod serial;
mod system_calls;
mod tasks;
#[cfg(test)]
mod tests;
mod user;
mod virtual_8086;

pub use image::{Error, Image, Options, Parts, PowerOff, build};
pub use power::{DEBUG_EXIT_ALIVE, DEBUG_EXIT_FAILED};
