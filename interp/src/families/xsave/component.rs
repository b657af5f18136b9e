//! State components: where they lie in an area, and their initial state (SDM vol. 1, sections
//! 13.4 to 13.6).

use super::EXTENDED;
use x86::Cpu;
use x86::control::xcr0;
use x86::cpuid::XSAVE_COMPONENTS;
use x86::fpu::X87;

/// Offsets of the extended components, by bit number.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    offset: [usize; 16],
    end: [usize; 16],
}

impl Layout {
    /// The standard format: fixed offsets.
    pub(super) fn standard() -> Layout {
        let mut layout = Layout { offset: [0; 16], end: [EXTENDED; 16] };
        for (bit, size, offset) in XSAVE_COMPONENTS {
            layout.offset[bit as usize & 15] = offset as usize;
            layout.end[bit as usize & 15] = (offset + size) as usize;
        }
        layout
    }

    /// The compacted format: the components of `present` one behind the other.
    pub(super) fn compacted(present: u64) -> Layout {
        let mut layout = Layout { offset: [0; 16], end: [EXTENDED; 16] };
        let mut next = EXTENDED;
        for (bit, size, _) in XSAVE_COMPONENTS {
            if present >> bit & 1 != 0 {
                layout.offset[bit as usize & 15] = next;
                next += size as usize;
                layout.end[bit as usize & 15] = next;
            }
        }
        layout
    }

    /// Where the component of bit `bit` begins.
    pub(super) fn offset(&self, bit: u32) -> usize {
        self.offset[bit as usize & 15]
    }

    /// Length of an area up to the last component of `mask`.
    pub(super) fn size(&self, mask: u64) -> usize {
        (0..16).filter(|b| mask >> b & 1 != 0).map(|b| self.end[b]).fold(EXTENDED, usize::max)
    }
}

/// Registers that an instruction in the current mode saves and restores: 16, or 8 outside 64-bit
/// mode.
pub(super) fn registers(cpu: &Cpu) -> usize {
    if cpu.is_long() { 16 } else { 8 }
}

/// XINUSE: the components that are not in their initial state. (MXCSR does not count.)
pub(super) fn in_use(cpu: &Cpu) -> u64 {
    let x87 = &cpu.x87;
    let words = (x87.fcw, x87.fsw, x87.ftw, x87.fop, x87.fip, x87.fdp);
    let x87_used = words != (X87::INIT.fcw, 0, 0, 0, 0, 0) || x87.st != X87::INIT.st;
    let any = |registers: &[x86::fpu::VectorReg], words: std::ops::Range<usize>| {
        registers.iter().any(|r| r.0[words.clone()].iter().any(|&w| w != 0))
    };
    let (low, high) = cpu.vector.split_at(16);
    let bit = |used: bool, mask: u64| if used { mask } else { 0 };
    bit(x87_used, xcr0::X87)
        | bit(any(low, 0..2), xcr0::SSE)
        | bit(any(low, 2..4), xcr0::AVX)
        | bit(cpu.opmask != [0; 8], xcr0::OPMASK)
        | bit(any(low, 4..8), xcr0::ZMM_HI256)
        | bit(any(high, 0..8), xcr0::HI16_ZMM)
        | bit(cpu.pkru != 0, xcr0::PKRU)
}

/// Puts components in their initial state. MXCSR is left alone.
pub(super) fn initialize(cpu: &mut Cpu, mask: u64) {
    if mask & xcr0::X87 != 0 {
        cpu.x87 = X87::INIT;
    }
    let count = registers(cpu);
    let long = cpu.is_long();
    for register in &mut cpu.vector[..count] {
        if mask & xcr0::SSE != 0 {
            register.0[..2].fill(0);
        }
        if mask & xcr0::AVX != 0 {
            register.0[2..4].fill(0);
        }
        if mask & xcr0::ZMM_HI256 != 0 {
            register.0[4..].fill(0);
        }
    }
    if mask & xcr0::HI16_ZMM != 0 && long {
        cpu.vector[16..].fill(x86::fpu::VectorReg::default());
    }
    if mask & xcr0::OPMASK != 0 {
        cpu.opmask = [0; 8];
    }
    if mask & xcr0::PKRU != 0 {
        cpu.pkru = 0;
    }
}
