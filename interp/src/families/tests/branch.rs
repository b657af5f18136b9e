use crate::Flow;
use crate::testkit::{CODE, DATA, Kit, STACK, Start};
use iced_x86::code_asm::*;
use x86::regs::gpr::{RAX, RBX, RCX, RSP};
use x86::{Fault, SegReg, flags};

/// Jcc by condition number, for every combination of the flags it reads.
#[test]
fn conditions_follow_the_table_of_the_sdm() {
    let mut kit = Kit::new(Start::Long);
    for bits in 0..32u64 {
        let on = |n: u64| bits >> n & 1 != 0;
        let (cf, pf, zf, sf, of) = (on(0), on(1), on(2), on(3), on(4));
        let table = [of, cf, zf, cf || zf, sf, pf, sf != of, zf || sf != of];
        for cc in 0..16u8 {
            kit.cpu.rflags = flags::FIXED_ONE
                | u64::from(cf)
                | u64::from(pf) << 2
                | u64::from(zf) << 6
                | u64::from(sf) << 7
                | u64::from(of) << 11;
            kit.cpu.rip = CODE;
            let taken = table[usize::from(cc / 2)] != (cc % 2 == 1);
            let flow = kit.step(&[0x70 + cc, 0x10]).expect("jcc");
            let expected = if taken { (Flow::Branch, CODE + 0x12) } else { (Flow::Next, CODE + 2) };
            assert_eq!((flow, kit.cpu.rip), expected, "condition {cc} flags {bits:05b}");
        }
    }
}

#[test]
fn a_16_bit_operand_size_truncates_the_target() {
    let mut kit = Kit::new(Start::Protected32);
    kit.cpu.rip = 0x1_2340;
    kit.step(&[0x66, 0xE9, 0x00, 0x01]).expect("jmp rel16");
    assert_eq!(kit.cpu.rip, 0x2444);
}

#[test]
fn branches_beyond_the_code_limit_fault_before_the_push() {
    let mut kit = Kit::new(Start::Protected32);
    kit.cpu.seg[SegReg::CS as usize].limit = 0xFFFF;
    // call +0x10000
    assert_eq!(kit.step(&[0xE8, 0, 0, 1, 0]), Err(Fault::GP0));
    assert_eq!((kit.cpu.gpr[RSP], kit.cpu.rip), (STACK, CODE));
    kit.write::<u32>(STACK, 0x1_0000);
    assert_eq!(kit.step(&[0xC3]), Err(Fault::GP0));
    assert_eq!((kit.cpu.gpr[RSP], kit.cpu.rip), (STACK, CODE));
}

#[test]
fn non_canonical_targets_fault() {
    let mut kit = Kit::new(Start::Long);
    kit.cpu.gpr[RAX] = 0x8000_0000_0000;
    assert_eq!(kit.step(&[0xFF, 0xE0]), Err(Fault::GP0));
    assert_eq!(kit.step(&[0xFF, 0xD0]), Err(Fault::GP0));
    assert_eq!((kit.cpu.gpr[RSP], kit.cpu.rip), (STACK, CODE));
}

#[test]
fn call_and_ret_with_release() {
    let mut kit = Kit::new(Start::Long);
    kit.run_through(|a| {
        let (mut function, mut end) = (a.create_label(), a.create_label());
        a.push(1).expect("push");
        a.push(2).expect("push");
        a.call(function).expect("call");
        a.jmp(end).expect("jmp");
        a.set_label(&mut function).expect("label");
        a.mov(rax, qword_ptr(rsp + 8)).expect("mov");
        a.ret_1(16).expect("ret 16");
        a.set_label(&mut end).expect("label");
        a.nop().expect("nop");
    });
    assert_eq!((kit.cpu.gpr[RAX], kit.cpu.gpr[RSP]), (2, STACK));
}

#[test]
fn indirect_calls_read_the_target_before_the_push() {
    let mut kit = Kit::new(Start::Long);
    kit.write::<u64>(STACK - 8, CODE + 0x100);
    // call qword ptr [rsp-8]: the return address overwrites the pointer
    kit.step(&[0xFF, 0x54, 0x24, 0xF8]).expect("call");
    assert_eq!((kit.cpu.rip, kit.read::<u64>(STACK - 8)), (CODE + 0x100, CODE + 4));
}

#[test]
fn loops_count_by_address_size() {
    for (start, bytes, before, after) in [
        (Start::Long, &[0xE2, 0x10][..], 0, u64::MAX),
        (Start::Long, &[0x67, 0xE2, 0x10], 0xAAAA_0000_0000, 0xFFFF_FFFF),
        (Start::Protected32, &[0xE2, 0x10], 1, 0),
        (Start::Protected32, &[0x67, 0xE2, 0x10], 0x1_0000, 0x1_FFFF),
        (Start::Real, &[0xE2, 0x10], 0x1_0001, 0x1_0000),
    ] {
        let mut kit = Kit::new(start);
        kit.cpu.gpr[RCX] = before;
        kit.step(bytes).expect("loop");
        assert_eq!(kit.cpu.gpr[RCX], after, "{start:?} {bytes:x?}");
        let next = CODE + bytes.len() as u64;
        let counter = if start == Start::Real { after & 0xFFFF } else { after };
        assert_eq!(kit.cpu.rip, if counter != 0 { next + 0x10 } else { next });
    }
}

#[test]
fn loope_and_loopne_look_at_zf() {
    for (opcode, zf, taken) in
        [(0xE1, true, true), (0xE1, false, false), (0xE0, true, false), (0xE0, false, true)]
    {
        let mut kit = Kit::new(Start::Long);
        kit.cpu.gpr[RCX] = 5;
        kit.cpu.rflags |= if zf { flags::ZF } else { 0 };
        let flow = kit.step(&[opcode, 0x10]).expect("loop");
        assert_eq!((flow == Flow::Branch, kit.cpu.gpr[RCX]), (taken, 4));
    }
}

#[test]
fn a_loop_that_leaves_the_code_segment_does_not_count() {
    let mut kit = Kit::new(Start::Protected32);
    kit.cpu.seg[SegReg::CS as usize].limit = CODE as u32 + 0x10;
    kit.cpu.gpr[RCX] = 5;
    assert_eq!(kit.step(&[0xE2, 0x40]), Err(Fault::GP0));
    assert_eq!(kit.cpu.gpr[RCX], 5);
}

#[test]
fn jrcxz_and_jecxz() {
    let mut kit = Kit::new(Start::Long);
    kit.cpu.gpr[RCX] = 1 << 32;
    assert_eq!(kit.step(&[0xE3, 0x10]), Ok(Flow::Next));
    assert_eq!(kit.step(&[0x67, 0xE3, 0x10]), Ok(Flow::Branch));
}

#[test]
fn bound_is_signed_and_inclusive() {
    let mut kit = Kit::new(Start::Protected32);
    kit.cpu.gpr[RBX] = DATA;
    kit.write::<u32>(DATA, (-5i32) as u32);
    kit.write::<u32>(DATA + 4, 7);
    for (index, inside) in [(-6i32, false), (-5, true), (0, true), (7, true), (8, false)] {
        kit.cpu.gpr[RAX] = u64::from(index as u32);
        // bound eax, [ebx]
        let expected = if inside { Ok(Flow::Next) } else { Err(Fault::BR) };
        assert_eq!(kit.step(&[0x62, 0x03]), expected, "{index}");
    }
}
