use crate::flow::Flow;
use crate::segmentation::fixture::*;
use x86::cpu::Shadow;
use x86::cpuid::Vendor;
use x86::regs::gpr;
use x86::{Fault, SegReg, Segment, flags};

/// MOV register, AX in any mode.
const MOV_DS: &[u8] = &[0x8E, 0xD8];
const MOV_SS: &[u8] = &[0x8E, 0xD0];
const MOV_FS: &[u8] = &[0x8E, 0xE0];

fn with_ax(mut f: Fixture, selector: u16) -> Fixture {
    f.cpu.gpr[gpr::RAX] = u64::from(selector);
    f
}

#[test]
fn data_segments() {
    let mut f = with_ax(Fixture::protected(0), DATA3);
    f.descriptor(DATA3, segment(0x1234_5000, 0x10, 0xF2, 0xC));
    assert_eq!(f.exec(MOV_DS), Ok(Flow::Sync));
    let ds = *f.cpu.seg(SegReg::DS);
    assert_eq!((ds.base, ds.limit, ds.selector), (0x1234_5000, 0x10FFF, DATA3));
    assert_eq!(f.get::<u8>(GDT + 0x25), 0xF3, "accessed");
}

#[test]
fn null_makes_data_segments_unusable() {
    for null in 0..4 {
        let mut f = with_ax(Fixture::protected(3), null);
        f.exec(MOV_DS).unwrap();
        assert_eq!(f.cpu.seg(SegReg::DS), &Segment::null(null));
    }
}

#[test]
fn data_segment_faults() {
    let case = |cpl: u8, selector: u16, descriptor: u64, fault: Fault| {
        let mut f = with_ax(Fixture::protected(cpl), selector);
        if selector < 0x1000 {
            f.descriptor(selector, descriptor);
        }
        f.faults(MOV_DS, fault);
    };
    let flat = |access| segment(0, 0xFFFFF, access, FLAT32);
    case(0, FREE, flat(kind::DATA & !kind::ABSENT), Fault::np(FREE));
    case(3, FREE, flat(kind::DATA), Fault::gp(FREE));
    case(0, FREE | 3, flat(kind::DATA), Fault::gp(FREE));
    case(0, FREE, flat(0x99), Fault::gp(FREE)); // execute-only code
    case(0, FREE, flat(kind::LDT), Fault::gp(FREE));
    case(0, 0x1000, 0, Fault::gp(0x1000)); // outside the GDT
    case(3, FREE | 3, flat(kind::CODE), Fault::gp(FREE));
    // Conforming code is readable at every level.
    let mut f = with_ax(Fixture::protected(3), CONFORMING | 3);
    f.exec(MOV_DS).unwrap();
}

#[test]
fn the_local_table() {
    let mut f = with_ax(Fixture::protected(0), 0x0C);
    f.faults(MOV_DS, Fault::gp(0x0C));
    f.put(LDT + 8, segment(0x5000, 0xFFF, kind::DATA, 4));
    f.cpu.ldtr = f.cached(LDT_SELECTOR);
    f.exec(MOV_DS).unwrap();
    assert_eq!(f.cpu.seg(SegReg::DS).base, 0x5000);
    f.cpu.gpr[gpr::RAX] = 0x104;
    f.faults(MOV_DS, Fault::gp(0x104));
}

#[test]
fn stack_segments() {
    let mut f = with_ax(Fixture::protected(0), DATA0);
    assert_eq!(f.exec(MOV_SS), Ok(Flow::Sync));
    assert_eq!(f.cpu.shadow, Shadow::MovSs);
    let case = |selector: u16, access: u64, fault: Fault| {
        let mut f = with_ax(Fixture::protected(0), selector);
        f.descriptor(selector, segment(0, 0xFFFFF, access, FLAT32));
        f.faults(MOV_SS, fault);
    };
    case(0, 0, Fault::GP0);
    case(FREE, kind::DATA & !kind::ABSENT, Fault::ss(FREE));
    case(FREE | 1, kind::DATA, Fault::gp(FREE));
    case(FREE, kind::DATA | kind::DPL3, Fault::gp(FREE));
    case(FREE, kind::CODE, Fault::gp(FREE));
    case(FREE, 0x91, Fault::gp(FREE)); // read-only
}

#[test]
fn moves_never_load_cs() {
    let mut f = with_ax(Fixture::protected(0), CODE0);
    f.faults(&[0x8E, 0xC8], Fault::UD);
}

#[test]
fn null_stack_of_64_bit_mode() {
    let mut f = with_ax(Fixture::long(0), 0);
    f.exec(MOV_SS).unwrap();
    assert_eq!((f.selector(SegReg::SS), f.cpu.cpl), (0, 0));
    let mut f = with_ax(Fixture::long(0), 1);
    f.faults(MOV_SS, Fault::GP0);
    let mut f = with_ax(Fixture::long(3), 3);
    f.faults(MOV_SS, Fault::GP0);
}

#[test]
fn null_clears_the_base_of_fs() {
    let mut f = with_ax(Fixture::long(3), 0);
    f.cpu.seg[SegReg::FS as usize].base = 0x7FFF_0000_0000;
    assert_eq!(f.exec(MOV_FS), Ok(Flow::Next));
    assert_eq!(f.cpu.seg(SegReg::FS).base, 0);
}

#[test]
fn real_mode_keeps_the_limit() {
    let mut f = with_ax(Fixture::real(), 0x1234);
    f.cpu.seg[SegReg::DS as usize].limit = 0xFFFF_FFFF;
    f.exec(MOV_DS).unwrap();
    let ds = f.cpu.seg(SegReg::DS);
    assert_eq!((ds.base, ds.limit), (0x12340, 0xFFFF_FFFF));
    let mut f = with_ax(Fixture::v86(3), 0x1234);
    f.exec(MOV_DS).unwrap();
    let ds = f.cpu.seg(SegReg::DS);
    assert_eq!((ds.base, ds.limit, ds.dpl()), (0x12340, 0xFFFF, 3));
}

#[test]
fn pop_releases_the_operand_size() {
    let mut f = Fixture::protected(0);
    f.put::<u32>(STACK0, 0xFFFF_0000 | u32::from(DATA3));
    f.exec(&[0x1F]).unwrap();
    assert_eq!((f.selector(SegReg::DS), f.cpu.gpr[gpr::RSP]), (DATA3, STACK0 + 4));
    f.put::<u16>(STACK0 + 4, DATA0);
    f.exec(&[0x66, 0x17]).unwrap();
    assert_eq!((f.cpu.shadow, f.cpu.gpr[gpr::RSP]), (Shadow::MovSs, STACK0 + 6));
    f.put::<u16>(STACK0 + 6, 0xFFF8);
    f.faults(&[0x0F, 0xA1], Fault::gp(0xFFF8));
}

#[test]
fn pop_ss_counts_in_the_old_width() {
    // From a 32-bit to a 16-bit stack: all of ESP moves.
    let mut f = Fixture::protected(0);
    f.descriptor(FREE, segment(0, 0xFFFF, kind::DATA, 0));
    f.cpu.gpr[gpr::RSP] = 0x1FFFE;
    f.put::<u32>(0x1FFFE, u32::from(FREE));
    f.exec(&[0x17]).unwrap();
    assert_eq!((f.cpu.stack_bits(), f.cpu.gpr[gpr::RSP]), (16, 0x20002));
}

#[test]
fn far_pointer_loads() {
    let mut f = Fixture::protected(0);
    f.cpu.gpr[gpr::RBX] = 0x6000;
    f.put::<u32>(0x6000, 0x1234_5678);
    f.put::<u16>(0x6004, DATA3);
    f.exec(&[0xC4, 0x03]).unwrap(); // les eax, [ebx]
    assert_eq!((f.cpu.gpr[gpr::RAX], f.selector(SegReg::ES)), (0x1234_5678, DATA3));
    f.put::<u16>(0x6004, FREE);
    f.faults(&[0x0F, 0xB4, 0x03], Fault::gp(FREE)); // lfs eax, [ebx]
    // 64-bit offset, which AMD processors do not have.
    for (vendor, selector, offset) in
        [(Vendor::Intel, 0x6008, 0x1234_5678_9ABC_DEF0), (Vendor::Amd, 0x6004, 0x9ABC_DEF0)]
    {
        let mut f = Fixture::long(0).vendor(vendor);
        f.cpu.gpr[gpr::RBX] = 0x6000;
        f.put::<u64>(0x6000, 0x1234_5678_9ABC_DEF0);
        f.put::<u16>(selector, DATA0);
        f.exec(&[0x48, 0x0F, 0xB2, 0x03]).unwrap(); // lss rax, [rbx]
        assert_eq!(f.cpu.gpr[gpr::RAX], offset, "{vendor:?}");
        assert_eq!(f.cpu.rflags & flags::IF, 0);
    }
}
