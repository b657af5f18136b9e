//! MMX, SSE and AVX instructions: executed by the host CPU (SDM vol. 1, chapters 9 to 15).
//!
//! What is left to do here is what surrounds an instruction: whether control registers and the
//! guest's CPUID allow it, its memory operand, and the delivery of its exceptions.

pub(crate) mod available;
mod gather;
pub(crate) mod lines;
mod masked;
mod maskmov;
pub(crate) mod memory;
mod moves;
mod state;

use super::x87;
use crate::access::{self, Intent};
use crate::flow::{Flow, Handler, undefined};
use decoder::Insn;
use native::{MemoryUse, Prepared, Scratch, Thunk, ThunkFault, Unit};
use softmmu::Mmu;
use x86::control::cr4;
use x86::{Cpu, Fault, Vector};

pub(crate) use lines::*;

/// The handler of an instruction whose definition is the host CPU's.
pub(crate) fn select(insn: &Insn) -> Handler {
    match native::thunk(insn.handle) {
        None => undefined,
        Some(Prepared::Uncached) => uncached,
        Some(Prepared::Cached(thunk)) => match (thunk.unit, thunk.memory) {
            (Unit::X87, _) => x87::execute,
            (Unit::Evex, _) if thunk.masking.is_some() => masked::execute,
            (_, MemoryUse::None) => registers,
            (_, MemoryUse::Read) => moves::select(insn).unwrap_or(load),
            (_, MemoryUse::Write | MemoryUse::ReadWrite) => moves::select(insn).unwrap_or(store),
        },
    }
}

/// The thunk of `insn`; #UD if it has none.
pub(crate) fn cached(insn: &Insn) -> Result<&'static Thunk, Fault> {
    match native::thunk(insn.handle) {
        Some(Prepared::Cached(thunk)) => Ok(thunk),
        Some(Prepared::Uncached) | None => Err(Fault::UD),
    }
}

/// Only registers.
fn registers(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let thunk = cached(insn)?;
    available::check(cpu, mmu, thunk)?;
    run(cpu, thunk, &mut Scratch::default())?;
    Ok(Flow::Next)
}

/// Reads memory.
fn load(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let thunk = cached(insn)?;
    available::check(cpu, mmu, thunk)?;
    let mut scratch = Scratch::default();
    let address = operand_address(cpu, insn, thunk, Intent::Read)?;
    memory::load(cpu, mmu, address, thunk.memory_size, &mut scratch)?;
    run(cpu, thunk, &mut scratch)?;
    Ok(Flow::Next)
}

/// Writes memory, perhaps after reading it.
fn store(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let thunk = cached(insn)?;
    available::check(cpu, mmu, thunk)?;
    let mut scratch = Scratch::default();
    let address = operand_address(cpu, insn, thunk, Intent::Write)?;
    if thunk.changes_registers {
        memory::check_alignment(cpu, address, u32::from(thunk.memory_size))?;
        mmu.probe(address, usize::from(thunk.memory_size), softmmu::Access::Write)?;
    }
    if thunk.memory == MemoryUse::ReadWrite {
        memory::load(cpu, mmu, address, thunk.memory_size, &mut scratch)?;
    }
    run(cpu, thunk, &mut scratch)?;
    memory::store(cpu, mmu, address, thunk.memory_size, &scratch)?;
    Ok(Flow::Next)
}

/// An instruction that found no room in the cache of thunks.
fn uncached(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let result = native::run_uncached(insn, |thunk| {
        if thunk.unit == Unit::X87 {
            return x87::execute_thunk(cpu, mmu, insn, thunk);
        }
        if thunk.masking.is_some() {
            return masked::execute_thunk(cpu, mmu, insn, thunk);
        }
        available::check(cpu, mmu, thunk)?;
        let mut scratch = Scratch::default();
        let address = match thunk.memory {
            MemoryUse::None => 0,
            MemoryUse::Read => operand_address(cpu, insn, thunk, Intent::Read)?,
            MemoryUse::Write | MemoryUse::ReadWrite => {
                let address = operand_address(cpu, insn, thunk, Intent::Write)?;
                memory::check_alignment(cpu, address, u32::from(thunk.memory_size))?;
                mmu.probe(address, usize::from(thunk.memory_size), softmmu::Access::Write)?;
                address
            }
        };
        if matches!(thunk.memory, MemoryUse::Read | MemoryUse::ReadWrite) {
            memory::load(cpu, mmu, address, thunk.memory_size, &mut scratch)?;
        }
        run(cpu, thunk, &mut scratch)?;
        if matches!(thunk.memory, MemoryUse::Write | MemoryUse::ReadWrite) {
            memory::store(cpu, mmu, address, thunk.memory_size, &scratch)?;
        }
        Ok(Flow::Next)
    });
    result.unwrap_or(Err(Fault::UD))
}

/// The linear address of the memory operand, checked for segmentation and for the alignment that
/// the instruction demands.
fn operand_address(cpu: &Cpu, insn: &Insn, thunk: &Thunk, intent: Intent) -> Result<u64, Fault> {
    let address = access::mem_linear(cpu, insn, u32::from(thunk.memory_size), intent)?;
    if address & u64::from(thunk.alignment - 1) != 0 {
        return Err(Fault::GP0);
    }
    Ok(address)
}

/// Runs a thunk that [`available::check`] lets through.
fn run(cpu: &mut Cpu, thunk: &Thunk, scratch: &mut Scratch) -> Result<(), Fault> {
    if thunk.uses_x87 {
        // MMX instructions leave the x87 pointers alone.
        let x87 = &cpu.x87;
        let pointers = (x87.fop, x87.fip, x87.fdp);
        let result = x87::run_thunk(cpu, thunk, scratch);
        (cpu.x87.fop, cpu.x87.fip, cpu.x87.fdp) = pointers;
        let raised = result.is_err_and(|fault| fault.is(Vector::XM));
        if raised
            && cpu.policy.is_amd()
            && !(thunk.unit == Unit::Sse && thunk.memory != MemoryUse::None)
        {
            // AMD enters MMX state before it looks at the operands; not where none of them is an
            // MMX register (CVTPI2PS from memory).
            x87::enter_mmx(cpu);
        }
        return result;
    }
    thunk.run(cpu, scratch).map_err(|fault| exception(cpu, fault))
}

/// The guest's exception for one that the host raised.
#[cold]
pub(crate) fn exception(cpu: &mut Cpu, fault: ThunkFault) -> Fault {
    match fault.vector {
        v if v == Vector::XM as u8 => {
            // The flags are set, whether the exception is taken as #XM or as #UD.
            cpu.mxcsr = fault.mxcsr;
            if cpu.cr4 & cr4::OSXMMEXCPT != 0 { Fault::XM } else { Fault::UD }
        }
        v if v == Vector::MF as u8 => Fault::MF,
        v if v == Vector::GP as u8 => Fault::GP0,
        _ => Fault::UD,
    }
}

#[cfg(test)]
mod tests;
