//! Accesses close together off one base register, which share a look into the TLB: in one page,
//! across pages, in memory-mapped I/O and in nothing, with bases that move.

use super::kit::{CODE, DATA, Runner, Start, compare, guests, uncounted, with_stack};
use super::random::Random;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::flags;

const BASES: [AsmRegister64; 4] = [rbx, rsi, r10, rsp];

/// An instruction with an operand off `base`, or one that moves it, or one between two others.
fn put(random: &mut Random, a: &mut CodeAssembler) -> Result<(), IcedError> {
    let base = BASES[random.below(4) as usize];
    let at = base + (random.below(96) as i32 - 48);
    match random.below(28) {
        0..=2 => a.mov(rax, qword_ptr(at)),
        3..=5 => a.mov(qword_ptr(at), rdx),
        6 => a.add(dword_ptr(at), edi),
        7 => a.adc(r8, qword_ptr(at)),
        8 => a.mov(r11, qword_ptr(at)),
        9 => a.mov(word_ptr(at), r9w),
        10 => a.movups(xmm1, xmmword_ptr(at)),
        11 => a.movups(xmmword_ptr(at), xmm2),
        12 => a.setb(byte_ptr(at)),
        13 => a.cmp(byte_ptr(at), 0x70),
        14 => a.cmovl(edx, dword_ptr(at)),
        15 => a.fld(qword_ptr(at)),
        16 => a.add(base, random.below(64) as i32 - 32),
        17 => a.lea(base, at),
        18 => a.inc(base),
        19 => a.sub(base, 8),
        20 => a.push(rdi),
        21 => a.pop(r12),
        22 => a.cld(),
        23 => a.lock().add(qword_ptr(at), rax),
        24 => {
            let mut over = a.create_label();
            a.jp(over)?;
            a.xor(edi, 0x55)?;
            a.mov(byte_ptr(at), al)?;
            a.set_label(&mut over)?;
            a.add(edi, 3)
        }
        25 => a.fnstcw(word_ptr(at)),
        26 => a.xchg(qword_ptr(at), r8),
        _ => a.rcl(dword_ptr(at), 1),
    }
}

#[test]
fn groups_do_what_single_accesses_do() {
    let mut random = Random(0x5EED_0F6E_0D5E_ED01);
    for start in [Start::Long, Start::User64] {
        let mut guests = guests(start);
        guests.push(uncounted(start));
        for round in 0..1500 {
            let mut a = CodeAssembler::new(64).expect("a code size");
            let mut head = a.create_label();
            a.mov(ecx, 3).expect("mov");
            a.set_label(&mut head).expect("label");
            for _ in 0..3 + random.below(20) {
                put(&mut random, &mut a).expect("encodes");
            }
            a.dec(ecx).expect("dec");
            a.jne(head).expect("jne");
            let mut code = a.assemble(CODE).expect("assembles");
            let end = CODE + code.len() as u64;
            code.extend([0x0F, 0x0B]);
            let mut gprs = [0; 16];
            gprs.fill_with(|| random.register());
            for base in [3, 6, 10] {
                gprs[base] = match random.below(12) {
                    0 => 0x4000_0000 - random.below(64),
                    1 => 0x3000_0000,
                    _ => DATA + 0x1000 * (1 + random.below(4)) + random.below(160) - 80,
                };
            }
            let gprs = with_stack(gprs);
            let mut ends = Vec::new();
            for guest in &mut guests {
                guest.reset(&gprs);
                ends.push(guest.run(&code, 1000));
            }
            let what = format!("round {round}: {gprs:x?}\n{code:02x?}");
            // RCL leaves no flag undefined here, and nothing else does.
            compare(&mut guests, &ends, flags::ALL, Some(end), &what);
        }
    }
}

/// A structure across two pages does not take the slow path for ever.
#[test]
fn a_group_that_keeps_failing_is_given_up() {
    let mut a = CodeAssembler::new(64).expect("a code size");
    let mut head = a.create_label();
    let mut build = || {
        a.mov(ecx, 1000)?;
        a.set_label(&mut head)?;
        a.add(rax, qword_ptr(rbx))?;
        a.add(rax, qword_ptr(rbx + 8))?;
        a.dec(ecx)?;
        a.jne(head)?;
        a.ud2()
    };
    build().expect("assembles");
    let code = a.assemble(CODE).expect("assembles");
    let mut guest = uncounted(Start::Long);
    let mut gprs = with_stack([0; 16]);
    gprs[3] = DATA + 0xFF8;
    guest.reset(&gprs);
    guest.run(&code, u64::MAX);
    let data = guest.data();
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| data[at + i]));
    let sum = word(0xFF8).wrapping_add(word(0x1000)).wrapping_mul(1000);
    assert_eq!(guest.cpu.gpr[0], sum);
    let Runner::Jit(engine) = &guest.runner else { panic!("a translator") };
    assert!(engine.stats().slow_accesses < 200, "{}", engine.stats().slow_accesses);
}

/// A group's window may begin before the lowest displacement that there is.
#[test]
fn windows_below_all_displacements() {
    let mut a = CodeAssembler::new(64).expect("a code size");
    let mut build = || {
        // What would be found without an address.
        a.mov(rcx, qword_ptr(rsp - 64))?;
        a.lea(r10, qword_ptr(rsp - 64))?;
        a.mov(rax, qword_ptr(rbx + i32::MIN))?;
        a.sub(rbx, 16)?;
        a.mov(rdx, qword_ptr(rbx + i32::MIN))?;
        a.mov(qword_ptr(rbx + (i32::MIN + 8)), rsi)?;
        a.ud2()
    };
    build().expect("assembles");
    let code = a.assemble(CODE).expect("assembles");
    let end = CODE + code.len() as u64 - 2;
    for start in [Start::Long, Start::User64] {
        let mut guests = guests(start);
        guests.push(uncounted(start));
        let mut gprs = with_stack([0x55; 16]);
        gprs[3] = DATA + 0x1100 + (1 << 31);
        let mut ends = Vec::new();
        for guest in &mut guests {
            guest.reset(&gprs);
            ends.push(guest.run(&code, 1000));
        }
        assert_eq!(guests[0].cpu.rip, end);
        compare(&mut guests, &ends, flags::ALL, Some(end), "a window");
    }
}
