use crate::testkit::{CODE, DATA, Ended, Kit, STACK, Start};
use iced_x86::code_asm::*;
use x86::regs::gpr::{RAX, RBP, RSP};
use x86::{Fault, SegReg};

#[test]
fn push_and_pop_by_operand_size_in_each_mode() {
    for (start, bytes, size) in [
        (Start::Real, &[0x50][..], 2),
        (Start::Real, &[0x66, 0x50], 4),
        (Start::Protected32, &[0x50], 4),
        (Start::Protected32, &[0x66, 0x50], 2),
        (Start::Long, &[0x50], 8),
        (Start::Long, &[0x66, 0x50], 2),
    ] {
        let mut kit = Kit::new(start);
        kit.cpu.gpr[RAX] = 0x1122_3344_5566_7788;
        kit.write::<u64>(STACK - 8, u64::MAX);
        kit.step(bytes).expect("push");
        assert_eq!(kit.cpu.gpr[RSP], STACK - size, "{start:?} {bytes:x?}");
        let stored = kit.read::<u64>(STACK - 8) >> (64 - 8 * size);
        assert_eq!(stored, 0x1122_3344_5566_7788 & (u64::MAX >> (64 - 8 * size)));
        let mut pop = bytes.to_vec();
        *pop.last_mut().expect("an opcode") += 9;
        kit.step(&pop).expect("pop rcx");
        assert_eq!((kit.cpu.gpr[1], kit.cpu.gpr[RSP]), (stored, STACK));
    }
}

#[test]
fn push_sp_stores_the_old_value_and_pop_sp_the_popped_one() {
    let mut kit = Kit::new(Start::Long);
    kit.step(&[0x54]).expect("push rsp");
    assert_eq!(kit.read::<u64>(STACK - 8), STACK);
    kit.write::<u64>(STACK - 8, 0x1234);
    kit.step(&[0x5C]).expect("pop rsp");
    assert_eq!(kit.cpu.gpr[RSP], 0x1234);
}

#[test]
fn pop_to_memory_addresses_with_the_incremented_stack_pointer() {
    let mut kit = Kit::new(Start::Long);
    kit.write::<u64>(STACK, 0xABCD);
    // pop qword ptr [rsp+8]
    kit.step(&[0x8F, 0x44, 0x24, 0x08]).expect("pop");
    assert_eq!(kit.read::<u64>(STACK + 16), 0xABCD);
    assert_eq!(kit.cpu.gpr[RSP], STACK + 8);
}

#[test]
fn a_faulting_pop_to_memory_leaves_the_stack_pointer() {
    let mut kit = Kit::new(Start::Long);
    kit.cpu.gpr[RAX] = 1 << 46;
    // pop qword ptr [rax]: not mapped
    let fault = kit.step(&[0x8F, 0x00]).expect_err("faults");
    assert!(fault.is(x86::Vector::PF));
    assert_eq!((kit.cpu.gpr[RSP], kit.cpu.rip), (STACK, CODE));
}

#[test]
fn a_16_bit_stack_wraps_and_keeps_the_upper_half() {
    let mut kit = Kit::new(Start::Protected16);
    kit.cpu.gpr[RSP] = 0xABCD_0000;
    kit.cpu.gpr[RAX] = 0x5566;
    kit.step(&[0x50]).expect("push ax");
    assert_eq!(kit.cpu.gpr[RSP], 0xABCD_FFFE);
    assert_eq!(kit.read::<u16>(0xFFFE), 0x5566);
}

#[test]
fn pusha_and_popa() {
    let mut kit = Kit::new(Start::Protected32);
    kit.run_through(|a| {
        for (n, r) in [eax, ecx, edx, ebx, ebp, esi, edi].into_iter().enumerate() {
            a.mov(r, n as u32 + 1).expect("mov");
        }
        a.pushad().expect("pushad");
        a.mov(dword_ptr(esp + 12), 0x5555).expect("mov");
        for r in [eax, ecx, edx, ebx, ebp, esi, edi] {
            a.xor(r, r).expect("xor");
        }
        a.popad().expect("popad");
    });
    // The stored ESP is skipped.
    assert_eq!(kit.cpu.gpr[..8], [1, 2, 3, 4, STACK, 5, 6, 7]);
    assert_eq!(kit.read::<u32>(STACK - 4), 1);
    assert_eq!(kit.read::<u32>(STACK - 32), 7);
}

#[test]
fn pusha_that_faults_halfway_leaves_the_stack_pointer() {
    let mut kit = Kit::new(Start::Protected32);
    kit.cpu.gpr[RSP] = 16;
    kit.cpu.seg[SegReg::SS as usize].limit = 0xFFFF;
    kit.cpu.update_mode();
    assert_eq!(kit.step(&[0x60]), Err(Fault::SS0));
    assert_eq!(kit.cpu.gpr[RSP], 16);
}

#[test]
fn enter_copies_the_display_and_leave_undoes_it() {
    let mut kit = Kit::new(Start::Long);
    kit.cpu.gpr[RBP] = DATA + 0x100;
    kit.write::<u64>(DATA + 0xF8, 0x1111);
    kit.write::<u64>(DATA + 0xF0, 0x2222);
    // enter 0x20, 3
    kit.step(&[0xC8, 0x20, 0x00, 0x03]).expect("enter");
    let frame = STACK - 8;
    let words: Vec<u64> = (0..4).map(|i| kit.read(frame - 8 * i)).collect();
    assert_eq!(words, [DATA + 0x100, 0x1111, 0x2222, frame]);
    assert_eq!((kit.cpu.gpr[RBP], kit.cpu.gpr[RSP]), (frame, frame - 24 - 0x20));
    kit.step(&[0xC9]).expect("leave");
    assert_eq!((kit.cpu.gpr[RBP], kit.cpu.gpr[RSP]), (DATA + 0x100, STACK));
}

#[test]
fn enter_checks_the_final_stack_pointer() {
    let mut kit = Kit::new(Start::Protected32);
    kit.cpu.gpr[RSP] = 0x1000;
    kit.cpu.gpr[RBP] = 0x77;
    kit.cpu.seg[SegReg::SS as usize].limit = 0xFFFF;
    kit.cpu.update_mode();
    // enter 0x2000, 0: the frame would begin below address 0
    assert_eq!(kit.step(&[0xC8, 0x00, 0x20, 0x00]), Err(Fault::SS0));
    assert_eq!((kit.cpu.gpr[RSP], kit.cpu.gpr[RBP]), (0x1000, 0x77));
}

#[test]
fn non_canonical_stack_is_ss() {
    let mut kit = Kit::new(Start::Long);
    let ended = {
        kit.cpu.gpr[RSP] = 0x8000_0000_0000_0000;
        kit.run(|a| a.push(rax).expect("push"))
    };
    assert_eq!(ended, Ended { fault: Fault::SS0, rip: CODE });
}
