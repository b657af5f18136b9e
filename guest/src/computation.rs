//! Work for the processor: a sieve, CRC-32, code that changes itself, atomic instructions.

use crate::Error;
use crate::arch::high;
use crate::asm::{Asm, asm};
use crate::layout::{KERNEL_BASE, WORK_AREA, WORK_SIZE};
use iced_x86::code_asm::*;

/// The CRC-32 polynomial of IEEE 802.3, bits reversed.
const POLYNOMIAL: u32 = 0xEDB8_8320;
/// Where the CRC table lies: 256 doublewords.
const CRC_TABLE: u64 = WORK_AREA;
/// Where the bytes to check lie.
const CRC_BYTES: u64 = WORK_AREA + 0x1000;
/// How many there are.
const CRC_LENGTH: u32 = 0x1_0000;
/// Multiplier and increment of the generator of those bytes (Numerical Recipes).
const GENERATOR: (u32, u32) = (1_664_525, 1_013_904_223);

/// All of it, in order.
pub(crate) fn checks(a: &mut Asm) -> Result<(), Error> {
    sieve(a)?;
    crc32(a)?;
    self_modifying_code(a)?;
    atomics(a)
}

/// Counts primes with the sieve of Eratosthenes, a byte for each number, as often as asked.
fn sieve(a: &mut Asm) -> Result<(), Error> {
    let limit = a.options().sieve_limit.clamp(16, WORK_SIZE as u32);
    let rounds = a.options().iterations.max(1);
    asm!(a;
        label "sieve";
        mov  ebp, rounds;
        mov  rsi, high(WORK_AREA);
        label ".round";
        mov  rdi, rsi;
        mov  ecx, limit;
        mov  al, 1;
        rep; stosb;
        mov  ebx, 2;
        label ".candidate";
        mov  eax, ebx;
        imul_2 eax, ebx;                    // smaller multiples are struck out already
        cmp  eax, limit;
        jae  ".count";
        cmp  byte_ptr(rsi + rbx), 0;
        je   ".next";
        label ".strike";
        mov  byte_ptr(rsi + rax), 0;
        add  eax, ebx;
        cmp  eax, limit;
        jb   ".strike";
        label ".next";
        inc  ebx;
        jmp  ".candidate";

        label ".count";
        xor  eax, eax;
        mov  ebx, 2;
        label ".number";
        movzx ecx, byte_ptr(rsi + rbx);
        add  eax, ecx;
        inc  ebx;
        cmp  ebx, limit;
        jb   ".number";
        dec  ebp;
        jnz  ".round";
        check &format!("computation: primes below {limit}"), primes_below(limit);
    );
    Ok(())
}

/// What [`sieve`] must find.
fn primes_below(limit: u32) -> u64 {
    let mut composite = vec![false; limit as usize];
    let mut primes = 0;
    for number in 2..limit as usize {
        if !composite[number] {
            primes += 1;
            composite.iter_mut().skip(number * number).step_by(number).for_each(|c| *c = true);
        }
    }
    primes
}

/// Builds the table, makes up bytes, and computes their CRC.
fn crc32(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "crc32";
        mov  rdi, high(CRC_TABLE);
        xor  ebx, ebx;
        label ".entry";
        mov  eax, ebx;
        mov  ecx, 8;
        label ".bit";
        shr  eax, 1;
        jnc  ".zero";
        xor  eax, POLYNOMIAL;
        label ".zero";
        loop_ ".bit";
        mov  dword_ptr(rdi + rbx * 4), eax;
        inc  bl;
        jnz  ".entry";

        mov  rsi, high(CRC_BYTES);
        xor  ecx, ecx;
        xor  eax, eax;
        label ".byte";
        imul_3 eax, eax, GENERATOR.0;
        add  eax, GENERATOR.1;
        mov  edx, eax;
        shr  edx, 24;
        mov  byte_ptr(rsi + rcx), dl;
        inc  ecx;
        cmp  ecx, CRC_LENGTH;
        jb   ".byte";

        or   eax, -1;
        label ".update";
        movzx edx, byte_ptr(rsi);
        inc  rsi;
        xor  dl, al;
        shr  eax, 8;
        xor  eax, dword_ptr(rdi + rdx * 4);
        dec  ecx;
        jnz  ".update";
        not  eax;
        check "computation: CRC-32 of 64 KiB", u64::from(expected_crc());
    );
    Ok(())
}

/// What [`crc32`] must find, computed bit by bit.
fn expected_crc() -> u32 {
    let mut state = 0u32;
    let mut crc = u32::MAX;
    for _ in 0..CRC_LENGTH {
        state = state.wrapping_mul(GENERATOR.0).wrapping_add(GENERATOR.1);
        crc ^= state >> 24;
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
        }
    }
    !crc
}

/// Patches the immediate of a MOV and executes it again, first once, then in a loop that a
/// translator will have translated.
fn self_modifying_code(a: &mut Asm) -> Result<(), Error> {
    const ROUNDS: u32 = 1000;
    const SUM: u64 = 1000 * 1001 / 2;
    asm!(a;
        label "self_modifying_code";
        lea  rbx, ptr(a.at("patched"));
        inc  rbx;                           // the immediate follows the opcode
        call "patched";
        mov  ecx, eax;
        mov  dword_ptr(rbx), 0x2222_2222;
        call "patched";
        add  eax, ecx;
        check "computation: old and patched immediate, added", 0x3333_3333;

        xor  edi, edi;
        mov  ecx, ROUNDS;
        label ".round";
        mov  dword_ptr(rbx), ecx;
        call "patched";
        add  edi, eax;
        dec  ecx;
        jnz  ".round";
        mov  eax, edi;
        check "computation: sum of a thousand patched immediates", SUM;

        // By another linear address for the same byte, and so only after a serializing
        // instruction (SDM volume 3, 9.1.3).
        mov  rax, KERNEL_BASE;
        sub  rbx, rax;
        mov  dword_ptr(rbx), 0x4444_4444;
        xor  eax, eax;
        cpuid;
        call "patched";
        check "computation: an immediate patched through the identity map", 0x4444_4444;

        // The very next instruction of the same block.
        lea  rbx, ptr(a.at(".target"));
        xor  eax, eax;
        mov  byte_ptr(rbx + 1), 0x42;
        label ".target";
        mov  al, 0x00;
        check "computation: the next instruction, patched", 0x42;
    );
    Ok(())
}

/// Locked instructions, whose results do not depend on there being other processors.
fn atomics(a: &mut Asm) -> Result<(), Error> {
    let word = a.variable("atomics.word");
    let pair = a.datum("atomics.pair", &[5u64.to_le_bytes(), 6u64.to_le_bytes()].concat());
    const PAIR: &str = "atomics: CMPXCHG16B stores 8:7";
    asm!(a;
        label "atomics";
        mov  rdi, word;
        mov  qword_ptr(rdi), 10;
        mov  eax, 10;
        mov  ecx, 20;
        lock; cmpxchg qword_ptr(rdi), rcx;   // equal: stores 20
        setz bl;
        mov  eax, 11;
        mov  ecx, 30;
        lock; cmpxchg qword_ptr(rdi), rcx;   // not equal: loads 20
        setz bh;
        check "atomics: LOCK CMPXCHG loads what it finds", 20;
        movzx eax, bx;
        check "atomics: LOCK CMPXCHG sets ZF, then clears it", 1;
        mov  eax, 22;
        lock; xadd qword_ptr(rdi), rax;
        add  rax, qword_ptr(rdi);
        check "atomics: LOCK XADD, old and new value added", 62;
        lock; bts dword_ptr(rdi), 31;
        mov  eax, dword_ptr(rdi);
        check "atomics: LOCK BTS of bit 31", 0x8000_002A;

        mov  eax, 1;
        cpuid;
        bt   ecx, 13;
        jnc  ".absent";
        mov  rdi, pair;
        mov  eax, 5;
        mov  edx, 6;
        mov  ebx, 7;
        mov  ecx, 8;
        lock; cmpxchg16b xmmword_ptr(rdi);
        mov  rax, qword_ptr(rdi + 8);
        shl  rax, 4;
        add  rax, qword_ptr(rdi);
        check_or_skip PAIR, 0x87;
        jmp  ".end";
        label ".absent";
        skip PAIR;
        label ".end";
        nop;
    );
    Ok(())
}

/// The function whose immediate is patched.
pub(crate) fn routines(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "patched";
        mov  eax, 0x1111_1111;
        ret;
    );
    Ok(())
}
