//! Programs with branches, calls, loops, faults and code that changes.

use super::kit::{CODE, DATA, Ended, Start, USER, compare, guests, with_stack};
use iced_x86::code_asm::*;

/// What a bit test leaves undefined.
const UNDEFINED_BY_BT: u64 = x86::flags::ARITHMETIC & !x86::flags::CF & !x86::flags::ZF;

fn assemble(bits: u32, program: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(bits).expect("a code size");
    program(&mut assembler);
    assembler.ud2().expect("room");
    assembler.assemble(CODE).expect("assembles")
}

/// The address of the UD2 at the end.
fn end_of(code: &[u8]) -> Option<u64> {
    Some(CODE + code.len() as u64 - 2)
}

/// Runs a program on all runners, at once and in small pieces, and returns the last ending.
pub(super) fn check(start: Start, program: impl FnOnce(&mut CodeAssembler)) -> Ended {
    check_masked(start, x86::flags::ALL, program)
}

/// [`check`] where only the flags of `mask` are defined at the end.
fn check_masked(start: Start, mask: u64, program: impl FnOnce(&mut CodeAssembler)) -> Ended {
    let bits = if start == Start::Protected32 { 32 } else { 64 };
    let code = assemble(bits, program);
    let mut guests = guests(start);
    let mut ends = Vec::new();
    for guest in &mut guests {
        guest.reset(&with_stack([0; 16]));
        ends.push(guest.run(&code, 10_000_000));
    }
    compare(&mut guests, &ends, mask, end_of(&code), "whole");
    for guest in &mut guests {
        guest.reset(&with_stack([0; 16]));
        let mut end = guest.run(&code, 7);
        while end == Ended::Limit {
            end = guest.resume(7);
        }
        assert_eq!(end, ends[0]);
    }
    compare(&mut guests, &ends, mask, end_of(&code), "in pieces");
    ends[0].clone()
}

#[test]
pub(super) fn strings_without_a_prefix() {
    check(Start::Long, |a| {
        let mut top = a.create_label();
        a.mov(rcx, 200u64).unwrap();
        a.mov(rsi, DATA + 0x200).unwrap();
        a.mov(rdi, DATA + 0x1F00).unwrap();
        a.set_label(&mut top).unwrap();
        a.cld().unwrap();
        a.movsb().unwrap();
        a.movsw().unwrap();
        a.movsd().unwrap();
        a.movsq().unwrap();
        a.stc().unwrap();
        a.lodsb().unwrap();
        a.adc(rdx, rax).unwrap();
        a.lodsw().unwrap();
        a.lodsd().unwrap();
        a.stosb().unwrap();
        a.stosw().unwrap();
        a.lodsq().unwrap();
        a.stosq().unwrap();
        a.stosd().unwrap();
        a.std().unwrap();
        a.lodsq().unwrap();
        a.stosw().unwrap();
        a.movsb().unwrap();
        a.db(&[0x67]).unwrap();
        a.movsd().unwrap();
        a.loop_(top).unwrap();
    });
}

#[test]
fn bit_strings() {
    check_masked(Start::Long, x86::flags::ALL & !UNDEFINED_BY_BT, |a| {
        let mut top = a.create_label();
        a.mov(rcx, 0xFFFF_FFFF_FFFF_F000u64).unwrap();
        a.mov(rbx, DATA + 0x2000).unwrap();
        a.mov(r11, 100u64).unwrap();
        a.set_label(&mut top).unwrap();
        a.bts(qword_ptr(rbx), rcx).unwrap();
        a.adc(rax, rax).unwrap();
        a.bt(dword_ptr(rbx + 3), ecx).unwrap();
        a.adc(rax, rax).unwrap();
        a.btr(word_ptr(rbx), cx).unwrap();
        a.adc(rax, rax).unwrap();
        a.lock().btc(dword_ptr(rbx + 8), r11d).unwrap();
        a.rcl(rdx, 1u32).unwrap();
        a.btc(qword_ptr(rbx + r11), r11).unwrap();
        a.rcl(rdx, 1u32).unwrap();
        a.add(rcx, 331).unwrap();
        a.dec(r11).unwrap();
        a.jne(top).unwrap();
    });
}

#[test]
pub(super) fn swapgs_swaps_bases() {
    check(Start::Long, |a| {
        a.swapgs().unwrap();
        a.mov(rax, qword_ptr(DATA).gs()).unwrap();
        a.swapgs().unwrap();
        a.add(rax, qword_ptr(DATA).gs()).unwrap();
    });
    let ended = check(Start::User64, |a| a.swapgs().unwrap());
    assert!(matches!(ended, Ended::Fault(fault, _) if fault == x86::Fault::GP0), "{ended:?}");
}

#[test]
pub(super) fn counted_loops() {
    check(Start::Long, |a| {
        let (mut top, mut inner, mut over) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(rcx, 500u64).unwrap();
        a.set_label(&mut top).unwrap();
        a.add(rax, rcx).unwrap();
        a.push(rcx).unwrap();
        a.mov(rcx, 0x1_0000_0003u64).unwrap();
        a.set_label(&mut inner).unwrap();
        a.adc(rdx, rax).unwrap();
        a.db(&[0x67]).unwrap();
        a.loop_(inner).unwrap();
        a.jrcxz(over).unwrap();
        a.mov(rdx, 0u64).unwrap();
        a.set_label(&mut over).unwrap();
        a.pop(rcx).unwrap();
        a.loop_(top).unwrap();
    });
}

#[test]
pub(super) fn loops_and_flags() {
    check(Start::Long, |a| {
        let mut top = a.create_label();
        a.mov(rcx, 1000u64).unwrap();
        a.mov(rax, 1u64).unwrap();
        a.mov(r10, 3u64).unwrap();
        a.set_label(&mut top).unwrap();
        a.imul_3(rax, rax, 31).unwrap();
        a.add(rax, r10).unwrap();
        a.adc(r11, rax).unwrap();
        a.rcl(r9, 3).unwrap();
        a.sub(rcx, 1).unwrap();
        a.jne(top).unwrap();
    });
}

#[test]
fn memory_sum_with_carry_in_flags_over_the_back_edge() {
    check(Start::Long, |a| {
        let mut top = a.create_label();
        a.mov(rsi, DATA).unwrap();
        a.mov(rdi, DATA + 0x4000).unwrap();
        a.mov(rcx, 512u64).unwrap();
        a.clc().unwrap();
        a.set_label(&mut top).unwrap();
        a.mov(rax, qword_ptr(rsi)).unwrap();
        a.adc(qword_ptr(rdi), rax).unwrap();
        a.lea(rsi, qword_ptr(rsi + 8)).unwrap();
        a.lea(rdi, qword_ptr(rdi + 8)).unwrap();
        a.dec(rcx).unwrap();
        a.jne(top).unwrap();
    });
}

#[test]
pub(super) fn recursion() {
    for start in [Start::Long, Start::User64] {
        check(start, |a| {
            let (mut fib, mut small, mut done) =
                (a.create_label(), a.create_label(), a.create_label());
            a.mov(edi, 15).unwrap();
            a.call(fib).unwrap();
            a.jmp(done).unwrap();
            a.set_label(&mut fib).unwrap();
            a.cmp(edi, 2).unwrap();
            a.jb(small).unwrap();
            a.push(rbx).unwrap();
            a.push(r11).unwrap();
            a.mov(ebx, edi).unwrap();
            a.lea(edi, dword_ptr(rbx - 1)).unwrap();
            a.call(fib).unwrap();
            a.mov(r11, rax).unwrap();
            a.lea(edi, dword_ptr(rbx - 2)).unwrap();
            a.call(fib).unwrap();
            a.add(rax, r11).unwrap();
            a.pop(r11).unwrap();
            a.pop(rbx).unwrap();
            a.ret().unwrap();
            a.set_label(&mut small).unwrap();
            a.mov(eax, edi).unwrap();
            a.ret().unwrap();
            a.set_label(&mut done).unwrap();
            a.nop().unwrap();
        });
    }
}

#[test]
pub(super) fn recursion_in_32_bits() {
    check(Start::Protected32, |a| {
        let (mut fib, mut small, mut done) = (a.create_label(), a.create_label(), a.create_label());
        a.push(14).unwrap();
        a.call(fib).unwrap();
        a.add(esp, 4).unwrap();
        a.jmp(done).unwrap();
        a.set_label(&mut fib).unwrap();
        a.push(ebp).unwrap();
        a.mov(ebp, esp).unwrap();
        a.push(ebx).unwrap();
        a.mov(eax, dword_ptr(ebp + 8)).unwrap();
        a.cmp(eax, 2).unwrap();
        a.jb(small).unwrap();
        a.dec(eax).unwrap();
        a.push(eax).unwrap();
        a.call(fib).unwrap();
        a.mov(ebx, eax).unwrap();
        a.dec(dword_ptr(esp)).unwrap();
        a.call(fib).unwrap();
        a.add(esp, 4).unwrap();
        a.add(eax, ebx).unwrap();
        a.set_label(&mut small).unwrap();
        a.mov(ebx, dword_ptr(ebp - 4)).unwrap();
        a.leave().unwrap();
        a.ret().unwrap();
        a.set_label(&mut done).unwrap();
        a.nop().unwrap();
    });
}

#[test]
pub(super) fn jump_tables() {
    check(Start::Long, |a| {
        let mut cases = [a.create_label(), a.create_label(), a.create_label(), a.create_label()];
        let (mut top, mut join) = (a.create_label(), a.create_label());
        for (i, case) in cases.iter().enumerate() {
            a.lea(rax, ptr(*case)).unwrap();
            a.mov(qword_ptr(DATA + 8 * i as u64), rax).unwrap();
        }
        a.mov(ecx, 5000).unwrap();
        a.set_label(&mut top).unwrap();
        a.imul_3(edx, ecx, 0x9E37_79B1u32 as i32).unwrap();
        a.shr(edx, 30).unwrap();
        a.jmp(qword_ptr(DATA + rdx * 8)).unwrap();
        for (i, case) in cases.iter_mut().enumerate() {
            a.set_label(case).unwrap();
            a.add(rbx, 3 * i as i32 + 1).unwrap();
            a.jmp(join).unwrap();
        }
        a.set_label(&mut join).unwrap();
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
    });
}

#[test]
fn code_that_rewrites_itself() {
    check(Start::Long, |a| {
        let (mut top, mut patched) = (a.create_label(), a.create_label());
        a.mov(ecx, 200).unwrap();
        a.lea(rdi, ptr(patched)).unwrap();
        a.set_label(&mut top).unwrap();
        // The store changes an instruction of the block that executes it.
        a.mov(dword_ptr(rdi + 1), ecx).unwrap();
        a.set_label(&mut patched).unwrap();
        a.mov(eax, 0x1111_1111).unwrap();
        a.add(rbx, rax).unwrap();
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
    });
}

#[test]
fn faults_are_precise() {
    let end = check(Start::Long, |a| {
        a.mov(rax, 0x8000_0000_0000_0000u64).unwrap();
        a.mov(rbx, 7u64).unwrap();
        a.add(rbx, 1).unwrap();
        a.mov(qword_ptr(rax), rbx).unwrap();
        a.add(rbx, 1).unwrap();
    });
    assert!(matches!(end, Ended::Fault(x86::Fault::GP0, _)), "{end:?}");
    let end = check(Start::Long, |a| {
        a.mov(eax, 1).unwrap();
        a.xor(edx, edx).unwrap();
        a.xor(ecx, ecx).unwrap();
        a.div(ecx).unwrap();
    });
    assert!(matches!(end, Ended::Fault(x86::Fault::DE, _)), "{end:?}");
}

#[test]
fn returns_to_anywhere() {
    // Pushes targets by hand and returns to them; the last one is not canonical.
    let end = check(Start::Long, |a| {
        let (mut one, mut two) = (a.create_label(), a.create_label());
        a.mov(rax, 0x1234_5678_9ABC_0000u64).unwrap();
        a.push(rax).unwrap();
        for label in [two, one] {
            a.lea(rax, ptr(label)).unwrap();
            a.push(rax).unwrap();
        }
        a.ret().unwrap();
        a.set_label(&mut one).unwrap();
        a.add(rbx, 1).unwrap();
        a.ret_1(8u32).unwrap();
        a.set_label(&mut two).unwrap();
        a.nop().unwrap();
    });
    assert!(matches!(end, Ended::Fault(..)), "{end:?}");
}

/// A call to an address that is not canonical faults before it writes the return address: the
/// comparison covers the stack.
#[test]
fn calls_to_addresses_that_are_not_canonical_write_nothing() {
    for memory in [false, true] {
        let end = check(Start::Long, |a| {
            a.mov(rax, 0x8000_0000_0000u64).unwrap();
            a.mov(qword_ptr(DATA), rax).unwrap();
            if memory {
                a.call(qword_ptr(DATA)).unwrap();
            } else {
                a.call(rax).unwrap();
            }
        });
        assert!(matches!(end, Ended::Fault(x86::Fault::GP0, _)), "{end:?}");
    }
}

/// With an operand-size prefix, a call in 32-bit code pushes 16 bits.
#[test]
fn calls_with_an_operand_size_prefix() {
    check(Start::Protected32, |a| {
        // call +0, and pop ax
        a.db(&[0x66, 0xE8, 0, 0]).unwrap();
        a.db(&[0x66, 0x58]).unwrap();
    });
}

#[test]
fn halts() {
    assert_eq!(check(Start::Long, |a| a.hlt().unwrap()), Ended::Stopped);
}

#[test]
fn a_tiny_cache_is_flushed_and_goes_on() {
    let code = assemble(64, |a| {
        let mut top = a.create_label();
        a.mov(ecx, 100).unwrap();
        a.set_label(&mut top).unwrap();
        for i in 0..400 {
            a.add(rax, i).unwrap();
            let mut next = a.create_label();
            a.jmp(next).unwrap();
            a.set_label(&mut next).unwrap();
        }
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
    });
    let mut guests = guests(Start::Long);
    let config = crate::Config { threshold: 0, cache_size: 1, ..crate::Config::default() };
    let engine = crate::Engine::new(config).expect("an engine");
    guests[1] = super::kit::Guest::new(Start::Long, super::kit::Runner::Jit(Box::new(engine)));
    let mut ends = Vec::new();
    for guest in &mut guests {
        guest.reset(&with_stack([0; 16]));
        ends.push(guest.run(&code, 10_000_000));
    }
    compare(&mut guests, &ends, x86::flags::ALL, end_of(&code), "tiny cache");
}

#[test]
pub(super) fn conditions() {
    type Jump = fn(&mut CodeAssembler, CodeLabel);
    let jumps: [Jump; 16] = [
        |a, l| a.jo(l).unwrap(),
        |a, l| a.jno(l).unwrap(),
        |a, l| a.jb(l).unwrap(),
        |a, l| a.jae(l).unwrap(),
        |a, l| a.je(l).unwrap(),
        |a, l| a.jne(l).unwrap(),
        |a, l| a.jbe(l).unwrap(),
        |a, l| a.ja(l).unwrap(),
        |a, l| a.js(l).unwrap(),
        |a, l| a.jns(l).unwrap(),
        |a, l| a.jp(l).unwrap(),
        |a, l| a.jnp(l).unwrap(),
        |a, l| a.jl(l).unwrap(),
        |a, l| a.jge(l).unwrap(),
        |a, l| a.jle(l).unwrap(),
        |a, l| a.jg(l).unwrap(),
    ];
    check(Start::Long, |a| {
        let mut top = a.create_label();
        a.mov(ecx, 300).unwrap();
        a.mov(esi, 0x1234_5678).unwrap();
        a.set_label(&mut top).unwrap();
        a.imul_3(esi, esi, 0x19660D).unwrap();
        a.add(esi, 0x3C6E_F35F).unwrap();
        for jump in jumps {
            let mut taken = a.create_label();
            a.imul_3(edx, esi, 77).unwrap();
            a.cmp(dl, cl).unwrap();
            // Destroys EFLAGS in host code, so that the jump needs them back.
            a.mov(qword_ptr(DATA), rdx).unwrap();
            jump(a, taken);
            a.inc(rbx).unwrap();
            a.set_label(&mut taken).unwrap();
            a.rol(rbx, 3).unwrap();
        }
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
    });
}

#[test]
pub(super) fn smap_suspended_and_in_force() {
    let end = check(Start::Smap, |a| {
        let mut top = a.create_label();
        a.mov(ecx, 50).unwrap();
        a.mov(rdi, USER).unwrap();
        a.set_label(&mut top).unwrap();
        a.stac().unwrap();
        a.add(qword_ptr(rdi), rcx).unwrap();
        a.clac().unwrap();
        a.add(rdi, 0x40).unwrap();
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
        a.mov(rax, qword_ptr(rdi)).unwrap();
    });
    assert!(matches!(end, Ended::Fault(fault, _) if fault.is(x86::Vector::PF)), "{end:?}");
}

#[test]
fn instructions_across_pages() {
    check(Start::Long, |a| {
        let (mut top, mut start) = (a.create_label(), a.create_label());
        a.mov(ecx, 100).unwrap();
        a.mov(edi, (CODE + 0x1001) as u32).unwrap();
        a.jmp(start).unwrap();
        // MOV RAX, imm64 lies at 0x8FFB to 0x9004; its immediate is changed as it goes.
        let here = a.assemble(CODE).expect("assembles").len();
        a.db(&vec![0xCC; 0xFF8 - here]).unwrap();
        a.set_label(&mut start).unwrap();
        a.nop().unwrap();
        a.set_label(&mut top).unwrap();
        a.mov(byte_ptr(rdi), cl).unwrap();
        a.mov(rax, 0x1122_3344_5566_7788u64).unwrap();
        a.add(rbx, rax).unwrap();
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
    });
}

#[test]
pub(super) fn hints_do_nothing() {
    check(Start::Long, |a| {
        a.endbr64().unwrap();
        a.endbr32().unwrap();
        a.mov(rdi, 0x0123_4567_89AB_CDEFu64).unwrap();
        a.prefetch(byte_ptr(rdi)).unwrap();
        a.prefetchw(byte_ptr(rdi)).unwrap();
        a.prefetcht0(byte_ptr(rdi)).unwrap();
        a.prefetcht1(byte_ptr(rdi)).unwrap();
        a.prefetcht2(byte_ptr(rdi)).unwrap();
        a.prefetchnta(byte_ptr(rdi)).unwrap();
        a.vzeroupper().unwrap();
    });
}

/// A block whose only vector instruction is VZEROUPPER finds the registers loaded, or not.
#[test]
pub(super) fn vzeroupper_in_a_block_of_its_own() {
    for start in [Start::Long, Start::User64] {
        let end = check(start, |a| {
            let (mut top, mut cold, mut sum, mut clear) =
                (a.create_label(), a.create_label(), a.create_label(), a.create_label());
            a.mov(ecx, 100).unwrap();
            a.set_label(&mut top).unwrap();
            a.vmovd(xmm0, ecx).unwrap();
            a.call(sum).unwrap();
            a.vpxor(ymm2, ymm1, ymm3).unwrap();
            a.call(clear).unwrap();
            a.test(ecx, 3).unwrap();
            a.jne(cold).unwrap();
            // Leaves the registers in the context.
            a.xlatb().unwrap();
            a.vzeroupper().unwrap();
            a.set_label(&mut cold).unwrap();
            a.vzeroupper().unwrap();
            a.dec(ecx).unwrap();
            a.jne(top).unwrap();
            a.ud2().unwrap();
            a.set_label(&mut sum).unwrap();
            a.vpaddd(ymm1, ymm1, ymm0).unwrap();
            a.ret().unwrap();
            a.set_label(&mut clear).unwrap();
            a.inc(eax).unwrap();
            a.vzeroupper().unwrap();
            a.ret().unwrap();
        });
        // To the first UD2, not to AVX being off.
        assert!(matches!(end, Ended::Fault(_, rip) if rip > CODE + 0x20), "{end:?}");
    }
}

/// AMD's CPUs keep CF over DIV and most flags over BSF and IMUL; what translated code compares in
/// front of the copy must not show.
#[test]
fn undefined_flags_are_the_guests_own() {
    let last: [fn(&mut CodeAssembler); 4] = [
        |a| a.div(esi).unwrap(),
        |a| a.idiv(qword_ptr(DATA)).unwrap(),
        |a| a.bsf(rax, qword_ptr(DATA)).unwrap(),
        |a| a.imul_2(eax, dword_ptr(DATA)).unwrap(),
    ];
    for last in last {
        for subtrahend in [3, 3000] {
            check_masked(Start::Long, 0, |a| {
                a.mov(qword_ptr(DATA), 0x70).unwrap();
                a.mov(eax, 1000).unwrap();
                a.mov(edx, 0).unwrap();
                a.mov(esi, 7).unwrap();
                a.cmp(eax, subtrahend).unwrap();
                last(a);
            });
        }
    }
}

#[test]
pub(super) fn flags_are_pushed() {
    check(Start::Long, |a| {
        for n in 0..4u32 {
            a.cmp(eax, n as i32).unwrap();
            a.pushfq().unwrap();
            a.pop(rbx).unwrap();
            a.mov(qword_ptr(DATA + 8 * u64::from(n)), rbx).unwrap();
            a.inc(eax).unwrap();
        }
    });
}
