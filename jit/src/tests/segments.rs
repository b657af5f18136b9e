//! Programs where segments have bases and limits: real mode, V86 mode, 16-bit code, and 32-bit
//! code on segments that are not flat.

use super::kit::{CODE, Ended, Runner, Start, compare, guests, with_stack};
use iced_x86::code_asm::*;
use x86::{Fault, Vector};

type Program<'a> = &'a dyn Fn(&mut CodeAssembler, Start);

/// Offset of the first instruction.
fn origin(start: Start) -> u64 {
    CODE - start.code_base()
}

fn assemble(start: Start, program: Program) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(start.bits()).expect("a code size");
    program(&mut assembler, start);
    assembler.ud2().expect("room");
    assembler.assemble(origin(start)).expect("assembles")
}

/// Runs a program on all runners, at once and in small pieces, and returns how it ended and at
/// which distance from its UD2.
fn check(start: Start, program: Program) -> (Ended, i64) {
    let code = assemble(start, program);
    let end = origin(start) + code.len() as u64 - 2;
    let mut guests = guests(start);
    let mut ends = Vec::new();
    for guest in &mut guests {
        guest.reset(&with_stack([0; 16]));
        ends.push(guest.run(&code, 1_000_000));
    }
    compare(&mut guests, &ends, x86::flags::ALL, Some(end), &format!("{start:?}, whole"));
    assert_ne!(ends[0], Ended::Limit, "{start:?}: the program does not end");
    for guest in &mut guests {
        guest.reset(&with_stack([0; 16]));
        let mut end = guest.run(&code, 7);
        while end == Ended::Limit {
            end = guest.resume(7);
        }
        assert_eq!(end, ends[0], "{start:?}, in pieces");
    }
    compare(&mut guests, &ends, x86::flags::ALL, Some(end), &format!("{start:?}, in pieces"));
    let distance = match &ends[0] {
        Ended::Fault(_, rip) => *rip as i64 - end as i64,
        Ended::Stopped | Ended::Limit => i64::MAX,
    };
    (ends[0].clone(), distance)
}

/// [`check`] of a program that reaches its end, in all modes with segments.
fn check_all(program: Program) {
    for start in Start::SEGMENTED {
        assert_eq!(check(start, program).1, 0, "{start:?}");
    }
}

/// BX (EBX) = the address of a jump to the label.
fn thunk(a: &mut CodeAssembler, label: CodeLabel) {
    let mut over = a.create_label();
    a.call(over).unwrap();
    a.jmp(label).unwrap();
    a.set_label(&mut over).unwrap();
    if a.bitness() == 16 {
        a.pop(bx).unwrap();
    } else {
        a.pop(ebx).unwrap();
    }
}

/// A program that ends in a fault before its end.
fn check_fault(start: Start, vector: Vector, program: Program) {
    let (ended, distance) = check(start, program);
    let Ended::Fault(fault, _) = ended else { panic!("{start:?}: {ended:?}") };
    assert!(fault.is(vector) && distance != 0, "{start:?}: {fault:?} at {distance}");
}

#[test]
pub(super) fn loops_and_branches() {
    check_all(&|a, start| {
        let (mut top, mut inner, mut odd, mut over) =
            (a.create_label(), a.create_label(), a.create_label(), a.create_label());
        a.mov(cx, 300u32).unwrap();
        a.mov(ax, 1u32).unwrap();
        a.set_label(&mut top).unwrap();
        a.imul_3(ax, ax, 31).unwrap();
        a.add(ax, cx).unwrap();
        a.adc(edx, eax).unwrap();
        a.rcl(bx, 3).unwrap();
        a.test(al, 1).unwrap();
        a.jne(odd).unwrap();
        a.push(cx).unwrap();
        a.mov(cx, 5u32).unwrap();
        a.stc().unwrap();
        a.set_label(&mut inner).unwrap();
        a.adc(bx, 3u32).unwrap();
        a.loop_(inner).unwrap();
        a.pop(cx).unwrap();
        a.set_label(&mut odd).unwrap();
        a.sub(cx, 1u32).unwrap();
        a.jne(top).unwrap();
        if start.bits() == 16 {
            a.jcxz(over).unwrap();
        } else {
            a.jecxz(over).unwrap();
        }
        a.mov(ax, 0u32).unwrap();
        a.set_label(&mut over).unwrap();
        // Counters of the other address size, with the flags alive around them.
        let (mut wide, mut equal, mut not_equal) =
            (a.create_label(), a.create_label(), a.create_label());
        a.mov(ecx, 9u32).unwrap();
        a.set_label(&mut wide).unwrap();
        a.adc(ax, cx).unwrap();
        if start.bits() == 16 {
            a.db(&[0x67]).unwrap()
        }
        a.loop_(wide).unwrap();
        a.mov(ecx, 0x0001_0004u32).unwrap();
        a.xor(si, si).unwrap();
        a.set_label(&mut equal).unwrap();
        a.inc(si).unwrap();
        a.cmp(si, 3u32).unwrap();
        a.loopne(equal).unwrap();
        a.mov(ecx, 30u32).unwrap();
        a.set_label(&mut not_equal).unwrap();
        a.shl(si, 1u32).unwrap();
        a.cmp(ah, ah).unwrap();
        a.loope(not_equal).unwrap();
    });
}

#[test]
pub(super) fn calls_and_the_stack() {
    check_all(&|a, start| {
        let (mut top, mut leaf, mut framed, mut end, mut other) = (
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
            a.create_label(),
        );
        let wide = start.bits() == 32;
        a.mov(di, 200u32).unwrap();
        a.set_label(&mut top).unwrap();
        a.push(17).unwrap();
        a.push(0x1234).unwrap();
        a.call(framed).unwrap();
        thunk(a, other);
        if wide {
            a.mov(dword_ptr(0x20), ebx).unwrap();
            a.call(ebx).unwrap();
            a.call(dword_ptr(0x20)).unwrap();
        } else {
            a.mov(word_ptr(0x20), bx).unwrap();
            a.call(bx).unwrap();
            a.call(word_ptr(0x20)).unwrap();
        }
        a.pusha().unwrap();
        a.pushad().unwrap();
        a.pushf().unwrap();
        a.pushfd().unwrap();
        a.pop(eax).unwrap();
        a.pop(si).unwrap();
        a.xor(ecx, eax).unwrap();
        a.popad().unwrap();
        a.popa().unwrap();
        a.push(esp).unwrap();
        a.pop(edx).unwrap();
        a.push(sp).unwrap();
        a.pop(dx).unwrap();
        a.push(word_ptr(0x30)).unwrap();
        a.pop(bp).unwrap();
        a.push(ds).unwrap();
        if wide {
            a.pop(eax).unwrap()
        } else {
            a.pop(ax).unwrap()
        }
        a.push(sp).unwrap();
        a.pop(sp).unwrap();
        a.dec(di).unwrap();
        a.jne(top).unwrap();
        a.jmp(end).unwrap();
        a.set_label(&mut leaf).unwrap();
        a.add(edx, 3).unwrap();
        a.ret().unwrap();
        a.set_label(&mut other).unwrap();
        a.call(leaf).unwrap();
        a.xor(edx, eax).unwrap();
        a.ret().unwrap();
        a.set_label(&mut framed).unwrap();
        if wide {
            a.push(ebp).unwrap();
            a.mov(ebp, esp).unwrap();
        } else {
            a.push(bp).unwrap();
            a.mov(bp, sp).unwrap();
        }
        a.sub(sp, 40u32).unwrap();
        a.mov(al, byte_ptr(bp + 4)).unwrap();
        a.call(leaf).unwrap();
        a.leave().unwrap();
        a.ret_1(if wide { 8 } else { 4 }).unwrap();
        a.set_label(&mut end).unwrap();
    });
}

#[test]
pub(super) fn data_through_every_segment() {
    check_all(&|a, start| {
        let mut top = a.create_label();
        a.mov(cx, 100u32).unwrap();
        a.mov(bx, 0x100u32).unwrap();
        a.mov(si, 0x40u32).unwrap();
        a.mov(bp, 0x600u32).unwrap();
        a.set_label(&mut top).unwrap();
        a.add(word_ptr(bx + si), cx).unwrap();
        a.mov(eax, dword_ptr(bx + si - 0x20)).unwrap();
        a.xor(dword_ptr(bp + si), eax).unwrap();
        a.mov(byte_ptr(bx + si).es(), al).unwrap();
        a.mov(dword_ptr(bx + 0x4000).es(), eax).unwrap();
        a.mov(dx, word_ptr(origin(start)).cs()).unwrap();
        if start != Start::Protected16 {
            a.add(ax, word_ptr(0x5000).gs()).unwrap();
        }
        a.add(ax, word_ptr(0x5002).fs()).unwrap();
        a.mov(edi, 0x208u32).unwrap();
        a.lea(edi, ptr(edi + edi * 2 + 5)).unwrap();
        a.xor(dword_ptr(edi), eax).unwrap();
        a.xadd(word_ptr(di), dx).unwrap();
        a.inc(bx).unwrap();
        a.loop_(top).unwrap();
        a.cld().unwrap();
        a.mov(cx, 9u32).unwrap();
        a.mov(si, 0x10u32).unwrap();
        a.mov(di, 0x80u32).unwrap();
        a.rep().movsw().unwrap();
        a.lodsb().unwrap();
        a.stosd().unwrap();
        a.xlatb().unwrap();
    });
}

#[test]
pub(super) fn selectors_are_bases() {
    for start in [Start::Real, Start::Virtual8086] {
        let (_, distance) = check(start, &|a, _| {
            let mut top = a.create_label();
            a.mov(word_ptr(0x10), 0x34u32).unwrap();
            a.mov(word_ptr(0x12), 0x1100u32).unwrap();
            a.mov(cx, 100u32).unwrap();
            a.set_label(&mut top).unwrap();
            a.mov(ax, cx).unwrap();
            a.add(ax, 0x1000u32).unwrap();
            a.mov(es, ax).unwrap();
            a.add(word_ptr(0x22).es(), ax).unwrap();
            a.push(ds).unwrap();
            a.push(es).unwrap();
            a.pop(ds).unwrap();
            a.add(dx, word_ptr(0x22)).unwrap();
            a.pop(ds).unwrap();
            a.les(bx, dword_ptr(0x10)).unwrap();
            a.inc(word_ptr(bx).es()).unwrap();
            a.lfs(bx, dword_ptr(0x10)).unwrap();
            a.adc(dx, word_ptr(bx).fs()).unwrap();
            a.lgs(bx, dword_ptr(0x10)).unwrap();
            a.adc(dx, word_ptr(bx).gs()).unwrap();
            a.mov(gs, word_ptr(0x12)).unwrap();
            a.sbb(word_ptr(bx + 2).gs(), dx).unwrap();
            a.mov(si, ss).unwrap();
            a.mov(ss, si).unwrap();
            a.mov(sp, sp).unwrap();
            a.mov(word_ptr(0x14), es).unwrap();
            a.loop_(top).unwrap();
        });
        assert_eq!(distance, 0, "{start:?}");
    }
}

#[test]
fn far_transfers_between_segments_that_overlap() {
    for start in [Start::Real, Start::Virtual8086] {
        let (_, distance) = check(start, &|a, start| {
            // The same function is called with two bases, and once returns near with another base
            // than it was called with: what was predicted for the one is nothing for the other.
            let (mut top, mut far, mut near, mut end) =
                (a.create_label(), a.create_label(), a.create_label(), a.create_label());
            let selector = (start.code_base() >> 4) as u16;
            a.mov(cx, 50u32).unwrap();
            a.set_label(&mut top).unwrap();
            a.call(near).unwrap();
            thunk(a, far);
            a.mov(word_ptr(0x40), bx).unwrap();
            a.mov(word_ptr(0x42), u32::from(selector)).unwrap();
            // CALL FAR [0x40], then 16 bytes lower in a segment 16 bytes higher.
            a.db(&[0xFF, 0x1E, 0x40, 0x00]).unwrap();
            a.sub(word_ptr(0x40), 16u32).unwrap();
            a.inc(word_ptr(0x42)).unwrap();
            a.db(&[0xFF, 0x1E, 0x40, 0x00]).unwrap();
            a.loop_(top).unwrap();
            a.jmp(end).unwrap();
            a.set_label(&mut far).unwrap();
            a.add(dx, 5u32).unwrap();
            a.mov(ax, cs).unwrap();
            a.add(dx, ax).unwrap();
            a.call(near).unwrap();
            a.retf().unwrap();
            a.set_label(&mut near).unwrap();
            a.rol(dx, 1u32).unwrap();
            a.ret().unwrap();
            a.set_label(&mut end).unwrap();
            // Into an alias of this code by a far jump in a function, and back by its RET.
            let (mut again, mut function, mut alias, mut done) =
                (a.create_label(), a.create_label(), a.create_label(), a.create_label());
            a.mov(cx, 20u32).unwrap();
            a.set_label(&mut again).unwrap();
            a.call(function).unwrap();
            a.mov(ax, cs).unwrap();
            a.add(dx, ax).unwrap();
            // Back to the first base.
            a.push(u32::from(selector) as i32).unwrap();
            thunk(a, done);
            a.add(bx, 16u32).unwrap();
            a.push(bx).unwrap();
            a.retf().unwrap();
            a.set_label(&mut done).unwrap();
            a.loop_(again).unwrap();
            a.ud2().unwrap();
            a.set_label(&mut function).unwrap();
            a.pop(bx).unwrap();
            a.sub(bx, 16u32).unwrap();
            a.push(bx).unwrap();
            a.push(u32::from(selector + 1) as i32).unwrap();
            thunk(a, alias);
            a.sub(bx, 16u32).unwrap();
            a.push(bx).unwrap();
            a.retf().unwrap();
            a.set_label(&mut alias).unwrap();
            a.inc(dx).unwrap();
            a.ret().unwrap();
        });
        assert!(distance < 0, "{start:?}: ended at {distance}");
    }
}

#[test]
fn limits_of_code() {
    for start in [Start::Real, Start::Virtual8086, Start::Protected16, Start::Based32] {
        let limit = if start.bits() == 16 && start != Start::Protected16 { 0xFFFF } else { 0x1FFF };
        // Off the end of the segment, in 16-byte steps.
        let ended = check(start, &|a, start| {
            let mut top = a.create_label();
            a.set_label(&mut top).unwrap();
            a.inc(dx).unwrap();
            a.cmp(dx, 40u32).unwrap();
            a.jne(top).unwrap();
            let room = limit - 1 - origin(start);
            if start.bits() == 32 {
                a.jmp(origin(start) + room).unwrap();
            } else {
                a.mov(word_ptr(0), 0x9090u32).unwrap();
                a.mov(ax, (limit - 1) as u32).unwrap();
                a.jmp(ax).unwrap();
            }
        });
        assert!(matches!(ended.0, Ended::Fault(..)), "{start:?}: {ended:?}");
        if limit == 0x1FFF {
            check_fault(start, Vector::GP, &|a, _| {
                a.inc(dx).unwrap();
                a.jmp(limit + 1).unwrap();
            });
            check_fault(start, Vector::GP, &|a, _| {
                a.cmp(dx, dx).unwrap();
                a.je(limit + 9).unwrap();
            });
            check_fault(start, Vector::GP, &|a, _| {
                a.push(0x2345).unwrap();
                a.ret_1(8).unwrap();
            });
            check_fault(start, Vector::GP, &|a, _| {
                a.call(limit + 1).unwrap();
            });
        }
    }
}

#[test]
fn limits_of_data_and_stack() {
    use Start::*;
    // A word at the last byte of a segment of 64 KiB.
    for start in [Real, Virtual8086] {
        check_fault(start, Vector::GP, &|a, _| {
            a.mov(bx, 0xFFFFu32).unwrap();
            a.mov(byte_ptr(bx), 3u32).unwrap();
            a.mov(word_ptr(bx), ax).unwrap();
        });
        check_fault(start, Vector::SS, &|a, _| {
            a.mov(sp, 1u32).unwrap();
            a.push(ax).unwrap();
        });
        // The pointer wraps around between two pushes, and between two pops.
        let (_, distance) = check(start, &|a, _| {
            a.mov(sp, 2u32).unwrap();
            a.push(ax).unwrap();
            a.push(si).unwrap();
            a.pop(dx).unwrap();
            a.pop(dx).unwrap();
        });
        assert_eq!(distance, 0);
        check_fault(start, Vector::SS, &|a, _| {
            a.mov(sp, 0xFFFFu32).unwrap();
            a.pop(ax).unwrap();
        });
        check_fault(start, Vector::SS, &|a, _| {
            a.mov(sp, 2u32).unwrap();
            a.pushad().unwrap();
        });
    }
    for start in [Protected16, Based32] {
        check_fault(start, Vector::GP, &|a, _| {
            a.mov(ebx, 0x7FFEu32).unwrap();
            a.mov(word_ptr(ebx), ax).unwrap();
            a.mov(dword_ptr(ebx), eax).unwrap();
        });
        check_fault(start, Vector::GP, &|a, _| {
            a.mov(ebx, 0xFFFF_FFFFu32).unwrap();
            a.mov(word_ptr(ebx), ax).unwrap();
        });
        check_fault(start, Vector::GP, &|a, _| {
            a.mov(bx, 0x8000u32).unwrap();
            a.mov(byte_ptr(bx), al).unwrap();
        });
        check_fault(start, Vector::SS, &|a, _| {
            a.mov(esp, 0xC02u32).unwrap();
            a.push(ax).unwrap();
        });
        check_fault(start, Vector::SS, &|a, _| {
            a.mov(esp, 0xBFFu32).unwrap();
            a.pop(ax).unwrap();
        });
        // Below the limit of a segment that expands down.
        check_fault(start, Vector::GP, &|a, _| {
            a.mov(ax, word_ptr(0x4000).fs()).unwrap();
            a.mov(ax, word_ptr(0x3FFF).fs()).unwrap();
        });
        // Code is read and not written.
        check_fault(start, Vector::GP, &|a, start| {
            a.mov(ax, word_ptr(origin(start)).cs()).unwrap();
            a.mov(word_ptr(origin(start)).cs(), ax).unwrap();
        });
    }
    check_fault(Protected16, Vector::GP, &|a, _| a.mov(ax, word_ptr(0).gs()).unwrap());
    check_fault(Based32, Vector::GP, &|a, _| {
        a.mov(ax, word_ptr(0).gs()).unwrap();
        a.mov(word_ptr(0).gs(), ax).unwrap();
    });
    check_fault(Based32, Vector::GP, &|a, _| {
        a.mov(ebx, 0xFFFF_FFFEu32).unwrap();
        a.mov(ax, word_ptr(ebx).es()).unwrap();
        a.mov(eax, dword_ptr(ebx).es()).unwrap();
    });
    // A register loaded with another limit than the code was translated for.
    check_fault(Protected16, Vector::GP, &|a, _| {
        let mut top = a.create_label();
        a.mov(cx, 3u32).unwrap();
        a.set_label(&mut top).unwrap();
        a.mov(word_ptr(bx), cx).unwrap();
        a.xor(ax, ax).unwrap();
        a.cmp(cx, 1u32).unwrap();
        let mut skip = a.create_label();
        a.jne(skip).unwrap();
        a.mov(ds, ax).unwrap();
        a.set_label(&mut skip).unwrap();
        a.sub(cx, 1u32).unwrap();
        a.jns(top).unwrap();
    });
}

#[test]
fn code_that_changes_itself() {
    for start in [Start::Real, Start::Virtual8086] {
        let (_, distance) = check(start, &|a, start| {
            let mut top = a.create_label();
            a.mov(cx, 60u32).unwrap();
            a.mov(ax, (start.code_base() >> 4) as u32).unwrap();
            a.mov(es, ax).unwrap();
            let mut here = a.create_label();
            a.call(here).unwrap();
            a.set_label(&mut here).unwrap();
            a.pop(bx).unwrap();
            a.set_label(&mut top).unwrap();
            // The immediate of what follows: POP has a byte, INC four, the opcode one.
            a.inc(byte_ptr(bx + 6).es()).unwrap();
            a.mov(al, 7u32).unwrap();
            a.add(dl, al).unwrap();
            a.loop_(top).unwrap();
        });
        assert_eq!(distance, 0, "{start:?}");
    }
}

#[test]
fn faults_are_those_of_the_segment() {
    let fault = |start: Start, program: Program| match check(start, program).0 {
        Ended::Fault(fault, _) => fault,
        Ended::Stopped | Ended::Limit => panic!("no fault"),
    };
    let through_stack = fault(Start::Based32, &|a, _| {
        a.mov(ebp, 0x2000u32).unwrap();
        a.mov(eax, dword_ptr(ebp)).unwrap();
    });
    assert_eq!(through_stack, Fault::SS0);
    let through_data = fault(Start::Based32, &|a, _| {
        a.mov(ebp, 0x9000u32).unwrap();
        a.mov(eax, dword_ptr(ebp).ds()).unwrap();
    });
    assert_eq!(through_data, Fault::GP0);
}

#[test]
fn every_mode_is_translated() {
    for start in Start::SEGMENTED {
        let code = assemble(start, &|a, _| {
            let mut top = a.create_label();
            a.mov(cx, 1000u32).unwrap();
            a.set_label(&mut top).unwrap();
            a.add(word_ptr(0x10), cx).unwrap();
            a.push(cx).unwrap();
            a.pop(dx).unwrap();
            a.loop_(top).unwrap();
        });
        let mut guest = guests(start).pop().expect("a translating guest");
        guest.reset(&with_stack([0; 16]));
        guest.run(&code, 100_000);
        let Runner::Jit(engine) = &guest.runner else { panic!("the last one translates") };
        let share = engine.stats().native_share();
        assert!(share > 0.9, "{start:?}: {share}");
    }
}
