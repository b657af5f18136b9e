use crate::segmentation::fixture::*;
use x86::control::cr4;
use x86::regs::gpr;
use x86::{Fault, flags};

const SLDT: &[u8] = &[0x0F, 0x00, 0xC0];
const STR: &[u8] = &[0x0F, 0x00, 0xC8];
const LLDT: &[u8] = &[0x0F, 0x00, 0xD0];
const LTR: &[u8] = &[0x0F, 0x00, 0xD8];
const VERR: &[u8] = &[0x0F, 0x00, 0xE0];
const VERW: &[u8] = &[0x0F, 0x00, 0xE8];
/// To EBX, from AX.
const LAR: &[u8] = &[0x0F, 0x02, 0xD8];
const LSL: &[u8] = &[0x0F, 0x03, 0xD8];
/// AX raised to the RPL of BX.
const ARPL: &[u8] = &[0x63, 0xD8];

fn with_ax(mut f: Fixture, selector: u16) -> Fixture {
    f.cpu.gpr[gpr::RAX] = u64::from(selector);
    f
}

/// ZF after the instruction with AX = `selector`.
fn zf(f: Fixture, bytes: &[u8], selector: u16) -> bool {
    let mut f = with_ax(f, selector);
    f.exec(bytes).unwrap();
    f.cpu.rflags & flags::ZF != 0
}

#[test]
fn they_do_not_exist_in_real_and_v86_mode() {
    for bytes in [SLDT, STR, LLDT, LTR, VERR, VERW, LAR, LSL, ARPL] {
        Fixture::real().faults(bytes, Fault::UD);
        Fixture::v86(3).faults(bytes, Fault::UD);
    }
}

#[test]
fn lldt() {
    let mut f = with_ax(Fixture::protected(0), LDT_SELECTOR);
    f.exec(LLDT).unwrap();
    assert_eq!((f.cpu.ldtr.base, f.cpu.ldtr.limit), (LDT, 0xFF));
    f.cpu.gpr[gpr::RAX] = 0;
    f.exec(LLDT).unwrap();
    assert!(!f.cpu.ldtr.present());
    with_ax(Fixture::protected(3), LDT_SELECTOR).faults(LLDT, Fault::GP0);
    with_ax(Fixture::protected(0), DATA0).faults(LLDT, Fault::gp(DATA0));
    with_ax(Fixture::protected(0), LDT_SELECTOR | 4).faults(LLDT, Fault::gp(LDT_SELECTOR | 4));
    let mut f = with_ax(Fixture::protected(0), FREE);
    f.descriptor(FREE, segment(LDT, 0xFF, kind::LDT & !kind::ABSENT, 0));
    f.faults(LLDT, Fault::np(FREE));
}

#[test]
fn ltr_marks_the_tss_busy() {
    let mut f = with_ax(Fixture::protected(0), FREE);
    f.descriptor(FREE, segment(TSS2, 0x67, kind::TSS, 0));
    f.exec(LTR).unwrap();
    assert_eq!((f.cpu.tr.base, f.cpu.tr.kind()), (TSS2, 0xB));
    assert_eq!(f.get::<u8>(GDT + u64::from(FREE) + 5), kind::TSS_BUSY as u8);
    f.faults(LTR, Fault::gp(FREE));
    with_ax(Fixture::protected(0), 0).faults(LTR, Fault::GP0);
    with_ax(Fixture::protected(3), FREE).faults(LTR, Fault::GP0);
    let mut f = with_ax(Fixture::protected(0), FREE);
    f.descriptor(FREE, segment(TSS2, 0x67, kind::TSS & !kind::ABSENT, 0));
    f.faults(LTR, Fault::np(FREE));
}

#[test]
fn system_descriptors_of_ia_32e_mode_have_16_bytes() {
    let mut f = with_ax(Fixture::long(0), FREE);
    f.descriptor(FREE, segment(TSS2, 0x67, kind::TSS, 0));
    f.descriptor(FREE + 8, 0xFFFF_8000);
    f.exec(LTR).unwrap();
    assert_eq!(f.cpu.tr.base, 0xFFFF_8000_0000_0000 | TSS2);
    let mut f = with_ax(Fixture::long(0), FREE);
    f.descriptor(FREE, segment(LDT, 0xFF, kind::LDT, 0));
    f.descriptor(FREE + 8, 0x0000_0100_0000_0000);
    f.faults(LLDT, Fault::gp(FREE));
    f.descriptor(FREE + 8, 0x0001_0000);
    f.faults(LLDT, Fault::gp(FREE));
    let mut f = with_ax(Fixture::long(0), FREE);
    f.descriptor(FREE, segment(TSS2, 0x67, kind::TSS16, 0));
    f.faults(LTR, Fault::gp(FREE));
}

#[test]
fn selectors_are_stored_zero_extended_unless_umip() {
    let mut f = with_ax(Fixture::protected(3), 0xFFFF);
    f.exec(STR).unwrap();
    assert_eq!(f.cpu.gpr[gpr::RAX], u64::from(TSS_SELECTOR));
    f.cpu.gpr[gpr::RAX] = 0xFFFF_FFFF;
    f.exec(&[0x66, 0x0F, 0x00, 0xC8]).unwrap();
    assert_eq!(f.cpu.gpr[gpr::RAX], 0xFFFF_0000 | u64::from(TSS_SELECTOR));
    f.cpu.cr4 |= cr4::UMIP;
    f.faults(STR, Fault::GP0);
    f.faults(SLDT, Fault::GP0);
    let mut f = Fixture::long(0);
    f.cpu.cr4 |= cr4::UMIP;
    f.exec(SLDT).unwrap();
    assert_eq!(f.cpu.gpr[gpr::RAX], 0);
}

#[test]
fn verr_and_verw() {
    assert!(zf(Fixture::protected(3), VERR, DATA3));
    assert!(zf(Fixture::protected(3), VERW, DATA3));
    assert!(!zf(Fixture::protected(3), VERR, DATA0));
    assert!(zf(Fixture::protected(3), VERR, CONFORMING));
    assert!(!zf(Fixture::protected(0), VERW, CODE0));
    assert!(!zf(Fixture::protected(0), VERR, 0));
    assert!(!zf(Fixture::protected(0), VERR, 0xFFF8));
    assert!(!zf(Fixture::protected(0), VERR, TSS_SELECTOR));
}

#[test]
fn lar_and_lsl() {
    let mut f = with_ax(Fixture::protected(0), DATA3);
    f.exec(LAR).unwrap();
    assert_eq!(f.cpu.gpr[gpr::RBX], 0x00CF_F300);
    f.exec(LSL).unwrap();
    assert_eq!(f.cpu.gpr[gpr::RBX], 0xFFFF_FFFF);
    assert_ne!(f.cpu.rflags & flags::ZF, 0);
    f.cpu.gpr[gpr::RAX] = u64::from(TSS_SELECTOR);
    f.exec(LSL).unwrap();
    assert_eq!(f.cpu.gpr[gpr::RBX], 0x67);
    // A gate has rights but no limit; an interrupt gate neither.
    f.descriptor(FREE, gate(CODE0, 0, kind::CALL, 0));
    f.cpu.gpr[gpr::RAX] = u64::from(FREE);
    f.exec(LSL).unwrap();
    assert_eq!((f.cpu.rflags & flags::ZF, f.cpu.gpr[gpr::RBX]), (0, 0x67));
    f.exec(LAR).unwrap();
    assert_ne!(f.cpu.rflags & flags::ZF, 0);
    f.descriptor(FREE, gate(CODE0, 0, kind::INTERRUPT, 0));
    f.exec(LAR).unwrap();
    assert_eq!(f.cpu.rflags & flags::ZF, 0);
    assert!(!zf(Fixture::protected(3), LAR, DATA0));
    assert!(zf(Fixture::protected(3), LAR, CONFORMING));
}

#[test]
fn arpl() {
    let mut f = with_ax(Fixture::protected(0), DATA0);
    f.cpu.gpr[gpr::RBX] = 3;
    f.exec(ARPL).unwrap();
    assert_eq!(f.cpu.gpr[gpr::RAX], u64::from(DATA0 | 3));
    assert_ne!(f.cpu.rflags & flags::ZF, 0);
    f.cpu.gpr[gpr::RBX] = 1;
    f.exec(ARPL).unwrap();
    assert_eq!((f.cpu.gpr[gpr::RAX], f.cpu.rflags & flags::ZF), (u64::from(DATA0 | 3), 0));
}
