//! Bits: BT BTS BTR BTC, BSF BSR LZCNT TZCNT POPCNT, CRC32.

use super::Answer;
use super::select::{by_wide_width, by_width, is_imm, is_mem, width};
use super::status::{self, bits, bytes, sign_extend};
use crate::access::{self, Intent};
use crate::flow::{Flow, Handler};
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use native::BitScanFlags;
use softmmu::{Mmu, Width};
use x86::{Cpu, Fault, flags};

/// What a bit test leaves in the bit.
trait BitOp {
    /// Whether the operand is written.
    const WRITES: bool = true;
    /// The operand with the bits of `mask` changed.
    fn apply(value: u64, mask: u64) -> u64;
}
struct Bt;
impl BitOp for Bt {
    const WRITES: bool = false;
    fn apply(value: u64, _: u64) -> u64 {
        value
    }
}
struct Bts;
impl BitOp for Bts {
    #[inline(always)]
    fn apply(value: u64, mask: u64) -> u64 {
        value | mask
    }
}
struct Btr;
impl BitOp for Btr {
    #[inline(always)]
    fn apply(value: u64, mask: u64) -> u64 {
        value & !mask
    }
}
struct Btc;
impl BitOp for Btc {
    #[inline(always)]
    fn apply(value: u64, mask: u64) -> u64 {
        value ^ mask
    }
}

/// The bit offset: a register's value, or an immediate modulo the width.
#[inline(always)]
fn bit_offset<T: Width>(cpu: &Cpu, insn: &Insn) -> T {
    if is_imm(insn, 1) {
        T::from_u64(insn.imm & u64::from(bits::<T>() - 1))
    } else {
        access::read_reg(cpu, insn.op[1].reg)
    }
}

#[inline(always)]
fn set_carry(cpu: &mut Cpu, on: bool) {
    status::set_masked(cpu, flags::CF, u64::from(on));
}

fn test_reg<O: BitOp, T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let offset = bit_offset::<T>(cpu, insn).to_u64() & u64::from(bits::<T>() - 1);
    let value = access::read_reg::<T>(cpu, insn.op[0].reg).to_u64();
    if O::WRITES {
        access::write_reg(cpu, insn.op[0].reg, T::from_u64(O::apply(value, 1 << offset)));
    }
    set_carry(cpu, value >> offset & 1 != 0);
    Ok(Flow::Next)
}

/// The operand is a string of bits from the effective address on, in both directions: a register's
/// offset, signed, selects the word (SDM vol. 1, section 3.1.1.9, "Bit(BitBase, BitOffset)").
#[inline(always)]
fn bit_string_address<T: Width>(
    cpu: &Cpu,
    insn: &Insn,
    offset: T,
    intent: Intent,
) -> Result<u64, Fault> {
    let word = sign_extend(offset) as i64 >> bits::<T>().trailing_zeros();
    let displacement = (word as u64).wrapping_mul(u64::from(bytes::<T>()));
    let ea = access::effective_address(cpu, insn).wrapping_add(displacement);
    let ea = access::truncate(ea, insn.mem.addr_size);
    access::linear(cpu, insn.mem.seg, ea, bytes::<T>(), intent)
}

fn test_mem<O: BitOp, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let offset = bit_offset::<T>(cpu, insn);
    let bit = offset.to_u64() & u64::from(bits::<T>() - 1);
    let intent = if O::WRITES { Intent::Write } else { Intent::Read };
    let address = bit_string_address(cpu, insn, offset, intent)?;
    let old: T = if O::WRITES {
        access::check_alignment(cpu, address, bytes::<T>())?;
        let old = mmu.modify::<T>(address, insn.prefixes.lock(), |value| {
            T::from_u64(O::apply(value.to_u64(), 1 << bit))
        })?;
        access::data_breakpoint(cpu, address, bytes::<T>(), intent);
        old
    } else {
        access::load_at(cpu, mmu, address)?
    };
    set_carry(cpu, old.to_u64() >> bit & 1 != 0);
    Ok(Flow::Next)
}

fn bit_test<O: BitOp>(insn: &Insn) -> Handler {
    // The width of the memory form is the operand size, which a register offset shows too.
    if is_mem(insn, 0) {
        by_wide_width!(insn.op_size, test_mem, O)
    } else {
        by_wide_width!(width(insn, 0), test_reg, O)
    }
}

/// BSF and BSR: without a set bit ZF is set and the destination stays (AMD documents it, Intel's
/// CPUs do it). The other flags are undefined, and the host's: a copy would leave those.
#[inline(always)]
fn scan<T: Width>(cpu: &mut Cpu, insn: &Insn, source: T, index: u32) -> Answer {
    let zero = source.to_u64() == 0;
    if !zero {
        access::write_reg(cpu, insn.op[0].reg, T::from_u64(u64::from(index)));
    }
    let zero_flag = status::flag(zero, flags::ZF);
    match native::bit_scan_flags() {
        BitScanFlags::Kept => status::set_masked(cpu, flags::ZF, zero_flag),
        BitScanFlags::ParityOfIndex => {
            let result = if zero { 0 } else { u64::from(index) };
            status::set(cpu, status::parity(result) | zero_flag);
        }
    }
    Ok(Flow::Next)
}

fn bsf<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let source = access::read_operand::<T>(cpu, mmu, insn, 1)?;
    scan(cpu, insn, source, source.to_u64().trailing_zeros())
}

fn bsr<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let source = access::read_operand::<T>(cpu, mmu, insn, 1)?;
    scan(cpu, insn, source, 63u32.wrapping_sub(source.to_u64().leading_zeros()))
}

/// LZCNT and TZCNT: CF tells a zero source, ZF a zero result; OF stays, the rest is cleared.
#[inline(always)]
fn count_zeros<T: Width>(cpu: &mut Cpu, insn: &Insn, count: u32) -> Answer {
    access::write_reg(cpu, insn.op[0].reg, T::from_u64(u64::from(count)));
    let status =
        status::flag(count == bits::<T>(), flags::CF) | status::flag(count == 0, flags::ZF);
    status::set_masked(cpu, flags::ARITHMETIC & !flags::OF, status);
    Ok(Flow::Next)
}

fn lzcnt<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let source = access::read_operand::<T>(cpu, mmu, insn, 1)?.to_u64();
    count_zeros::<T>(cpu, insn, source.leading_zeros() - (64 - bits::<T>()))
}

fn tzcnt<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let source = access::read_operand::<T>(cpu, mmu, insn, 1)?.to_u64();
    count_zeros::<T>(cpu, insn, source.trailing_zeros().min(bits::<T>()))
}

fn popcnt<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let source = access::read_operand::<T>(cpu, mmu, insn, 1)?.to_u64();
    access::write_reg(cpu, insn.op[0].reg, T::from_u64(u64::from(source.count_ones())));
    status::set(cpu, status::flag(source == 0, flags::ZF));
    Ok(Flow::Next)
}

/// CRC of each byte with the Castagnoli polynomial 0x11EDC6F41, bits reflected.
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82F6_3B78 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc32<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let source = access::read_operand::<T>(cpu, mmu, insn, 1)?.to_u64();
    let mut crc = access::read_reg::<u32>(cpu, insn.op[0].reg);
    for byte in &source.to_le_bytes()[..size_of::<T>()] {
        crc = crc >> 8 ^ CRC32C[usize::from(crc as u8 ^ byte)];
    }
    access::write_reg(cpu, insn.op[0].reg, crc);
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Bt, |i| bit_test::<Bt>(i)),
    (Mnemonic::Bts, |i| bit_test::<Bts>(i)),
    (Mnemonic::Btr, |i| bit_test::<Btr>(i)),
    (Mnemonic::Btc, |i| bit_test::<Btc>(i)),
    (Mnemonic::Bsf, |i| by_wide_width!(width(i, 0), bsf)),
    (Mnemonic::Bsr, |i| by_wide_width!(width(i, 0), bsr)),
    (Mnemonic::Lzcnt, |i| by_wide_width!(width(i, 0), lzcnt)),
    (Mnemonic::Tzcnt, |i| by_wide_width!(width(i, 0), tzcnt)),
    (Mnemonic::Popcnt, |i| by_wide_width!(width(i, 0), popcnt)),
    (Mnemonic::Crc32, |i| by_width!(width(i, 1), crc32)),
];
