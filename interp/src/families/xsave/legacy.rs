//! FXSAVE and FXRSTOR, and the x87 part of every area (SDM vol. 1, section 10.5; vol. 2A, FXSAVE).

use super::area::Area;
use super::component::Layout;
use super::wide_pointers;
use crate::access::{self, Intent};
use crate::families::x87::{set_control, update_error};
use crate::flow::Flow;
use decoder::Insn;
use softmmu::Mmu;
use x86::control::{cr0, efer, xcr0};
use x86::cpuid::Feature;
use x86::fpu::MXCSR_MASK;
use x86::{Cpu, Fault};

/// Length of the area.
const SIZE: usize = 512;

/// Loads MXCSR. #GP(0) for bits that do not exist.
pub(super) fn set_mxcsr(cpu: &mut Cpu, value: u32) -> Result<(), Fault> {
    if value & !MXCSR_MASK != 0 {
        return Err(Fault::GP0);
    }
    cpu.mxcsr = value;
    Ok(())
}

/// The first 24 bytes of an area, and the stack. AMD's processors save the pointers only while an
/// error is pending (APM vol. 5, FXSAVE), and those with XSAVEERPTR zeros otherwise.
pub(super) fn save_x87(cpu: &Cpu, wide_pointers: bool) -> ([u8; 24], &[[u8; 16]; 8]) {
    let x87 = &cpu.x87;
    let (fop, fip, fdp) = match cpu.policy.is_amd() && !x87.error_pending() {
        true => (0, 0, 0),
        false => (x87.fop, x87.fip, x87.fdp),
    };
    let pointer = |p: u64| if wide_pointers { p } else { p & 0xFFFF_FFFF_FFFF };
    let mut bytes = [0; 24];
    bytes[0..2].copy_from_slice(&x87.fcw.to_le_bytes());
    bytes[2..4].copy_from_slice(&x87.fsw.to_le_bytes());
    bytes[4] = x87.ftw;
    bytes[6..8].copy_from_slice(&fop.to_le_bytes());
    bytes[8..16].copy_from_slice(&pointer(fip).to_le_bytes());
    bytes[16..24].copy_from_slice(&pointer(fdp).to_le_bytes());
    (bytes, &x87.st)
}

/// Loads the x87 state from an area.
pub(super) fn load_x87(cpu: &mut Cpu, area: &[u8], wide_pointers: bool) {
    let (long, amd) = (cpu.is_long(), cpu.policy.is_amd());
    let half = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
    let pointer = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&area[at..at + 8]);
        let p = u64::from_le_bytes(word);
        match (wide_pointers, long) {
            // AMD keeps 48 bits and extends the sign.
            (true, _) if amd => ((p << 16) as i64 >> 16) as u64,
            (true, _) => p,
            // 64-bit mode keeps offsets only.
            (false, true) => p & 0xFFFF_FFFF,
            (false, false) => p & 0xFFFF_FFFF_FFFF,
        }
    };
    let x87 = &mut cpu.x87;
    (x87.fsw, x87.ftw, x87.fop) = (half(2), area[4], half(6) & 0x7FF);
    (x87.fip, x87.fdp) = (pointer(8), pointer(16));
    set_control(x87, half(0));
    update_error(x87);
    for (st, bytes) in x87.st.iter_mut().zip(area[32..160].chunks_exact(16)) {
        st[..10].copy_from_slice(&bytes[..10]);
        st[10..].fill(0);
    }
}

fn address(cpu: &Cpu, insn: &Insn, intent: Intent) -> Result<u64, Fault> {
    if !cpu.policy.has(Feature::Fxsr) {
        return Err(Fault::UD);
    }
    if cpu.cr0 & (cr0::EM | cr0::TS) != 0 {
        return Err(Fault::NM);
    }
    let address = access::mem_linear(cpu, insn, SIZE as u32, intent)?;
    if address & 15 != 0 { Err(Fault::GP0) } else { Ok(address) }
}

/// The components in the area: XMM registers are left out by AMD's fast mode.
fn components(cpu: &Cpu) -> u64 {
    let fast = cpu.efer & efer::FFXSR != 0 && cpu.cpl == 0 && cpu.is_long();
    if fast { xcr0::X87 } else { xcr0::X87 | xcr0::SSE }
}

/// FXSAVE and FXSAVE64.
pub(super) fn fxsave(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let address = address(cpu, insn, Intent::Write)?;
    let mut area = Area::default();
    area.save(cpu, &Layout::standard(), components(cpu), wide_pointers(insn));
    area.save_mxcsr(cpu);
    area.store(cpu, mmu, address, SIZE)?;
    Ok(Flow::Next)
}

/// FXRSTOR and FXRSTOR64.
pub(super) fn fxrstor(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<Flow, Fault> {
    let address = address(cpu, insn, Intent::Read)?;
    let area = Area::load(cpu, mmu, address, SIZE)?;
    set_mxcsr(cpu, area.mxcsr())?;
    let components = components(cpu);
    area.restore(cpu, &Layout::standard(), components, wide_pointers(insn));
    Ok(Flow::Next)
}
