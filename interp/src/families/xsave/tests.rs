use super::*;
use crate::testkit::{DATA, Kit, Start};
use x86::fpu::X87;

/// A kit with XSAVE, x87, SSE and AVX enabled.
fn kit() -> Kit {
    let mut kit = Kit::new(Start::Long);
    kit.cpu.cr4 |= cr4::OSXSAVE | cr4::OSFXSR;
    kit.cpu.xcr0 = xcr0::X87 | xcr0::SSE | xcr0::AVX;
    kit.cpu.x87 = X87::INIT;
    kit.cpu.gpr[gpr::RDI] = DATA;
    kit.cpu.gpr[gpr::RAX] = 7;
    kit
}

fn fill(cpu: &mut Cpu) {
    for (i, register) in cpu.vector[..16].iter_mut().enumerate() {
        for (j, word) in register.0[..4].iter_mut().enumerate() {
            *word = 0x0101_0101_0101_0101 * (1 + i + 16 * j) as u64;
        }
    }
    cpu.mxcsr = 0x1FA0;
    // An unmasked division by zero is pending, without which AMD's processors save no pointers.
    cpu.x87.fcw = 0x27B;
    cpu.x87.fsw = 0xB884;
    cpu.x87.ftw = 0x80;
    cpu.x87.fop = 0x123;
    cpu.x87.fip = 0xFFFF_8000_1234_5678;
    cpu.x87.fdp = 0x1111_2222_3333;
    for (i, st) in cpu.x87.st.iter_mut().enumerate() {
        st[..10].fill(0x11 * i as u8);
    }
}

const XSAVE64: [u8; 4] = [0x48, 0x0F, 0xAE, 0x27];
const XRSTOR64: [u8; 4] = [0x48, 0x0F, 0xAE, 0x2F];
const XSAVEOPT64: [u8; 4] = [0x48, 0x0F, 0xAE, 0x37];
const XSAVEC64: [u8; 4] = [0x48, 0x0F, 0xC7, 0x27];
const XSAVES64: [u8; 4] = [0x48, 0x0F, 0xC7, 0x2F];
const XRSTORS64: [u8; 4] = [0x48, 0x0F, 0xC7, 0x1F];
const FXSAVE64: [u8; 4] = [0x48, 0x0F, 0xAE, 0x07];
const FXRSTOR64: [u8; 4] = [0x48, 0x0F, 0xAE, 0x0F];

#[test]
fn every_format_round_trips() {
    for (save, restore, avx) in [
        (XSAVE64, XRSTOR64, true),
        (XSAVEOPT64, XRSTOR64, true),
        (XSAVEC64, XRSTOR64, true),
        (XSAVES64, XRSTORS64, true),
        (FXSAVE64, FXRSTOR64, false),
    ] {
        let mut kit = kit();
        fill(&mut kit.cpu);
        let before = kit.cpu.clone();
        kit.step(&save).expect("saves");
        kit.cpu.x87 = X87::INIT;
        kit.cpu.x87.st = [[0x77; 16]; 8];
        kit.cpu.mxcsr = 0x1F80;
        for register in &mut kit.cpu.vector[..16] {
            register.0[..if avx { 4 } else { 2 }].fill(0xEE);
        }
        kit.step(&restore).expect("restores");
        assert_eq!(kit.cpu.vector, before.vector, "{save:x?}");
        assert_eq!((kit.cpu.mxcsr, kit.cpu.x87), (before.mxcsr, before.x87), "{save:x?}");
    }
}

#[test]
fn standard_layout() {
    let mut kit = kit();
    fill(&mut kit.cpu);
    kit.step(&XSAVE64).expect("saves");
    assert_eq!(kit.read::<u16>(DATA), 0x27B);
    assert_eq!(kit.read::<u16>(DATA + 2), 0xB884);
    assert_eq!(kit.read::<u64>(DATA + 8), 0xFFFF_8000_1234_5678);
    assert_eq!(kit.read::<u32>(DATA + 24), 0x1FA0);
    assert_eq!(kit.read::<u8>(DATA + 32 + 16), 0x11);
    assert_eq!(kit.read::<u64>(DATA + 160), kit.cpu.vector[0].0[0]);
    assert_eq!(kit.read::<u64>(DATA + 576 + 16 * 3), kit.cpu.vector[3].0[2]);
    assert_eq!(kit.read::<u64>(DATA + 512), 7);
    assert_eq!(kit.read::<u64>(DATA + 520), 0);
}

#[test]
fn amd_saves_pointers_only_with_a_pending_error() {
    for (fsw, pending) in [(0xB884, true), (0x3800, false)] {
        let mut kit = kit();
        fill(&mut kit.cpu);
        kit.cpu.x87.fsw = fsw;
        kit.step(&FXSAVE64).expect("saves");
        let saved = (kit.read::<u16>(DATA + 6), kit.read::<u64>(DATA + 8), kit.read(DATA + 16));
        let shown = pending || !kit.cpu.policy.is_amd();
        let x87 = &kit.cpu.x87;
        assert_eq!(saved, if shown { (x87.fop, x87.fip, x87.fdp) } else { (0, 0, 0) });
    }
}

#[test]
fn initial_components_are_left_out_and_restored_as_such() {
    let mut kit = kit();
    kit.cpu.vector[2].0[0] = 5;
    for offset in (0..1024).step_by(8) {
        kit.write::<u64>(DATA + offset, 0xA5A5_A5A5_A5A5_A5A5);
    }
    kit.step(&XSAVEC64).expect("saves");
    assert_eq!(kit.read::<u64>(DATA + 512), xcr0::SSE);
    assert_eq!(kit.read::<u64>(DATA + 520), COMPACTED | 7);
    assert_eq!(kit.read::<u16>(DATA), 0xA5A5);
    assert_eq!(kit.read::<u64>(DATA + 576), 0xA5A5_A5A5_A5A5_A5A5);
    for i in 2..8 {
        kit.write::<u64>(DATA + 512 + 8 * i, 0);
    }
    fill(&mut kit.cpu);
    kit.step(&XRSTOR64).expect("restores");
    let mut expected = [0; 8];
    expected[0] = 5;
    assert_eq!(kit.cpu.vector[2].0, expected);
    assert_eq!(kit.cpu.vector[3].0, [0; 8]);
    assert_eq!(kit.cpu.x87, X87::INIT);
    assert_eq!(kit.cpu.mxcsr, 0x1F80);
}

#[test]
fn bad_headers_and_mxcsr_are_refused() {
    let cases: [(u64, u64); 6] = [
        (512, 1 << 5),              // a component not enabled in XCR0
        (520, 1),                   // XCOMP_BV without bit 63
        (528, 1),                   // third header word
        (520, COMPACTED | 1 << 62), // a component that does not exist
        (520, COMPACTED | 1),       // XSTATE_BV outside XCOMP_BV
        (24, 1 << 16),              // MXCSR
    ];
    for (offset, value) in cases {
        let mut kit = kit();
        fill(&mut kit.cpu);
        kit.step(&XSAVE64).expect("saves");
        kit.write(DATA + offset, value);
        let before = kit.cpu.clone();
        assert_eq!(kit.step(&XRSTOR64), Err(Fault::GP0), "{offset}: {value:#x}");
        assert_eq!((kit.cpu.vector, kit.cpu.x87), (before.vector, before.x87));
    }
    let mut kit = kit();
    kit.step(&XSAVE64).expect("saves");
    // XRSTORS takes the compacted format only.
    assert_eq!(kit.step(&XRSTORS64), Err(Fault::GP0));
    kit.cpu.gpr[gpr::RDI] += 16;
    assert_eq!(kit.step(&XSAVE64), Err(Fault::GP0));
}

#[test]
fn control_bits_gate_every_form() {
    let mut kit = kit();
    kit.cpu.cr0 |= cr0::TS;
    for bytes in [XSAVE64, XRSTOR64, XSAVEC64, FXSAVE64, FXRSTOR64] {
        assert_eq!(kit.step(&bytes), Err(Fault::NM), "{bytes:x?}");
    }
    kit.cpu.cr4 &= !cr4::OSXSAVE;
    for bytes in [XSAVE64, XRSTOR64, XSAVEC64, XSAVES64, XRSTORS64] {
        assert_eq!(kit.step(&bytes), Err(Fault::UD), "{bytes:x?}");
    }
    let mut user = Kit::new(Start::User64);
    user.cpu.cr4 |= cr4::OSXSAVE;
    user.cpu.gpr[gpr::RDI] = DATA;
    assert_eq!(user.step(&XSAVES64), Err(Fault::GP0));
}

#[test]
fn xcr0_takes_only_valid_combinations() {
    let xgetbv = [0x0F, 0x01, 0xD0];
    let xsetbv = [0x0F, 0x01, 0xD1];
    let mut kit = kit();
    for (value, valid) in
        [(1, true), (3, true), (7, true), (0, false), (5, false), (2, false), (0x1000, false)]
    {
        kit.cpu.xcr0 = 1;
        (kit.cpu.gpr[gpr::RAX], kit.cpu.gpr[gpr::RDX], kit.cpu.gpr[gpr::RCX]) = (value, 0, 0);
        assert_eq!(kit.step(&xsetbv).is_ok(), valid, "{value}");
        kit.step(&xgetbv).expect("XGETBV");
        assert_eq!(kit.cpu.gpr[gpr::RAX], if valid { value } else { 1 });
    }
    kit.cpu.gpr[gpr::RCX] = 1;
    kit.cpu.xcr0 = 7;
    kit.cpu.vector[0].0[2] = 1;
    kit.step(&xgetbv).expect("XGETBV 1");
    assert_eq!(kit.cpu.gpr[gpr::RAX], xcr0::AVX);
    kit.cpu.gpr[gpr::RCX] = 2;
    assert_eq!(kit.step(&xgetbv), Err(Fault::GP0));
}
