//! Memory operands of 1 to 64 bytes.

use crate::access::{self, Intent};
use native::Scratch;
use softmmu::{Access, Mmu, Width};
use x86::{Cpu, Fault};

/// Reads `size` bytes at `address` into `scratch`.
#[inline]
pub(crate) fn load(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    address: u64,
    size: u8,
    scratch: &mut Scratch,
) -> Result<(), Fault> {
    read(cpu, mmu, address, &mut scratch.mem.0[..usize::from(size & 127)])
}

/// Writes the `size` bytes in `scratch` at `address`, all or none.
#[inline]
pub(crate) fn store(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    address: u64,
    size: u8,
    scratch: &Scratch,
) -> Result<(), Fault> {
    write(cpu, mmu, address, &scratch.mem.0[..usize::from(size & 127)])
}

/// Reads an operand, in the largest words it is made of.
#[inline]
pub(crate) fn read(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    address: u64,
    bytes: &mut [u8],
) -> Result<(), Fault> {
    let size = bytes.len() as u32;
    check_alignment(cpu, address, size)?;
    let mut at = address;
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        word.copy_from_slice(&mmu.load::<u64>(at)?.to_le_bytes());
        at = next(cpu, at, 8);
    }
    let rest = words.into_remainder();
    match rest.len() {
        0 => {}
        1 => rest[0] = mmu.load::<u8>(at)?,
        2 => rest.copy_from_slice(&mmu.load::<u16>(at)?.to_le_bytes()),
        4 => rest.copy_from_slice(&mmu.load::<u32>(at)?.to_le_bytes()),
        _ => mmu.read_bytes(at, rest)?,
    }
    access::data_breakpoint(cpu, address, size, Intent::Read);
    Ok(())
}

/// Writes an operand, all or nothing.
#[inline]
pub(crate) fn write(cpu: &mut Cpu, mmu: &mut Mmu, address: u64, bytes: &[u8]) -> Result<(), Fault> {
    let size = bytes.len() as u32;
    check_alignment(cpu, address, size)?;
    if bytes.len() > 8 && (address & 0xFFF) + u64::from(size) > 0x1000 {
        mmu.probe(address, bytes.len(), Access::Write)?;
    }
    let mut at = address;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        mmu.store(at, word_of::<u64>(word))?;
        at = next(cpu, at, 8);
    }
    let rest = words.remainder();
    match rest.len() {
        0 => {}
        1 => mmu.store(at, rest[0])?,
        2 => mmu.store(at, word_of::<u16>(rest))?,
        4 => mmu.store(at, word_of::<u32>(rest))?,
        _ => mmu.write_bytes(at, rest)?,
    }
    access::data_breakpoint(cpu, address, size, Intent::Write);
    Ok(())
}

/// #AC by the operand's natural alignment, at most 16. For vectors it is left to the processor
/// whether there is one (SDM vol. 2, MOVUPS); AMD's check them.
#[inline(always)]
pub(crate) fn check_alignment(cpu: &Cpu, address: u64, size: u32) -> Result<(), Fault> {
    match size {
        2 | 4 | 8 => access::check_alignment(cpu, address, size),
        10 => access::check_alignment(cpu, address, 8),
        16 | 32 | 64 => access::check_alignment(cpu, address, 16),
        _ => Ok(()),
    }
}

/// The address `by` bytes on: 32 bits wide outside 64-bit mode.
#[inline(always)]
pub(crate) fn next(cpu: &Cpu, address: u64, by: u64) -> u64 {
    let sum = address.wrapping_add(by);
    if cpu.is_long() { sum } else { sum & 0xFFFF_FFFF }
}

#[inline(always)]
fn word_of<T: Width>(bytes: &[u8]) -> T {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    T::from_u64(u64::from_le_bytes(word))
}
