use super::*;
use crate::Exit;
use crate::testkit::{CODE, DATA, Kit, Start};
use iced_x86::code_asm::{ax, dword_ptr, ptr, qword_ptr, st1, word_ptr};
use softmmu::{MsrResult, PhysBus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use x86::regs::gpr;

/// A kit after FNINIT.
fn kit(start: Start) -> Kit {
    let mut kit = Kit::new(start);
    kit.cpu.x87 = X87::INIT;
    kit
}

fn st0(kit: &Kit) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&kit.cpu.x87.st[0][..10]);
    bytes
}

#[test]
fn arithmetic_through_memory_in_every_mode() {
    for start in [Start::Real, Start::Protected16, Start::Protected32, Start::Long] {
        let mut kit = kit(start);
        kit.write::<u64>(DATA, 2.5f64.to_bits());
        kit.write::<u32>(DATA + 8, 4);
        let at = DATA as i32;
        kit.run_through(|a| {
            a.fld(qword_ptr(at)).unwrap();
            a.fimul(dword_ptr(at + 8)).unwrap();
            a.fstp(qword_ptr(at + 16)).unwrap();
        });
        assert_eq!(f64::from_bits(kit.read(DATA + 16)), 10.0, "{start:?}");
        assert_eq!((kit.cpu.x87.ftw, kit.cpu.x87.top()), (0, 0));
    }
}

#[test]
fn pointers_are_the_guests() {
    let mut kit = kit(Start::Protected32);
    kit.write::<u64>(DATA, 1.0f64.to_bits());
    kit.run_through(|a| {
        a.fld(qword_ptr(DATA as i32)).unwrap();
        a.fld1().unwrap();
        // Control instructions leave the pointers alone.
        a.fnstcw(word_ptr(DATA as i32 + 8)).unwrap();
        a.fldcw(word_ptr(DATA as i32 + 8)).unwrap();
    });
    let cs = u64::from(kit.cpu.cs().selector);
    let ds = u64::from(kit.cpu.seg(SegReg::DS).selector);
    assert_eq!(kit.cpu.x87.fip, (CODE + 6) | cs << 32);
    assert_eq!(kit.cpu.x87.fop, 0x1E8);
    assert_eq!(kit.cpu.x87.fdp, DATA | ds << 32);
}

#[test]
fn pending_error_waits_for_the_next_waiting_instruction() {
    let mut kit = kit(Start::Long);
    kit.cpu.x87.fcw = 0x37B; // zero divide unmasked
    let ended = kit.run(|a| {
        a.fld1().unwrap(); // 0
        a.fldz().unwrap(); // 2
        a.fdivp(st1, iced_x86::code_asm::st0).unwrap(); // 4
        a.fnstsw(ax).unwrap(); // 6: does not wait
        a.nop().unwrap(); // 8
        a.fld1().unwrap(); // 9
    });
    assert_eq!((ended.fault, ended.rip), (Fault::MF, CODE + 9));
    assert_eq!(kit.cpu.gpr[gpr::RAX] & 0x80BF, 0x8084, "ES, B, ZE");
    // The division has not been done: both operands are still there.
    assert_eq!(kit.cpu.x87.ftw.count_ones(), 2);
    // FNCLEX ends it.
    kit.step(&[0xDB, 0xE2]).expect("FNCLEX");
    kit.step(&[0xD9, 0xE8]).expect("FLD1");
}

#[test]
fn without_ne_execution_goes_on() {
    let mut kit = kit(Start::Protected32);
    kit.cpu.cr0 &= !cr0::NE;
    kit.cpu.x87.fcw = 0x37B;
    for bytes in [[0xD9, 0xE8], [0xD9, 0xEE], [0xDE, 0xF9], [0xD9, 0xE8]] {
        kit.step(&bytes).expect("goes on");
    }
    assert!(kit.cpu.x87.error_pending());
    assert_eq!(kit.cpu.x87.fcw, 0x37B);
    assert_eq!(kit.cpu.x87.ftw.count_ones(), 3);
}

/// The PC's circuit: what it was told and what it answers.
#[derive(Default)]
struct Circuit {
    ferr: AtomicBool,
    ignne: AtomicBool,
}

impl PhysBus for Circuit {
    fn mmio_read(&self, _: u64, _: &mut [u8]) {}
    fn mmio_write(&self, _: u64, _: &[u8]) {}
    fn port_read(&self, _: u16, _: u8) -> u32 {
        0
    }
    fn port_write(&self, _: u16, _: u8, _: u32) {}
    fn read_msr(&self, _: u32) -> MsrResult<u64> {
        MsrResult::Unknown
    }
    fn write_msr(&self, _: u32, _: u64) -> MsrResult<()> {
        MsrResult::Unknown
    }
    fn task_priority(&self) -> u8 {
        0
    }
    fn set_task_priority(&self, _: u8) {}
    fn host_tsc(&self) -> u64 {
        0
    }
    fn set_ferr(&self, asserted: bool) {
        self.ferr.store(asserted, SeqCst);
    }
    fn ignne(&self) -> bool {
        self.ignne.load(SeqCst)
    }
}

#[test]
fn without_ne_the_next_waiting_instruction_waits_for_an_interrupt() {
    let mut kit = kit(Start::Protected32);
    let circuit = Arc::new(Circuit::default());
    kit.mmu.bus = circuit.clone();
    kit.cpu.cr0 &= !cr0::NE;
    kit.cpu.x87.fcw = 0x37B;
    for bytes in [[0xD9, 0xE8], [0xD9, 0xEE], [0xDE, 0xF9]] {
        kit.step(&bytes).expect("x87 instruction");
    }
    assert!(!circuit.ferr.load(SeqCst), "deferred");
    kit.step(&[0xDF, 0xE0]).expect("FNSTSW does not wait");
    // fld1, which stays where it is however long the engine tries.
    kit.mmu.phys_write(CODE, &[0xD9, 0xE8, 0xF4]);
    kit.engine.flush();
    kit.cpu.rip = CODE;
    let Exit::Limit = kit.engine.run(&mut kit.cpu, &mut kit.mmu, 50) else { panic!("no limit") };
    assert_eq!((kit.cpu.rip, kit.cpu.x87.ftw.count_ones()), (CODE, 2));
    assert!(circuit.ferr.load(SeqCst));
    // The handler has written port 0xF0.
    circuit.ignne.store(true, SeqCst);
    let Exit::Stopped = kit.engine.run(&mut kit.cpu, &mut kit.mmu, 50) else { panic!("no HLT") };
    assert_eq!(kit.cpu.x87.ftw.count_ones(), 3);
    assert!(circuit.ferr.load(SeqCst));
    kit.step(&[0xDB, 0xE2]).expect("FNCLEX");
    kit.step(&[0xD9, 0xE8]).expect("FLD1");
    assert!(!circuit.ferr.load(SeqCst));
}

#[test]
fn stack_faults() {
    let mut kit = kit(Start::Long);
    // FABS of an empty register: invalid, the indefinite NaN.
    kit.step(&[0xD9, 0xE1]).expect("masked");
    assert_eq!(kit.cpu.x87.fsw & 0x241, 0x41, "IE and SF, C1 clear: underflow");
    assert_eq!(st0(&kit), [0, 0, 0, 0, 0, 0, 0, 0xC0, 0xFF, 0xFF]);
    kit.step(&[0xDB, 0xE3]).expect("FNINIT");
    for _ in 0..9 {
        kit.step(&[0xD9, 0xE8]).expect("FLD1");
    }
    assert_eq!(kit.cpu.x87.fsw & 0x241, 0x241, "overflow sets C1");
}

#[test]
fn unmasked_fault_keeps_memory_and_stack() {
    let mut kit = kit(Start::Long);
    kit.cpu.gpr[gpr::RDI] = DATA;
    kit.write::<u32>(DATA, 0x1234_5678);
    kit.cpu.x87.fcw = 0x37E; // invalid unmasked
    kit.step(&[0xD9, 0x1F]).expect("FSTP of an empty register: reported later");
    assert_eq!(kit.read::<u32>(DATA), 0x1234_5678);
    assert_eq!(kit.cpu.x87.top(), 0);
    assert!(kit.cpu.x87.error_pending());
    assert_eq!(kit.step(&[0xD9, 0xE8]), Err(Fault::MF));
    // A masked one stores the indefinite.
    kit.step(&[0xDB, 0xE3]).expect("FNINIT");
    kit.step(&[0xD9, 0x1F]).expect("FSTP");
    assert_eq!(kit.read::<u32>(DATA), 0xFFC0_0000);
}

#[test]
fn environment_formats() {
    let mut kit = kit(Start::Protected32);
    kit.run_through(|a| {
        a.fldpi().unwrap();
        a.fldz().unwrap();
        a.fnstenv(ptr(DATA as i32)).unwrap();
    });
    let words: Vec<u32> = (0..7).map(|i| kit.read::<u32>(DATA + 4 * i)).collect();
    let cs = u32::from(kit.cpu.cs().selector);
    // The values the host's FNSTENV gives for the same program; tags: 7 valid, 6 zero, else empty.
    assert_eq!(words[..3], [0xFFFF_037F, 0xFFFF_3000, 0xFFFF_1FFF]);
    assert_eq!(words[3..], [CODE as u32 + 2, cs | 0x1EE << 16, 0, 0xFFFF_0000]);
    // 16-bit operand size, real mode: linear addresses.
    let mut kit = Kit::new(Start::Real);
    kit.cpu.x87 = X87::INIT;
    kit.cpu.x87.fip = 0x5678 | 0x1000 << 32;
    kit.cpu.x87.fop = 0x123;
    kit.cpu.gpr[gpr::RDI] = DATA;
    kit.step(&[0xD9, 0x35]).expect("FNSTENV [DI]");
    let words: Vec<u16> = (0..7).map(|i| kit.read::<u16>(DATA + 2 * i)).collect();
    assert_eq!(words, [0x37F, 0, 0xFFFF, 0x5678, 0x1123, 0, 0]);
    assert_eq!(kit.cpu.x87.fcw, 0x37F);
}

#[test]
fn save_and_restore_round_trip() {
    for start in [Start::Real, Start::Protected16, Start::Protected32, Start::Long] {
        let mut kit = kit(start);
        kit.cpu.gpr[gpr::RDI] = DATA;
        for bytes in [[0xD9, 0xEB], [0xD9, 0xE8], [0xD9, 0xEE]] {
            kit.step(&bytes).expect("loads a constant");
        }
        // FXCH ST(2), FINCSTP: a TOP that is not the lowest register in use.
        kit.step(&[0xD9, 0xCA]).expect("FXCH");
        kit.step(&[0xD9, 0xF7]).expect("FINCSTP");
        let before = kit.cpu.x87;
        // [rDI], in 16-bit code [DI].
        let modrm = if kit.cpu.key.bits() == 16 { 0x05 } else { 0x07 };
        kit.step(&[0xDD, 0x30 | modrm]).expect("FNSAVE");
        assert_eq!((kit.cpu.x87.ftw, kit.cpu.x87.fcw, kit.cpu.x87.fsw), (0, 0x37F, 0));
        kit.step(&[0xDD, 0x20 | modrm]).expect("FRSTOR");
        let after = kit.cpu.x87;
        assert_eq!((after.ftw, after.fsw, after.fcw), (before.ftw, before.fsw, before.fcw));
        assert_eq!(after.st, before.st, "{start:?}");
    }
}

#[test]
fn mmx_registers_follow_the_stack_top() {
    let mut kit = kit(Start::Long);
    kit.step(&[0xD9, 0xE8]).expect("FLD1: physical register 7");
    assert_eq!(mmx(&kit.cpu, 7), 0x8000_0000_0000_0000u64.to_le_bytes());
    // MOVQ RAX, MM7
    kit.step(&[0x48, 0x0F, 0x7E, 0xF8]).expect("MOVQ");
    assert_eq!(kit.cpu.gpr[gpr::RAX], 1 << 63);
    assert_eq!((kit.cpu.x87.top(), kit.cpu.x87.ftw), (0, 0xFF));
    kit.step(&[0x0F, 0x77]).expect("EMMS");
    assert_eq!(kit.cpu.x87.ftw, 0);
    // In software and on the host the transition is the same.
    kit.step(&[0xDB, 0xE3]).expect("FNINIT");
    kit.step(&[0xD9, 0xE8]).expect("FLD1");
    let mut other = kit.cpu.clone();
    enter_mmx(&mut other);
    kit.step(&[0x0F, 0x7F, 0xC0]).expect("MOVQ MM0, MM0");
    assert_eq!(kit.cpu.x87.st[7], other.x87.st[7]);
    assert_eq!((kit.cpu.x87.fsw, kit.cpu.x87.ftw), (other.x87.fsw, other.x87.ftw));
}

#[test]
fn control_bits() {
    let mut kit = kit(Start::Long);
    kit.cpu.cr0 |= cr0::TS;
    assert_eq!(kit.step(&[0xD9, 0xE8]), Err(Fault::NM));
    assert_eq!(kit.step(&[0x9B]), Ok(Flow::Next), "FWAIT without MP");
    kit.cpu.cr0 |= cr0::MP;
    assert_eq!(kit.step(&[0x9B]), Err(Fault::NM));
    kit.cpu.cr0 = kit.cpu.cr0 & !cr0::TS | cr0::EM;
    assert_eq!(kit.step(&[0xD9, 0xE8]), Err(Fault::NM));
    assert_eq!(kit.step(&[0x0F, 0x77]), Err(Fault::UD), "EMMS");
    assert_eq!(kit.step(&[0x9B]), Ok(Flow::Next));
}

#[test]
fn control_word_reads_back_as_on_the_host() {
    // What FLDCW, FNSTCW give on AMD Zen 3 and on Intel.
    for (value, expected) in [(0, 0x40), (0xFFFF, 0x1F7F), (0x27F, 0x27F), (0xE0C0, 0x40)] {
        let mut kit = kit(Start::Long);
        kit.write::<u16>(DATA, value);
        kit.cpu.gpr[gpr::RDI] = DATA;
        kit.step(&[0xD9, 0x2F]).expect("FLDCW");
        assert_eq!(kit.cpu.x87.fcw, expected);
    }
}
