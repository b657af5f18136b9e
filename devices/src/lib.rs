//! The board's devices: pure register machines and the bus they attach to.
//!
//! A device is two things: a state struct, serialisable and tested alone, that turns register
//! accesses and the passing of time into register values and line levels; and a thin attachment
//! that implements [`BusDevice`] over it and drives its outputs ([`IrqLine`], [`Timer`], a
//! byte sink, a callback). Devices never see a CPU.
//!
//! # Locking
//! Every device sits in its own `Mutex`. A device calls its outputs with that lock held, so an
//! [`IrqLine`] or [`Timer`] implementation may take the lock of an interrupt controller, of a
//! timer queue or of another device, and must not call back into the device. The owner of a timer queue calls
//! [`TimerClient::timer_expired`] with no lock held that [`Timer::arm`] takes.
//!
//! # Save and restore
//! Every device has `state()`, which borrows the serialisable state, and `restore(state)`, which
//! replaces it and drives the outputs to match: interrupt lines and timers need no snapshot.
#![forbid(unsafe_code)]

pub mod acpi;
pub mod apic;
pub mod block;
pub mod bus;
pub mod clock;
pub mod dma;
pub mod fw_cfg;
pub mod hpet;
pub mod ide;
pub mod interrupt;
pub mod legacy;
pub mod pci;
pub mod vga;

pub use bus::{Bus, BusDevice, BusError, lock};
pub use clock::{Clock, HostClock, ManualClock, Timer, TimerClient};
pub use dma::DmaMemory;
pub use interrupt::IrqLine;
