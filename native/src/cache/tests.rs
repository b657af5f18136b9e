use super::*;
use crate::{MemoryUse, Scratch};
use decoder::decode;
use x86::Cpu;

fn cached(bytes: &[u8], bits: u32) -> &'static Thunk {
    let insn = decode(bytes, bits).expect("decodes");
    match thunk(prepare(&insn)) {
        Some(Prepared::Cached(thunk)) => thunk,
        other => panic!("{bytes:x?}: {other:?}"),
    }
}

fn refused(bytes: &[u8], bits: u32) -> bool {
    prepare(&decode(bytes, bits).expect("decodes")) == 0
}

#[test]
fn paddd_registers() {
    let mut cpu = Cpu::new();
    cpu.vector[1].0 = [1, 2, 0xAAAA, 0xBBBB, 0, 0, 0, 0];
    cpu.vector[2].0[..2].copy_from_slice(&[10, 20]);
    // paddd xmm1, xmm2
    let thunk = cached(&[0x66, 0x0F, 0xFE, 0xCA], 64);
    thunk.run(&mut cpu, &mut Scratch::default()).expect("runs");
    assert_eq!(cpu.vector[1].0[..4], [11, 22, 0xAAAA, 0xBBBB]);
}

#[test]
fn memory_operand_comes_from_scratch() {
    let mut cpu = Cpu::new();
    let mut scratch = Scratch::default();
    scratch.mem.0[..8].copy_from_slice(&1.5f64.to_le_bytes());
    cpu.vector[9].0[0] = 2.0f64.to_bits();
    // addsd xmm9, [rip+0x1000]
    let thunk = cached(&[0xF2, 0x44, 0x0F, 0x58, 0x0D, 0, 0x10, 0, 0], 64);
    assert_eq!((thunk.memory, thunk.memory_size, thunk.alignment), (MemoryUse::Read, 8, 1));
    thunk.run(&mut cpu, &mut scratch).expect("runs");
    assert_eq!(f64::from_bits(cpu.vector[9].0[0]), 3.5);
}

#[test]
fn same_instruction_same_thunk() {
    // movaps xmm0, [rax] and [rbx+rcx*4+0x1000], in 64- and 32-bit code
    let a = cached(&[0x0F, 0x28, 0x00], 64);
    let b = cached(&[0x0F, 0x28, 0x84, 0x8B, 0, 0x10, 0, 0], 32);
    assert!(ptr::eq(a, b));
    assert_eq!(a.alignment, 16);
}

#[test]
fn vex_clears_the_upper_half() {
    let mut cpu = Cpu::new();
    cpu.vector[1].0 = [7; 8];
    cpu.vector[1].0[4..].fill(0);
    // vpxor xmm1, xmm1, xmm2
    cached(&[0xC5, 0xF1, 0xEF, 0xCA], 64).run(&mut cpu, &mut Scratch::default()).expect("runs");
    assert_eq!(cpu.vector[1].0, [7, 7, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn flags_and_general_registers() {
    let mut cpu = Cpu::new();
    cpu.rflags = 2 | x86::flags::IF | x86::flags::OF;
    cpu.vector[0].0[0] = 1.0f64.to_bits();
    cpu.vector[1].0[0] = 2.0f64.to_bits();
    // comisd xmm0, xmm1
    cached(&[0x66, 0x0F, 0x2F, 0xC1], 64).run(&mut cpu, &mut Scratch::default()).expect("runs");
    assert_eq!(cpu.rflags, 2 | x86::flags::IF | x86::flags::CF);
    // cvttsd2si rsp, xmm1
    cpu.gpr[8] = 99;
    cached(&[0xF2, 0x48, 0x0F, 0x2C, 0xE1], 64).run(&mut cpu, &mut Scratch::default()).expect("ok");
    assert_eq!((cpu.gpr[4], cpu.gpr[8]), (2, 99));
    // pcmpistri xmm0, xmm1, 0x0c writes ECX
    cpu.gpr[1] = u64::MAX;
    cached(&[0x66, 0x0F, 0x3A, 0x63, 0xC1, 0x0C], 64)
        .run(&mut cpu, &mut Scratch::default())
        .expect("runs");
    assert!(cpu.gpr[1] <= 16);
}

#[test]
fn unmasked_exception_commits_nothing() {
    let mut cpu = Cpu::new();
    cpu.mxcsr = 0x1F80 & !(1 << 9); // ZM clear
    cpu.vector[0].0[0] = 1.0f64.to_bits();
    let before = cpu.vector;
    // divsd xmm0, xmm1
    let fault = cached(&[0xF2, 0x0F, 0x5E, 0xC1], 64)
        .run(&mut cpu, &mut Scratch::default())
        .expect_err("faults");
    assert_eq!((fault.vector, fault.mxcsr), (19, 0x1D84));
    assert_eq!(cpu.vector, before);
    assert_eq!(cpu.mxcsr, 0x1D80);
    // Masked, it is only noted.
    cpu.mxcsr = 0x1F80;
    cached(&[0xF2, 0x0F, 0x5E, 0xC1], 64).run(&mut cpu, &mut Scratch::default()).expect("masked");
    assert_eq!(cpu.mxcsr, 0x1F84);
    assert_eq!(f64::from_bits(cpu.vector[0].0[0]), f64::INFINITY);
}

#[test]
fn x87_stack_goes_through() {
    let mut cpu = Cpu::new();
    cpu.x87 = x86::fpu::X87::INIT;
    let mut scratch = Scratch::default();
    // fldpi; fld1; faddp
    for bytes in [[0xD9, 0xEB], [0xD9, 0xE8], [0xDE, 0xC1]] {
        cached(&bytes, 32).run(&mut cpu, &mut scratch).expect("runs");
    }
    assert_eq!((cpu.x87.top(), cpu.x87.ftw), (7, 0x80));
    // fstp qword [eax]
    let thunk = cached(&[0xDD, 0x18], 32);
    assert_eq!((thunk.memory, thunk.memory_size), (MemoryUse::Write, 8));
    thunk.run(&mut cpu, &mut scratch).expect("runs");
    let stored = f64::from_le_bytes(scratch.mem.0[..8].try_into().expect("8 bytes"));
    assert_eq!(stored, std::f64::consts::PI + 1.0);
    assert_eq!((cpu.x87.top(), cpu.x87.ftw), (0, 0));
}

#[test]
fn mmx_aliases_x87() {
    let mut cpu = Cpu::new();
    cpu.gpr[0] = 0x1234_5678;
    // movd mm3, eax
    cached(&[0x0F, 0x6E, 0xD8], 64).run(&mut cpu, &mut Scratch::default()).expect("runs");
    assert_eq!(cpu.x87.st[3], [0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0]);
    assert_eq!(cpu.x87.ftw, 0xFF);
}

#[test]
fn only_vector_instructions_pass() {
    assert!(refused(&[0x0F, 0x05], 64)); // syscall
    assert!(refused(&[0x48, 0x01, 0xC8], 64)); // add
    assert!(refused(&[0x0F, 0xAE, 0x10], 64)); // ldmxcsr
    assert!(refused(&[0x0F, 0xAE, 0x00], 64)); // fxsave
    assert!(refused(&[0xDB, 0xE3], 64)); // fninit
    assert!(refused(&[0x66, 0x0F, 0xF7, 0xC1], 64)); // maskmovdqu
    assert!(refused(&[0xC4, 0xE2, 0xF1, 0x90, 0x04, 0x10], 64)); // vpgatherdq
    assert!(refused(&[0x0F, 0x20, 0xC0], 64)); // mov eax, cr0
    assert!(refused(&[0x0F, 0x44, 0xC1], 64)); // cmove
    assert!(refused(&[0xF2, 0x0F, 0x38, 0xF1, 0xC1], 64)); // crc32
}
