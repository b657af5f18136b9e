//! Instruction families, as the SDM groups them. Each file ends in one table of registration
//! lines.

use crate::table::Line;

pub mod control_register;
pub mod msr;
pub mod port_io;
pub mod system;

/// Every family's registration lines.
pub const ALL: &[&[Line]] =
    &[control_register::FAMILY, msr::FAMILY, port_io::FAMILY, system::FAMILY];
