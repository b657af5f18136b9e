//! Keeps what is derived from CPU state in step: mode, privilege, paging, breakpoints.

use crate::access::Intent;
use softmmu::{Mmu, PagingState};
use x86::control::dr7;
use x86::cpuid::Feature;
use x86::{Cpu, Fault, Mode, flags};

/// After a change of CR0.PE, EFER.LMA, RFLAGS.VM or AC, or a segment register: recomputes mode and
/// CPL, and tells the MMU.
pub fn mode_changed(cpu: &mut Cpu, mmu: &mut Mmu) {
    cpu.update_mode();
    mmu.set_privilege(cpu.cpl, cpu.rflags & flags::AC != 0);
    mmu.linear_mask = if cpu.mode == Mode::Long { u64::MAX } else { 0xFFFF_FFFF };
}

/// After a change of CR0, CR4, EFER or PKRU: tells the MMU how to translate. (CR3 goes through
/// `Mmu::load_cr3`.)
///
/// # Errors
/// #GP(0) where PAE paging begins with reserved bits set in the PDPTEs; the MMU is unchanged then.
/// [`try_paging`] undoes the change of the registers too.
pub fn paging_changed(cpu: &mut Cpu, mmu: &mut Mmu) -> Result<(), Fault> {
    mmu.set_paging(&PagingState {
        cr0: cpu.cr0,
        cr3: cpu.cr3,
        cr4: cpu.cr4,
        efer: cpu.efer,
        pkru: cpu.pkru,
        maxphyaddr: cpu.policy.physical_bits,
        without_1gib_pages: !cpu.policy.has(Feature::Pdpe1gb),
    })?;
    mode_changed(cpu, mmu);
    Ok(())
}

/// Sets CR0, CR4 and EFER together, or none of them.
///
/// # Errors
/// As [`paging_changed`].
pub fn try_paging(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    cr0: u64,
    cr4: u64,
    efer: u64,
) -> Result<(), Fault> {
    let old = (cpu.cr0, cpu.cr4, cpu.efer);
    (cpu.cr0, cpu.cr4, cpu.efer) = (cr0, cr4, efer);
    let result = paging_changed(cpu, mmu);
    if result.is_err() {
        (cpu.cr0, cpu.cr4, cpu.efer) = old;
    }
    result
}

/// Sets the DR6 bits of data breakpoints that `size` bytes at `address` hit.
#[cold]
pub(crate) fn match_data_breakpoint(cpu: &mut Cpu, address: u64, size: u32, intent: Intent) {
    cpu.pending_debug |= data_breakpoints(cpu, address, size, intent);
}

/// The DR6 bits of data breakpoints that `size` bytes at `address` hit.
#[cold]
pub(crate) fn data_breakpoints(cpu: &Cpu, address: u64, size: u32, intent: Intent) -> u64 {
    let mut hits = 0;
    for n in 0..4 {
        // R/W field: 1 is write, 3 is read or write (0 is execution, 2 is I/O).
        let condition = cpu.dr7 >> (16 + 4 * n) & 3;
        let wanted = condition == 3 || condition == 1 && intent == Intent::Write;
        if cpu.dr7 >> (2 * n) & 3 == 0 || !wanted {
            continue;
        }
        let length = breakpoint_length(cpu.dr7, n);
        let start = cpu.dr[n] & !(length - 1);
        if address < start.wrapping_add(length) && start < address.wrapping_add(u64::from(size)) {
            hits |= 1 << n;
        }
    }
    hits
}

/// Sets the DR6 bits of I/O breakpoints (R/W field 2, with CR4.DE) that an access of `size` bytes
/// at `port` hits.
pub fn match_io_breakpoint(cpu: &mut Cpu, port: u16, size: u32) {
    if !cpu.stepping || cpu.cr4 & x86::control::cr4::DE == 0 {
        return;
    }
    for n in 0..4 {
        if cpu.dr7 >> (2 * n) & 3 == 0 || cpu.dr7 >> (16 + 4 * n) & 3 != 2 {
            continue;
        }
        let length = breakpoint_length(cpu.dr7, n);
        let start = cpu.dr[n] & !(length - 1);
        let port = u64::from(port);
        if port < start.wrapping_add(length) && start < port + u64::from(size) {
            cpu.pending_debug |= 1 << n;
        }
    }
}

/// DR6 bits of the instruction breakpoints at linear address `rip`, 0 when none or with RF.
pub(crate) fn match_code_breakpoint(cpu: &Cpu, rip: u64) -> u64 {
    if cpu.rflags & flags::RF != 0 || cpu.dr7 & dr7::ANY_ENABLED == 0 {
        return 0;
    }
    (0..4)
        .filter(|&n| {
            cpu.dr7 >> (2 * n) & 3 != 0 && cpu.dr7 >> (16 + 4 * n) & 3 == 0 && cpu.dr[n] == rip
        })
        .fold(0, |bits, n| bits | 1 << n)
}

/// LEN field of breakpoint `n` in bytes: 1, 2, 8 or 4.
fn breakpoint_length(dr7: u64, n: usize) -> u64 {
    [1, 2, 8, 4][(dr7 >> (18 + 4 * n) & 3) as usize]
}
