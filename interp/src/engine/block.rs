//! Decoded blocks.

use crate::flow::{Flow, Handler, undefined};
use crate::table;
use decoder::{DecodeError, Insn, MAX_LENGTH, decode};
use iced_x86::FlowControl;
use softmmu::Mmu;
use x86::{Cpu, Fault, Mode};

/// The most instructions in a block.
const MAX_OPS: usize = 64;

/// A decoded instruction with its handler.
#[derive(Clone, Copy)]
pub struct Op {
    /// Executes it.
    pub exec: Handler,
    /// Memory accesses of the block up to and with this instruction, for the statistics.
    pub accesses: u16,
    /// What it is.
    pub insn: Insn,
}

impl Op {
    fn new(mut insn: Insn) -> Op {
        // Handlers of vector and x87 instructions are selected by what the host makes of them.
        insn.handle = native::prepare(&insn);
        Op { exec: table::handler(&insn), accesses: insn.memory_accesses().into(), insn }
    }
}

/// Instructions that lie one behind the other in one physical page; the only one that may reach
/// into a second page is a block of its own.
pub struct Block {
    /// Physical address of the first byte.
    pub gpa: u64,
    /// Code size it was decoded for.
    pub bits: u32,
    /// Length in bytes.
    pub len: u16,
    /// Physical address of the second page, where the single instruction crosses.
    pub second_page: Option<u64>,
    /// The instructions, in order.
    pub ops: Box<[Op]>,
}

/// RIP behind an instruction: 32 bits wide outside 64-bit mode.
#[inline(always)]
pub(crate) fn advance(cpu: &Cpu, rip: u64, len: u8) -> u64 {
    let next = rip.wrapping_add(u64::from(len));
    if cpu.mode == Mode::Long { next } else { next & 0xFFFF_FFFF }
}

fn general_protection(_: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    Err(Fault::GP0)
}

/// An operation that raises a fault, for bytes that are no instruction.
fn faulting(exec: Handler, bits: u32) -> Op {
    // UD2 stands in: only its length of at least one byte is looked at.
    let mut insn = match decode(&[0x0F, 0x0B], bits) {
        Ok(insn) => insn,
        Err(_) => unreachable!("UD2 decodes in every mode"),
    };
    insn.len = 1;
    Op { exec, accesses: 0, insn }
}

/// Decodes the instruction at `linear`, fetching over a page boundary where needed.
///
/// # Errors
/// The fault of the fetch.
pub(crate) fn decode_one(mmu: &mut Mmu, linear: u64, bits: u32) -> Result<Op, Fault> {
    let mut bytes = [0; MAX_LENGTH];
    let (valid, fault) = mmu.fetch_bytes(linear, &mut bytes);
    match decode(&bytes[..valid], bits) {
        Ok(insn) => Ok(Op::new(insn)),
        Err(DecodeError::NeedMore) => Err(fault.unwrap_or(Fault::GP0)),
        Err(DecodeError::Invalid) => Ok(faulting(undefined, bits)),
        Err(DecodeError::TooLong) => Ok(faulting(general_protection, bits)),
    }
}

/// Decodes the block at `linear`, whose physical address is `gpa`.
///
/// # Errors
/// The fault of fetching the first instruction.
pub fn decode_block(mmu: &mut Mmu, linear: u64, gpa: u64, bits: u32) -> Result<Block, Fault> {
    let room = 0x1000 - (gpa & 0xFFF) as usize;
    let mut page = [0; 0x1000];
    let page = &mut page[..room];
    mmu.phys_read(gpa, page);
    let mut ops = Vec::with_capacity(16);
    let mut offset = 0;
    while ops.len() < MAX_OPS && offset < room {
        let window = &page[offset..(offset + MAX_LENGTH).min(room)];
        let op = match decode(window, bits) {
            Ok(insn) => Op::new(insn),
            Err(DecodeError::NeedMore) if ops.is_empty() => {
                return decode_crossing(mmu, linear, gpa, bits);
            }
            Err(DecodeError::NeedMore) => break,
            Err(DecodeError::Invalid) => faulting(undefined, bits),
            Err(DecodeError::TooLong) => faulting(general_protection, bits),
        };
        let before = ops.last().map_or(0, |last: &Op| last.accesses);
        ops.push(Op { accesses: op.accesses + before, ..op });
        offset += usize::from(op.insn.len);
        if ends_block(&op.insn) {
            break;
        }
    }
    Ok(Block { gpa, bits, len: offset as u16, second_page: None, ops: ops.into() })
}

fn decode_crossing(mmu: &mut Mmu, linear: u64, gpa: u64, bits: u32) -> Result<Block, Fault> {
    let op = decode_one(mmu, linear, bits)?;
    let second = mmu.fetch_translate((linear & !0xFFF).wrapping_add(0x1000))?;
    // Bytes that are no instruction may become one by a write to either page.
    let crosses = (gpa & 0xFFF) + u64::from(op.insn.len) > 0x1000;
    let len = if crosses { u16::from(op.insn.len) } else { MAX_LENGTH as u16 };
    Ok(Block { gpa, bits, len, second_page: Some(second.gpa), ops: Box::new([op]) })
}

/// Whether execution never goes on with the next instruction of the same block.
fn ends_block(insn: &Insn) -> bool {
    match insn.code.flow_control() {
        FlowControl::Next | FlowControl::ConditionalBranch => false,
        FlowControl::UnconditionalBranch
        | FlowControl::IndirectBranch
        | FlowControl::Return
        | FlowControl::Call
        | FlowControl::IndirectCall
        | FlowControl::Interrupt
        | FlowControl::XbeginXabortXend
        | FlowControl::Exception => true,
    }
}
