use super::*;
use crate::testkit::{DATA, Kit, RAM, Start};
use proptest::prelude::*;
use x86::control::{cr0, xcr0};
use x86::cpuid::Feature;
use x86::flags;
use x86::fpu::X87;
use x86::regs::gpr;

/// A kit with everything enabled; RDI points to data.
fn kit(start: Start) -> Kit {
    let mut kit = Kit::new(start);
    kit.cpu.cr4 |= cr4::OSXSAVE | cr4::OSFXSR | cr4::OSXMMEXCPT;
    kit.cpu.xcr0 = xcr0::X87 | xcr0::SSE | xcr0::AVX;
    kit.cpu.x87 = X87::INIT;
    kit.cpu.gpr[gpr::RDI] = DATA;
    kit
}

#[test]
fn memory_operands_of_every_size() {
    let mut kit = kit(Start::Long);
    for i in 0..8 {
        kit.write::<u64>(DATA + 8 * i, 0x1111_1111_1111_1111 * i);
    }
    // vmovdqu ymm1, [rdi+1]; vmovdqu [rdi+0x101], ymm1
    kit.step(&[0xC5, 0xFE, 0x6F, 0x4F, 0x01]).expect("loads");
    kit.step(&[0xC5, 0xFE, 0x7F, 0x8F, 0x01, 0x01, 0, 0]).expect("stores");
    for i in 0..4 {
        assert_eq!(kit.read::<u64>(DATA + 0x101 + 8 * i), kit.read::<u64>(DATA + 1 + 8 * i));
    }
    // paddb xmm2, [rdi+16]
    kit.step(&[0x66, 0x0F, 0xFC, 0x57, 0x10]).expect("adds");
    assert_eq!(kit.cpu.vector[2].0[..2], [0x2222_2222_2222_2222, 0x3333_3333_3333_3333]);
    // pextrb [rdi], xmm2, 15; movss [rdi+4], xmm2; movlps; extractps
    kit.step(&[0x66, 0x0F, 0x3A, 0x14, 0x17, 15]).expect("PEXTRB");
    assert_eq!(kit.read::<u64>(DATA), 0x33);
    kit.step(&[0xF3, 0x0F, 0x11, 0x57, 0x04]).expect("MOVSS");
    assert_eq!(kit.read::<u64>(DATA), 0x2222_2222_0000_0033);
    // movsd xmm2, [rdi]; cmpsd xmm2, xmm2, 0
    kit.step(&[0xF2, 0x0F, 0x10, 0x17]).expect("MOVSD");
    assert_eq!(kit.cpu.vector[2].0[..2], [0x2222_2222_0000_0033, 0]);
    kit.step(&[0xF2, 0x0F, 0xC2, 0xD2, 0x00]).expect("CMPSD");
    assert_eq!(kit.cpu.vector[2].0[..2], [u64::MAX, 0]);
}

#[test]
fn operands_cross_pages() {
    let mut kit = kit(Start::Long);
    let linear = 0x7000_0000;
    kit.map(linear, DATA);
    kit.map(linear + 0x1000, DATA + 0x2000);
    kit.cpu.gpr[gpr::RDI] = linear + 0xFF8;
    kit.cpu.vector[3].0[..2].copy_from_slice(&[0x1234, 0x5678]);
    // movups [rdi], xmm3; movups xmm4, [rdi]
    kit.step(&[0x0F, 0x11, 0x1F]).expect("stores");
    assert_eq!(kit.read::<u64>(DATA + 0xFF8), 0x1234);
    assert_eq!(kit.read::<u64>(DATA + 0x2000), 0x5678);
    kit.step(&[0x0F, 0x10, 0x27]).expect("loads");
    assert_eq!(kit.cpu.vector[4].0[..2], [0x1234, 0x5678]);
    // Into a page that is not there: nothing is written.
    kit.cpu.gpr[gpr::RDI] = linear + 0x1FF8;
    kit.write::<u64>(DATA + 0x2FF8, 7);
    assert!(kit.step(&[0x0F, 0x11, 0x1F]).is_err_and(|f| f.is(Vector::PF)));
    assert_eq!(kit.read::<u64>(DATA + 0x2FF8), 7);
    assert_eq!(kit.mmu.fault_address, linear + 0x2000);
}

#[test]
fn alignment() {
    let mut kit = kit(Start::Long);
    kit.cpu.gpr[gpr::RDI] = DATA + 8;
    for (bytes, fault) in [
        (&[0x0F, 0x28, 0x07][..], true),             // movaps xmm0, [rdi]
        (&[0x0F, 0x29, 0x07], true),                 // movaps [rdi], xmm0
        (&[0x66, 0x0F, 0xFE, 0x07], true),           // paddd xmm0, [rdi]
        (&[0x0F, 0x10, 0x07], false),                // movups
        (&[0xF2, 0x0F, 0xF0, 0x07], false),          // lddqu
        (&[0xC5, 0xF9, 0xFE, 0x07], false),          // vpaddd xmm0, xmm0, [rdi]
        (&[0xC5, 0xFD, 0x6F, 0x07], true),           // vmovdqa ymm0, [rdi]
        (&[0xC5, 0xF8, 0x2B, 0x07], true),           // vmovntps [rdi], xmm0
        (&[0x66, 0x0F, 0x3A, 0x63, 0x07, 0], false), // pcmpistri xmm0, [rdi], 0
        (&[0xF2, 0x0F, 0x58, 0x07], false),          // addsd xmm0, [rdi]
    ] {
        let result = kit.step(bytes);
        assert_eq!(result.err(), fault.then_some(Fault::GP0), "{bytes:x?}");
    }
}

#[test]
fn simd_exceptions() {
    let mut kit = kit(Start::Long);
    let divps = [0x0F, 0x5E, 0xC1];
    kit.cpu.vector[0].0[0] = 0x3F80_0000; // 1.0 / 0.0, 0.0 / 0.0
    let before = kit.cpu.vector;
    kit.cpu.mxcsr = 0x1F80 & !(1 << 9);
    assert_eq!(kit.step(&divps), Err(Fault::XM));
    // Invalid is masked and has its flag set; the unmasked division by zero stops the instruction.
    assert_eq!(kit.cpu.mxcsr & 0x3F, 0x05);
    assert_eq!(kit.cpu.vector, before);
    kit.cpu.cr4 &= !cr4::OSXMMEXCPT;
    assert_eq!(kit.step(&divps), Err(Fault::UD));
    kit.cpu.mxcsr = 0x1F80;
    kit.step(&divps).expect("masked");
    assert_eq!(kit.cpu.mxcsr, 0x1F85);
    assert_eq!(kit.cpu.vector[0].0[0], 0xFFC0_0000_7F80_0000);
    // Rounding mode: 1/3 up and down.
    for (mode, expected) in [(1u32, 0x3EAA_AAAAu64), (2, 0x3EAA_AAAB)] {
        kit.cpu.mxcsr = 0x1F80 | mode << 13;
        (kit.cpu.vector[0].0[0], kit.cpu.vector[1].0[0]) = (0x3F80_0000, 0x4040_0000);
        kit.step(&[0xF3, 0x0F, 0x5E, 0xC1]).expect("DIVSS");
        assert_eq!(kit.cpu.vector[0].0[0] & 0xFFFF_FFFF, expected);
    }
}

#[test]
fn control_bits() {
    let sse = &[0x0F, 0x58, 0xC1][..]; // addps
    let mmx = &[0x0F, 0xFC, 0xC1][..]; // paddb mm0, mm1
    let avx = &[0xC5, 0xF8, 0x58, 0xC1][..]; // vaddps
    let change = |f: fn(&mut Cpu)| {
        let mut kit = kit(Start::Long);
        f(&mut kit.cpu);
        [sse, mmx, avx].map(|bytes| kit.step(bytes).err())
    };
    let (ud, nm) = (Some(Fault::UD), Some(Fault::NM));
    assert_eq!(change(|_| ()), [None, None, None]);
    assert_eq!(change(|c| c.cr0 |= cr0::TS), [nm, nm, nm]);
    assert_eq!(change(|c| c.cr0 |= cr0::EM), [ud, ud, None]);
    assert_eq!(change(|c| c.cr4 &= !cr4::OSFXSR), [ud, None, None]);
    assert_eq!(change(|c| c.cr4 &= !cr4::OSXSAVE), [None, None, ud]);
    assert_eq!(change(|c| c.xcr0 = 3), [None, None, ud]);
    assert_eq!(kit(Start::Real).step(avx), Err(Fault::UD));
    // A pending x87 error comes before MMX instructions, not before SSE.
    let pending = change(|c| (c.x87.fcw, c.x87.fsw) = (0x37E, 0x8081));
    assert_eq!(pending, [None, Some(Fault::MF), None]);
}

#[test]
fn features_the_guest_is_not_offered_are_undefined() {
    let mut kit = kit(Start::Long);
    let mut policy = (*kit.cpu.policy).clone();
    policy.remove(Feature::Ssse3);
    policy.remove(Feature::Avx);
    kit.cpu.policy = policy.into();
    assert_eq!(kit.step(&[0x66, 0x0F, 0x38, 0x00, 0xC1]), Err(Fault::UD), "PSHUFB");
    assert_eq!(kit.step(&[0xC5, 0xF8, 0x58, 0xC1]), Err(Fault::UD), "VADDPS");
    assert_eq!(kit.step(&[0xC5, 0xF8, 0x77]), Err(Fault::UD), "VZEROUPPER");
    assert_eq!(kit.step(&[0x66, 0x0F, 0xFC, 0xC1]), Ok(Flow::Next), "PADDB");
}

#[test]
fn masked_elements_do_not_fault() {
    let mut kit = kit(Start::Long);
    let linear = 0x7000_0000;
    kit.map(linear, DATA);
    kit.write::<u64>(DATA + 0xFF8, 0x2222_2222_1111_1111);
    // The upper half of the operand is in a page that is not there.
    kit.cpu.gpr[gpr::RDI] = linear + 0xFF8;
    kit.cpu.vector[1].0[..2].copy_from_slice(&[1 << 63 | 1 << 31, 0x7FFF_FFFF]);
    kit.cpu.vector[2].0 = [9; 8];
    // vmaskmovps xmm2, xmm1, [rdi]
    kit.step(&[0xC4, 0xE2, 0x71, 0x2C, 0x17]).expect("loads");
    assert_eq!(kit.cpu.vector[2].0, [0x2222_2222_1111_1111, 0, 0, 0, 0, 0, 0, 0]);
    // vpmaskmovd [rdi], xmm1, xmm2
    kit.cpu.vector[2].0[0] = 0x4444_4444_3333_3333;
    kit.cpu.vector[1].0[0] = 1 << 31;
    kit.step(&[0xC4, 0xE2, 0x71, 0x8E, 0x17]).expect("stores");
    assert_eq!(kit.read::<u64>(DATA + 0xFF8), 0x2222_2222_3333_3333);
    // With a bit beyond the page it faults and stores nothing.
    kit.cpu.vector[1].0[..2].copy_from_slice(&[1 << 63, 1 << 63]);
    assert!(kit.step(&[0xC4, 0xE2, 0x71, 0x8E, 0x17]).is_err_and(|f| f.is(Vector::PF)));
    assert_eq!(kit.read::<u64>(DATA + 0xFF8), 0x2222_2222_3333_3333);
    // maskmovdqu xmm2, xmm1
    kit.cpu.vector[1].0[..2].copy_from_slice(&[0x80, 0]);
    kit.step(&[0x66, 0x0F, 0xF7, 0xD1]).expect("MASKMOVDQU");
    assert_eq!(kit.read::<u64>(DATA + 0xFF8), 0x2222_2222_3333_3333);
    kit.cpu.vector[2].0[0] = 0xAA;
    kit.step(&[0x66, 0x0F, 0xF7, 0xD1]).expect("MASKMOVDQU");
    assert_eq!(kit.read::<u64>(DATA + 0xFF8), 0x2222_2222_3333_33AA);
}

#[test]
fn gathers_restart_where_they_faulted() {
    let mut kit = kit(Start::Long);
    for i in 0..16 {
        kit.write::<u32>(DATA + 4 * i, 0x100 + i as u32);
    }
    kit.cpu.vector[1].0[..4].copy_from_slice(&[3, 0x0000_0007_0000_0005, 0, 2 << 32]);
    kit.cpu.vector[2].0[..4].copy_from_slice(&[u64::MAX, u64::MAX, 0, u64::MAX]);
    kit.cpu.vector[0].0[..4].copy_from_slice(&[0, 0, 0xABCD_EF01_2345_6789, 0]);
    // vpgatherdd ymm0, [rdi+ymm1*4], ymm2
    let gather = [0xC4, 0xE2, 0x6D, 0x90, 0x04, 0x8F];
    kit.step(&gather).expect("gathers");
    let pair = |low: u64, high: u64| (0x100 + low) | ((0x100 + high) << 32);
    let expected = [pair(3, 0), pair(5, 7), 0xABCD_EF01_2345_6789, pair(0, 2), 0, 0, 0, 0];
    assert_eq!(kit.cpu.vector[0].0, expected);
    assert_eq!(kit.cpu.vector[2].0, [0; 8]);
    // Element 2 faults: elements 0 and 1 are done.
    kit.cpu.vector[1].0[..4].copy_from_slice(&[1 << 32, 0x7FFF_FFFF, 0, 0]);
    kit.cpu.vector[2].0[..4].fill(u64::MAX);
    kit.cpu.vector[0].0[..4].fill(0);
    kit.cpu.gpr[gpr::RDI] = DATA;
    assert!(kit.step(&gather).is_err_and(|f| f.is(Vector::PF)));
    assert_eq!(kit.cpu.vector[0].0[..2], [pair(0, 1), 0]);
    assert_eq!(kit.cpu.vector[2].0[..2], [0, u64::MAX]);
    // vpgatherqd xmm0, [rdi+ymm1*1], xmm2: four elements by a wide index.
    kit.cpu.vector[1].0[..4].copy_from_slice(&[0, 4, 8, 12]);
    kit.cpu.vector[2].0[..2].fill(u64::MAX);
    kit.step(&[0xC4, 0xE2, 0x6D, 0x91, 0x04, 0x0F]).expect("gathers");
    assert_eq!(kit.cpu.vector[0].0, [pair(0, 1), pair(2, 3), 0, 0, 0, 0, 0, 0]);
    // The three registers must differ.
    assert!(decoder::decode(&[0xC4, 0xE2, 0x7D, 0x90, 0x04, 0x8F], 64).is_err());
}

#[test]
fn mxcsr_and_upper_halves() {
    let mut kit = kit(Start::Long);
    kit.write::<u32>(DATA, 0x1_0000);
    assert_eq!(kit.step(&[0x0F, 0xAE, 0x17]), Err(Fault::GP0), "LDMXCSR");
    kit.write::<u32>(DATA, 0xFFC0);
    kit.step(&[0x0F, 0xAE, 0x17]).expect("LDMXCSR");
    kit.step(&[0x0F, 0xAE, 0x5F, 0x04]).expect("STMXCSR");
    assert_eq!(kit.read::<u32>(DATA + 4), 0xFFC0);
    kit.cpu.vector[15].0[..4].fill(5);
    kit.step(&[0xC5, 0xF8, 0x77]).expect("VZEROUPPER");
    assert_eq!(kit.cpu.vector[15].0[..4], [5, 5, 0, 0]);
    kit.step(&[0xC5, 0xFC, 0x77]).expect("VZEROALL");
    assert_eq!(kit.cpu.vector[15].0, [0; 8]);
}

#[test]
fn moves_in_software_are_the_hosts() {
    // Each of these has a handler in `moves`; the thunk must agree.
    let programs: [&[u8]; 8] = [
        &[0x0F, 0x28, 0x0F],       // movaps xmm1, [rdi]
        &[0xF3, 0x0F, 0x6F, 0x0F], // movdqu
        &[0xC5, 0xF8, 0x10, 0x0F], // vmovups xmm1
        &[0xC5, 0xFC, 0x10, 0x0F], // vmovups ymm1
        &[0x66, 0x0F, 0xD6, 0x0F], // movq [rdi], xmm1
        &[0x66, 0x0F, 0x7E, 0x0F], // movd [rdi], xmm1
        &[0x0F, 0x13, 0x0F],       // movlps [rdi], xmm1
        &[0xF2, 0x0F, 0x11, 0x0F], // movsd [rdi], xmm1
    ];
    for bytes in programs {
        let run = |by_thunk: bool| {
            let mut kit = kit(Start::Long);
            for i in 0..4 {
                kit.write::<u64>(DATA + 8 * i, 0x0123_4567_89AB_CDEF * (i + 1));
            }
            kit.cpu.vector[1].0[..4].copy_from_slice(&[11, 22, 33, 44]);
            let mut insn = decoder::decode(bytes, 64).expect("decodes");
            insn.handle = native::prepare(&insn);
            assert!(moves::select(&insn).is_some(), "{bytes:x?}");
            let handler = if by_thunk {
                if insn.op[0].kind == decoder::OpKind::Mem { store } else { load }
            } else {
                select(&insn)
            };
            handler(&mut kit.cpu, &mut kit.mmu, &insn).expect("runs");
            let memory: Vec<u64> = (0..4).map(|i| kit.read(DATA + 8 * i)).collect();
            (kit.cpu.vector, memory)
        };
        assert_eq!(run(true), run(false), "{bytes:x?}");
    }
}

#[test]
fn every_instruction_of_the_host_has_a_line() {
    for code in decoder::Code::values() {
        let next = code.flow_control() == iced_x86::FlowControl::Next;
        // iced can encode WAIT and a control instruction as one, but does not decode them so.
        let joined = code.op_code().fwait();
        if native::is_candidate(code) && next && !joined {
            assert!(crate::table::is_registered(code.mnemonic()), "{code:?}");
        }
    }
}

#[test]
fn instructions_beyond_the_cache_run_all_the_same() {
    let programs: [&[u8]; 6] = [
        &[0x66, 0x0F, 0xFE, 0x07],          // paddd xmm0, [rdi]
        &[0x66, 0x0F, 0x3A, 0x14, 0x07, 3], // pextrb [rdi], xmm0, 3
        &[0xC5, 0xFD, 0xFE, 0xC0],          // vpaddd ymm0, ymm0, ymm0
        &[0xD9, 0xE8],                      // fld1
        &[0xDB, 0x3F],                      // fstp tbyte [rdi]
        &[0x0F, 0x6F, 0x0F],                // movq mm1, [rdi]
    ];
    let run = |cached: bool| {
        let mut kit = kit(Start::Long);
        kit.write::<u64>(DATA, 0x0123_4567_89AB_CDEF);
        kit.cpu.vector[0].0[..4].copy_from_slice(&[11, 22, 33, 44]);
        for bytes in programs {
            let mut insn = decoder::decode(bytes, 64).expect("decodes");
            insn.handle = if cached { native::prepare(&insn) } else { usize::MAX };
            let handler = crate::table::handler(&insn);
            handler(&mut kit.cpu, &mut kit.mmu, &insn).expect("runs");
        }
        let x87 = kit.cpu.x87;
        (kit.cpu.vector, x87.st, x87.ftw, x87.fsw, kit.read::<u64>(DATA), kit.read::<u64>(DATA + 8))
    };
    // The cache has to have made room for one thunk before.
    let expected = run(true);
    assert_eq!(run(false), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random vector and x87 instructions in every mode: no panic, and no state that a fault
    /// should have left alone changes.
    #[test]
    fn random_instructions_survive(
        head in prop::sample::select(vec![
            &[0x0F][..], &[0x66, 0x0F], &[0xF3, 0x0F], &[0xF2, 0x0F], &[0x66, 0x0F, 0x38],
            &[0x66, 0x0F, 0x3A], &[0x0F, 0x38], &[0xC5], &[0xC4, 0xE2], &[0xC4, 0xE3], &[0xC4, 0xE1],
            &[0x62], &[0xD8], &[0xD9], &[0xDB], &[0xDD], &[0xDF], &[0x0F, 0xAE], &[0x0F, 0xC7],
        ]),
        tail in proptest::collection::vec(any::<u8>(), 12),
        start in prop::sample::select(vec![Start::Real, Start::Protected16, Start::Protected32, Start::Long, Start::User64]),
        gpr in proptest::collection::vec(0u64..2 * RAM, 16),
        vectors in any::<[u64; 16]>(),
        mxcsr in 0u32..=0xFFFF,
        fcw in 0u16..0x400,
    ) {
        let bytes = [head, &tail].concat();
        let mut kit = kit(start);
        let Ok(mut insn) = decoder::decode(&bytes, kit.cpu.key.bits()) else { return Ok(()) };
        insn.handle = native::prepare(&insn);
        kit.cpu.gpr.copy_from_slice(&gpr);
        for (register, value) in kit.cpu.vector.iter_mut().zip(vectors) {
            register.0[..4].fill(value);
        }
        kit.cpu.mxcsr = mxcsr;
        kit.cpu.x87.fcw = fcw | 0x40;
        kit.cpu.rip = kit.cpu.rip.wrapping_add(u64::from(insn.len));
        let before = kit.cpu.clone();
        let handler = crate::table::handler(&insn);
        if let Err(fault) = handler(&mut kit.cpu, &mut kit.mmu, &insn) {
            let restartable = insn.to_iced(0).is_vsib();
            if !fault.is_trap() && !restartable {
                prop_assert_eq!(kit.cpu.gpr, before.gpr);
                prop_assert_eq!(kit.cpu.vector, before.vector);
                prop_assert_eq!(kit.cpu.rflags & flags::ARITHMETIC, before.rflags & flags::ARITHMETIC);
                prop_assert_eq!(kit.cpu.x87.st, before.x87.st);
            }
        }
    }
}
