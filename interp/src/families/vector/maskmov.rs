//! Masked moves of AVX and of MASKMOVQ: an element that the mask leaves out is not accessed, and
//! does not fault.

use super::available::check_unit;
use crate::access::{self, Intent};
use crate::flow::{Flow, Handler};
use decoder::{Insn, Mnemonic, OpKind};
use native::Unit;
use softmmu::{Access, Mmu};
use x86::cpuid::Feature;
use x86::{Cpu, Fault};

/// The bytes of a vector register.
pub(super) fn bytes_of(register: &[u64; 8]) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(register) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The inverse of [`bytes_of`].
pub(super) fn words_of(bytes: &[u8; 64]) -> [u64; 8] {
    let mut words = [0; 8];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        *word = u64::from_le_bytes(eight);
    }
    words
}

/// The linear address of the element at byte `at` of the memory operand.
pub(super) fn element_address(
    cpu: &Cpu,
    insn: &Insn,
    at: usize,
    size: usize,
    intent: Intent,
) -> Result<u64, Fault> {
    // The address size cuts the address of the operand, not those of its elements: beyond 4 GiB
    // they are beyond every limit.
    let offset = access::effective_address(cpu, insn).wrapping_add(at as u64);
    if !cpu.is_long() && offset >> 32 != 0 {
        return Err(access::segment_fault(insn.mem.seg));
    }
    access::linear(cpu, insn.mem.seg, offset, size as u32, intent)
}

/// Alignment is never checked, by #AC either. Reads the elements whose bit in `mask` is set; the others read as zero.
pub(super) fn load_elements(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    size: usize,
    mask: u64,
) -> Result<[u8; 64], Fault> {
    let mut bytes = [0; 64];
    for (i, element) in bytes.chunks_exact_mut(size).enumerate() {
        if mask >> i & 1 != 0 {
            let address = element_address(cpu, insn, i * size, size, Intent::Read)?;
            mmu.read_bytes(address, element)?;
            access::data_breakpoint(cpu, address, size as u32, Intent::Read);
        }
    }
    Ok(bytes)
}

/// Writes the elements whose bit in `mask` is set, all or none.
pub(super) fn store_elements(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    size: usize,
    mask: u64,
    bytes: &[u8; 64],
) -> Result<(), Fault> {
    probe_elements(cpu, mmu, insn, size, mask)?;
    for (i, element) in bytes.chunks_exact(size).enumerate() {
        if mask >> i & 1 != 0 {
            let address = element_address(cpu, insn, i * size, size, Intent::Write)?;
            mmu.write_bytes(address, element)?;
            access::data_breakpoint(cpu, address, size as u32, Intent::Write);
        }
    }
    Ok(())
}

/// Checks the right to write the elements whose bit in `mask` is set.
pub(super) fn probe_elements(
    cpu: &Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    size: usize,
    mask: u64,
) -> Result<(), Fault> {
    for i in 0..64 / size {
        if mask >> i & 1 != 0 {
            let address = element_address(cpu, insn, i * size, size, Intent::Write)?;
            mmu.probe(address, size, Access::Write)?;
        }
    }
    Ok(())
}

/// A bit for each element of `size` bytes, of the first `length` bytes, whose sign bit is set.
pub(super) fn sign_mask(bytes: &[u8; 64], length: usize, size: usize) -> u64 {
    bytes[..length]
        .chunks_exact(size)
        .enumerate()
        .fold(0, |mask, (i, e)| mask | u64::from(e[size - 1] >> 7) << i)
}

/// VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ.
pub(super) fn select(insn: &Insn) -> Handler {
    let wide = matches!(insn.mnemonic(), Mnemonic::Vmaskmovpd | Mnemonic::Vpmaskmovq);
    match (insn.op[0].kind == OpKind::Mem, wide) {
        (false, false) => masked_load::<4>,
        (false, true) => masked_load::<8>,
        (true, false) => masked_store::<4>,
        (true, true) => masked_store::<8>,
    }
}

fn check(cpu: &Cpu, insn: &Insn) -> Result<(), Fault> {
    let integer = matches!(insn.mnemonic(), Mnemonic::Vpmaskmovd | Mnemonic::Vpmaskmovq);
    check_unit(cpu, if integer { Feature::Avx2 } else { Feature::Avx }, Unit::Vex)
}

/// The mask operand's register and the operation's length in bytes.
fn mask_of(cpu: &Cpu, insn: &Insn, size: usize) -> (u64, usize) {
    let length = if insn.op[1].kind == OpKind::Ymm { 32 } else { 16 };
    let mask = bytes_of(&cpu.vector[usize::from(insn.op[1].reg & 31)].0);
    (sign_mask(&mask, length, size), length)
}

fn masked_load<const SIZE: usize>(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
) -> Result<Flow, Fault> {
    check(cpu, insn)?;
    let (mask, _) = mask_of(cpu, insn, SIZE);
    let bytes = load_elements(cpu, mmu, insn, SIZE, mask)?;
    cpu.vector[usize::from(insn.op[0].reg & 31)].0 = words_of(&bytes);
    Ok(Flow::Next)
}

fn masked_store<const SIZE: usize>(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
) -> Result<Flow, Fault> {
    check(cpu, insn)?;
    let (mask, _) = mask_of(cpu, insn, SIZE);
    let bytes = bytes_of(&cpu.vector[usize::from(insn.op[2].reg & 31)].0);
    store_elements(cpu, mmu, insn, SIZE, mask, &bytes)?;
    Ok(Flow::Next)
}

/// MASKMOVDQU and VMASKMOVDQU: bytes to DS:rDI.
fn maskmovdqu(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    // iced gives the implied memory operand as operand 0.
    let data = bytes_of(&cpu.vector[usize::from(insn.op[1].reg & 31)].0);
    let mask = bytes_of(&cpu.vector[usize::from(insn.op[2].reg & 31)].0);
    store_elements(cpu, mmu, insn, 1, sign_mask(&mask, 16, 1), &data)?;
    Ok(Flow::Next)
}

pub(super) fn legacy_maskmovdqu(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_unit(cpu, Feature::Sse2, Unit::Sse)?;
    maskmovdqu(cpu, mmu, insn)
}

pub(super) fn vmaskmovdqu(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_unit(cpu, Feature::Avx, Unit::Vex)?;
    maskmovdqu(cpu, mmu, insn)
}

/// MASKMOVQ: the same for MMX registers. It enters MMX state.
pub(super) fn maskmovq(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_unit(cpu, Feature::Sse, Unit::Mmx)?;
    super::x87::check_pending(cpu, mmu)?;
    let register = |i: usize| -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&super::x87::mmx(cpu, insn.op[i].reg));
        bytes
    };
    let (data, mask) = (register(1), register(2));
    if cpu.policy.is_amd() {
        // AMD enters MMX state even where the store faults.
        super::x87::enter_mmx(cpu);
    }
    store_elements(cpu, mmu, insn, 1, sign_mask(&mask, 8, 1), &data)?;
    super::x87::enter_mmx(cpu);
    Ok(Flow::Next)
}
