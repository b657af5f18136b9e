//! Port I/O: permission (SDM vol. 1, section 19.5) and the access itself.

use softmmu::Mmu;
use x86::{Cpu, Fault, Mode};

/// Checks that the current task may access `size` bytes at `port`: CPL against IOPL, then the I/O
/// permission bitmap of the TSS. In V86 mode only the bitmap counts.
///
/// # Errors
/// #GP(0), or the fault of reading the TSS.
pub fn check_permission(cpu: &Cpu, mmu: &mut Mmu, port: u16, size: u32) -> Result<(), Fault> {
    let free = match cpu.mode {
        Mode::Real => true,
        Mode::Virtual8086 => false,
        Mode::Protected | Mode::Compatibility | Mode::Long => cpu.cpl <= cpu.iopl(),
    };
    if free {
        return Ok(());
    }
    let tss = &cpu.tr;
    // Only 32- and 64-bit TSSs (types 9 and 11) have a bitmap; its offset is at byte 102.
    let has_bitmap = matches!(tss.kind(), 9 | 11) && tss.present() && tss.limit >= 103;
    if !has_bitmap {
        return Err(Fault::GP0);
    }
    let map = u32::from(mmu.load_system::<u16>(tss.base.wrapping_add(102))?);
    let byte = map + u32::from(port / 8);
    // Two bytes are always read, so both must lie inside the limit.
    if byte + 1 > tss.limit {
        return Err(Fault::GP0);
    }
    let bits = mmu.load_system::<u16>(tss.base.wrapping_add(u64::from(byte)))?;
    let mask = ((1u32 << size) - 1) << (port % 8);
    if u32::from(bits) & mask != 0 { Err(Fault::GP0) } else { Ok(()) }
}

/// Reads `size` bytes (1, 2 or 4) at `port`, permission already checked.
pub fn input(cpu: &mut Cpu, mmu: &mut Mmu, port: u16, size: u32) -> u32 {
    let value = mmu.bus.port_read(port, size as u8);
    crate::sync::match_io_breakpoint(cpu, port, size);
    value
}

/// Writes `size` bytes (1, 2 or 4) at `port`, permission already checked.
pub fn output(cpu: &mut Cpu, mmu: &mut Mmu, port: u16, size: u32, value: u32) {
    mmu.bus.port_write(port, size as u8, value);
    crate::sync::match_io_breakpoint(cpu, port, size);
}
