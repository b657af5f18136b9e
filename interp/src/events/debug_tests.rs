//! #DB as the engine meets it: single-stepping, breakpoints, shadows, INT1.

use crate::engine::Engine;
use crate::segmentation::fixture::*;
use iced_x86::code_asm::{CodeAssembler, dr6 as DR6, dword_ptr, eax, qword_ptr, rax, rbx, rsp};
use x86::control::{dr6, dr7};
use x86::flags;
use x86::regs::gpr;

const HANDLER: u64 = 0xC000;
const BREAKPOINT_HANDLER: u64 = 0xD000;
const DATA: u64 = 0x6000;

/// Where the handler keeps the address of its next record.
const RECORDS: u64 = 0x7000;

/// The #DB handler: records return address, DR6 and flags, clears DR6, and returns with RF set.
fn recorder() -> Vec<u8> {
    let assemble = || {
        let mut a = CodeAssembler::new(64)?;
        a.push(rax)?;
        a.push(rbx)?;
        a.mov(rbx, qword_ptr(RECORDS))?;
        a.mov(rax, qword_ptr(rsp + 16))?;
        a.mov(qword_ptr(rbx), rax)?;
        a.mov(rax, DR6)?;
        a.mov(qword_ptr(rbx + 8), rax)?;
        a.mov(rax, qword_ptr(rsp + 32))?;
        a.mov(qword_ptr(rbx + 16), rax)?;
        a.or(dword_ptr(rsp + 32), 0x1_0000)?;
        a.xor(eax, eax)?;
        a.mov(DR6, rax)?;
        a.add(rbx, 24)?;
        a.mov(qword_ptr(RECORDS), rbx)?;
        a.pop(rbx)?;
        a.pop(rax)?;
        a.iretq()?;
        a.assemble(HANDLER)
    };
    assemble().expect("the handler assembles")
}

/// Runs `code` in 64-bit mode until it reaches its end. Gives the offset of the return address in
/// the code and DR6 (without its fixed bits) for each #DB, in order.
fn debug_events(f: &mut Fixture, code: &[u8]) -> Vec<(u64, u64)> {
    f.idt_long(1, gate(LONG0, HANDLER, kind::INTERRUPT, 0), 0);
    f.idt_long(3, gate(LONG0, BREAKPOINT_HANDLER, kind::INTERRUPT, 0), 0);
    f.mmu.ram.write(HANDLER, &recorder()).expect("inside RAM");
    f.put::<u16>(BREAKPOINT_HANDLER, 0xCF48);
    f.put::<u64>(RECORDS, RECORDS + 8);
    let mut code = code.to_vec();
    let end = code.len() as u64;
    code.extend([0xEB, 0xFE]); // jmp to itself
    f.mmu.ram.write(CODE, &code).expect("inside RAM");
    let mut engine = Engine::new();
    for _ in 0..500 {
        engine.run(&mut f.cpu, &mut f.mmu, 1);
        if f.cpu.rip == CODE + end {
            let count = (f.get::<u64>(RECORDS) - RECORDS - 8) / 24;
            let records = f.stack::<u64>(RECORDS + 8, count * 3);
            return records
                .chunks(3)
                .map(|record| (record[0].wrapping_sub(CODE), record[1] & !dr6::FIXED))
                .collect();
        }
    }
    panic!("stopped at {:#x}", f.cpu.rip);
}

fn stepping() -> Fixture {
    let mut f = Fixture::long(0);
    f.cpu.rflags |= flags::TF;
    f.cpu.update_stepping();
    f.cpu.gpr[gpr::RAX] = u64::from(DATA0);
    f
}

#[test]
fn each_instruction_traps() {
    // nop; nop; push 2; popf; nop
    let events = debug_events(&mut stepping(), &[0x90, 0x90, 0x6A, 2, 0x9D, 0x90]);
    assert_eq!(events, [1, 2, 4, 5].map(|at| (at, dr6::BS)));
}

#[test]
fn sti_does_not_hold_traps_back() {
    let events = debug_events(&mut stepping(), &[0xFB, 0x90]);
    assert_eq!(events, [(1, dr6::BS), (2, dr6::BS)]);
}

#[test]
fn a_load_of_ss_drops_its_own_trap() {
    // mov ss, eax; nop
    let events = debug_events(&mut stepping(), &[0x8E, 0xD0, 0x90]);
    assert_eq!(events, [(3, dr6::BS)]);
}

#[test]
fn int1_has_no_trap_of_its_own() {
    // mov ss, eax; int1; int1; nop
    let code = [0x8E, 0xD0, 0xF1, 0xF1, 0x90];
    let events = debug_events(&mut stepping(), &code);
    assert_eq!(events, [(3, 0), (4, 0), (5, dr6::BS)]);
}

#[test]
fn general_detect_is_a_fault_and_not_held_back() {
    // mov ss, eax; mov dr6, rbx; nop
    let mut f = stepping();
    f.cpu.dr7 |= dr7::GD;
    let events = debug_events(&mut f, &[0x8E, 0xD0, 0x0F, 0x23, 0xF3, 0x90]);
    assert_eq!(events, [(2, dr6::BD), (5, dr6::BS), (6, dr6::BS)]);
    assert_eq!(f.cpu.dr7 & dr7::GD, 0);
}

#[test]
fn a_trap_wakes_from_hlt() {
    let events = debug_events(&mut stepping(), &[0xF4, 0x90]);
    assert_eq!(events, [(1, dr6::BS), (2, dr6::BS)]);
}

/// A watchpoint of 4 bytes at [`DATA`] as breakpoint 1, reads and writes.
fn watching() -> Fixture {
    let mut f = Fixture::long(0);
    f.cpu.dr[1] = DATA;
    f.cpu.dr7 = dr7::FIXED | 1 << 2 | 0b1111 << 20;
    f.cpu.update_stepping();
    f.put::<u32>(DATA, u32::from(DATA0));
    f.cpu.gpr[gpr::RBX] = DATA;
    f
}

#[test]
fn a_watchpoint_traps_behind_the_access() {
    // mov [rbx], eax; nop
    let events = debug_events(&mut watching(), &[0x89, 0x03, 0x90]);
    assert_eq!(events, [(2, 2)]);
}

#[test]
fn a_watchpoint_of_a_load_of_ss_waits() {
    // mov ss, [rbx]; int1; nop: one #DB for both.
    let events = debug_events(&mut watching(), &[0x8E, 0x13, 0xF1, 0x90]);
    assert_eq!(events, [(3, 2)]);
    // mov ss, [rbx]; int 1: one in the handler of the other.
    let events = debug_events(&mut watching(), &[0x8E, 0x13, 0xCD, 0x01, 0x90]);
    assert_eq!(events, [(HANDLER - CODE, 2), (4, 0)]);
    // mov ss, [rbx]; int3: #DB in the handler of #BP.
    let events = debug_events(&mut watching(), &[0x8E, 0x13, 0xCC, 0x90]);
    assert_eq!(events, [(BREAKPOINT_HANDLER - CODE, 2)]);
}

#[test]
fn an_instruction_breakpoint_is_a_fault_without_rf() {
    let mut f = Fixture::long(0);
    f.cpu.dr[2] = CODE + 1;
    f.cpu.dr7 = dr7::FIXED | 1 << 4;
    f.cpu.update_stepping();
    // The handler sets RF, so that the instruction runs then.
    let events = debug_events(&mut f, &[0x90, 0x90, 0x90]);
    assert_eq!(events, [(1, 4)]);
    assert_eq!(f.get::<u64>(RECORDS + 8 + 16) & flags::RF, 0);
    assert_eq!(f.cpu.rflags & flags::RF, 0);
}

/// A watchpoint for writes to the eight bytes at `address` as breakpoint 1.
fn watching_writes(address: u64) -> Fixture {
    let mut f = Fixture::long(0);
    f.cpu.dr[1] = address;
    f.cpu.dr7 = dr7::FIXED | 1 << 2 | 0b1001 << 20;
    f.cpu.update_stepping();
    f
}

#[test]
fn a_watchpoint_sees_the_frames_of_events() {
    // SS is pushed first.
    let frame = (Fixture::long(0).cpu.gpr[gpr::RSP] & !0xF) - 8;
    // int3; nop
    let events = debug_events(&mut watching_writes(frame), &[0xCC, 0x90]);
    assert_eq!(events, [(BREAKPOINT_HANDLER - CODE, 2)]);
    // ud2; nop, with a handler that skips it: add qword [rsp], 2; iretq
    const SKIP: u64 = 0xE000;
    let mut f = watching_writes(frame);
    f.idt_long(6, gate(LONG0, SKIP, kind::INTERRUPT, 0), 0);
    f.mmu.ram.write(SKIP, &[0x48, 0x83, 0x04, 0x24, 2, 0x48, 0xCF]).expect("inside RAM");
    let events = debug_events(&mut f, &[0x0F, 0x0B, 0x90]);
    assert_eq!(events, [(SKIP - CODE, 2)]);
}

#[test]
fn a_breakpoint_on_the_frame_of_db_does_not_hang_the_host() {
    // int1 for ever: the handler of each #DB begins with the next one.
    let mut f = Fixture::long(0);
    let frame = (f.cpu.gpr[gpr::RSP] & !0xF) - 8;
    f = watching_writes(frame);
    f.idt_long(1, gate(LONG0, HANDLER, kind::INTERRUPT, 1), 0);
    f.put::<u64>(TSS + 0x24, frame + 8);
    f.mmu.ram.write(CODE, &[0xF1]).expect("inside RAM");
    f.mmu.ram.write(HANDLER, &[0x90]).expect("inside RAM");
    let exit = Engine::new().run(&mut f.cpu, &mut f.mmu, 100);
    assert!(matches!(exit, crate::Exit::Limit), "{exit:?}");
    assert_eq!((f.cpu.rip, f.get::<u64>(frame - 32)), (HANDLER, HANDLER));
}

#[test]
fn a_trap_between_iterations_has_rf_in_its_frame() {
    let mut f = watching_writes(DATA);
    (f.cpu.gpr[gpr::RDI], f.cpu.gpr[gpr::RCX]) = (DATA, 2);
    // rep stosb; nop
    let events = debug_events(&mut f, &[0xF3, 0xAA, 0x90]);
    assert_eq!(events, [(0, 2), (2, 2)]);
    let rf = |f: &mut Fixture, n: u64| f.get::<u64>(RECORDS + 8 + 24 * n + 16) & flags::RF != 0;
    assert!(rf(&mut f, 0), "one iteration is left");
    assert!(!rf(&mut f, 1), "behind the last one");
}

#[test]
fn an_interrupt_between_iterations_has_rf_in_its_frame() {
    // With a breakpoint elsewhere, iterations are done one by one.
    for (count, rf) in [(3, true), (1, false)] {
        let mut f = watching_writes(DATA);
        f.idt_long(0x40, gate(LONG0, HANDLER, kind::INTERRUPT, 0), 0);
        (f.cpu.gpr[gpr::RDI], f.cpu.gpr[gpr::RCX]) = (DATA + 8, count);
        f.mmu.ram.write(CODE, &[0xF3, 0xAA, 0x90]).expect("inside RAM");
        let mut engine = Engine::new();
        engine.step(&mut f.cpu, &mut f.mmu, 1);
        assert_eq!(f.cpu.gpr[gpr::RCX], count - 1);
        crate::events::external(&mut f.cpu, &mut f.mmu, 0x40).expect("delivered");
        let saved: u64 = f.get(f.cpu.gpr[gpr::RSP] + 16);
        assert_eq!(saved & flags::RF != 0, rf, "{count} iterations");
        // The handler's own events have nothing to do with it.
        crate::events::external(&mut f.cpu, &mut f.mmu, 0x40).expect("delivered");
        let saved: u64 = f.get(f.cpu.gpr[gpr::RSP] + 16);
        assert_eq!(saved & flags::RF, 0);
    }
}
