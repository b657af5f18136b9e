//! Moves: MOV MOVZX MOVSX MOVSXD LEA XLATB MOVBE MOVNTI BSWAP.

use super::control_register::mov_special;
use super::select::{by_wide_width, by_width, is_mem, width};
use super::status::sign_extend;
use super::{Answer, segment_load};
use crate::access::{self, Intent};
use crate::flow::{Flow, Handler, undefined};
use crate::table::Line;
use decoder::{Insn, Mnemonic, OpKind};
use softmmu::{Mmu, Width};
use x86::Cpu;
use x86::regs::gpr;

fn reg_reg<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::read_reg::<T>(cpu, insn.op[1].reg);
    access::write_reg(cpu, insn.op[0].reg, value);
    Ok(Flow::Next)
}

fn reg_imm<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    access::write_reg(cpu, insn.op[0].reg, T::from_u64(insn.imm));
    Ok(Flow::Next)
}

fn reg_mem<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::load::<T>(cpu, mmu, insn)?;
    access::write_reg(cpu, insn.op[0].reg, value);
    Ok(Flow::Next)
}

fn mem_reg<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::read_reg::<T>(cpu, insn.op[1].reg);
    access::store(cpu, mmu, insn, value)?;
    Ok(Flow::Next)
}

fn mem_imm<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    access::store(cpu, mmu, insn, T::from_u64(insn.imm))?;
    Ok(Flow::Next)
}

/// A selector to a register, zero-extended to its width.
fn reg_segment<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let selector = cpu.seg[usize::from(insn.op[1].reg) % 6].selector;
    access::write_reg(cpu, insn.op[0].reg, T::from_u64(u64::from(selector)));
    Ok(Flow::Next)
}

/// A selector to memory: always 16 bits.
fn mem_segment(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let selector = cpu.seg[usize::from(insn.op[1].reg) % 6].selector;
    access::store(cpu, mmu, insn, selector)?;
    Ok(Flow::Next)
}

fn mov(insn: &Insn) -> Handler {
    if let Some(special) = mov_special(insn) {
        return special;
    }
    let width = width(insn, 0);
    match (insn.op[0].kind, insn.op[1].kind) {
        (OpKind::Seg, _) => segment_load::mov(insn),
        (OpKind::Mem, OpKind::Seg) => mem_segment,
        (_, OpKind::Seg) => by_wide_width!(width, reg_segment),
        (OpKind::Mem, OpKind::Imm) => by_width!(width, mem_imm),
        (OpKind::Mem, _) => by_width!(width, mem_reg),
        (_, OpKind::Mem) => by_width!(width, reg_mem),
        (_, OpKind::Imm) => by_width!(width, reg_imm),
        _ => by_width!(width, reg_reg),
    }
}

/// How a narrow source fills a wide destination.
trait Extend {
    fn extend<S: Width>(value: S) -> u64;
}
struct Zero;
impl Extend for Zero {
    #[inline(always)]
    fn extend<S: Width>(value: S) -> u64 {
        value.to_u64()
    }
}
struct Sign;
impl Extend for Sign {
    #[inline(always)]
    fn extend<S: Width>(value: S) -> u64 {
        sign_extend(value)
    }
}

fn extend_reg<E: Extend, S: Width, D: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::read_reg::<S>(cpu, insn.op[1].reg);
    access::write_reg(cpu, insn.op[0].reg, D::from_u64(E::extend(value)));
    Ok(Flow::Next)
}

fn extend_mem<E: Extend, S: Width, D: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::load::<S>(cpu, mmu, insn)?;
    access::write_reg(cpu, insn.op[0].reg, D::from_u64(E::extend(value)));
    Ok(Flow::Next)
}

fn extend<E: Extend>(insn: &Insn) -> Handler {
    let to = width(insn, 0);
    match (is_mem(insn, 1), width(insn, 1)) {
        (false, 1) => by_wide_width!(to, extend_reg, E, u8),
        (false, 2) => by_wide_width!(to, extend_reg, E, u16),
        (false, 4) => by_wide_width!(to, extend_reg, E, u32),
        (true, 1) => by_wide_width!(to, extend_mem, E, u8),
        (true, 2) => by_wide_width!(to, extend_mem, E, u16),
        (true, 4) => by_wide_width!(to, extend_mem, E, u32),
        _ => undefined,
    }
}

fn lea<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let address = access::effective_address(cpu, insn);
    access::write_reg(cpu, insn.op[0].reg, T::from_u64(address));
    Ok(Flow::Next)
}

/// AL from the table at DS:rBX, indexed by AL; the segment can be overridden.
fn xlatb(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let index = cpu.gpr[gpr::RAX] & 0xFF;
    let offset = access::truncate(cpu.gpr[gpr::RBX].wrapping_add(index), insn.mem.addr_size);
    let address = access::linear(cpu, insn.mem.seg, offset, 1, Intent::Read)?;
    let value = access::load_at::<u8>(cpu, mmu, address)?;
    access::write_reg(cpu, gpr::RAX as u8, value);
    Ok(Flow::Next)
}

#[inline(always)]
fn swap_bytes<T: Width>(value: T) -> T {
    T::from_u64(value.to_u64().swap_bytes() >> (64 - super::status::bits::<T>()))
}

fn movbe_load<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::load::<T>(cpu, mmu, insn)?;
    access::write_reg(cpu, insn.op[0].reg, swap_bytes(value));
    Ok(Flow::Next)
}

fn movbe_store<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let value = access::read_reg::<T>(cpu, insn.op[1].reg);
    access::store(cpu, mmu, insn, swap_bytes(value))?;
    Ok(Flow::Next)
}

fn bswap<T: Width>(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    let reg = insn.op[0].reg;
    let value = access::read_reg::<T>(cpu, reg);
    access::write_reg(cpu, reg, swap_bytes(value));
    Ok(Flow::Next)
}

/// The SDM leaves BSWAP of a 16-bit register undefined; hosts clear it.
fn bswap16(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Answer {
    access::write_reg(cpu, insn.op[0].reg, 0u16);
    Ok(Flow::Next)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Mov, mov),
    (Mnemonic::Movzx, |i| extend::<Zero>(i)),
    (Mnemonic::Movsx, |i| extend::<Sign>(i)),
    (Mnemonic::Movsxd, |i| match width(i, 1) == width(i, 0) {
        // Without REX.W it is a plain move.
        true if is_mem(i, 1) => by_wide_width!(width(i, 0), reg_mem),
        true => by_wide_width!(width(i, 0), reg_reg),
        false => extend::<Sign>(i),
    }),
    (Mnemonic::Lea, |i| by_wide_width!(width(i, 0), lea)),
    (Mnemonic::Xlatb, |_| xlatb),
    (Mnemonic::Movbe, |i| match is_mem(i, 0) {
        true => by_wide_width!(width(i, 1), movbe_store),
        false => by_wide_width!(width(i, 0), movbe_load),
    }),
    (Mnemonic::Movnti, |i| by_wide_width!(width(i, 1), mem_reg)),
    (Mnemonic::Bswap, |i| match width(i, 0) {
        2 => bswap16,
        width => by_wide_width!(width, bswap),
    }),
];
