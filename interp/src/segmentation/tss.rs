//! What the CPU reads from the current task-state segment besides task switches: stacks, the
//! interrupt-stack table and the interrupt redirection bitmap (SDM vol. 3A, sections 7.2 and 7.7). The
//! I/O permission bitmap is with port I/O.

use super::{descriptor::wrap_linear, error_code};
use softmmu::{Mmu, Width};
use x86::{Cpu, Fault};

/// Offset of the I/O map base in a 32- or 64-bit TSS.
const IO_MAP_BASE: u32 = 102;

/// Whether TR holds a 32-bit (or 64-bit) TSS, not a 16-bit one.
pub(crate) fn is_32bit(cpu: &Cpu) -> bool {
    cpu.tr.kind() & 8 != 0
}

fn read<T: Width>(cpu: &Cpu, mmu: &mut Mmu, offset: u32) -> Result<T, Fault> {
    mmu.load_system(wrap_linear(cpu, cpu.tr.base.wrapping_add(u64::from(offset))))
}

/// The stack pointer (SS selector, ESP) for privilege level `level` (0 to 2), outside IA-32e mode.
///
/// # Errors
/// #TS(TR) when the TSS is too short.
pub(crate) fn stack(cpu: &Cpu, mmu: &mut Mmu, level: u8) -> Result<(u16, u32), Fault> {
    let level = u32::from(level);
    let invalid = Fault::ts(error_code(cpu.tr.selector));
    if is_32bit(cpu) {
        let offset = level * 8 + 4;
        if offset + 5 > cpu.tr.limit {
            return Err(invalid);
        }
        let pointer = read(cpu, mmu, offset)?;
        Ok((read(cpu, mmu, offset + 4)?, pointer))
    } else {
        let offset = level * 4 + 2;
        if offset + 3 > cpu.tr.limit {
            return Err(invalid);
        }
        let pointer: u16 = read(cpu, mmu, offset)?;
        Ok((read(cpu, mmu, offset + 2)?, u32::from(pointer)))
    }
}

/// RSP for privilege level `level` (0 to 2) in IA-32e mode.
///
/// # Errors
/// #TS(TR) when the TSS is too short.
pub(crate) fn stack_long(cpu: &Cpu, mmu: &mut Mmu, level: u8) -> Result<u64, Fault> {
    pointer_long(cpu, mmu, u32::from(level) * 8 + 4)
}

/// Entry `index` (1 to 7) of the interrupt-stack table.
///
/// # Errors
/// #TS(TR) when the TSS is too short.
pub(crate) fn interrupt_stack(cpu: &Cpu, mmu: &mut Mmu, index: u8) -> Result<u64, Fault> {
    pointer_long(cpu, mmu, u32::from(index) * 8 + 28)
}

fn pointer_long(cpu: &Cpu, mmu: &mut Mmu, offset: u32) -> Result<u64, Fault> {
    if offset + 7 > cpu.tr.limit {
        return Err(Fault::ts(error_code(cpu.tr.selector)));
    }
    read(cpu, mmu, offset)
}

/// Whether the interrupt redirection bitmap sends INT `vector` of V86 code to the task's own
/// handler (bit clear) instead of the IDT (SDM vol. 3B, section 21.3). The bitmap is the 32 bytes
/// below the I/O map.
///
/// # Errors
/// #GP(0) when the bitmap lies outside the TSS; faults of reading it.
pub(crate) fn redirects_to_v86(cpu: &Cpu, mmu: &mut Mmu, vector: u8) -> Result<bool, Fault> {
    if !cpu.tr.present() || !is_32bit(cpu) || cpu.tr.limit < IO_MAP_BASE + 1 {
        return Err(Fault::GP0);
    }
    let base: u16 = read(cpu, mmu, IO_MAP_BASE)?;
    let offset = u32::from(base).wrapping_sub(32).wrapping_add(u32::from(vector / 8));
    if offset > cpu.tr.limit {
        return Err(Fault::GP0);
    }
    let byte: u8 = read(cpu, mmu, offset)?;
    Ok(byte >> (vector & 7) & 1 == 0)
}
