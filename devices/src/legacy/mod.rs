//! Devices at the fixed ports of an IBM PC/AT and its PIIX-era successors.
//!
//! Except where a device says otherwise its registers decode port numbers: attach it with
//! [`crate::Bus::insert_ports`] and the `PORTS` of its module.

pub mod acpi_pm;
pub mod coprocessor;
pub mod debug;
pub mod dma8237;
pub mod floppy;
pub mod i8042;
pub mod pic8259;
pub mod pit8254;
pub mod reset;
pub mod rtc;
pub mod serial;
pub mod test_device;
#[cfg(test)]
mod tests;
