use crate::Flow;
use crate::testkit::{DATA, Ended, Kit, Start};
use x86::regs::gpr::{RAX, RCX, RDI, RSI};
use x86::{Fault, SegReg, Vector, flags};

const REP_MOVSB: [u8; 2] = [0xF3, 0xA4];

fn kit(start: Start, from: u64, to: u64, count: u64) -> Kit {
    let mut kit = Kit::new(start);
    (kit.cpu.gpr[RSI], kit.cpu.gpr[RDI], kit.cpu.gpr[RCX]) = (from, to, count);
    kit
}

#[test]
fn rep_movs_forwards_backwards_and_overlapping() {
    for (down, offset, width) in
        [(false, 0x800, 1), (true, 0x800, 1), (false, 1, 1), (true, 1, 1), (false, 4, 4)]
    {
        let count = 100;
        let far = width * (count - 1);
        let from = 0x2_0000;
        let to = from + offset;
        let shift = if down { far } else { 0 };
        let mut kit = kit(Start::Long, from + shift, to + shift, count);
        let mut model: Vec<u8> = (0..0x1000).map(|i| (i * 7 % 251) as u8).collect();
        kit.mmu.phys_write(from, &model);
        kit.cpu.rflags |= if down { flags::DF } else { 0 };
        let ended = kit.run_bytes(&[0xF3, if width == 1 { 0xA4 } else { 0xA5 }]);
        assert_eq!(ended.fault, Fault::UD);
        for n in 0..count {
            let at = if down { far - n * width } else { n * width } as usize;
            model.copy_within(at..at + width as usize, at + offset as usize);
        }
        let mut memory = vec![0; 0x1000];
        kit.mmu.phys_read(from, &mut memory);
        assert!(memory == model, "down {down} offset {offset} width {width}");
        let moved = if down { 0u64.wrapping_sub(width * count) } else { width * count };
        let end = (from + shift).wrapping_add(moved);
        assert_eq!((kit.cpu.gpr[RSI], kit.cpu.gpr[RCX]), (end, 0));
        assert_eq!(kit.cpu.gpr[RDI], (to + shift).wrapping_add(moved));
    }
}

#[test]
fn long_runs_give_way_and_go_on() {
    let (from, to, count) = (0x10_0001, 0x20_0003, 0x8_0000);
    let mut kit = kit(Start::Long, from, to, count);
    for i in 0..count / 8 {
        kit.write::<u64>(from + 8 * i, i);
    }
    assert_eq!(kit.step(&REP_MOVSB), Ok(Flow::Again));
    let left = kit.cpu.gpr[RCX];
    assert!(left > 0 && left < count);
    assert_eq!(kit.cpu.gpr[RSI], from + count - left);
    while kit.step(&REP_MOVSB).expect("copies") == Flow::Again {}
    assert!((0..count / 8).all(|i| kit.read::<u64>(to + 8 * i) == i));
}

#[test]
fn a_page_fault_leaves_the_registers_at_its_iteration() {
    let page = 0x7000_0000_0000;
    for down in [false, true] {
        let mut kit = kit(Start::Long, 0x2_0000, page, 0x2000);
        kit.map(page, DATA);
        if down {
            kit.cpu.gpr[RDI] = page + 0xFFF;
            kit.cpu.gpr[RSI] = 0x2_0FFF;
            kit.cpu.rflags |= flags::DF;
        }
        let ended = kit.run_bytes(&REP_MOVSB);
        assert!(ended.fault.is(Vector::PF), "{ended:?}");
        let done = if down { 0u64.wrapping_sub(0x1000) } else { 0x1000 };
        let start = if down { page + 0xFFF } else { page };
        assert_eq!(kit.cpu.gpr[RDI], start.wrapping_add(done));
        assert_eq!(kit.cpu.gpr[RCX], 0x1000);
        assert_eq!(kit.mmu.fault_address, start.wrapping_add(done));
    }
}

#[test]
fn a_segment_limit_stops_at_the_first_element_beyond() {
    let mut kit = kit(Start::Protected32, 0x2_0000, DATA, 0x100);
    kit.cpu.seg[SegReg::ES as usize].limit = DATA as u32 + 41;
    kit.cpu.update_mode();
    let ended = kit.run_bytes(&[0xF3, 0xA5]);
    assert_eq!(ended.fault, Fault::GP0);
    assert_eq!((kit.cpu.gpr[RDI], kit.cpu.gpr[RCX]), (DATA + 40, 0x100 - 10));
}

#[test]
fn rep_stos_fills_by_width() {
    let mut kit = kit(Start::Long, 0, 0x2_0FFC, 5);
    kit.cpu.gpr[RAX] = 0x1122_3344_5566_7788;
    assert_eq!(kit.step(&[0xF3, 0xAB]), Ok(Flow::Next));
    assert!((0..5).all(|i| kit.read::<u32>(0x2_0FFC + 4 * i) == 0x5566_7788));
    assert_eq!(kit.read::<u32>(0x2_0FFC + 20), 0);
}

#[test]
fn index_registers_wrap_at_the_address_size() {
    // 16 bits: SI and DI wrap, the upper halves stay.
    let mut small = kit(Start::Protected32, 0xAAAA_FFFF, 0xBBBB_8000, 0xCCCC_0002);
    small.write::<u8>(0xFFFF, 0x11);
    small.write::<u8>(0, 0x22);
    small.step(&[0x67, 0xF3, 0xA4]).expect("rep movsb");
    assert_eq!(small.read::<u16>(0x8000), 0x2211);
    let registers = [RSI, RDI, RCX].map(|r| small.cpu.gpr[r]);
    assert_eq!(registers, [0xAAAA_0001, 0xBBBB_8002, 0xCCCC_0000]);
    // 32 bits in 64-bit mode: the upper halves are cleared, but not when nothing is done.
    let high = 0xFFFF_FFFF_0000_0000;
    let mut wide = kit(Start::Long, high | 0x2_0000, high | 0x3_0000, high | 3);
    wide.step(&[0x67, 0xF3, 0xA4]).expect("rep movsb");
    assert_eq!([RSI, RDI, RCX].map(|r| wide.cpu.gpr[r]), [0x2_0003, 0x3_0003, 0]);
    let mut none = kit(Start::Long, high, high, high);
    none.step(&[0x67, 0xF3, 0xA4]).expect("rep movsb");
    assert_eq!([RSI, RDI, RCX].map(|r| none.cpu.gpr[r]), [high; 3]);
}

#[test]
fn a_count_of_zero_touches_nothing() {
    let mut kit = kit(Start::Long, 1 << 62, 1 << 62, 0);
    let before = kit.cpu.gpr;
    for opcode in [0xA4, 0xA6, 0xAA, 0xAC, 0xAE] {
        assert_eq!(kit.step(&[0xF3, opcode]), Ok(Flow::Next));
    }
    assert_eq!(kit.cpu.gpr, before);
}

#[test]
fn comparisons_stop_by_zf() {
    let mut kit = kit(Start::Long, 0x2_0000, 0x3_0000, 10);
    kit.mmu.phys_write(0x2_0000, b"ringshift!");
    kit.mmu.phys_write(0x3_0000, b"ringsh0ft!");
    // repe cmpsb
    kit.step(&[0xF3, 0xA6]).expect("cmpsb");
    assert_eq!((kit.cpu.gpr[RSI], kit.cpu.gpr[RCX]), (0x2_0007, 3));
    assert_eq!(kit.status() & (flags::ZF | flags::CF), 0, "'i' is above '0'");
    // repne scasb finds it again
    kit.cpu.gpr[RDI] = 0x2_0000;
    kit.cpu.gpr[RCX] = 10;
    kit.cpu.gpr[RAX] = u64::from(b'f');
    kit.step(&[0xF2, 0xAE]).expect("scasb");
    assert_eq!((kit.cpu.gpr[RDI], kit.cpu.gpr[RCX]), (0x2_0008, 2));
    assert_ne!(kit.status() & flags::ZF, 0);
}

#[test]
fn the_source_segment_can_be_overridden() {
    let mut kit = kit(Start::Long, 0x10, 0x3_0000, 1);
    kit.cpu.seg[SegReg::GS as usize].base = 0x2_0000;
    kit.write::<u8>(0x2_0010, 0x5A);
    kit.step(&[0x65, 0xA4]).expect("movsb gs:");
    assert_eq!(kit.read::<u8>(0x3_0000), 0x5A);
}

#[test]
fn single_stepping_traps_behind_each_iteration() {
    let mut kit = kit(Start::Long, 0x2_0000, 0x3_0000, 3);
    kit.cpu.rflags |= flags::TF;
    kit.cpu.update_stepping();
    let ended = kit.run_bytes(&REP_MOVSB);
    assert_eq!(ended, Ended { fault: Fault::trap(Vector::DB), rip: crate::testkit::CODE });
    assert_eq!(kit.cpu.gpr[RCX], 2);
}

#[test]
fn a_copy_over_its_own_code_takes_effect() {
    // rep movsb overwrites the instruction behind it, INT3 becomes NOP.
    let code = crate::testkit::CODE;
    let mut kit = kit(Start::Long, 0x2_0000, code + 2, 1);
    kit.write::<u8>(0x2_0000, 0x90);
    let ended = kit.run_bytes(&[0xF3, 0xA4, 0xCC]);
    assert_eq!(ended, Ended { fault: Fault::UD, rip: code + 3 });
}
