//! x87 instructions: executed by the host CPU (SDM vol. 1, chapter 8).
//!
//! The host keeps values, tags, status and control word. The pointers to the last instruction and
//! its operand are kept here, since the host's point into the thunk, and so are pending errors,
//! which must never become an exception of the host.

mod control;
mod environment;
mod lines;

use crate::access::{self, Intent};
use crate::flow::{Flow, Handler, undefined};
use decoder::Insn;
use native::{MemoryUse, Prepared, Scratch, Thunk, Unit};
use softmmu::{Access, Mmu};
use x86::control::cr0;
use x86::fpu::X87;
use x86::{Cpu, Fault, SegReg};

use super::vector::{available, memory};
pub(crate) use control::{emms, set_control};
pub(crate) use lines::{ARITHMETIC, CONTROL};

/// Exception flags of the status word, and their masks in the control word: IE, DE, ZE, OE, UE, PE.
const EXCEPTIONS: u16 = 0x3F;
/// The flags of the status word that an unmasked exception raises: ES and B.
const ERROR: u16 = 0x8080;
/// The unmasked exceptions that keep a store from happening: IE, OE, UE.
const STORE_FAULTS: u16 = 0x19;

/// The handler of an x87 instruction with a thunk.
pub(crate) fn select(insn: &Insn) -> Handler {
    match native::thunk(insn.handle) {
        Some(Prepared::Cached(thunk)) if thunk.unit == Unit::X87 => execute,
        Some(_) => super::vector::select(insn),
        None => undefined,
    }
}

pub(crate) fn execute(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    execute_thunk(cpu, mmu, insn, super::vector::cached(insn)?)
}

pub(crate) fn execute_thunk(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    thunk: &Thunk,
) -> Result<Flow, Fault> {
    available::check(cpu, mmu, thunk)?;
    let mut scratch = Scratch::default();
    let size = thunk.memory_size;
    let intent = if thunk.memory == MemoryUse::Write { Intent::Write } else { Intent::Read };
    let mut address = 0;
    if thunk.memory != MemoryUse::None {
        address = access::mem_linear(cpu, insn, u32::from(size), intent)?;
    }
    match thunk.memory {
        MemoryUse::None => {}
        MemoryUse::Read | MemoryUse::ReadWrite => {
            memory::load(cpu, mmu, address, size, &mut scratch)?;
        }
        MemoryUse::Write => {
            access::check_alignment(cpu, address, u32::from(size.min(8)).next_power_of_two())?;
            mmu.probe(address, usize::from(size), Access::Write)?;
        }
    }
    let before = cpu.x87;
    run_thunk(cpu, thunk, &mut scratch)?;
    record_pointers(cpu, insn, &before, thunk.memory != MemoryUse::None);
    if thunk.memory == MemoryUse::Write {
        let raised = cpu.x87.fsw & !cpu.x87.fcw & STORE_FAULTS;
        let stored = !cpu.x87.error_pending() || before.error_pending() || raised == 0;
        if stored {
            memory::store(cpu, mmu, address, size, &scratch)?;
        }
    }
    Ok(Flow::Next)
}

/// Sets the instruction, opcode and operand pointers (SDM vol. 1, section 8.1.8). Outside 64-bit
/// mode the selectors are above the 32-bit offsets.
fn record_pointers(cpu: &mut Cpu, insn: &Insn, before: &X87, has_memory: bool) {
    let long = cpu.is_long();
    let with_selector = |offset: u64, selector: u16| {
        if long { offset } else { offset & 0xFFFF_FFFF | u64::from(selector) << 32 }
    };
    let start = cpu.rip.wrapping_sub(u64::from(insn.len));
    cpu.x87.fip = with_selector(start, cpu.cs().selector);
    cpu.x87.fop = insn.x87_opcode();
    cpu.x87.fdp = if has_memory {
        let segment = cpu.seg[usize::from(insn.mem.seg) % 6].selector;
        with_selector(access::effective_address(cpu, insn), segment)
    } else {
        before.fdp
    };
}

/// Runs a thunk that uses x87 or MMX state. The pointers are left undefined.
pub(crate) fn run_thunk(cpu: &mut Cpu, thunk: &Thunk, scratch: &mut Scratch) -> Result<(), Fault> {
    if !cpu.x87.error_pending() {
        return thunk.run(cpu, scratch).map_err(|f| super::vector::exception(cpu, f));
    }
    // Only with CR0.NE clear is execution allowed to go on with a pending error. The host must not
    // see it as one: it is masked meanwhile.
    let masks = cpu.x87.fcw;
    cpu.x87.fcw |= cpu.x87.fsw & EXCEPTIONS;
    cpu.x87.fsw &= !ERROR;
    let result = thunk.run(cpu, scratch).map_err(|f| super::vector::exception(cpu, f));
    cpu.x87.fcw = masks;
    update_error(&mut cpu.x87);
    result
}

/// Reports a pending unmasked error, as waiting x87 instructions and MMX instructions do.
///
/// # Errors
/// #MF. With CR0.NE clear the error goes out by FERR# instead, and the CPU waits for an interrupt
/// ([`Fault::WAIT`]) unless IGNNE# is asserted (SDM vol. 1, section 8.7.2 and appendix D).
#[inline]
pub(crate) fn check_pending(cpu: &mut Cpu, mmu: &mut Mmu) -> Result<(), Fault> {
    if !cpu.x87.error_pending() && !cpu.ferr {
        return Ok(());
    }
    report(cpu, mmu)
}

#[cold]
fn report(cpu: &mut Cpu, mmu: &mut Mmu) -> Result<(), Fault> {
    let pending = cpu.x87.error_pending();
    if pending && cpu.cr0 & cr0::NE != 0 {
        return Err(Fault::MF);
    }
    // What clears an error does not look here: FERR# falls at the next waiting instruction.
    if cpu.ferr != pending {
        cpu.ferr = pending;
        mmu.bus.set_ferr(pending);
    }
    if pending && !mmu.bus.ignne() { Err(Fault::WAIT) } else { Ok(()) }
}

/// Makes ES and B agree with flags and masks, after either was loaded.
pub(crate) fn update_error(x87: &mut X87) {
    let pending = x87.fsw & !x87.fcw & EXCEPTIONS != 0;
    x87.fsw = if pending { x87.fsw | ERROR } else { x87.fsw & !ERROR };
}

/// #NM where CR0.EM or CR0.TS forbids x87 instructions.
fn check_available(cpu: &Cpu) -> Result<(), Fault> {
    available::check_unit(cpu, x86::cpuid::Feature::Fpu, Unit::X87)
}

/// The value of MMX register `n`.
pub(crate) fn mmx(cpu: &Cpu, n: u8) -> [u8; 8] {
    // MMn aliases physical register n, and the area holds ST(i) = physical (TOP + i).
    let slot = n.wrapping_sub(cpu.x87.top()) & 7;
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&cpu.x87.st[usize::from(slot)][..8]);
    bytes
}

/// The transition to MMX state: TOP zero, all tags valid (SDM vol. 1, section 9.5.1).
pub(crate) fn enter_mmx(cpu: &mut Cpu) {
    let top = usize::from(cpu.x87.top());
    cpu.x87.st.rotate_right(top);
    cpu.x87.fsw &= !0x3800;
    cpu.x87.ftw = 0xFF;
}

/// The code segment register number, for environments.
const CS: u8 = SegReg::CS as u8;

#[cfg(test)]
mod tests;
