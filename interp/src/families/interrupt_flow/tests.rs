use crate::segmentation::fixture::*;
use x86::regs::gpr;
use x86::{Fault, Mode, SegReg, Segment, flags};

const IRETD: &[u8] = &[0xCF];
const IRETQ: &[u8] = &[0x48, 0xCF];

/// Puts values of 4 (protected) or 8 bytes (64-bit mode) on the stack, the first lowest.
fn frame(f: &mut Fixture, values: &[u64]) {
    let sp = f.cpu.gpr[gpr::RSP];
    for (n, &value) in (0..).zip(values) {
        if f.cpu.is_long() {
            f.put::<u64>(sp + 8 * n, value);
        } else {
            f.put::<u32>(sp + 4 * n, value as u32);
        }
    }
}

/// IRETQ from level 0 over the frame RIP, CS, RFLAGS, RSP, SS.
fn iretq(values: [u64; 5]) -> Fixture {
    let mut f = Fixture::long(0);
    frame(&mut f, &values);
    f.exec(IRETQ).unwrap();
    f
}

#[test]
fn to_level_3() {
    let image = flags::IF | flags::IOPL | flags::CF | flags::RF;
    let f = iretq([0x1234, u64::from(LONG3), image, 0x7000_0000, u64::from(DATA3)]);
    assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP], f.cpu.cpl), (0x1234, 0x7000_0000, 3));
    assert_eq!((f.selector(SegReg::CS), f.selector(SegReg::SS)), (LONG3, DATA3));
    assert_eq!(f.cpu.rflags, image & !flags::RF | flags::FIXED_ONE);
    // Segments of level 0 are closed.
    assert_eq!(f.selector(SegReg::DS), 0);
    assert!(!f.cpu.seg(SegReg::DS).present());
}

#[test]
fn resume_is_kept_where_it_holds_a_breakpoint_back() {
    let mut f = Fixture::long(0);
    f.cpu.dr7 |= 1;
    f.cpu.update_stepping();
    frame(&mut f, &[0x1234, u64::from(LONG0), flags::RF, 0x7008, 0]);
    f.exec(IRETQ).unwrap();
    assert_eq!(f.cpu.rflags, flags::RF | flags::FIXED_ONE);
}

#[test]
fn to_compatibility_mode() {
    let f = iretq([0x1234, u64::from(CODE3), flags::IF, 0x1_0000_7000, u64::from(DATA3)]);
    assert_eq!((f.cpu.mode, f.cpu.rip, f.cpu.gpr[gpr::RSP]), (Mode::Compatibility, 0x1234, 0x7000));
}

#[test]
fn the_same_level_pops_the_stack_too_in_64_bit_mode() {
    let f = iretq([0x1234, u64::from(LONG0), 0, 0x7008, 0]);
    assert_eq!((f.cpu.gpr[gpr::RSP], f.selector(SegReg::SS), f.cpu.cpl), (0x7008, 0, 0));
    assert_eq!(f.selector(SegReg::DS), DATA0);
}

#[test]
fn null_data_segments_keep_their_base_on_the_way_out() {
    let mut f = Fixture::long(0);
    f.cpu.seg[SegReg::FS as usize] = Segment { base: 0x7FFF_1234, ..Segment::null(0) };
    frame(&mut f, &[0x1234, u64::from(LONG3), 0, 0x7000, u64::from(DATA3)]);
    f.exec(IRETQ).unwrap();
    assert_eq!(f.cpu.seg(SegReg::FS).base, 0x7FFF_1234);
}

#[test]
fn a_16_bit_stack_takes_over_sp_alone() {
    let mut f = Fixture::long(0);
    f.descriptor(FREE, segment(0, 0xFFFF, kind::DATA | kind::DPL3, 0));
    f.cpu.gpr[gpr::RSP] = STACK0;
    frame(&mut f, &[0x1234, u64::from(CODE3), 0, 0x1_2345_7000, u64::from(FREE | 3)]);
    f.exec(IRETQ).unwrap();
    assert_eq!(f.cpu.gpr[gpr::RSP], STACK0 & !0xFFFF | 0x7000);
}

#[test]
fn faults_of_64_bit_mode() {
    let case = |values: [u64; 5], fault: Fault| {
        let mut f = Fixture::long(0);
        frame(&mut f, &values);
        f.faults(IRETQ, fault);
    };
    let (cs, ss) = (u64::from(LONG3), u64::from(DATA3));
    case([0x8000_0000_0000, cs, 0, 0, ss], Fault::GP0);
    case([0, 0, 0, 0, ss], Fault::GP0);
    case([0, ss, 0, 0, ss], Fault::gp(DATA3 & !3));
    case([0, cs & !3, 0, 0, ss], Fault::gp(LONG3 & !3));
    case([0, 0xFFF8, 0, 0, ss], Fault::gp(0xFFF8));
    case([0, cs, 0, 0, 0], Fault::GP0);
    case([0, cs, 0, 0, 3], Fault::GP0);
    case([0, cs, 0, 0, u64::from(DATA0)], Fault::gp(DATA0));
    case([0, cs, 0, 0, 0xFFFB], Fault::gp(0xFFF8));
    let mut f = Fixture::long(0);
    f.cpu.rflags |= flags::NT;
    f.faults(IRETQ, Fault::GP0);
    // To an inner level.
    let mut f = Fixture::long(3);
    frame(&mut f, &[0, u64::from(LONG0), 0, 0, 0]);
    f.faults(IRETQ, Fault::gp(LONG0));
    // Segments that are not present.
    let mut f = Fixture::long(0);
    f.descriptor(FREE, segment(0, 0xFFFFF, (kind::CODE | kind::DPL3) & !kind::ABSENT, FLAT64));
    f.descriptor(FREE2, segment(0, 0xFFFFF, (kind::DATA | kind::DPL3) & !kind::ABSENT, FLAT32));
    frame(&mut f, &[0, u64::from(FREE | 3), 0, 0, ss]);
    f.faults(IRETQ, Fault::np(FREE));
    frame(&mut f, &[0, cs, 0, 0, u64::from(FREE2 | 3)]);
    f.faults(IRETQ, Fault::ss(FREE2));
    // L and D.
    f.descriptor(FREE, segment(0, 0xFFFFF, kind::CODE | kind::DPL3, FLAT64 | FLAT32));
    frame(&mut f, &[0, u64::from(FREE | 3), 0, 0, ss]);
    f.faults(IRETQ, Fault::gp(FREE));
}

#[test]
fn level_3_changes_neither_if_nor_iopl() {
    let mut f = Fixture::long(3);
    f.cpu.rflags |= flags::IF;
    let image = flags::IOPL | flags::CF | flags::VIF;
    frame(&mut f, &[0x1234, u64::from(LONG3), image, 0x7000, u64::from(DATA3)]);
    f.exec(IRETQ).unwrap();
    assert_eq!(f.cpu.rflags, flags::IF | flags::CF | flags::FIXED_ONE);
}

#[test]
fn protected_mode() {
    let mut f = Fixture::protected(0);
    frame(&mut f, &[0x1234, u64::from(CODE0), flags::IF]);
    f.exec(IRETD).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP]), (0x1234, STACK0 + 12));

    let mut f = Fixture::protected(0);
    frame(&mut f, &[0x1234, u64::from(CODE3), 0, 0x7000, u64::from(DATA3)]);
    f.exec(IRETD).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP], f.cpu.cpl), (0x1234, 0x7000, 3));
    assert_eq!(f.cpu.seg(SegReg::ES), &Segment::null(0));

    // A 16-bit operand leaves the upper flags.
    let mut f = Fixture::protected(0);
    f.cpu.rflags |= flags::ID;
    f.put::<u16>(STACK0, 0x1234);
    f.put::<u16>(STACK0 + 2, CODE0);
    f.put::<u16>(STACK0 + 4, 1);
    f.exec(&[0x66, 0xCF]).unwrap();
    assert_eq!(f.cpu.gpr[gpr::RSP], STACK0 + 6);
    assert_eq!(f.cpu.rflags, flags::ID | flags::CF | flags::FIXED_ONE);
    // Outside the limit of CS.
    let mut f = Fixture::protected(0);
    f.descriptor(FREE, segment(0, 0xFFF, kind::CODE, 4));
    frame(&mut f, &[0x1000, u64::from(FREE), 0]);
    f.faults(IRETD, Fault::GP0);
}

#[test]
fn to_v86_mode_from_level_0_only() {
    let values = [0x1234, 0x200, flags::VM | flags::IF, 0x7000, 0x300, 1, 2, 3, 4];
    let mut f = Fixture::protected(0);
    frame(&mut f, &values);
    f.exec(IRETD).unwrap();
    assert_eq!((f.cpu.mode, f.cpu.cpl, f.cpu.rip), (Mode::Virtual8086, 3, 0x1234));
    assert_eq!((f.cpu.cs().base, f.cpu.ss().base), (0x2000, 0x3000));
    let order = [SegReg::ES, SegReg::DS, SegReg::FS, SegReg::GS];
    assert_eq!(order.map(|r| f.selector(r)), [1, 2, 3, 4]);
    assert_eq!(f.cpu.gpr[gpr::RSP], 0x7000);
    let mut f = Fixture::protected(0);
    frame(&mut f, &values);
    frame(&mut f, &[0x1_0000]);
    f.faults(IRETD, Fault::GP0);
    // Level 3: VM is ignored.
    let mut f = Fixture::protected(3);
    frame(&mut f, &[0x1234, u64::from(CODE3), flags::VM]);
    f.exec(IRETD).unwrap();
    assert_eq!(f.cpu.mode, Mode::Protected);
}

#[test]
fn in_v86_mode() {
    Fixture::v86(2).faults(IRETD, Fault::GP0);
    let mut f = Fixture::v86(3);
    f.put::<u16>(STACK3, 0x1234);
    f.put::<u16>(STACK3 + 2, 0x200);
    f.put::<u16>(STACK3 + 4, flags::IF as u16);
    f.exec(IRETD).unwrap();
    assert_eq!((f.cpu.mode, f.cpu.rip, f.cpu.cs().base), (Mode::Virtual8086, 0x1234, 0x2000));
    assert_eq!((f.cpu.iopl(), f.cpu.rflags & flags::IF), (3, flags::IF));
}

#[test]
fn real_mode_loads_iopl() {
    let mut f = Fixture::real();
    f.put::<u16>(STACK0, 0x1234);
    f.put::<u16>(STACK0 + 2, 0x200);
    f.put::<u16>(STACK0 + 4, 0x3200);
    f.exec(IRETD).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.cs().base, f.cpu.iopl()), (0x1234, 0x2000, 3));
}
