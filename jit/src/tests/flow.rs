//! Random blocks joined by jumps, calls and returns, in a loop: what one block leaves in the host's
//! registers the next one finds there, whichever way it was entered.

use super::kit::{CODE, DATA, Start, compare, guests, with_stack};
use super::random::{Random, bytes, interesting, known, writes_stack_pointer};
use crate::liveness::effects;
use decoder::{ARITHMETIC_BITS, decode};
use iced_x86::FlowControl;
use iced_x86::code_asm::*;

const PROGRAMS: u32 = 250;
/// Iterations of a program's loop: the first ones link its blocks.
const LOOPS: u32 = 8;

/// Code bytes of a vector instruction on registers, with luck.
fn vector_bytes(random: &mut Random) -> [u8; 15] {
    let mut bytes = [0; 15];
    bytes.fill_with(|| random.next() as u8);
    bytes[0] = 0xC5;
    bytes[3] |= 0xC0;
    bytes
}

/// Up to three instructions that work on registers alone and read no flag that may be undefined.
fn straight(random: &mut Random, a: &mut CodeAssembler, listing: &mut String) {
    let known = known();
    let mut undefined = ARITHMETIC_BITS;
    let count = random.below(4);
    let mut made = 0;
    while made < count {
        let window = match random.below(6) {
            0 => [0xC5, 0xF8, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // VZEROUPPER
            1 => [0xFC; 15],                                             // CLD, a helper
            2 | 3 => vector_bytes(random),
            _ => bytes(random, 64),
        };
        let Ok(mut insn) = decode(&window, 64) else { continue };
        insn.handle = native::prepare(&insn);
        let iced = insn.to_iced(0);
        if insn.has_mem()
            || iced.flow_control() != FlowControl::Next
            || iced.stack_pointer_increment() != 0
            || iced.rflags_read() & undefined != 0
            || !interesting(&insn, &known)
            || writes_stack_pointer(&iced)
        {
            continue;
        }
        let effects = effects(&iced, true);
        undefined = undefined & !effects.kills | iced.rflags_undefined();
        if effects.kills == 0 {
            undefined |= effects.writes;
        }
        *listing += &format!("  {:?}", iced.code());
        a.db(insn.as_bytes()).unwrap();
        made += 1;
    }
}

fn program(random: &mut Random) -> (Vec<u8>, String) {
    let mut listing = String::new();
    let mut a = CodeAssembler::new(64).expect("a code size");
    let mut functions: [CodeLabel; 3] = std::array::from_fn(|_| a.create_label());
    let mut top = a.create_label();
    a.mov(dword_ptr(DATA), LOOPS).unwrap();
    a.set_label(&mut top).unwrap();
    for _ in 0..2 + random.below(5) {
        straight(random, &mut a, &mut listing);
        match random.below(4) {
            0 => {
                let mut next = a.create_label();
                a.jmp(next).unwrap();
                a.int3().unwrap();
                a.set_label(&mut next).unwrap();
                listing += "\njmp";
            }
            1 => {
                let mut next = a.create_label();
                a.test(byte_ptr(DATA), 1 << random.below(3)).unwrap();
                a.jne(next).unwrap();
                straight(random, &mut a, &mut listing);
                a.nop().unwrap();
                a.set_label(&mut next).unwrap();
                listing += "\njne";
            }
            _ => {
                let function = random.below(3);
                a.call(functions[function as usize]).unwrap();
                listing += &format!("\ncall {function}");
            }
        }
    }
    a.dec(dword_ptr(DATA)).unwrap();
    a.jne(top).unwrap();
    a.ud2().unwrap();
    for label in &mut functions {
        a.set_label(label).unwrap();
        listing += "\nfunction";
        straight(random, &mut a, &mut listing);
        a.ret().unwrap();
    }
    (a.assemble(CODE).expect("assembles"), listing)
}

fn run(start: Start, seed: u64) {
    let (mut random, mut registers) = (Random(seed), Random(!seed));
    let mut guests = guests(start);
    for round in 0..PROGRAMS {
        let (code, listing) = program(&mut random);
        let mut gprs = [0; 16];
        gprs.fill_with(|| registers.register());
        let mut ends = Vec::new();
        for guest in &mut guests {
            guest.reset(&with_stack(gprs));
            ends.push(guest.run(&code, 10_000));
        }
        let what = format!("seed {seed}, round {round}: {gprs:x?}\n{listing}");
        // DEC leaves CF as it was, which may be undefined; so may be all of them at a fault.
        let done = guests[0].data()[..4] == [0; 4];
        let mask = if done { x86::flags::ALL & !x86::flags::CF } else { 0 };
        compare(&mut guests, &ends, mask, None, &what);
    }
}

#[test]
fn system_mode() {
    run(Start::Long, 0x0123_4567_89AB_CDEF);
}

#[test]
fn user_mode() {
    run(Start::User64, 0xFEDC_BA98_7654_3210);
}
