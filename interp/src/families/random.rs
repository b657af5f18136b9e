//! RDRAND and RDSEED, from the host kernel's generator.

use super::Answer;
use super::select::{by_wide_width, width};
use super::status;
use crate::access::write_reg;
use crate::flow::Flow;
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use rustix::rand::{GetRandomFlags, getrandom};
use softmmu::{Mmu, Width};
use x86::{Cpu, flags};

/// CF tells success; where the host has nothing to give, the destination is zero. The other flags
/// are cleared.
fn random<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let mut bytes = [0; 8];
    let full = matches!(getrandom(&mut bytes[..], GetRandomFlags::NONBLOCK), Ok(8));
    let value = if full { u64::from_le_bytes(bytes) } else { 0 };
    write_reg(cpu, insn.op[0].reg, T::from_u64(value));
    status::set(cpu, status::flag(full, flags::CF));
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Rdrand, |i| by_wide_width!(width(i, 0), random)),
    (Mnemonic::Rdseed, |i| by_wide_width!(width(i, 0), random)),
];
