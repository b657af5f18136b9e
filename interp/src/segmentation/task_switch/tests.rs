use super::*;
use crate::events::{Source, interrupt, raise};
use crate::segmentation::fixture::*;
use x86::Mode;
use x86::regs::gpr;

/// The selector of the TSS switched to.
const TASK: u16 = FREE;
const TASK_GATE: u16 = FREE2;
const ENTRY: u32 = 0xC000;

/// A CPU at level 0 with an available TSS at [`TSS2`], whose registers hold 1 to 8.
fn fixture() -> Fixture {
    let mut f = Fixture::protected(0);
    f.descriptor(TASK, segment(TSS2, 0x67, kind::TSS, 0));
    f.descriptor(TASK_GATE, gate(TASK, 0, kind::TASK, 0));
    f.put::<u32>(TSS2 + 0x20, ENTRY);
    f.put::<u32>(TSS2 + 0x24, flags::CF as u32 | 2);
    for n in 0..8 {
        f.put::<u32>(TSS2 + 0x28 + 4 * n, n as u32 + 1);
    }
    f.put::<u32>(TSS2 + 0x38, STACK_TSS as u32);
    let selectors = [DATA0, CODE0, DATA0, DATA0, 0, DATA3];
    for (n, selector) in (0..).zip(selectors) {
        f.put::<u16>(TSS2 + 0x48 + 4 * n, selector);
    }
    f
}

fn far(opcode: u8, selector: u16) -> [u8; 7] {
    let [low, high] = selector.to_le_bytes();
    [opcode, 0, 0, 0, 0, low, high]
}

fn access(f: &mut Fixture, selector: u16) -> u64 {
    u64::from(f.get::<u8>(GDT + u64::from(selector) + 5))
}

#[test]
fn jump_saves_and_loads_everything() {
    for selector in [TASK, TASK_GATE] {
        let mut f = fixture();
        f.cpu.gpr[gpr::RDI] = 0x1234_5678;
        f.cpu.dr7 = 0x5FF;
        f.exec(&far(0xEA, selector)).unwrap();
        assert_eq!(f.cpu.rip, u64::from(ENTRY));
        assert_eq!(f.cpu.gpr[..8], [1, 2, 3, 4, STACK_TSS, 6, 7, 8]);
        assert_eq!(f.cpu.rflags, flags::CF | flags::FIXED_ONE);
        assert_eq!((f.selector(SegReg::GS), f.selector(SegReg::FS)), (DATA3, 0));
        assert_eq!((f.cpu.tr.selector, f.cpu.tr.base, f.cpu.tr.kind()), (TASK, TSS2, 0xB));
        assert_ne!(f.cpu.cr0 & cr0::TS, 0);
        assert_eq!(f.cpu.dr7, 0x4AA, "local breakpoints are off");
        assert_eq!(access(&mut f, TASK), kind::TSS_BUSY);
        assert_eq!(access(&mut f, TSS_SELECTOR), kind::TSS);
        // The old task.
        assert_eq!(f.stack::<u32>(TSS + 0x20, 2), [CODE + 7, flags::FIXED_ONE]);
        assert_eq!(f.stack::<u32>(TSS + 0x44, 1), [0x1234_5678]);
        assert_eq!(f.get::<u16>(TSS + 0x4C), CODE0);
    }
}

#[test]
fn call_nests_and_iret_returns() {
    let mut f = fixture();
    f.exec(&far(0x9A, TASK)).unwrap();
    assert_ne!(f.cpu.rflags & flags::NT, 0);
    assert_eq!(f.get::<u16>(TSS2), TSS_SELECTOR);
    assert_eq!(access(&mut f, TSS_SELECTOR), kind::TSS_BUSY);
    f.exec(&[0xCF]).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.tr.selector), (CODE + 7, TSS_SELECTOR));
    assert_eq!(f.cpu.gpr[gpr::RSP], STACK0);
    assert_eq!(access(&mut f, TASK), kind::TSS);
    assert_eq!(access(&mut f, TSS_SELECTOR), kind::TSS_BUSY);
    assert_eq!(f.get::<u32>(TSS2 + 0x24) & flags::NT as u32, 0);
    assert_eq!(f.get::<u32>(TSS2 + 0x20), ENTRY + 1);
}

#[test]
fn faults_before_the_switch() {
    let case = |cpl: u8, value: u64, fault: Fault| {
        let mut f = fixture();
        if cpl == 3 {
            f.enter(CODE3, 3);
        }
        f.descriptor(TASK, value);
        f.faults(&far(0xEA, TASK), fault);
        f.faults(&far(0x9A, TASK), fault);
    };
    let tss = |access| segment(TSS2, 0x67, access, 0);
    case(0, tss(kind::TSS_BUSY), Fault::gp(TASK));
    case(0, tss(kind::TSS & !kind::ABSENT), Fault::np(TASK));
    case(0, segment(TSS2, 0x66, kind::TSS, 0), Fault::ts(TASK));
    case(3, tss(kind::TSS), Fault::gp(TASK));
    let mut f = fixture();
    f.descriptor(TASK_GATE, gate(TASK | 4, 0, kind::TASK, 0));
    f.faults(&far(0xEA, TASK_GATE), Fault::gp(TASK | 4));
    f.descriptor(TASK_GATE, gate(CODE0, 0, kind::TASK, 0));
    f.faults(&far(0xEA, TASK_GATE), Fault::gp(CODE0));
    f.descriptor(TASK_GATE, gate(TASK, 0, kind::TASK & !kind::ABSENT, 0));
    f.faults(&far(0xEA, TASK_GATE), Fault::np(TASK_GATE));
    // IRET to a task that is not busy.
    f.cpu.rflags |= flags::NT;
    f.put::<u16>(TSS, TASK);
    f.faults(&[0xCF], Fault::ts(TASK));
}

#[test]
fn segment_faults_are_the_new_tasks() {
    let case = |offset: u64, selector: u16, fault: Fault| {
        let mut f = fixture();
        f.put::<u16>(TSS2 + offset, selector);
        let result = f.exec(&far(0xEA, TASK));
        assert_eq!(result, Err(in_new_task(fault)), "{offset:#x}");
        assert_eq!((f.cpu.rip, f.cpu.tr.selector), (u64::from(ENTRY), TASK));
    };
    case(0x60, DATA0, Fault::ts(DATA0)); // LDT
    case(0x60, 0xFFF8, Fault::ts(0xFFF8));
    case(0x4C, 0, Fault::ts(0)); // CS
    case(0x4C, DATA0, Fault::ts(DATA0));
    case(0x4C, CODE0 | 3, Fault::ts(CODE0));
    case(0x50, 0, Fault::ts(0)); // SS
    case(0x50, DATA3, Fault::ts(DATA3 & !3));
    case(0x54, 0xFFF8, Fault::ts(0xFFF8)); // DS
    case(0x48, TSS_SELECTOR, Fault::ts(TSS_SELECTOR)); // ES

    let absent = |offset: u64, access: u64, fault: fn(u16) -> Fault| {
        let mut f = fixture();
        f.descriptor(0xA0, segment(0, 0xFFFFF, access & !kind::ABSENT, FLAT32));
        f.put::<u16>(TSS2 + offset, 0xA0);
        assert_eq!(f.exec(&far(0xEA, TASK)), Err(in_new_task(fault(0xA0))));
    };
    absent(0x4C, kind::CODE, Fault::np);
    absent(0x50, kind::DATA, Fault::ss);
    absent(0x54, kind::DATA, Fault::np);
    absent(0x60, kind::LDT, Fault::ts);
}

#[test]
fn eip_outside_the_new_code_segment() {
    let mut f = fixture();
    f.descriptor(0xA0, segment(0, 0xFFF, kind::CODE, 4));
    f.put::<u16>(TSS2 + 0x4C, 0xA0);
    assert_eq!(f.exec(&far(0xEA, TASK)), Err(in_new_task(Fault::GP0)));
}

#[test]
fn the_trap_bit_raises_db() {
    let mut f = fixture();
    f.put::<u16>(TSS2 + 0x64, 1);
    f.idt(1, gate(CODE0, 0xD000, kind::INTERRUPT, 0));
    let fault = f.exec(&far(0xEA, TASK)).unwrap_err();
    assert_eq!(fault, Fault::trap(Vector::DB));
    raise(&mut f.cpu, &mut f.mmu, fault).unwrap();
    assert_eq!(f.cpu.dr6 & dr6::BT, dr6::BT);
    assert_eq!(f.get::<u32>(STACK_TSS - 12), ENTRY);
}

#[test]
fn an_exception_through_a_task_gate_pushes_its_code() {
    let mut f = fixture();
    f.idt(13, gate(TASK, 0, kind::TASK, 0));
    raise(&mut f.cpu, &mut f.mmu, Fault::gp(0x18)).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP]), (u64::from(ENTRY), STACK_TSS - 4));
    assert_eq!(f.get::<u32>(STACK_TSS - 4), 0x18);
    let old = f.stack::<u32>(TSS + 0x20, 2);
    assert_eq!(old, [CODE, flags::RF | flags::FIXED_ONE]);
    // A fault of an exception's task switch has EXT.
    let mut f = fixture();
    f.idt(13, gate(TASK, 0, kind::TASK, 0));
    f.descriptor(TASK, segment(TSS2, 0x67, kind::TSS_BUSY, 0));
    f.idt(8, gate(CODE0, 0xD000, kind::INTERRUPT, 0));
    raise(&mut f.cpu, &mut f.mmu, Fault::gp(0x18)).unwrap();
    assert_eq!(f.cpu.rip, 0xD000);
    // INT n has none.
    let mut f = fixture();
    f.idt(0x80, gate(TASK, 0, kind::TASK, 0));
    f.descriptor(TASK, segment(TSS2, 0x10, kind::TSS, 0));
    let result = interrupt(&mut f.cpu, &mut f.mmu, 0x80, Source::Software);
    assert_eq!(result, Err(Fault::ts(TASK)));
}

#[test]
fn to_a_v86_task() {
    let mut f = fixture();
    f.put::<u32>(TSS2 + 0x24, (flags::VM | 2) as u32);
    f.put::<u16>(TSS2 + 0x4C, 0x100);
    f.exec(&far(0xEA, TASK)).unwrap();
    assert_eq!((f.cpu.mode, f.cpu.cpl, f.cpu.cs().base), (Mode::Virtual8086, 3, 0x1000));
}

#[test]
fn to_level_3() {
    let mut f = fixture();
    f.put::<u16>(TSS2 + 0x4C, CODE3);
    f.put::<u16>(TSS2 + 0x50, DATA3);
    f.put::<u16>(TSS2 + 0x48, DATA3);
    f.put::<u16>(TSS2 + 0x54, DATA3);
    f.exec(&far(0xEA, TASK)).unwrap();
    assert_eq!((f.cpu.cpl, f.selector(SegReg::SS)), (3, DATA3));
    // DS of level 0 at level 3 is an invalid TSS.
    let mut f = fixture();
    f.put::<u16>(TSS2 + 0x4C, CODE3);
    f.put::<u16>(TSS2 + 0x50, DATA3);
    let result = f.exec(&far(0xEA, TASK));
    assert_eq!(result, Err(in_new_task(Fault::ts(DATA0))));
    assert_eq!(f.cpu.cpl, 3);
}

#[test]
fn a_16_bit_tss() {
    let mut f = fixture();
    f.descriptor(TASK, segment(TSS2, 0x2B, kind::TSS16, 0));
    for (n, value) in (0..).zip([0x1234, 2, 1, 2, 3, 4, 0x7000, 6, 7, 8]) {
        f.put::<u16>(TSS2 + 0x0E + 2 * n, value);
    }
    for (n, selector) in (0..).zip([DATA0, CODE0, DATA0, DATA0]) {
        f.put::<u16>(TSS2 + 0x22 + 2 * n, selector);
    }
    f.put::<u16>(TSS2 + 0x2A, 0);
    f.exec(&far(0x9A, TASK)).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP], f.cpu.tr.kind()), (0x1234, 0x7000, 3));
    assert_eq!((f.selector(SegReg::FS), f.selector(SegReg::GS)), (0, 0));
    f.exec(&[0xCF]).unwrap();
    assert_eq!((f.cpu.rip, f.cpu.tr.selector), (CODE + 7, TSS_SELECTOR));
    assert_eq!(f.get::<u16>(TSS2 + 0x0E), 0x1235);
}
