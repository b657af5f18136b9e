use crate::testkit::{DATA, Kit, Start};
use x86::regs::gpr::{RAX, RBX, RCX, RDX, RSI};
use x86::{Fault, SegReg, flags};

fn kit_at_data() -> Kit {
    let mut kit = Kit::new(Start::Long);
    kit.cpu.gpr[RSI] = DATA;
    kit
}

#[test]
fn cmpxchg16b_exchanges_on_a_match_and_loads_otherwise() {
    let mut kit = kit_at_data();
    kit.write::<u64>(DATA, 1);
    kit.write::<u64>(DATA + 8, 2);
    (kit.cpu.gpr[RAX], kit.cpu.gpr[RDX]) = (1, 2);
    (kit.cpu.gpr[RBX], kit.cpu.gpr[RCX]) = (3, 4);
    let insn = [0xF0, 0x48, 0x0F, 0xC7, 0x0E];
    kit.step(&insn).expect("cmpxchg16b");
    assert_eq!((kit.read::<u64>(DATA), kit.read::<u64>(DATA + 8)), (3, 4));
    assert_eq!(kit.status(), flags::ZF);
    kit.step(&insn).expect("cmpxchg16b");
    assert_eq!((kit.cpu.gpr[RAX], kit.cpu.gpr[RDX]), (3, 4));
    assert_eq!(kit.status(), 0);
    kit.cpu.gpr[RSI] += 8;
    assert_eq!(kit.step(&insn), Err(Fault::GP0), "not aligned");
}

#[test]
fn cmpxchg_on_a_match() {
    let mut kit = kit_at_data();
    kit.write::<u32>(DATA, 7);
    (kit.cpu.gpr[RAX], kit.cpu.gpr[RBX]) = (0xFFFF_FFFF_0000_0007, 9);
    // lock cmpxchg [rsi], ebx
    kit.step(&[0xF0, 0x0F, 0xB1, 0x1E]).expect("cmpxchg");
    assert_eq!(kit.read::<u32>(DATA), 9);
    assert_eq!(kit.cpu.gpr[RAX], 0xFFFF_FFFF_0000_0007, "RAX stays whole on a match");
    assert_eq!(kit.status(), flags::ZF | flags::PF);
}

#[test]
fn lock_on_an_instruction_that_does_not_take_it_is_ud() {
    // lock mov [rsi], eax; lock add eax, ebx; lock cmp [rsi], eax
    for bytes in [[0xF0, 0x89, 0x06], [0xF0, 0x01, 0xD8], [0xF0, 0x39, 0x06]] {
        assert_eq!(kit_at_data().run_bytes(&bytes).fault, Fault::UD);
    }
}

#[test]
fn writes_fault_before_anything_changes() {
    let mut kit = Kit::new(Start::Protected32);
    kit.cpu.gpr[RSI] = DATA;
    kit.cpu.gpr[RAX] = 5;
    // A data segment that may only be read.
    let ds = &mut kit.cpu.seg[SegReg::DS as usize];
    ds.access &= !x86::segment::ar::RW;
    kit.cpu.update_mode();
    let before = (kit.cpu.gpr, kit.cpu.rflags);
    // add [esi], eax; xchg [esi], eax; xadd [esi], eax; inc [esi]; bts [esi], eax; shl [esi], 1;
    // setz [esi]
    let all: [&[u8]; 7] = [
        &[0x01, 0x06],
        &[0x87, 0x06],
        &[0x0F, 0xC1, 0x06],
        &[0xFF, 0x06],
        &[0x0F, 0xAB, 0x06],
        &[0xD1, 0x26],
        &[0x0F, 0x94, 0x06],
    ];
    for bytes in all {
        assert_eq!(kit.step(bytes), Err(Fault::GP0), "{bytes:x?}");
        assert_eq!((kit.cpu.gpr, kit.cpu.rflags), before, "{bytes:x?}");
    }
    // cmp [esi], eax and bt [esi], eax only read.
    kit.step(&[0x39, 0x06]).expect("cmp");
    kit.step(&[0x0F, 0xA3, 0x06]).expect("bt");
}

#[test]
fn clzero_clears_the_line() {
    let mut kit = kit_at_data();
    for i in 0..24 {
        kit.write::<u64>(DATA + 8 * i, u64::MAX);
    }
    kit.cpu.gpr[RAX] = DATA + 64 + 17;
    kit.step(&[0x0F, 0x01, 0xFC]).expect("clzero");
    let words: Vec<u64> = (0..24).map(|i| kit.read(DATA + 8 * i)).collect();
    assert!(words.iter().enumerate().all(|(i, w)| (*w == 0) == (8..16).contains(&i)));
    // clzero fs:[rax]: the line is one of linear addresses.
    kit.cpu.seg[SegReg::FS as usize].base = 100;
    kit.cpu.gpr[RAX] = DATA + 64 - 20;
    kit.step(&[0x64, 0x0F, 0x01, 0xFC]).expect("clzero");
    let words: Vec<u64> = (0..24).map(|i| kit.read(DATA + 8 * i)).collect();
    assert!(words.iter().enumerate().all(|(i, w)| (*w == 0) == (8..24).contains(&i)));
}

#[test]
fn rdrand_gives_different_numbers_and_sets_carry() {
    let mut kit = kit_at_data();
    kit.cpu.rflags |= flags::ZF | flags::OF;
    kit.step(&[0x48, 0x0F, 0xC7, 0xF0]).expect("rdrand rax");
    kit.step(&[0x48, 0x0F, 0xC7, 0xFB]).expect("rdseed rbx");
    assert_ne!(kit.cpu.gpr[RAX], kit.cpu.gpr[RBX]);
    assert_eq!(kit.status(), flags::CF);
    kit.cpu.gpr[RCX] = u64::MAX;
    kit.step(&[0x66, 0x0F, 0xC7, 0xF1]).expect("rdrand cx");
    assert_eq!(kit.cpu.gpr[RCX] | 0xFFFF, u64::MAX);
}

#[test]
fn stac_and_clac_belong_to_the_kernel() {
    const STAC: [u8; 3] = [0x0F, 0x01, 0xCB];
    const CLAC: [u8; 3] = [0x0F, 0x01, 0xCA];
    let mut kit = Kit::new(Start::Long);
    if !kit.cpu.policy.has(x86::cpuid::Feature::Smap) {
        assert_eq!(kit.step(&STAC), Err(Fault::UD));
        return;
    }
    kit.step(&STAC).expect("stac");
    assert_ne!(kit.cpu.rflags & flags::AC, 0);
    kit.step(&CLAC).expect("clac");
    assert_eq!(kit.cpu.rflags & flags::AC, 0);
    assert_eq!(Kit::new(Start::User64).step(&STAC), Err(Fault::UD));
}
