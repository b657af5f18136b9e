//! Descriptor-table registers, TLB and cache control, time, HLT, CPUID, hypercalls (SDM vol. 2).

use super::control_register::require_cpl0;
use crate::access::{Intent, effective_address, mem_linear, write_reg};
use crate::flow::{Flow, Handler, undefined};
use crate::table::Line;
use decoder::{Insn, Mnemonic};
use softmmu::{InvpcidKind, Mmu};
use x86::control::cr4;
use x86::cpuid::Feature;
use x86::regs::gpr;
use x86::{Activity, Cpu, DescriptorTable, Fault, Mode, msr};

/// Reads limit and base of a pseudo-descriptor: 2 + 4 bytes, 2 + 8 in 64-bit mode. A 16-bit
/// operand size takes only 24 bits of the base.
fn load_pseudo_descriptor(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
) -> Result<DescriptorTable, Fault> {
    let long = cpu.mode == Mode::Long;
    let address = mem_linear(cpu, insn, if long { 10 } else { 6 }, Intent::Read)?;
    let limit = mmu.load::<u16>(address)?;
    let next = address.wrapping_add(2);
    let base = if long {
        mmu.load::<u64>(next)?
    } else {
        u64::from(mmu.load::<u32>(next)?) & if insn.op_size == 2 { 0xFF_FFFF } else { 0xFFFF_FFFF }
    };
    if long && !crate::access::is_canonical(cpu, base) {
        return Err(Fault::GP0);
    }
    Ok(DescriptorTable { base, limit })
}

fn lgdt(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    require_cpl0(cpu)?;
    cpu.gdtr = load_pseudo_descriptor(cpu, mmu, insn)?;
    Ok(Flow::Next)
}

fn lidt(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    require_cpl0(cpu)?;
    cpu.idtr = load_pseudo_descriptor(cpu, mmu, insn)?;
    Ok(Flow::Next)
}

fn store_pseudo_descriptor(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    table: DescriptorTable,
) -> Result<Flow, Fault> {
    if cpu.cr4 & cr4::UMIP != 0 && cpu.cpl > 0 {
        return Err(Fault::GP0);
    }
    let len = if cpu.mode == Mode::Long { 10 } else { 6 };
    let address = mem_linear(cpu, insn, len, Intent::Write)?;
    let mut image = [0; 10];
    image[..2].copy_from_slice(&table.limit.to_le_bytes());
    image[2..].copy_from_slice(&table.base.to_le_bytes());
    mmu.write_bytes(address, &image[..len as usize])?;
    Ok(Flow::Next)
}

fn sgdt(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let table = cpu.gdtr;
    store_pseudo_descriptor(cpu, mmu, insn, table)
}

fn sidt(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let table = cpu.idtr;
    store_pseudo_descriptor(cpu, mmu, insn, table)
}

fn invlpg(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    require_cpl0(cpu)?;
    let offset = effective_address(cpu, insn);
    let base = cpu.seg[usize::from(insn.mem.seg) % 6].base;
    let address = if cpu.mode == Mode::Long {
        let base = if insn.mem.seg >= 4 { base } else { 0 };
        base.wrapping_add(offset)
    } else {
        base.wrapping_add(offset) & 0xFFFF_FFFF
    };
    // A non-canonical address is no error: nothing is invalidated.
    if cpu.mode != Mode::Long || crate::access::is_canonical(cpu, address) {
        mmu.invlpg(address);
    }
    Ok(Flow::Sync)
}

fn invpcid(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    if !cpu.policy.has(Feature::Invpcid) {
        return Err(Fault::UD);
    }
    // V86 mode does not recognize it; real mode does (SDM vol. 2A, INVPCID).
    require_cpl0(cpu)?;
    let kind = cpu.gpr[usize::from(insn.op[0].reg & 15)];
    let kind = if cpu.mode == Mode::Long { kind } else { kind & 0xFFFF_FFFF };
    let at = mem_linear(cpu, insn, 16, Intent::Read)?;
    let pcid = mmu.load::<u64>(at)?;
    let address = mmu.load::<u64>(at.wrapping_add(8))?;
    let Some(operation) = InvpcidKind::from_operand(kind) else { return Err(Fault::GP0) };
    let bad = pcid >> 12 != 0
        || kind < 2 && pcid != 0 && cpu.cr4 & cr4::PCIDE == 0
        || kind == 0 && !crate::access::is_canonical(cpu, address);
    if bad {
        return Err(Fault::GP0);
    }
    mmu.invpcid(operation, pcid as u16, address);
    Ok(Flow::Sync)
}

fn write_back_caches(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    require_cpl0(cpu)?;
    Ok(Flow::Next)
}

fn hlt(cpu: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    require_cpl0(cpu)?;
    cpu.activity = Activity::Halted;
    Ok(Flow::Stop)
}

/// The guest's time-stamp counter.
pub(crate) fn guest_tsc(cpu: &Cpu, mmu: &Mmu) -> u64 {
    mmu.bus.host_tsc().wrapping_add(cpu.tsc_offset)
}

fn check_tsd(cpu: &Cpu) -> Result<(), Fault> {
    if cpu.cr4 & cr4::TSD != 0 && cpu.cpl > 0 { Err(Fault::GP0) } else { Ok(()) }
}

fn write_edx_eax(cpu: &mut Cpu, value: u64) {
    cpu.gpr[gpr::RAX] = value & 0xFFFF_FFFF;
    cpu.gpr[gpr::RDX] = value >> 32;
}

fn rdtsc(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    check_tsd(cpu)?;
    let tsc = guest_tsc(cpu, mmu);
    write_edx_eax(cpu, tsc);
    Ok(Flow::Next)
}

fn rdtscp(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    if !cpu.policy.has(Feature::Rdtscp) {
        return Err(Fault::UD);
    }
    check_tsd(cpu)?;
    let tsc = guest_tsc(cpu, mmu);
    write_edx_eax(cpu, tsc);
    cpu.gpr[gpr::RCX] = u64::from(cpu.tsc_aux);
    Ok(Flow::Next)
}

fn rdpid(cpu: &mut Cpu, _: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    if !cpu.policy.has(Feature::Rdpid) {
        return Err(Fault::UD);
    }
    let value = u64::from(cpu.tsc_aux);
    write_reg(cpu, insn.op[0].reg, value);
    Ok(Flow::Next)
}

/// There are no performance counters: every counter number is out of range.
fn rdpmc(_: &mut Cpu, _: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    Err(Fault::GP0)
}

fn cpuid(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    let apic_enabled = match mmu.bus.read_msr(msr::IA32_APIC_BASE) {
        softmmu::MsrResult::Ok(base) => base & 1 << 11 != 0,
        softmmu::MsrResult::Unknown | softmmu::MsrResult::Fault => false,
    };
    let policy = cpu.policy.clone();
    let (leaf, subleaf) = (cpu.gpr[gpr::RAX] as u32, cpu.gpr[gpr::RCX] as u32);
    let r = policy.query(leaf, subleaf, cpu, apic_enabled);
    cpu.gpr[gpr::RAX] = u64::from(r.eax);
    cpu.gpr[gpr::RBX] = u64::from(r.ebx);
    cpu.gpr[gpr::RCX] = u64::from(r.ecx);
    cpu.gpr[gpr::RDX] = u64::from(r.edx);
    // It serialises: code that another processor wrote before is seen behind it.
    Ok(Flow::Sync)
}

/// KVM's answers to a hypercall (Linux Documentation/virt/kvm/x86/hypercalls.rst).
const KVM_ENOSYS: i64 = -1000;
const KVM_EPERM: i64 = -1;

/// VMCALL and VMMCALL: a KVM hypercall, whose number is in RAX and whose arguments are in RBX, RCX,
/// RDX and RSI. The platform carries it out; above CPL 0 it is refused.
fn hypercall(cpu: &mut Cpu, mmu: &mut Mmu, _: &Insn) -> Result<Flow, Fault> {
    if !cpu.policy.has(Feature::Hypervisor) || !cpu.is_protected() {
        return Err(Fault::UD);
    }
    let long = cpu.mode == Mode::Long;
    let register = |n: usize| if long { cpu.gpr[n] } else { cpu.gpr[n] & 0xFFFF_FFFF };
    let answer = if cpu.cpl > 0 {
        KVM_EPERM
    } else {
        let arguments = [gpr::RBX, gpr::RCX, gpr::RDX, gpr::RSI].map(register);
        mmu.bus.hypercall(register(gpr::RAX), arguments, long).unwrap_or(KVM_ENOSYS)
    };
    cpu.gpr[gpr::RAX] = if long { answer as u64 } else { u64::from(answer as u32) };
    Ok(Flow::Sync)
}

fn select_rdpid(insn: &Insn) -> Handler {
    if insn.op[0].is_gpr() { rdpid } else { undefined }
}

/// Registration lines.
pub const FAMILY: &[Line] = &[
    (Mnemonic::Lgdt, |_| lgdt),
    (Mnemonic::Lidt, |_| lidt),
    (Mnemonic::Sgdt, |_| sgdt),
    (Mnemonic::Sidt, |_| sidt),
    (Mnemonic::Invlpg, |_| invlpg),
    (Mnemonic::Invpcid, |_| invpcid),
    (Mnemonic::Invd, |_| write_back_caches),
    (Mnemonic::Wbinvd, |_| write_back_caches),
    // Where CPUID does not report it, the prefix is ignored and it is WBINVD (SDM vol. 2D).
    (Mnemonic::Wbnoinvd, |_| write_back_caches),
    (Mnemonic::Hlt, |_| hlt),
    (Mnemonic::Rdtsc, |_| rdtsc),
    (Mnemonic::Rdtscp, |_| rdtscp),
    (Mnemonic::Rdpid, select_rdpid),
    (Mnemonic::Rdpmc, |_| rdpmc),
    (Mnemonic::Cpuid, |_| cpuid),
    (Mnemonic::Vmcall, |_| hypercall),
    (Mnemonic::Vmmcall, |_| hypercall),
];
