//! SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, and the accesses to the FS and GS bases (SDM vol.
//! 2B and 2D; vol. 3A, section 5.8.7).

use crate::access::{self, is_canonical};
use crate::flow::{Flow, Handler};
use crate::sync;
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::Mmu;
use x86::control::{cr0, cr4, dr6, efer};
use x86::cpuid::Vendor;
use x86::regs::gpr;
use x86::segment::ar;
use x86::{Cpu, Fault, SegReg, Segment, Vector, flags};

/// RFLAGS bits that SYSRET takes from R11: all that exist but RF and VM.
const SYSRET_FLAGS: u64 = 0x3C_7FD7;

/// A flat, present, accessed segment: what these instructions load without reading a descriptor.
fn flat(selector: u16, dpl: u8, rights: u32) -> Segment {
    let common = ar::P | ar::S | ar::RW | ar::ACCESSED | ar::G;
    Segment {
        base: 0,
        limit: 0xFFFF_FFFF,
        access: common | u32::from(dpl) << ar::DPL_SHIFT | rights,
        selector,
        ..Segment::default()
    }
}

/// Loads CS and SS, flat, at privilege level `dpl`.
fn enter(cpu: &mut Cpu, mmu: &mut Mmu, cs: u16, ss: u16, dpl: u8, long: bool) {
    let size = if long { ar::L } else { ar::DB };
    cpu.seg[SegReg::CS as usize] = flat(cs, dpl, ar::CODE | size);
    cpu.seg[SegReg::SS as usize] = flat(ss, dpl, ar::DB);
    sync::mode_changed(cpu, mmu);
}

/// Whether SYSCALL and SYSRET exist in the mode. Intel's processors have them in 64-bit mode only,
/// AMD's in protected mode too (AMD APM vol. 3, SYSCALL).
fn exists(cpu: &Cpu) -> bool {
    let everywhere = cpu.policy.vendor() == Vendor::Amd;
    cpu.efer & efer::SCE != 0 && (cpu.is_long() || everywhere && cpu.is_protected())
}

/// SYSCALL. From compatibility mode it enters at IA32_CSTAR; in legacy mode at the 32-bit EIP in
/// IA32_STAR, where it saves no flags and masks IF alone.
fn syscall(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    if !exists(cpu) {
        return Err(Fault::UD);
    }
    let long = cpu.long_mode_active();
    cpu.gpr[gpr::RCX] = cpu.rip;
    if long {
        cpu.gpr[11] = cpu.rflags & !flags::RF;
        cpu.rip = if cpu.is_long() { cpu.lstar } else { cpu.cstar };
        cpu.rflags = cpu.rflags & !(cpu.fmask | flags::RF) | flags::FIXED_ONE;
    } else {
        cpu.rip = cpu.star & 0xFFFF_FFFF;
        cpu.rflags &= !(flags::VM | flags::IF | flags::RF);
    }
    let base = (cpu.star >> 32) as u16;
    enter(cpu, mmu, base & !3, base.wrapping_add(8) & !3, 0, long);
    Ok(Flow::Sync)
}

/// SYSRET. With an RCX that is not canonical, Intel's processors fault at privilege level 0, AMD's
/// at the return address. Legacy mode takes no flags from R11 but sets IF.
fn sysret(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    if !exists(cpu) {
        return Err(Fault::UD);
    }
    if cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    let long = insn.op_size == 8;
    let target = cpu.gpr[gpr::RCX];
    if long && !is_canonical(cpu, target) && cpu.policy.vendor() == Vendor::Intel {
        return Err(Fault::GP0);
    }
    cpu.rip = if long { target } else { target & 0xFFFF_FFFF };
    if cpu.long_mode_active() {
        cpu.rflags = cpu.gpr[11] & SYSRET_FLAGS | flags::FIXED_ONE;
    } else {
        cpu.rflags |= flags::IF;
    }
    let base = (cpu.star >> 48) as u16;
    let cs = if long { base.wrapping_add(16) } else { base };
    enter(cpu, mmu, cs | 3, base.wrapping_add(8) | 3, 3, long);
    if cpu.rflags & flags::TF != 0 {
        // The single-step trap counts with the flags that SYSRET leaves, not those before.
        cpu.pending_debug |= dr6::BS;
        return Err(Fault::trap(Vector::DB));
    }
    Ok(Flow::Sync)
}

/// AMD's processors do not have SYSENTER and SYSEXIT in IA-32e mode (AMD APM vol. 3, SYSENTER).
fn check_sysenter(cpu: &Cpu) -> Result<(), Fault> {
    let gone = cpu.long_mode_active() && cpu.policy.vendor() == Vendor::Amd;
    if gone { Err(Fault::UD) } else { Ok(()) }
}

fn sysenter(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    check_sysenter(cpu)?;
    let base = cpu.sysenter_cs as u16 & !3;
    if cpu.cr0 & cr0::PE == 0 || base == 0 {
        return Err(Fault::GP0);
    }
    let long = cpu.long_mode_active();
    let width = if long { u64::MAX } else { 0xFFFF_FFFF };
    cpu.rflags &= !(flags::VM | flags::IF | flags::RF);
    cpu.gpr[gpr::RSP] = cpu.sysenter_esp & width;
    cpu.rip = cpu.sysenter_eip & width;
    enter(cpu, mmu, base, base.wrapping_add(8), 0, long);
    Ok(Flow::Sync)
}

fn sysexit(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    check_sysenter(cpu)?;
    let base = cpu.sysenter_cs as u16 & !3;
    if !cpu.is_protected() || base == 0 || cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    let long = insn.op_size == 8;
    let (target, pointer) = (cpu.gpr[gpr::RDX], cpu.gpr[gpr::RCX]);
    if long && !(is_canonical(cpu, target) && is_canonical(cpu, pointer)) {
        return Err(Fault::GP0);
    }
    let width = if long { u64::MAX } else { 0xFFFF_FFFF };
    cpu.rip = target & width;
    cpu.gpr[gpr::RSP] = pointer & width;
    let cs = base.wrapping_add(if long { 32 } else { 16 });
    enter(cpu, mmu, cs | 3, cs.wrapping_add(8) | 3, 3, long);
    Ok(Flow::Sync)
}

fn swapgs(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    if !cpu.is_long() {
        return Err(Fault::UD);
    }
    if cpu.cpl != 0 {
        return Err(Fault::GP0);
    }
    std::mem::swap(&mut cpu.seg[SegReg::GS as usize].base, &mut cpu.kernel_gs_base);
    Ok(Flow::Next)
}

fn check_fsgsbase(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.is_long() && cpu.cr4 & cr4::FSGSBASE != 0 { Ok(()) } else { Err(Fault::UD) }
}

fn read_base(cpu: &mut Cpu, insn: &Insn, register: SegReg) -> Result<Flow, Fault> {
    check_fsgsbase(cpu)?;
    let base = access::truncate(cpu.seg(register).base, insn.op_size);
    access::write_reg(cpu, insn.op[0].reg, base);
    Ok(Flow::Next)
}

fn write_base(cpu: &mut Cpu, insn: &Insn, register: SegReg) -> Result<Flow, Fault> {
    check_fsgsbase(cpu)?;
    let base = access::truncate(access::read_reg(cpu, insn.op[0].reg), insn.op_size);
    if !is_canonical(cpu, base) {
        return Err(Fault::GP0);
    }
    cpu.seg[register as usize].base = base;
    Ok(Flow::Next)
}

fn rdfsbase(_: &Insn) -> Handler {
    |cpu, _, insn| read_base(cpu, insn, SegReg::FS)
}

fn rdgsbase(_: &Insn) -> Handler {
    |cpu, _, insn| read_base(cpu, insn, SegReg::GS)
}

fn wrfsbase(_: &Insn) -> Handler {
    |cpu, _, insn| write_base(cpu, insn, SegReg::FS)
}

fn wrgsbase(_: &Insn) -> Handler {
    |cpu, _, insn| write_base(cpu, insn, SegReg::GS)
}

/// Registration lines.
pub const FAMILY: &[Line] = &[
    (Mnemonic::Rdfsbase, rdfsbase),
    (Mnemonic::Rdgsbase, rdgsbase),
    (Mnemonic::Swapgs, |_| swapgs),
    (Mnemonic::Syscall, |_| syscall),
    (Mnemonic::Sysenter, |_| sysenter),
    (Mnemonic::Sysexit, |_| sysexit),
    (Mnemonic::Sysexitq, |_| sysexit),
    (Mnemonic::Sysret, |_| sysret),
    (Mnemonic::Sysretq, |_| sysret),
    (Mnemonic::Wrfsbase, wrfsbase),
    (Mnemonic::Wrgsbase, wrgsbase),
];

#[cfg(test)]
mod tests;
