//! Whatever bytes are accepted, the process survives their execution.

use super::*;
use crate::thunk::Scratch;
use decoder::decode;
use proptest::prelude::*;
use x86::Cpu;
use x86::fpu::VectorReg;

/// Bytes that are likely to be vector or x87 instructions.
fn instruction() -> impl Strategy<Value = Vec<u8>> {
    let tail = proptest::collection::vec(any::<u8>(), 8);
    let legacy = prop::sample::select(vec![
        &[0x0F][..],
        &[0x66, 0x0F],
        &[0xF3, 0x0F],
        &[0xF2, 0x0F],
        &[0x0F, 0x38],
        &[0x66, 0x0F, 0x38],
        &[0x66, 0x0F, 0x3A],
        &[0xF2, 0x0F, 0x38],
        &[0xF2, 0x48, 0x0F],
        &[0x66, 0x4C, 0x0F],
        &[0xC5],
        &[0xC4],
        &[0x62],
        &[0x8F],
        &[],
    ]);
    let x87 = (0xD8u8..=0xDF).prop_map(|b| vec![b]);
    (prop_oneof![6 => legacy.prop_map(<[u8]>::to_vec), 1 => x87], tail)
        .prop_map(|(head, tail)| [head, tail].concat())
}

fn vector() -> impl Strategy<Value = [u64; 8]> {
    prop_oneof![
        any::<[u64; 8]>(),
        // Floating-point corner cases: zero, infinity, NaN, signalling NaN, denormal, one.
        any::<u64>().prop_map(|seed| std::array::from_fn(|i| {
            [0, 0x7FF0 << 48, 0x7FF8 << 48, 0x7FF0 << 48 | 1, 1, 0x3FF0 << 48]
                [(seed >> (8 * i)) as usize % 6]
        })),
    ]
}

fn set_host_mxcsr(value: u32) {
    // SAFETY: the value is valid.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &value) };
}

fn host_mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores to a variable.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut value) };
    value
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accepted_bytes_leave_the_rest_alone(
        bytes in instruction(),
        bits in prop::sample::select(vec![16u32, 32, 64]),
        vectors in proptest::collection::vec(vector(), 16),
        gpr in any::<[u64; 16]>(),
        mxcsr in 0u32..=0xFFFF,
        control in any::<(u16, u16, u8)>(),
        st in any::<[[u8; 16]; 8]>(),
        memory in vector(),
    ) {
        let Ok(insn) = decode(&bytes, bits) else { return Ok(()) };
        let Some(Prepared::Cached(thunk)) = thunk(prepare(&insn)) else { return Ok(()) };
        let mut cpu = Cpu::new();
        for (register, value) in cpu.vector.iter_mut().zip(vectors) {
            *register = VectorReg(value);
        }
        (cpu.gpr, cpu.mxcsr) = (gpr, mxcsr);
        (cpu.x87.fcw, cpu.x87.fsw, cpu.x87.ftw) = control;
        cpu.x87.st = st;
        let before = cpu.clone();
        let mut scratch = Scratch::default();
        for (chunk, word) in scratch.mem.0.chunks_exact_mut(8).zip(memory) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let memory = scratch.mem.0;
        set_host_mxcsr(0x1F80);
        let result = thunk.run(&mut cpu, &mut scratch);
        let host_flags = host_mxcsr() & 0x3F;

        let facts = facts(&insn).expect("it was prepared");
        if let Err(fault) = result {
            prop_assert!(matches!(fault.vector, 16 | 19), "{insn:?}: {fault:?}");
            prop_assert_eq!(&cpu.vector, &before.vector);
            prop_assert_eq!(&cpu.gpr, &before.gpr);
            prop_assert_eq!(&scratch.mem.0, &memory);
        }
        for n in 0..16u16 {
            let host = if n == 4 { facts.rsp_as.map_or(4, u16::from) } else { n };
            let written = facts.gpr_written >> host & 1 != 0 && facts.rsp_as != Some(n as u8);
            prop_assert!(written || cpu.gpr[usize::from(n)] == gpr[usize::from(n)]);
        }
        for n in 0..32 {
            let written = facts.vector_written >> n & 1 != 0;
            prop_assert!(written || cpu.vector[n] == before.vector[n]);
        }
        if !facts.uses_mxcsr {
            prop_assert_eq!(cpu.mxcsr, mxcsr);
            prop_assert_eq!(host_flags, 0, "{:?} raises SIMD exceptions", insn.code);
        }
        if !facts.uses_x87 {
            prop_assert_eq!(&cpu.x87, &before.x87);
        }
        let len = usize::from(facts.memory_size);
        let writes = matches!(facts.memory, crate::MemoryUse::Write | crate::MemoryUse::ReadWrite);
        if !writes {
            prop_assert_eq!(&scratch.mem.0, &memory);
        } else {
            prop_assert_eq!(&scratch.mem.0[len..], &memory[len..]);
        }
        prop_assert_eq!(cpu.rflags & !x86::flags::ARITHMETIC, before.rflags & !x86::flags::ARITHMETIC);
    }
}
