//! Decoded blocks.

use crate::flow::{Flow, Handler, undefined};
use crate::table;
use decoder::{DecodeError, Insn, MAX_LENGTH, Mnemonic, decode, decode_offered};
use iced_x86::FlowControl;
use softmmu::Mmu;
use x86::cpuid::Policy;
use x86::{Cpu, Fault, Mode};

/// The most instructions in a block.
const MAX_OPS: usize = 64;
/// Bytes in a page.
const PAGE: u64 = 0x1000;

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

    /// Whether it stands for bytes that are no instruction; it does not hold them. It ends its block.
    pub fn is_invalid(&self) -> bool {
        self.insn.len == 1 && self.insn.mnemonic() == Mnemonic::Ud2
    }
}

/// Instructions that lie one behind the other in one physical page; the only one that may reach
/// into a second page is a block of its own.
pub struct Block {
    /// Physical address of the first byte.
    pub gpa: u64,
    /// Code size it was decoded for.
    pub bits: u32,
    /// Length in bytes. Behind bytes that are no instruction, those that could make them one count,
    /// too.
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
pub(crate) fn decode_one(
    policy: &Policy,
    mmu: &mut Mmu,
    linear: u64,
    bits: u32,
) -> Result<Op, Fault> {
    let mut bytes = [0; MAX_LENGTH];
    let (valid, fault) = mmu.fetch_bytes(linear, &mut bytes);
    match decode_offered(policy, &bytes[..valid], bits) {
        Ok(insn) => Ok(Op::new(insn)),
        Err(DecodeError::NeedMore) => Err(fault.unwrap_or(Fault::GP0)),
        Err(DecodeError::Invalid) => Ok(faulting(undefined, bits)),
        Err(DecodeError::TooLong) => Ok(faulting(general_protection, bits)),
    }
}

/// Decodes the block at `linear` for a guest with the CPUID of `policy`, its physical address being
/// `gpa`, and marks its bytes as code, so that whoever writes them is noticed.
///
/// Writes by other vCPUs and devices before the mark go unnoticed, so the bytes are read again
/// behind it. Should they have changed, the rest of the page is marked before the next attempt,
/// which then cannot miss a write.
///
/// # Errors
/// The fault of fetching the first instruction.
pub fn decode_block(
    policy: &Policy,
    mmu: &mut Mmu,
    linear: u64,
    gpa: u64,
    bits: u32,
) -> Result<Block, Fault> {
    let room = PAGE - (gpa & (PAGE - 1));
    let (mut before, mut after) = ([0; PAGE as usize], [0; PAGE as usize]);
    let before = &mut before[..room as usize];
    mmu.mark_code_range(gpa, 1);
    mmu.wait_for_code_sync();
    mmu.phys_read(gpa, before);
    let Some(block) = decode_in_page(policy, before, gpa, bits) else {
        return decode_crossing(policy, mmu, linear, gpa, bits);
    };
    mmu.mark_code_range(gpa, u64::from(block.len));
    // A write to the first mark may have made it an ordinary page again meanwhile.
    mmu.wait_for_code_sync();
    let len = usize::from(block.len);
    mmu.phys_read(gpa, &mut after[..len]);
    if before[..len] == after[..len] {
        return Ok(block);
    }
    mmu.mark_code_range(gpa, room);
    mmu.wait_for_code_sync();
    mmu.phys_read(gpa, before);
    match decode_in_page(policy, before, gpa, bits) {
        Some(block) => Ok(block),
        None => decode_crossing(policy, mmu, linear, gpa, bits),
    }
}

/// Decodes the block at `gpa`, where `page` are the bytes up to the end of its page. `None` where
/// its first instruction goes on in the next page.
fn decode_in_page(policy: &Policy, page: &[u8], gpa: u64, bits: u32) -> Option<Block> {
    let mut ops = Vec::with_capacity(16);
    let mut offset = 0;
    while ops.len() < MAX_OPS && offset < page.len() {
        let window = &page[offset..(offset + MAX_LENGTH).min(page.len())];
        let op = match decode_offered(policy, window, bits) {
            Ok(insn) => Op::new(insn),
            Err(DecodeError::NeedMore) if ops.is_empty() => return None,
            Err(DecodeError::NeedMore) => break,
            Err(DecodeError::Invalid) => faulting(undefined, bits),
            Err(DecodeError::TooLong) => faulting(general_protection, bits),
        };
        let before = ops.last().map_or(0, |last: &Op| last.accesses);
        ops.push(Op { accesses: op.accesses + before, ..op });
        offset += if op.is_invalid() { window.len() } else { usize::from(op.insn.len) };
        if ends_block(&op.insn) {
            break;
        }
    }
    Some(Block { gpa, bits, len: offset as u16, second_page: None, ops: ops.into() })
}

/// The linear page behind that of an instruction; outside 64-bit mode page 0 follows 4 GiB.
pub(crate) fn second_page(linear: u64, bits: u32) -> u64 {
    let next = (linear & !(PAGE - 1)).wrapping_add(PAGE);
    if bits == 64 { next } else { next & 0xFFFF_FFFF }
}

fn decode_crossing(
    policy: &Policy,
    mmu: &mut Mmu,
    linear: u64,
    gpa: u64,
    bits: u32,
) -> Result<Block, Fault> {
    let second = mmu.fetch_translate(second_page(linear, bits))?;
    let first = PAGE - (gpa & (PAGE - 1));
    mmu.mark_code_range(gpa, first);
    mmu.mark_code_range(second.gpa, MAX_LENGTH as u64 - 1);
    mmu.wait_for_code_sync();
    let op = decode_one(policy, mmu, linear, bits)?;
    // Bytes that are no instruction may become one by a write to either page.
    let crosses = (gpa & (PAGE - 1)) + u64::from(op.insn.len) > PAGE;
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
