//! Instruction families, as the SDM groups them. Each file ends in one table of registration
//! lines.

use crate::table::Line;

pub mod control_register;
pub mod descriptor_check;
pub mod far_transfer;
pub mod fast_syscall;
pub mod flags_control;
pub mod interrupt_flow;
pub mod msr;
pub mod port_io;
pub mod segment_load;
pub mod system;

/// Every family's registration lines.
pub const ALL: &[&[Line]] = &[
    control_register::FAMILY,
    descriptor_check::FAMILY,
    far_transfer::FAMILY,
    fast_syscall::FAMILY,
    flags_control::FAMILY,
    interrupt_flow::FAMILY,
    msr::FAMILY,
    port_io::FAMILY,
    segment_load::FAMILY,
    system::FAMILY,
];
