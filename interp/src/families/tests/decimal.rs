use crate::testkit::{Kit, Start};
use x86::flags::{AF, CF, FIXED_ONE};
use x86::regs::gpr::RAX;
use x86::{Fault, flags};

fn run(bytes: &[u8], ax: u64, set: u64) -> (u64, u64) {
    run_in(&mut Kit::new(Start::Protected32), bytes, ax, set)
}

/// RAX and the status flags after an instruction.
fn run_in(kit: &mut Kit, bytes: &[u8], ax: u64, set: u64) -> (u64, u64) {
    kit.cpu.gpr[RAX] = ax;
    kit.cpu.rflags = FIXED_ONE | set;
    kit.step(bytes).expect("runs");
    (kit.cpu.gpr[RAX], kit.status())
}

/// Packed addition and subtraction of all decimal pairs agree with arithmetic.
#[test]
fn daa_and_das_adjust_every_sum_and_difference() {
    let kit = &mut Kit::new(Start::Protected32);
    let bcd = |n: u64| n / 10 * 16 + n % 10;
    for a in 0..100 {
        for b in 0..100 {
            let (x, y) = (bcd(a) as u8, bcd(b) as u8);
            let half = if x % 16 + y % 16 > 15 { AF } else { 0 };
            let carry = u64::from(x.checked_add(y).is_none());
            let (al, status) = run_in(kit, &[0x27], u64::from(x.wrapping_add(y)), half | carry);
            assert_eq!((al, status & CF != 0), (bcd((a + b) % 100), a + b > 99), "{a} + {b}");
            let half = if x % 16 < y % 16 { AF } else { 0 };
            let borrow = u64::from(x < y);
            let (al, status) = run_in(kit, &[0x2F], u64::from(x.wrapping_sub(y)), half | borrow);
            assert_eq!((al, status & CF != 0), (bcd((100 + a - b) % 100), a < b), "{a} - {b}");
        }
    }
}

#[test]
fn das_sets_carry_when_the_low_digit_borrows() {
    // SDM vol. 2A, DAS: 05h with AF set and CF clear.
    assert_eq!(run(&[0x2F], 0x05, AF), (0xFF, AF | CF | flags::SF | flags::PF));
}

#[test]
fn aaa_and_aas() {
    assert_eq!(run(&[0x37], 0x000A, 0).0, 0x0100);
    assert_eq!(run(&[0x37], 0x00F9, 0), (0x0009, flags::PF));
    // The carry out of AL goes on into AH (286 and later).
    assert_eq!(run(&[0x37], 0x00FA, 0).0, 0x0200);
    assert_eq!(run(&[0x3F], 0x0205, AF).0, 0x000F);
    assert_eq!(run(&[0x3F], 0x02FF, AF).0 & 0xFF, 0x09);
    assert_eq!(run(&[0x3F], 0x0105, 0).1 & (AF | CF), 0);
}

#[test]
fn aam_and_aad_take_any_base() {
    assert_eq!(run(&[0xD4, 0x0A], 0xFF3F, 0).0, 0x0603);
    assert_eq!(run(&[0xD4, 0x10], 0x00AB, 0).0, 0x0A0B);
    assert_eq!(run(&[0xD5, 0x0A], 0x0603, 0).0, 63);
    assert_eq!(run(&[0xD5, 0x10], 0x0A0B, 0).0, 0xAB);
    let mut kit = Kit::new(Start::Protected32);
    assert_eq!(kit.step(&[0xD4, 0x00]), Err(Fault::DE));
}

#[test]
fn decimal_instructions_are_undefined_in_64_bit_mode() {
    for opcode in [0x27, 0x2F, 0x37, 0x3F, 0xD4, 0xD5] {
        let ended = Kit::new(Start::Long).run_bytes(&[opcode, 0x0A]);
        assert_eq!(ended.fault, Fault::UD, "{opcode:x}");
    }
}
