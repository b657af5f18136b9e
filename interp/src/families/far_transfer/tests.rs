use crate::segmentation::fixture::*;
use x86::cpuid::Vendor;
use x86::regs::gpr;
use x86::{Fault, Mode, SegReg, Segment};

const RETF: &[u8] = &[0xCB];

/// JMP or CALL to an immediate far pointer in 32-bit code.
fn far(opcode: u8, selector: u16, offset: u32) -> Vec<u8> {
    let mut bytes = vec![opcode];
    bytes.extend(offset.to_le_bytes());
    bytes.extend(selector.to_le_bytes());
    bytes
}

fn jmp(selector: u16, offset: u32) -> Vec<u8> {
    far(0xEA, selector, offset)
}

fn call(selector: u16, offset: u32) -> Vec<u8> {
    far(0x9A, selector, offset)
}

#[test]
fn jumps_to_code_segments() {
    let mut f = Fixture::protected(0);
    f.exec(&jmp(CODE0, 0x1234)).unwrap();
    assert_eq!((f.cpu.rip, f.selector(SegReg::CS)), (0x1234, CODE0));
    let mut f = Fixture::protected(3);
    f.exec(&jmp(CODE3 & !3, 0x1234)).unwrap();
    assert_eq!((f.selector(SegReg::CS), f.cpu.cpl), (CODE3, 3), "RPL becomes the CPL");
    let mut f = Fixture::protected(3);
    f.exec(&jmp(CONFORMING, 0)).unwrap();
    assert_eq!((f.selector(SegReg::CS), f.cpu.cpl), (CONFORMING | 3, 3));
}

#[test]
fn jump_faults() {
    let case = |cpl: u8, selector: u16, descriptor: u64, fault: Fault| {
        let mut f = Fixture::protected(cpl);
        if selector & !7 == FREE {
            f.descriptor(FREE, descriptor);
        }
        f.faults(&jmp(selector, 0x2000), fault);
        f.faults(&call(selector, 0x2000), fault);
    };
    let flat = |access| segment(0, 0xFFFFF, access, FLAT32);
    case(0, 0, 0, Fault::GP0);
    case(0, 0xFFF8, 0, Fault::gp(0xFFF8));
    case(0, FREE, flat(kind::CODE & !kind::ABSENT), Fault::np(FREE));
    case(0, FREE, flat(kind::DATA), Fault::gp(FREE));
    case(0, FREE, flat(kind::LDT), Fault::gp(FREE));
    case(3, CODE0, 0, Fault::gp(CODE0));
    case(0, CODE3, 0, Fault::gp(CODE3 & !3));
    case(0, CODE0 | 3, 0, Fault::gp(CODE0));
    case(0, FREE, segment(0, 0x1FFF, kind::CODE, 4), Fault::GP0);
    case(0, FREE, flat(kind::CONFORMING | kind::DPL3), Fault::gp(FREE));
}

#[test]
fn real_and_v86_mode() {
    let pointer = [0xEA, 0x34, 0x12, 0x00, 0x20];
    let mut f = Fixture::real();
    f.exec(&pointer).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.cs().base), (0x1234, 0x20000));
    let mut f = Fixture::v86(0);
    f.exec(&[0x9A, 0x34, 0x12, 0x00, 0x20]).unwrap();
    assert_eq!((f.cpu.mode, f.cpu.rip, f.cpu.cs().base), (Mode::Virtual8086, 0x1234, 0x20000));
    assert_eq!(f.stack::<u16>(STACK3 - 4, 2), [CODE + 5, 0]);
    f.exec(RETF).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.cs().base, f.cpu.gpr[gpr::RSP]), (CODE + 5, 0, STACK3));
    // A 32-bit offset beyond the limit.
    let mut f = Fixture::real();
    f.faults(&[0x66, 0xEA, 0, 0, 1, 0, 0, 0], Fault::GP0);
}

#[test]
fn into_protected_mode() {
    // CR0.PE was set by the instruction before.
    let mut f = Fixture::real();
    f.cpu.cr0 |= x86::control::cr0::PE;
    f.update();
    f.exec(&[0x66, 0xEA, 0x00, 0x00, 0x10, 0x00, CODE0 as u8, 0]).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.key.bits()), (0x10_0000, 32));
}

#[test]
fn between_compatibility_and_64_bit_mode() {
    let mut f = Fixture::long(0);
    f.enter(CODE0, 0);
    f.exec(&jmp(LONG0, 0xFFFF_0000)).unwrap();
    assert_eq!((f.cpu.mode, f.cpu.rip), (Mode::Long, 0xFFFF_0000));
}

#[test]
fn the_offset_behind_rex_w_has_64_bits_but_on_amd() {
    for (vendor, selector) in [(Vendor::Intel, 0x6008), (Vendor::Amd, 0x6004)] {
        let mut f = Fixture::long(0).vendor(vendor);
        f.cpu.gpr[gpr::RBX] = 0x6000;
        f.put::<u64>(0x6000, 0x1234);
        f.put::<u16>(selector, CODE0);
        f.exec(&[0x48, 0xFF, 0x2B]).unwrap(); // jmp far [rbx]
        assert_eq!((f.cpu.mode, f.cpu.rip), (Mode::Compatibility, 0x1234), "{vendor:?}");
    }
    let mut f = Fixture::long(0).vendor(Vendor::Intel);
    f.cpu.gpr[gpr::RBX] = 0x6000;
    f.put::<u64>(0x6000, 0x8000_0000_0000);
    f.put::<u16>(0x6008, LONG0);
    f.faults(&[0x48, 0xFF, 0x2B], Fault::GP0);
    f.descriptor(FREE, segment(0, 0xFFFFF, kind::CODE, FLAT64 | FLAT32));
    f.put::<u16>(0x6008, FREE);
    f.faults(&[0x48, 0xFF, 0x2B], Fault::gp(FREE));
}

#[test]
fn call_and_return_at_the_same_level() {
    let mut f = Fixture::protected(0);
    f.exec(&call(CODE0, 0x1234)).unwrap();
    assert_eq!(f.stack::<u32>(STACK0 - 8, 2), [CODE + 7, u64::from(CODE0)]);
    f.exec(&[0xCA, 0x10, 0]).unwrap(); // retf 16
    assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP]), (CODE + 7, STACK0 + 16));
}

#[test]
fn a_call_gate_copies_parameters_to_the_inner_stack() {
    let mut f = Fixture::protected(3);
    f.descriptor(FREE, gate(CODE0, 0x1234, kind::CALL | kind::DPL3, 2));
    f.put::<u32>(STACK3, 0x1111);
    f.put::<u32>(STACK3 + 4, 0x2222);
    f.exec(&call(FREE | 3, 0xDEAD)).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.cpl, f.selector(SegReg::CS)), (0x1234, 0, CODE0));
    assert_eq!((f.selector(SegReg::SS), f.cpu.gpr[gpr::RSP]), (DATA0, STACK_TSS - 24));
    let expected = [CODE + 7, u64::from(CODE3), 0x1111, 0x2222, STACK3, u64::from(DATA3)];
    assert_eq!(f.stack::<u32>(STACK_TSS - 24, 6), expected);
    // RETF 8 releases them on both stacks and closes what level 3 must not see.
    f.cpu.seg[SegReg::ES as usize] = f.cached(DATA0);
    f.exec(&[0xCA, 8, 0]).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.cpl, f.cpu.gpr[gpr::RSP]), (CODE + 7, 3, STACK3 + 8));
    assert_eq!(f.cpu.seg(SegReg::ES), &Segment::null(0));
    assert_eq!(f.selector(SegReg::DS), DATA3);
}

#[test]
fn a_16_bit_call_gate_pushes_words() {
    let mut f = Fixture::protected(0);
    f.descriptor(FREE, gate(CODE0, 0xFFFF_1234, kind::CALL16, 0));
    f.exec(&call(FREE, 0)).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP]), (0x1234, STACK0 - 4));
}

#[test]
fn gates_are_checked() {
    let case = |cpl: u8, value: u64, fault: Fault| {
        let mut f = Fixture::protected(cpl);
        f.descriptor(FREE, value);
        f.faults(&call(FREE, 0), fault);
    };
    let open = kind::CALL | kind::DPL3;
    case(3, gate(CODE0, 0, kind::CALL, 0), Fault::gp(FREE));
    case(0, gate(CODE0, 0, kind::CALL & !kind::ABSENT, 0), Fault::np(FREE));
    case(0, gate(0, 0, open, 0), Fault::GP0);
    case(0, gate(DATA0, 0, open, 0), Fault::gp(DATA0));
    case(0, gate(CODE3, 0, open, 0), Fault::gp(CODE3 & !3));
    case(0, gate(0xFFF8, 0, open, 0), Fault::gp(0xFFF8));
    case(0, gate(CODE0, 0, kind::INTERRUPT, 0), Fault::gp(FREE));
    // JMP does not change the level.
    let mut f = Fixture::protected(3);
    f.descriptor(FREE, gate(CODE0, 0, open, 0));
    f.faults(&jmp(FREE, 0), Fault::gp(CODE0));
    f.descriptor(FREE, gate(CONFORMING, 0x1234, open, 0));
    f.exec(&jmp(FREE, 0)).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.cpl), (0x1234, 3));
    // The inner stack.
    let mut f = Fixture::protected(3);
    f.descriptor(FREE, gate(CODE0, 0, open, 0));
    f.put::<u16>(TSS + 8, DATA3);
    f.faults(&call(FREE, 0), Fault::ts(DATA3 & !3));
    f.cpu.tr.limit = 8;
    f.faults(&call(FREE, 0), Fault::ts(TSS_SELECTOR));
}

#[test]
fn call_gates_of_ia_32e_mode() {
    let mut f = Fixture::long(3);
    f.descriptor(FREE, gate(LONG0, 0x1234, kind::CALL | kind::DPL3, 0));
    f.descriptor(FREE + 8, 0x7FFF);
    f.cpu.gpr[gpr::RBX] = 0x6000;
    f.put::<u16>(0x6004, FREE);
    f.exec(&[0xFF, 0x1B]).unwrap(); // call far [rbx], m16:32
    assert_eq!((f.cpu.rip, f.cpu.cpl), (0x7FFF_0000_1234, 0));
    assert_eq!((f.selector(SegReg::SS), f.cpu.gpr[gpr::RSP]), (0, STACK_TSS - 32));
    let expected = [CODE + 2, u64::from(LONG3), STACK3, u64::from(DATA3)];
    assert_eq!(f.stack::<u64>(STACK_TSS - 32, 4), expected);
    f.exec(&[0x48, 0xCB]).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.cpl, f.cpu.gpr[gpr::RSP]), (CODE + 2, 3, STACK3));
    // Only 64-bit code lies behind one.
    f.descriptor(FREE, gate(CODE0, 0x1234, kind::CALL | kind::DPL3, 0));
    f.faults(&[0xFF, 0x1B], Fault::gp(CODE0));
    f.descriptor(FREE + 8, 0x0000_0100_0000_0000);
    f.faults(&[0xFF, 0x1B], Fault::gp(FREE));
}

#[test]
fn return_faults() {
    let case = |cs: u16, ss: u16, fault: Fault| {
        let mut f = Fixture::protected(0);
        for (n, value) in [0x1234, cs, 0x7000, ss].into_iter().enumerate() {
            f.put::<u32>(STACK0 + 4 * n as u64, u32::from(value));
        }
        f.faults(RETF, fault);
    };
    case(0, 0, Fault::GP0);
    case(DATA0, 0, Fault::gp(DATA0));
    case(CODE0 | 3, 0, Fault::gp(CODE0));
    case(CODE3, 0, Fault::GP0);
    case(CODE3, DATA0, Fault::gp(DATA0));
    case(CODE3, 0xFFFB, Fault::gp(0xFFF8));
    let mut f = Fixture::protected(3);
    f.put::<u32>(STACK3 + 4, u32::from(CODE0));
    f.faults(RETF, Fault::gp(CODE0));
    f.descriptor(DATA3, segment(0, STACK3 + 5, kind::DATA | kind::DPL3, 4));
    f.cpu.seg[SegReg::SS as usize] = f.cached(DATA3);
    f.cpu.update_mode();
    f.faults(RETF, Fault::SS0);
}
