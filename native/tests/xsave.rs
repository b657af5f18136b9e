//! The interpreter's XSAVE areas against those that the host writes for the same state.

use proptest::prelude::*;
use softmmu::{GuestRam, Mmu, NullBus, RamRange};
use std::arch::asm;
use std::sync::Arc;
use x86::control::{cr4, xcr0};
use x86::fpu::X87;
use x86::{Cpu, Mode};

/// Legacy region, header and AVX component.
const SIZE: usize = 832;
const AREA: u64 = 0x1000;

#[repr(align(64))]
#[derive(Clone, Copy, PartialEq, Debug)]
struct Area([u8; SIZE]);

/// Executes `bytes` on `cpu` with RDI at [`AREA`] and all components requested.
fn execute(cpu: &mut Cpu, mmu: &mut Mmu, bytes: &[u8]) {
    let insn = decoder::decode(bytes, 64).expect("decodes");
    (cpu.gpr[7], cpu.gpr[0], cpu.gpr[2]) = (AREA, 7, 0);
    interp::table::handler(&insn)(cpu, mmu, &insn).expect("runs");
}

fn take(mmu: &mut Mmu) -> Area {
    let mut area = Area([0; SIZE]);
    mmu.phys_read(AREA, &mut area.0);
    mmu.phys_write(AREA, &[0; SIZE]);
    area
}

/// Loads `area` into the host's registers and saves them by XSAVE and XSAVEC.
fn on_the_host(area: &Area) -> (Area, Area) {
    let (mut standard, mut compacted) = (Area([0; SIZE]), Area([0; SIZE]));
    // SAFETY: the areas are aligned and large enough for components 0 to 2; every register that
    // is loaded is declared or given back as the ABI wants it.
    unsafe {
        asm!(
            "xrstor64 [{a}]",
            "xsave64 [{s}]",
            "xsavec64 [{c}]",
            "fninit",
            "vzeroupper",
            "ldmxcsr [{m}]",
            a = in(reg) area, s = in(reg) &mut standard, c = in(reg) &mut compacted,
            m = in(reg) &0x1F80u32, in("eax") 7, in("edx") 0,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
        );
    }
    (standard, compacted)
}

/// Without what hosts differ in: x87 pointers and opcode (AMD keeps them only for a pending
/// error), MXCSR_MASK (the guest has no AMD extension).
fn comparable(mut area: Area) -> Area {
    area.0[6..24].fill(0);
    area.0[28..32].fill(0);
    area
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn areas_agree(
        vectors in any::<[[u64; 4]; 16]>(),
        st in any::<[[u8; 10]; 8]>(),
        (fcw, fsw, ftw) in (0u16..0x400, any::<u16>(), any::<u8>()),
        mxcsr in 0u32..=0xFFFF,
        initial in 0u64..8,
    ) {
        if !is_x86_feature_detected!("xsavec") || !is_x86_feature_detected!("avx") {
            eprintln!("skipped: the host has no XSAVEC or no AVX");
            return Ok(());
        }
        let ram = GuestRam::new(&[RamRange { gpa: 0, len: 1 << 16 }]).expect("RAM");
        let mut mmu = Mmu::new(Arc::new(ram), Arc::new(NullBus)).expect("MMU");
        let mut cpu = Cpu::new();
        cpu.mode = Mode::Long;
        cpu.cr4 |= cr4::OSXSAVE | cr4::OSFXSR;
        cpu.xcr0 = xcr0::X87 | xcr0::SSE | xcr0::AVX;
        cpu.mxcsr = mxcsr;
        cpu.x87 = X87::INIT;
        if initial & 1 == 0 {
            (cpu.x87.fcw, cpu.x87.fsw, cpu.x87.ftw) = (fcw, fsw, ftw);
            for (slot, value) in cpu.x87.st.iter_mut().zip(st) {
                slot[..10].copy_from_slice(&value);
            }
        }
        for (register, value) in cpu.vector.iter_mut().zip(vectors) {
            if initial & 2 == 0 {
                register.0[..2].copy_from_slice(&value[..2]);
            }
            if initial & 4 == 0 {
                register.0[2..4].copy_from_slice(&value[2..]);
            }
        }
        // Through an area once: loading makes the status word consistent, on the host as well.
        execute(&mut cpu, &mut mmu, &[0x48, 0x0F, 0xAE, 0x27]);
        execute(&mut cpu, &mut mmu, &[0x48, 0x0F, 0xAE, 0x2F]);
        take(&mut mmu);
        execute(&mut cpu, &mut mmu, &[0x48, 0x0F, 0xAE, 0x27]);
        let standard = take(&mut mmu);
        execute(&mut cpu, &mut mmu, &[0x48, 0x0F, 0xC7, 0x27]);
        let compacted = take(&mut mmu);
        let (host_standard, host_compacted) = on_the_host(&standard);
        prop_assert_eq!(comparable(standard), comparable(host_standard));
        prop_assert_eq!(comparable(compacted), comparable(host_compacted));
    }
}
