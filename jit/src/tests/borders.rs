//! Code at the borders: of bytes that are no instruction, of 4 GiB, of a stack's 64 KiB; and code that
//! another CPU writes while a block is made.

use super::kit::{CODE, DATA, Ended, Guest, Runner, Start, compare, guests, uncounted, with_stack};
use interp::{Exit, sync};
use softmmu::{ExitRequest, Mmu, NullBus};
use std::sync::Arc;
use std::time::Duration;
use x86::regs::gpr;
use x86::{Fault, SegReg, Segment, Vector, flags};

/// A page of RAM.
const LAST: u64 = 0x3F_F000;

/// 32-bit code in compatibility mode: the page below 4 GiB lies at [`LAST`], and none behind it.
fn below_4_gib(guest: &mut Guest) {
    const PDPT_3: u64 = 0x2000 + 3 * 8;
    const PD_511: u64 = 0x3000 + 511 * 8;
    guest.write(PDPT_3, &0x3007u64.to_le_bytes());
    guest.write(PD_511, &0x20_0087u64.to_le_bytes());
    guest.reset(&with_stack([0; 16]));
    let loaded = Segment::from_descriptor(8, 0x00CF_9B00_0000_FFFF);
    guest.cpu.seg[SegReg::CS as usize] = loaded;
    sync::mode_changed(&mut guest.cpu, &mut guest.mmu);
}

/// Runs until it is asked to leave.
fn leaves(guest: &mut Guest) {
    let request = guest.mmu.exit_request.clone();
    let asks = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        request.set(ExitRequest::KICK);
    });
    let Runner::Jit(engine) = &mut guest.runner else { panic!("not the translator") };
    let exit = engine.run(&mut guest.cpu, &mut guest.mmu, u64::MAX);
    assert!(matches!(exit, Exit::Request), "{exit:?}");
    asks.join().expect("it only sets a bit");
}

#[test]
fn a_loop_around_4_gib_leaves() {
    let mut guest = uncounted(Start::Long);
    below_4_gib(&mut guest);
    // JE 0xFFFFFFF0; RET at 0. NOPs up to 4 GiB.
    guest.write(0, &[0x0F, 0x84, 0xEA, 0xFF, 0xFF, 0xFF, 0xC3]);
    guest.write(LAST + 0xFF0, &[0x90; 16]);
    guest.cpu.rflags |= flags::ZF;
    guest.cpu.rip = 0;
    leaves(&mut guest);
}

#[test]
fn an_instruction_across_4_gib_is_beyond_the_limit() {
    let mut all = guests(Start::Long);
    let ends: Vec<_> = (all.iter_mut())
        .map(|guest| {
            below_4_gib(guest);
            // MOV EAX, 0x55443322, of which page 0 has the end, and 4 GiB has nothing.
            guest.write(LAST + 0xFFE, &[0xB8, 0x22]);
            guest.write(0, &[0x33, 0x44, 0x55, 0xF4]);
            guest.cpu.rip = 0xFFFF_FFFE;
            guest.resume(10)
        })
        .collect();
    assert_eq!(ends[0], Ended::Fault(Fault::GP0, 0xFFFF_FFFE));
    compare(&mut all, &ends, flags::ALL, None, "MOV EAX across 4 GiB");
}

#[test]
fn bytes_that_become_an_instruction() {
    for mut guest in guests(Start::Long) {
        guest.reset(&with_stack([1; 16]));
        let at = CODE + 0x3F;
        // No instruction, and HLT.
        guest.write(at, &[0x0F, 0x0C, 0xF4]);
        for _ in 0..2 {
            guest.cpu.activity = x86::Activity::Running;
            guest.cpu.rip = at;
            assert_eq!(guest.resume(10), Ended::Fault(Fault::new(Vector::UD), at));
        }
        // With another second byte, in the next granule, BSWAP EAX.
        guest.write(at + 1, &[0xC8]);
        guest.cpu.activity = x86::Activity::Running;
        guest.cpu.rip = at;
        assert_eq!(guest.resume(10), Ended::Stopped);
        assert_eq!(guest.cpu.gpr[gpr::RAX], 0x0100_0000);
    }
}

#[test]
fn pusha_and_popa_wrap_at_64_kib_whatever_the_limit() {
    // PUSHA, PUSHAD, POPA and POPAD.
    for code in [&[0x60u8][..], &[0x66, 0x60], &[0x61], &[0x66, 0x61]] {
        for sp in [4, 0x100, 0xFFF6] {
            let mut all = guests(Start::Real);
            let ends: Vec<_> = (all.iter_mut())
                .map(|guest| {
                    guest.reset(&std::array::from_fn(|i| 0x0101_0101 * (i as u64 + 1)));
                    // Twice: the first time fills the TLB. In between MOV SP; HLT behind it.
                    let again = [code, &[0xBC, sp as u8, (sp >> 8) as u8], code, &[0xF4]].concat();
                    guest.write(CODE, &again);
                    let ss = &mut guest.cpu.seg[SegReg::SS as usize];
                    (ss.base, ss.limit) = (DATA + 0x840, 0xFFFF_FFFF);
                    guest.cpu.gpr[gpr::RSP] = sp;
                    sync::mode_changed(&mut guest.cpu, &mut guest.mmu);
                    guest.cpu.rip = CODE - Start::Real.code_base();
                    guest.resume(1000)
                })
                .collect();
            assert_eq!(ends[0], Ended::Stopped);
            compare(&mut all, &ends, flags::ALL, None, &format!("{code:x?} at SP {sp:#x}"));
        }
    }
}

/// Another CPU answers the mark of a new code page, and has changed other code before it does.
#[test]
fn code_changed_while_a_block_is_made() {
    const ENDLESS: u64 = CODE;
    const FIRST: u64 = CODE + 0x80;
    const SECOND: u64 = CODE + 0x1000;
    // MOV EAX, ENDLESS; JMP RAX.
    let jump = [0xB8, ENDLESS as u8, (ENDLESS >> 8) as u8, 0, 0, 0xFF, 0xE0];
    let mut guest = uncounted(Start::Long);
    guest.reset(&with_stack([0; 16]));
    guest.write(ENDLESS, &[0xEB, 0xFE]);
    guest.write(FIRST, &jump);
    guest.write(SECOND, &jump);
    for _ in 0..2 {
        guest.cpu.rip = FIRST;
        leaves(&mut guest);
        guest.mmu.exit_request.clear(u32::MAX);
    }
    let ram = guest.mmu.ram.clone();
    let mut other = Mmu::new(ram.clone(), Arc::new(NullBus)).expect("MMU");
    let answers = std::thread::spawn(move || {
        while other.exit_request.load() & ExitRequest::CODE == 0 {
            std::thread::yield_now();
        }
        ram.write(ENDLESS, &[0xF4, 0x90]).expect("RAM");
        std::thread::sleep(Duration::from_millis(20));
        other.sync_code_pages();
    });
    let request = guest.mmu.exit_request.clone();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let _ = wait.recv_timeout(Duration::from_secs(5));
        request.set(ExitRequest::KICK);
    });
    guest.cpu.rip = SECOND;
    let Runner::Jit(engine) = &mut guest.runner else { panic!("not the translator") };
    let exit = engine.run(&mut guest.cpu, &mut guest.mmu, u64::MAX);
    drop(done);
    watch.join().expect("it only sets a bit");
    answers.join().expect("no panic");
    assert!(matches!(exit, Exit::Stopped), "{exit:?}: old code ran on");
}
