//! The virtual machine: vCPU run loop, board, boot loaders.

pub mod boot;
pub mod check;
pub mod guests;
