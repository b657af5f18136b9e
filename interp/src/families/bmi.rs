//! BMI1 and BMI2: ANDN BEXTR BLSI BLSMSK BLSR BZHI PDEP PEXT. (MULX, RORX and the shifts are with
//! their families, LZCNT and TZCNT in [`super::bit`].)

use super::Answer;
use super::select::{by_wide_width, width};
use super::status::{self, bits, sign_zero_parity};
use crate::access::{read_operand, read_reg, write_reg};
use crate::flow::{Flow, undefined};
use crate::table::Line;
use decoder::{Code, Insn, Mnemonic};
use softmmu::{Mmu, Width};
use x86::{Cpu, flags};

/// Writes operand 0, the flags of a logical result, and CF.
#[inline(always)]
fn finish<T: Width>(cpu: &mut Cpu, insn: &Insn, result: u64, carry: bool) -> Answer {
    let result = T::from_u64(result);
    write_reg(cpu, insn.op[0].reg, result);
    status::set(cpu, sign_zero_parity(result) | u64::from(carry));
    Ok(Flow::Next)
}

fn andn<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let b = read_operand::<T>(cpu, mmu, insn, 2)?.to_u64();
    let a = read_reg::<T>(cpu, insn.op[1].reg).to_u64();
    finish::<T>(cpu, insn, !a & b, false)
}

/// SF and AF are undefined: AMD Zen clears SF and sets AF.
fn bextr<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let source = read_operand::<T>(cpu, mmu, insn, 1)?.to_u64();
    let control = read_reg::<T>(cpu, insn.op[2].reg).to_u64();
    let (start, length) = (control as u32 & 0xFF, (control >> 8) as u32 & 0xFF);
    let shifted = source.checked_shr(start).unwrap_or(0);
    let result = T::from_u64(if length < 64 { shifted & ((1 << length) - 1) } else { shifted });
    write_reg(cpu, insn.op[0].reg, result);
    let status = sign_zero_parity(result) & !flags::SF | flags::AF;
    status::set(cpu, status);
    Ok(Flow::Next)
}

fn blsi<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let source = read_operand::<T>(cpu, mmu, insn, 1)?.to_u64();
    finish::<T>(cpu, insn, source & source.wrapping_neg(), source != 0)
}

fn blsmsk<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let source = read_operand::<T>(cpu, mmu, insn, 1)?.to_u64();
    finish::<T>(cpu, insn, source ^ source.wrapping_sub(1), source == 0)
}

fn blsr<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let source = read_operand::<T>(cpu, mmu, insn, 1)?.to_u64();
    finish::<T>(cpu, insn, source & source.wrapping_sub(1), source == 0)
}

fn bzhi<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let source = read_operand::<T>(cpu, mmu, insn, 1)?.to_u64();
    let first = read_reg::<T>(cpu, insn.op[2].reg).to_u64() as u32 & 0xFF;
    let beyond = first >= bits::<T>();
    finish::<T>(cpu, insn, if beyond { source } else { source & ((1 << first) - 1) }, beyond)
}

/// The low bits of the source to the places of the mask's ones.
fn pdep<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let mut mask = read_operand::<T>(cpu, mmu, insn, 2)?.to_u64();
    let mut source = read_reg::<T>(cpu, insn.op[1].reg).to_u64();
    let mut result = 0;
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        result |= lowest & (source & 1).wrapping_neg();
        source >>= 1;
        mask ^= lowest;
    }
    write_reg(cpu, insn.op[0].reg, T::from_u64(result));
    Ok(Flow::Next)
}

/// The source's bits at the places of the mask's ones to the low bits.
fn pext<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let mut mask = read_operand::<T>(cpu, mmu, insn, 2)?.to_u64();
    let source = read_reg::<T>(cpu, insn.op[1].reg).to_u64();
    let (mut result, mut place) = (0, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        result |= u64::from(source & lowest != 0) << place;
        place += 1;
        mask ^= lowest;
    }
    write_reg(cpu, insn.op[0].reg, T::from_u64(result));
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Andn, |i| by_wide_width!(width(i, 0), andn)),
    (Mnemonic::Bextr, |i| match i.code {
        // TBM, which guests are not offered.
        Code::XOP_Bextr_r32_rm32_imm32 | Code::XOP_Bextr_r64_rm64_imm32 => undefined,
        _ => by_wide_width!(width(i, 0), bextr),
    }),
    (Mnemonic::Blsi, |i| by_wide_width!(width(i, 0), blsi)),
    (Mnemonic::Blsmsk, |i| by_wide_width!(width(i, 0), blsmsk)),
    (Mnemonic::Blsr, |i| by_wide_width!(width(i, 0), blsr)),
    (Mnemonic::Bzhi, |i| by_wide_width!(width(i, 0), bzhi)),
    (Mnemonic::Pdep, |i| by_wide_width!(width(i, 0), pdep)),
    (Mnemonic::Pext, |i| by_wide_width!(width(i, 0), pext)),
];
