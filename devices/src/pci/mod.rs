//! The PCI bus of an i440FX board: bus 0, configuration mechanism 1.
//!
//! | file | holds |
//! |---|---|
//! | `root.rs` | ports 0xCF8 to 0xCFF, the functions by device and function number |
//! | `function.rs` | a function: windows (base address registers) that move on the buses |
//! | `config.rs` | 256 bytes of configuration space, with their writable bits |
//! | `intx.rs` | interrupt pins to PIRQ lines to ISA interrupts |
//! | `i440fx.rs` | host bridge: shadow RAM |
//! | `piix.rs` | ISA bridge, IDE, power management |
//!
//! Source: PCI Local Bus Specification 3.0, chapters 3.2.2.3 and 6.

pub mod config;
pub mod function;
pub mod i440fx;
pub mod intx;
pub mod piix;
pub mod root;
#[cfg(test)]
mod tests;

pub use config::{ConfigSpace, Identity};
pub use function::{Behaviour, Decode, Function, Plain, Window};
pub use intx::IntxRouter;
pub use root::{CONFIG_PORT, CONFIG_PORT_COUNT, PciRoot, PciState};

use crate::bus::Bus;

/// Device and function on bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Device number, 0 to 31.
    pub slot: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl Address {
    /// The address of function `function` of device `slot`; high bits are dropped.
    pub const fn new(slot: u8, function: u8) -> Self {
        Self { slot: slot & 31, function: function & 7 }
    }

    /// Device number in bits 7:3, function number in bits 2:0.
    pub const fn devfn(self) -> u8 {
        self.slot << 3 | self.function & 7
    }

    /// The inverse of [`Address::devfn`].
    pub const fn from_devfn(devfn: u8) -> Self {
        Self::new(devfn >> 3, devfn)
    }
}

/// The buses that base address registers move windows on.
pub trait AddressSpaces: Send + Sync {
    /// I/O ports.
    fn io(&self) -> &Bus;
    /// Memory-mapped registers.
    fn memory(&self) -> &Bus;
}
