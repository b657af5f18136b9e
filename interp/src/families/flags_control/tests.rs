use crate::flow::Flow;
use crate::segmentation::fixture::*;
use x86::control::cr4;
use x86::cpu::Shadow;
use x86::regs::gpr;
use x86::{Fault, flags};

const CLI: &[u8] = &[0xFA];
const STI: &[u8] = &[0xFB];
const PUSHF: &[u8] = &[0x9C];
const POPF: &[u8] = &[0x9D];

fn popf(mut f: Fixture, bytes: &[u8], image: u64) -> Fixture {
    let sp = f.cpu.gpr[gpr::RSP];
    f.put::<u64>(sp, image);
    f.exec(bytes).unwrap();
    f
}

#[test]
fn sti_leaves_a_shadow_when_it_opens() {
    let mut f = Fixture::protected(0);
    assert_eq!(f.exec(STI), Ok(Flow::Sync));
    assert_eq!((f.cpu.shadow, f.cpu.interrupts_open()), (Shadow::Sti, false));
    f.cpu.shadow = Shadow::None;
    assert_eq!(f.exec(STI), Ok(Flow::Next));
    assert_eq!((f.cpu.shadow, f.cpu.interrupts_open()), (Shadow::None, true));
    f.exec(CLI).unwrap();
    assert_eq!(f.cpu.rflags & flags::IF, 0);
}

#[test]
fn iopl_guards_the_interrupt_flag() {
    for bytes in [CLI, STI] {
        Fixture::protected(3).faults(bytes, Fault::GP0);
        Fixture::v86(2).faults(bytes, Fault::GP0);
        let mut f = Fixture::protected(3);
        f.cpu.rflags |= flags::IOPL;
        f.exec(bytes).unwrap();
        Fixture::v86(3).exec(bytes).unwrap();
        Fixture::real().exec(bytes).unwrap();
    }
}

#[test]
fn virtual_interrupt_flag() {
    for (mut f, enable) in [(Fixture::protected(3), cr4::PVI), (Fixture::v86(0), cr4::VME)] {
        f.cpu.cr4 |= enable;
        f.exec(STI).unwrap();
        assert_eq!(f.cpu.rflags & (flags::IF | flags::VIF), flags::VIF);
        f.exec(CLI).unwrap();
        assert_eq!(f.cpu.rflags & (flags::IF | flags::VIF), 0);
        f.cpu.rflags |= flags::VIP;
        f.faults(STI, Fault::GP0);
    }
}

#[test]
fn popf_by_privilege() {
    let all = u64::MAX;
    let kernel = flags::ALL & !(flags::RF | flags::VM | flags::VIF | flags::VIP);
    let f = popf(Fixture::long(0), POPF, all);
    assert_eq!(f.cpu.rflags, kernel | flags::FIXED_ONE);
    assert_eq!(f.cpu.gpr[gpr::RSP], STACK0 + 8);
    let f = popf(Fixture::long(3), POPF, all);
    let user = kernel & !(flags::IF | flags::IOPL);
    assert_eq!(f.cpu.rflags, user | flags::FIXED_ONE);
    let mut f = Fixture::protected(3);
    f.cpu.rflags |= flags::IOPL;
    let f = popf(f, POPF, flags::IF);
    assert_eq!(f.cpu.rflags, flags::IF | flags::IOPL | flags::FIXED_ONE);
    // 16 bits leave the upper half.
    let mut f = Fixture::protected(0);
    f.cpu.rflags |= flags::ID | flags::AC;
    let f = popf(f, &[0x66, 0x9D], 0);
    assert_eq!(f.cpu.rflags, flags::ID | flags::AC | flags::FIXED_ONE);
}

#[test]
fn popf_syncs_when_something_depends_on_it() {
    let flow = |image: u64| {
        let mut f = Fixture::long(0);
        f.put::<u64>(STACK0, image);
        f.exec(POPF)
    };
    assert_eq!(flow(flags::CF), Ok(Flow::Next));
    assert_eq!(flow(flags::IF), Ok(Flow::Sync));
    assert_eq!(flow(flags::TF), Ok(Flow::Sync));
    let f = popf(Fixture::long(0), POPF, flags::TF);
    assert!(f.cpu.stepping);
}

#[test]
fn pushf_hides_rf_and_vm() {
    let mut f = Fixture::long(3);
    f.cpu.rflags |= flags::RF | flags::CF;
    f.exec(PUSHF).unwrap();
    assert_eq!(f.get::<u64>(STACK3 - 8), flags::CF | flags::FIXED_ONE);
}

#[test]
fn v86_below_iopl_3() {
    Fixture::v86(0).faults(PUSHF, Fault::GP0);
    Fixture::v86(0).faults(POPF, Fault::GP0);
    let vme = || {
        let mut f = Fixture::v86(0);
        f.cpu.cr4 |= cr4::VME;
        f
    };
    vme().faults(&[0x66, 0x9C], Fault::GP0);
    let mut f = vme();
    f.cpu.rflags |= flags::VIF;
    f.exec(PUSHF).unwrap();
    let expected = flags::IF | flags::IOPL | flags::FIXED_ONE;
    assert_eq!(f.get::<u16>(STACK3 - 2), expected as u16);
    let f = popf(vme(), POPF, flags::IF | flags::CF);
    assert_eq!(
        f.cpu.rflags & (flags::IF | flags::VIF | flags::CF | flags::IOPL),
        flags::VIF | flags::CF
    );
    let mut f = vme();
    f.put::<u16>(STACK3, flags::TF as u16);
    f.faults(POPF, Fault::GP0);
    f.cpu.rflags |= flags::VIP;
    f.put::<u16>(STACK3, flags::IF as u16);
    f.faults(POPF, Fault::GP0);
}
