use crate::segmentation::fixture::*;
use x86::control::{cr4, dr6, efer};
use x86::cpuid::Vendor;
use x86::regs::gpr;
use x86::{Fault, Mode, SegReg, Vector, flags};

const SYSCALL: &[u8] = &[0x0F, 0x05];
const SYSRETQ: &[u8] = &[0x48, 0x0F, 0x07];
const SYSRETD: &[u8] = &[0x0F, 0x07];
const SYSENTER: &[u8] = &[0x0F, 0x34];
const SYSEXIT: &[u8] = &[0x0F, 0x35];

fn fixture(cpl: u8) -> Fixture {
    let mut f = Fixture::long(cpl);
    f.cpu.star = 0x0053_0060_0000_0000;
    f.cpu.lstar = 0xFFFF_8000_0000_1000;
    f.cpu.cstar = 0xFFFF_8000_0000_2000;
    f.cpu.fmask = flags::IF | flags::TF | flags::DF;
    f
}

#[test]
fn syscall_enters_level_0_without_reading_descriptors() {
    let mut f = fixture(3);
    f.cpu.rflags |= flags::IF | flags::DF | flags::CF | flags::RF;
    f.exec(SYSCALL).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RCX]), (0xFFFF_8000_0000_1000, CODE + 2));
    assert_eq!(f.cpu.gpr[11], flags::FIXED_ONE | flags::IF | flags::DF | flags::CF);
    assert_eq!(f.cpu.rflags, flags::FIXED_ONE | flags::CF);
    assert_eq!((f.selector(SegReg::CS), f.selector(SegReg::SS), f.cpu.cpl), (0x60, 0x68, 0));
    assert!(f.cpu.is_long());
    assert_eq!(f.cpu.gpr[gpr::RSP], STACK3, "RSP stays");
}

#[test]
fn sysret_to_64_and_32_bits() {
    let mut f = fixture(0);
    f.cpu.gpr[gpr::RCX] = 0x1_0000_1234;
    f.cpu.gpr[11] = u64::MAX;
    assert_eq!(f.exec(SYSRETQ), Err(Fault::trap(Vector::DB)), "TF traps at once");
    assert_eq!(f.cpu.pending_debug, dr6::BS);
    assert_eq!((f.cpu.rip, f.cpu.cpl, f.cpu.mode), (0x1_0000_1234, 3, Mode::Long));
    assert_eq!((f.selector(SegReg::CS), f.selector(SegReg::SS)), (0x63, 0x5B));
    assert_eq!(f.cpu.rflags, flags::ALL & !(flags::RF | flags::VM) | flags::FIXED_ONE);

    let mut f = fixture(0);
    f.cpu.gpr[gpr::RCX] = 0x1_0000_1234;
    f.exec(SYSRETD).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.mode), (0x1234, Mode::Compatibility));
    assert_eq!((f.selector(SegReg::CS), f.selector(SegReg::SS)), (0x53, 0x5B));
    assert_eq!(f.cpu.key.bits(), 32);
}

#[test]
fn sysret_faults() {
    let mut f = fixture(3);
    f.faults(SYSRETQ, Fault::GP0);
    let mut f = fixture(0).vendor(Vendor::Intel);
    f.cpu.gpr[gpr::RCX] = 0x8000_0000_0000;
    f.faults(SYSRETQ, Fault::GP0);
    f.cpu.efer &= !efer::SCE;
    f.faults(SYSRETQ, Fault::UD);
    f.faults(SYSCALL, Fault::UD);
    let mut f = fixture(0).vendor(Vendor::Amd);
    f.cpu.gpr[gpr::RCX] = 0x8000_0000_0000;
    f.exec(SYSRETQ).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.cpl), (0x8000_0000_0000, 3), "the fetch faults");
}

#[test]
fn syscall_outside_64_bit_mode_is_amds() {
    for mut f in [fixture(3), Fixture::protected(3)] {
        f.cpu.efer |= efer::SCE;
        f.enter(CODE3, 3);
        let mut f = f.vendor(Vendor::Intel);
        f.faults(SYSCALL, Fault::UD);
        f.faults(SYSRETD, Fault::UD);
    }
    let mut f = fixture(3);
    f.enter(CODE3, 3);
    let mut f = f.vendor(Vendor::Amd);
    f.exec(SYSCALL).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.cpl), (0xFFFF_8000_0000_2000, 0));
    assert!(f.cpu.is_long());

    let mut f = Fixture::protected(3).vendor(Vendor::Amd);
    f.faults(SYSCALL, Fault::UD);
    f.cpu.efer |= efer::SCE;
    f.cpu.star = 0x0053_0060_0000_2000;
    f.cpu.rflags |= flags::IF | flags::CF;
    f.exec(SYSCALL).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RCX], f.cpu.cpl), (0x2000, CODE + 2, 0));
    assert_eq!((f.selector(SegReg::CS), f.selector(SegReg::SS)), (0x60, 0x68));
    assert_eq!((f.cpu.rflags, f.cpu.key.bits()), (flags::FIXED_ONE | flags::CF, 32));
    f.exec(SYSRETD).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.cpl), (CODE + 2, 3));
    assert_eq!((f.selector(SegReg::CS), f.selector(SegReg::SS)), (0x53, 0x5B));
    assert_eq!(f.cpu.rflags, flags::FIXED_ONE | flags::CF | flags::IF);
    let mut f = Fixture::real().vendor(Vendor::Amd);
    f.cpu.efer |= efer::SCE;
    f.faults(SYSCALL, Fault::UD);
}

#[test]
fn sysenter_in_long_mode_is_intels() {
    let mut f = fixture(3).vendor(Vendor::Amd);
    f.cpu.sysenter_cs = 0x60;
    f.faults(SYSENTER, Fault::UD);
    f.enter(CODE3, 3);
    f.faults(SYSENTER, Fault::UD);
    let mut f = fixture(0).vendor(Vendor::Amd);
    f.cpu.sysenter_cs = 0x60;
    f.faults(SYSEXIT, Fault::UD);
}

#[test]
fn sysenter_and_sysexit() {
    for long in [false, true] {
        let f = if long { fixture(3) } else { Fixture::protected(3) };
        let mut f = f.vendor(Vendor::Intel);
        f.faults(SYSENTER, Fault::GP0);
        f.cpu.sysenter_cs = 0x63;
        f.cpu.sysenter_eip = 0x1_0000_2000;
        f.cpu.sysenter_esp = 0x1_0000_7000;
        f.cpu.rflags |= flags::IF;
        f.exec(SYSENTER).unwrap();
        let high = if long { 0x1_0000_0000 } else { 0 };
        assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP]), (high | 0x2000, high | 0x7000));
        assert_eq!((f.selector(SegReg::CS), f.selector(SegReg::SS)), (0x60, 0x68));
        assert_eq!((f.cpu.cpl, f.cpu.is_long(), f.cpu.rflags & flags::IF), (0, long, 0));

        f.cpu.gpr[gpr::RDX] = 0x1234;
        f.cpu.gpr[gpr::RCX] = 0x9000;
        f.exec(SYSEXIT).unwrap();
        assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP], f.cpu.cpl), (0x1234, 0x9000, 3));
        assert_eq!((f.selector(SegReg::CS), f.selector(SegReg::SS)), (0x73, 0x7B));
        f.faults(SYSEXIT, Fault::GP0);
    }
    let mut f = Fixture::real();
    f.cpu.sysenter_cs = 0x60;
    f.faults(SYSENTER, Fault::GP0);
}

#[test]
fn sysexit_to_64_bits() {
    let mut f = fixture(0).vendor(Vendor::Intel);
    f.cpu.sysenter_cs = 0x60;
    f.cpu.gpr[gpr::RCX] = 0x9000;
    f.cpu.gpr[gpr::RDX] = 0x8000_0000_0000;
    f.faults(&[0x48, 0x0F, 0x35], Fault::GP0);
    f.cpu.gpr[gpr::RDX] = 0x7000_0000_0000;
    f.exec(&[0x48, 0x0F, 0x35]).unwrap();
    assert_eq!((f.selector(SegReg::CS), f.selector(SegReg::SS)), (0x83, 0x8B));
    assert_eq!((f.cpu.rip, f.cpu.mode), (0x7000_0000_0000, Mode::Long));
}

#[test]
fn swapgs() {
    let mut f = fixture(0);
    f.cpu.kernel_gs_base = 0xFFFF_8000_0000_0000;
    f.cpu.seg[SegReg::GS as usize].base = 0x1234;
    f.exec(&[0x0F, 0x01, 0xF8]).unwrap();
    assert_eq!(f.cpu.seg(SegReg::GS).base, 0xFFFF_8000_0000_0000);
    assert_eq!(f.cpu.kernel_gs_base, 0x1234);
    fixture(3).faults(&[0x0F, 0x01, 0xF8], Fault::GP0);
}

#[test]
fn base_instructions() {
    let mut f = fixture(3);
    f.cpu.gpr[gpr::RAX] = 0x7FFF_1234_5678;
    f.exec(&[0xF3, 0x48, 0x0F, 0xAE, 0xD8]).unwrap(); // wrgsbase rax
    assert_eq!(f.cpu.seg(SegReg::GS).base, 0x7FFF_1234_5678);
    f.exec(&[0xF3, 0x0F, 0xAE, 0xD0]).unwrap(); // wrfsbase eax
    assert_eq!(f.cpu.seg(SegReg::FS).base, 0x1234_5678);
    f.exec(&[0xF3, 0x0F, 0xAE, 0xCB]).unwrap(); // rdgsbase ebx
    assert_eq!(f.cpu.gpr[gpr::RBX], 0x1234_5678);
    f.exec(&[0xF3, 0x48, 0x0F, 0xAE, 0xC3]).unwrap(); // rdfsbase rbx
    assert_eq!(f.cpu.gpr[gpr::RBX], 0x1234_5678);
    f.cpu.gpr[gpr::RAX] = 0x8000_0000_0000;
    f.faults(&[0xF3, 0x48, 0x0F, 0xAE, 0xD8], Fault::GP0);
    f.cpu.cr4 &= !cr4::FSGSBASE;
    f.faults(&[0xF3, 0x48, 0x0F, 0xAE, 0xC3], Fault::UD);
    f.enter(CODE3, 3);
    f.cpu.cr4 |= cr4::FSGSBASE;
    f.faults(&[0xF3, 0x0F, 0xAE, 0xC3], Fault::UD);
}
