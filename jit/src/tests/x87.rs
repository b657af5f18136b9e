//! x87 control and status words, and pointers to the last instruction and operand.

use super::kit::{DATA, Ended, Start};
use super::programs::check;
use iced_x86::code_asm::*;
use x86::Fault;

/// Conversion to an integer as compilers without SSE write it: with another rounding, and back.
#[test]
fn rounding_by_the_control_word() {
    for start in [Start::Long, Start::User64] {
        for rounding in [0x0000u32, 0x0400, 0x0800, 0x0C00] {
            let end = check(start, |a| {
                let (mut top, mut less) = (a.create_label(), a.create_label());
                a.fninit().unwrap();
                a.mov(rbx, DATA + 0x100).unwrap();
                a.mov(ecx, 20).unwrap();
                a.xor(edx, edx).unwrap();
                a.mov(dword_ptr(rbx + 16), -7).unwrap();
                a.mov(dword_ptr(rbx + 20), 2).unwrap();
                a.set_label(&mut top).unwrap();
                a.fild(dword_ptr(rbx + 16)).unwrap();
                a.fidiv(dword_ptr(rbx + 20)).unwrap();
                a.fnstcw(word_ptr(rbx)).unwrap();
                a.movzx(eax, word_ptr(rbx)).unwrap();
                a.or(eax, rounding).unwrap();
                a.mov(word_ptr(rbx + 2), ax).unwrap();
                a.fldcw(word_ptr(rbx + 2)).unwrap();
                a.fnstcw(word_ptr(rbx + 4)).unwrap();
                a.fld(st0).unwrap();
                a.fistp(qword_ptr(rbx + 8)).unwrap();
                a.fldcw(word_ptr(rbx)).unwrap();
                a.add(edx, dword_ptr(rbx + 8)).unwrap();
                a.fldz().unwrap();
                a.fcompp().unwrap();
                a.fnstsw(ax).unwrap();
                a.fnstsw(word_ptr(rbx + 6)).unwrap();
                a.sahf().unwrap();
                a.jb(less).unwrap();
                a.inc(r8).unwrap();
                a.set_label(&mut less).unwrap();
                a.inc(dword_ptr(rbx + 16)).unwrap();
                a.dec(ecx).unwrap();
                a.jnz(top).unwrap();
                a.mov(r9w, word_ptr(rbx + 4)).unwrap();
            });
            assert!(matches!(end, Ended::Fault(Fault::UD, _)), "{end:?}");
        }
    }
}

/// What unmasks an exception is the helper's, and so is all behind it.
#[test]
fn an_exception_that_a_control_word_unmasks() {
    let end = check(Start::Long, |a| {
        a.fninit().unwrap();
        a.mov(rbx, DATA + 0x100).unwrap();
        a.mov(word_ptr(rbx), 0x37B).unwrap();
        a.fld1().unwrap();
        a.fldz().unwrap();
        a.fldcw(word_ptr(rbx)).unwrap();
        a.fdivp(st1, st0).unwrap();
        a.fnstsw(ax).unwrap();
        a.mov(rdx, 7u64).unwrap();
        a.fld1().unwrap();
    });
    assert!(matches!(end, Ended::Fault(Fault::MF, _)), "{end:?}");
}

/// FNSTENV in the middle of copies, behind branches out of a block, and behind other operands.
#[test]
fn pointers_in_the_environment() {
    for start in [Start::Long, Start::User64] {
        check(start, |a| {
            let (mut top, mut even, mut out) =
                (a.create_label(), a.create_label(), a.create_label());
            a.fninit().unwrap();
            a.mov(rbx, DATA + 0x100).unwrap();
            a.mov(r10, DATA + 0x200).unwrap();
            a.mov(r11, 8u64).unwrap();
            a.mov(ecx, 9).unwrap();
            a.set_label(&mut top).unwrap();
            a.fild(dword_ptr(rbx)).unwrap();
            a.fadd_2(st0, st0).unwrap();
            a.fistp(dword_ptr(r10 + r11 * 4)).unwrap();
            a.test(ecx, 1).unwrap();
            a.jz(even).unwrap();
            a.fnstenv(dword_ptr(rbx + 0x40)).unwrap();
            a.fldenv(dword_ptr(rbx + 0x40)).unwrap();
            a.fld1().unwrap();
            a.cmp(ecx, 2).unwrap();
            a.jl(out).unwrap();
            a.fstp(st0).unwrap();
            a.set_label(&mut even).unwrap();
            a.fnstenv(dword_ptr(rbx + 0x60)).unwrap();
            a.add(rbx, 4).unwrap();
            a.dec(ecx).unwrap();
            a.jnz(top).unwrap();
            a.set_label(&mut out).unwrap();
            a.fnstenv(dword_ptr(rbx + 0x80)).unwrap();
        });
    }
}
