//! The advanced programmable interrupt controllers of a PC.
//!
//! | file | holds |
//! |---|---|
//! | `local.rs` | [`LocalApic`]: priorities, acceptance, EOI, LINT pins |
//! | `mode.rs` | configuration, operating modes and their legal transitions |
//! | `outcome.rs` | what the machine must do after a write or a message |
//! | `access.rs` | its registers as MMIO (xAPIC) and as MSRs (x2APIC) |
//! | `registers.rs` | register numbers, local vector table layout, reserved bits |
//! | `icr.rs` | the interrupt command register decoded to a message |
//! | `timer.rs` | one-shot, periodic and TSC-deadline timer |
//! | `message.rs` | [`InterruptMessage`]: what travels between APICs; MSI decoding |
//! | `delivery.rs` | which local APICs a message addresses |
//! | `io.rs` | [`IoApic`]: pins and redirection table |
//!
//! All of them are pure state machines: time is an argument, and what has to
//! happen elsewhere is a return value. The machine owns locking and routing.
//! A message goes this way: a source ([`IoApic`], an MSI, or
//! [`Effect::Ipi`]) yields an [`InterruptMessage`]; [`delivery::route`] picks
//! its targets; [`LocalApic::receive`] takes it in and says what the
//! processor must do.
//!
//! Source: Intel SDM volume 3A, chapter "Advanced Programmable Interrupt
//! Controller (APIC)"; Intel 82093AA datasheet; ICH10 datasheet for the I/O
//! APIC's EOI register.

mod access;
mod bitmap;
pub mod delivery;
mod icr;
mod io;
#[cfg(test)]
mod io_tests;
mod local;
#[cfg(test)]
mod local_tests;
mod message;
mod mode;
mod outcome;
#[cfg(test)]
mod random_tests;
mod registers;
mod timer;

pub use bitmap::VectorBitmap;
pub use delivery::{ApicAddress, route};
pub use io::{IO_APIC_BASE, IO_APIC_PINS, Injections, IoApic};
pub use local::LocalApic;
pub use message::{DeliveryMode, Destination, InterruptMessage, TriggerMode};
pub use mode::{AccessError, ApicMode, LOCAL_APIC_BASE, LOCAL_APIC_SIZE, LocalApicConfig};
pub use outcome::{Effect, Reception};
pub use registers::LvtEntry;
pub use timer::{APIC_BUS_FREQUENCY_HZ, Deadline, Now, TimerMode};
