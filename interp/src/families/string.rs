//! String instructions: MOVS STOS LODS CMPS SCAS INS OUTS, with REP, REPE and REPNE (SDM vol. 1,
//! section 7.3.9).
//!
//! A repeated instruction commits each iteration, so that a fault leaves the registers at the
//! iteration that took it, and gives way to interrupts after a while. With a 32-bit address size
//! an iteration clears the upper halves of rSI, rDI and rCX; a count of zero changes nothing.

use super::select::{by_width, width};
use super::status::{self, bytes};
use super::{Answer, delegate};
use crate::access::{self, Intent};
use crate::flow::{Flow, Handler};
use crate::io;
use crate::table::Line;
use decoder::{Insn, Mnemonic, OpKind};
use softmmu::{Access, Mmu, Width};
use x86::regs::gpr;
use x86::{Cpu, Fault, SegReg, flags};

/// What a call of a repeated instruction may do before it gives way: iterations, or runs that
/// count for [`RUN_COST`] of them.
const BUDGET: u32 = 4096;
/// The cost of a run of elements within a page.
const RUN_COST: u32 = 256;
/// The most bytes in a run.
const RUN_BYTES: u64 = 4096;

/// Sets a counter or index register by the address size: 16 bits leave the rest of the register,
/// 32 bits clear it.
#[inline(always)]
pub(crate) fn set_index(cpu: &mut Cpu, reg: usize, value: u64, addr_size: u8) {
    let r = &mut cpu.gpr[reg];
    *r = match addr_size {
        2 => *r & !0xFFFF | value & 0xFFFF,
        4 => value & 0xFFFF_FFFF,
        _ => value,
    };
}

/// A string instruction.
trait StringOp {
    /// Whether REP stops by ZF.
    const COMPARES: bool = false;
    /// Whether it accesses a port: the right to is checked even where the count is zero.
    const PORT: bool = false;
    /// One iteration, without the count. Changes nothing if it faults.
    fn step<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<(), Fault>;
    /// Up to `count` iterations at once in ascending order, where that is possible: the number of
    /// iterations done, 0 to leave it to [`StringOp::step`].
    #[inline(always)]
    fn run<T: Width>(_: &mut Cpu, _: &mut Mmu, _: &Insn, _: u64) -> Result<u64, Fault> {
        Ok(0)
    }
}

/// The offset in rSI or rDI.
#[inline(always)]
fn index(cpu: &Cpu, reg: usize, insn: &Insn) -> u64 {
    access::truncate(cpu.gpr[reg], insn.mem.addr_size)
}

/// The linear address of the source, DS:rSI or with another segment.
#[inline(always)]
fn source<T: Width>(cpu: &Cpu, insn: &Insn, elements: u64) -> Result<u64, Fault> {
    let size = bytes::<T>().wrapping_mul(elements as u32);
    access::linear(cpu, insn.mem.seg, index(cpu, gpr::RSI, insn), size, Intent::Read)
}

/// The linear address of the destination, ES:rDI.
#[inline(always)]
fn destination<T: Width>(
    cpu: &Cpu,
    insn: &Insn,
    elements: u64,
    intent: Intent,
) -> Result<u64, Fault> {
    let size = bytes::<T>().wrapping_mul(elements as u32);
    access::linear(cpu, SegReg::ES as u8, index(cpu, gpr::RDI, insn), size, intent)
}

/// Moves rSI or rDI by `elements` in the direction of DF.
#[inline(always)]
fn advance<T: Width>(cpu: &mut Cpu, insn: &Insn, reg: usize, elements: u64) {
    let forward = u64::from(bytes::<T>()) * elements;
    let by = if cpu.rflags & flags::DF != 0 { forward.wrapping_neg() } else { forward };
    let value = cpu.gpr[reg].wrapping_add(by);
    set_index(cpu, reg, value, insn.mem.addr_size);
}

/// Elements from the offset in `reg` on that a run can take: it must not wrap at the address size.
/// 0 and 1 are not worth one.
#[inline(always)]
fn run_length<T: Width>(cpu: &Cpu, insn: &Insn, reg: usize, count: u64) -> u64 {
    let size = u64::from(bytes::<T>());
    let room = access::truncate(u64::MAX, insn.mem.addr_size) - index(cpu, reg, insn);
    count.min(RUN_BYTES / size).min(room / size)
}

/// Whether runs are exact: ascending order, and no breakpoint to look for.
#[inline(always)]
fn runs_allowed(cpu: &Cpu) -> bool {
    cpu.rflags & flags::DF == 0 && !cpu.stepping
}

struct Movs;
impl StringOp for Movs {
    #[inline(always)]
    fn step<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<(), Fault> {
        let from = source::<T>(cpu, insn, 1)?;
        let value = access::load_at::<T>(cpu, mmu, from)?;
        let to = destination::<T>(cpu, insn, 1, Intent::Write)?;
        access::store_at(cpu, mmu, to, value)?;
        advance::<T>(cpu, insn, gpr::RSI, 1);
        advance::<T>(cpu, insn, gpr::RDI, 1);
        Ok(())
    }

    fn run<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn, count: u64) -> Result<u64, Fault> {
        let count = run_length::<T>(cpu, insn, gpr::RSI, count);
        let count = run_length::<T>(cpu, insn, gpr::RDI, count);
        if count < 2 {
            return Ok(0);
        }
        // Where a check fails for the run, single steps find the element that faults.
        let (Ok(from), Ok(to)) =
            (source::<T>(cpu, insn, count), destination::<T>(cpu, insn, count, Intent::Write))
        else {
            return Ok(0);
        };
        access::check_alignment(cpu, from, bytes::<T>())?;
        access::check_alignment(cpu, to, bytes::<T>())?;
        let done = mmu.copy_run::<T>(to, from, count as usize)? as u64;
        advance::<T>(cpu, insn, gpr::RSI, done);
        advance::<T>(cpu, insn, gpr::RDI, done);
        Ok(done)
    }
}

struct Stos;
impl StringOp for Stos {
    #[inline(always)]
    fn step<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<(), Fault> {
        let to = destination::<T>(cpu, insn, 1, Intent::Write)?;
        let value = access::read_reg::<T>(cpu, gpr::RAX as u8);
        access::store_at(cpu, mmu, to, value)?;
        advance::<T>(cpu, insn, gpr::RDI, 1);
        Ok(())
    }

    fn run<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn, count: u64) -> Result<u64, Fault> {
        let count = run_length::<T>(cpu, insn, gpr::RDI, count);
        if count < 2 {
            return Ok(0);
        }
        let Ok(to) = destination::<T>(cpu, insn, count, Intent::Write) else {
            return Ok(0);
        };
        access::check_alignment(cpu, to, bytes::<T>())?;
        let value = access::read_reg::<T>(cpu, gpr::RAX as u8);
        let done = mmu.fill_run::<T>(to, count as usize, value)? as u64;
        advance::<T>(cpu, insn, gpr::RDI, done);
        Ok(done)
    }
}

struct Lods;
impl StringOp for Lods {
    #[inline(always)]
    fn step<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<(), Fault> {
        let from = source::<T>(cpu, insn, 1)?;
        let value = access::load_at::<T>(cpu, mmu, from)?;
        access::write_reg(cpu, gpr::RAX as u8, value);
        advance::<T>(cpu, insn, gpr::RSI, 1);
        Ok(())
    }
}

struct Cmps;
impl StringOp for Cmps {
    const COMPARES: bool = true;
    #[inline(always)]
    fn step<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<(), Fault> {
        let from = source::<T>(cpu, insn, 1)?;
        let a = access::load_at::<T>(cpu, mmu, from)?;
        let to = destination::<T>(cpu, insn, 1, Intent::Read)?;
        let b = access::load_at::<T>(cpu, mmu, to)?;
        status::set(cpu, status::subtract(a, b, 0).1);
        advance::<T>(cpu, insn, gpr::RSI, 1);
        advance::<T>(cpu, insn, gpr::RDI, 1);
        Ok(())
    }
}

struct Scas;
impl StringOp for Scas {
    const COMPARES: bool = true;
    #[inline(always)]
    fn step<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<(), Fault> {
        let to = destination::<T>(cpu, insn, 1, Intent::Read)?;
        let b = access::load_at::<T>(cpu, mmu, to)?;
        let a = access::read_reg::<T>(cpu, gpr::RAX as u8);
        status::set(cpu, status::subtract(a, b, 0).1);
        advance::<T>(cpu, insn, gpr::RDI, 1);
        Ok(())
    }
}

/// The port in DX, after the check of the right to use it.
#[inline(always)]
fn port<T: Width>(cpu: &Cpu, mmu: &mut Mmu) -> Result<u16, Fault> {
    let port = cpu.gpr[gpr::RDX] as u16;
    io::check_permission(cpu, mmu, port, bytes::<T>())?;
    Ok(port)
}

struct Ins;
impl StringOp for Ins {
    const PORT: bool = true;

    #[inline(always)]
    fn step<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<(), Fault> {
        let port = port::<T>(cpu, mmu)?;
        let to = destination::<T>(cpu, insn, 1, Intent::Write)?;
        access::check_alignment(cpu, to, bytes::<T>())?;
        // Reading a port has effects: nothing may fault behind it.
        mmu.probe(to, size_of::<T>(), Access::Write)?;
        let value = T::from_u64(u64::from(io::input(cpu, mmu, port, bytes::<T>())));
        access::store_at(cpu, mmu, to, value)?;
        advance::<T>(cpu, insn, gpr::RDI, 1);
        Ok(())
    }
}

struct Outs;
impl StringOp for Outs {
    const PORT: bool = true;

    #[inline(always)]
    fn step<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<(), Fault> {
        let port = port::<T>(cpu, mmu)?;
        let from = source::<T>(cpu, insn, 1)?;
        let value = access::load_at::<T>(cpu, mmu, from)?.to_u64() as u32;
        io::output(cpu, mmu, port, bytes::<T>(), value);
        advance::<T>(cpu, insn, gpr::RSI, 1);
        Ok(())
    }
}

fn once<O: StringOp, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    O::step::<T>(cpu, mmu, insn)?;
    Ok(Flow::Next)
}

fn repeat<O: StringOp, T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Answer {
    let size = insn.mem.addr_size;
    let wanted = !insn.prefixes.repne();
    let mut budget = BUDGET;
    if O::PORT {
        port::<T>(cpu, mmu)?;
    }
    cpu.repeating = false;
    loop {
        let count = access::truncate(cpu.gpr[gpr::RCX], size);
        if count == 0 {
            return Ok(Flow::Next);
        }
        let mut done = if runs_allowed(cpu) { O::run::<T>(cpu, mmu, insn, count)? } else { 0 };
        if done == 0 {
            O::step::<T>(cpu, mmu, insn)?;
            done = 1;
        }
        set_index(cpu, gpr::RCX, count - done, size);
        if count == done || O::COMPARES && (cpu.rflags & flags::ZF != 0) != wanted {
            return Ok(Flow::Next);
        }
        budget = budget.saturating_sub(if done > 1 { RUN_COST } else { 1 });
        // A breakpoint or trap is reported behind its iteration, and an iteration may have
        // written instructions.
        if budget == 0 || cpu.stepping || mmu.code_dirty {
            cpu.repeating = true;
            return Ok(Flow::Again);
        }
    }
}

/// `operand` is the one that shows the width.
fn string<O: StringOp>(insn: &Insn, operand: usize) -> Handler {
    let width = width(insn, operand);
    if insn.prefixes.any_rep() { by_width!(width, repeat, O) } else { by_width!(width, once, O) }
}

/// Whether this is the instruction on XMM registers that shares a string instruction's mnemonic.
fn is_vector(insn: &Insn) -> bool {
    !matches!(insn.op[0].kind, OpKind::StringDest | OpKind::StringSource)
}

/// Registration lines.
pub(crate) const FAMILY: &[Line] = &[
    (Mnemonic::Movsb, |i| string::<Movs>(i, 0)),
    (Mnemonic::Movsw, |i| string::<Movs>(i, 0)),
    (Mnemonic::Movsd, |i| match is_vector(i) {
        true => delegate::scalar_double(i),
        false => string::<Movs>(i, 0),
    }),
    (Mnemonic::Movsq, |i| string::<Movs>(i, 0)),
    (Mnemonic::Stosb, |i| string::<Stos>(i, 0)),
    (Mnemonic::Stosw, |i| string::<Stos>(i, 0)),
    (Mnemonic::Stosd, |i| string::<Stos>(i, 0)),
    (Mnemonic::Stosq, |i| string::<Stos>(i, 0)),
    (Mnemonic::Lodsb, |i| string::<Lods>(i, 1)),
    (Mnemonic::Lodsw, |i| string::<Lods>(i, 1)),
    (Mnemonic::Lodsd, |i| string::<Lods>(i, 1)),
    (Mnemonic::Lodsq, |i| string::<Lods>(i, 1)),
    (Mnemonic::Cmpsb, |i| string::<Cmps>(i, 0)),
    (Mnemonic::Cmpsw, |i| string::<Cmps>(i, 0)),
    (Mnemonic::Cmpsd, |i| match is_vector(i) {
        true => delegate::scalar_double(i),
        false => string::<Cmps>(i, 0),
    }),
    (Mnemonic::Cmpsq, |i| string::<Cmps>(i, 0)),
    (Mnemonic::Scasb, |i| string::<Scas>(i, 1)),
    (Mnemonic::Scasw, |i| string::<Scas>(i, 1)),
    (Mnemonic::Scasd, |i| string::<Scas>(i, 1)),
    (Mnemonic::Scasq, |i| string::<Scas>(i, 1)),
    (Mnemonic::Insb, |i| string::<Ins>(i, 0)),
    (Mnemonic::Insw, |i| string::<Ins>(i, 0)),
    (Mnemonic::Insd, |i| string::<Ins>(i, 0)),
    (Mnemonic::Outsb, |i| string::<Outs>(i, 1)),
    (Mnemonic::Outsw, |i| string::<Outs>(i, 1)),
    (Mnemonic::Outsd, |i| string::<Outs>(i, 1)),
];
