//! Random straight-line code.

use super::kit::{self, CODE, DATA, DATA_SIZE, Ended, Start, compare, guests};
use crate::strategy::{CUSTOM, PASSTHROUGH};
use decoder::{Insn, Mnemonic, decode};
use iced_x86::{Instruction, RflagsBits};
use std::collections::HashSet;

/// xorshift64*.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub(super) fn register(&mut self) -> u64 {
        match self.below(8) {
            0 => self.next(),
            1 => self.next() as u32 as u64,
            2 => self.below(64),
            3 => self.below(16).wrapping_neg(),
            _ => DATA + 0x1000 + self.below(DATA_SIZE as u64 - 0x2000),
        }
    }
}

/// Bytes that are often an instruction of interest.
pub(super) fn bytes(random: &mut Random, bits: u32) -> [u8; 15] {
    let mut bytes = [0; 15];
    bytes.fill_with(|| random.next() as u8);
    let mut at = 0;
    let mut put = |byte: u8| {
        bytes[at] = byte;
        at += 1;
    };
    if random.below(6) == 0 {
        put(0x66);
    }
    match random.below(40) {
        0 => put(0xF0),
        1..=4 => put(0xF3),
        5..=6 => put(0xF2),
        7 => put(0x65),
        8 => put(0x67),
        _ => {}
    }
    if bits == 64 && random.below(2) == 0 {
        put(0x40 | random.below(16) as u8);
    }
    match random.below(11) {
        0..=4 => {}
        10 => put(0xD8 | random.below(8) as u8),
        5..=8 => put(0x0F),
        _ => {
            put(0x0F);
            put(0x38);
        }
    }
    let _ = at;
    bytes
}

pub(super) fn interesting(insn: &Insn, known: &HashSet<Mnemonic>) -> bool {
    use Mnemonic::*;
    let mnemonic = insn.mnemonic();
    // Their memory operands may be anything; the thunks and the string families have own tests.
    if insn.prefixes.any_rep() && insn.handle == 0 && !matches!(mnemonic, Nop | Pause) {
        return matches!(mnemonic, Tzcnt | Lzcnt | Popcnt | Crc32 | Adox);
    }
    known.contains(&mnemonic)
        || insn.handle != 0
        || matches!(mnemonic, Cld | Std | Movsb | Stosq | Lodsd | Cpuid | Xlatb | Pushfq | Enter)
}

/// A snippet, with the flags that are defined in front of each instruction, by its address.
fn snippet(random: &mut Random, start: Start, known: &HashSet<Mnemonic>) -> Snippet {
    let bits = start.bits();
    let origin = CODE - start.code_base();
    let mut masks = Vec::new();
    let mut code = Vec::new();
    let mut listing = String::new();
    let mut undefined = 0;
    let count = 1 + random.below(14);
    let mut made = 0;
    while made < count {
        let mut window = bytes(random, bits);
        if Start::SEGMENTED.contains(&start) && random.below(3) == 0 {
            window.copy_within(..14, 1);
            window[0] = [0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65][random.below(6) as usize];
        }
        let Ok(mut insn) = decode(&window, bits) else { continue };
        insn.handle = native::prepare(&insn);
        let iced = insn.to_iced(origin + code.len() as u64);
        let branches = iced.flow_control() != iced_x86::FlowControl::Next;
        if branches || !interesting(&insn, known) || iced.rflags_read() & undefined != 0 {
            continue;
        }
        if writes_stack_pointer(&iced) && random.below(8) != 0 {
            continue;
        }
        let conditional = matches!(
            iced.mnemonic(),
            Mnemonic::Shl
                | Mnemonic::Shr
                | Mnemonic::Sar
                | Mnemonic::Rol
                | Mnemonic::Ror
                | Mnemonic::Rcl
                | Mnemonic::Rcr
                | Mnemonic::Shld
                | Mnemonic::Shrd
                | Mnemonic::Sal
        );
        masks.push((origin + code.len() as u64, flag_mask(undefined)));
        let defined =
            if conditional { 0 } else { iced.rflags_modified() & !iced.rflags_undefined() };
        undefined = undefined & !defined | iced.rflags_undefined();
        if conditional {
            undefined |= RflagsBits::OF | RflagsBits::CF | RflagsBits::AF;
        }
        code.extend(insn.as_bytes());
        listing += &format!("  {:02x?} {:?} {:?}\n", insn.as_bytes(), iced.code(), iced.mnemonic());
        made += 1;
    }
    masks.push((origin + code.len() as u64, flag_mask(undefined)));
    code.extend([0x0F, 0x0B]);
    Snippet { code, masks, listing }
}

struct Snippet {
    code: Vec<u8>,
    masks: Vec<(u64, u64)>,
    listing: String,
}

/// RFLAGS without the flags that iced calls undefined.
fn flag_mask(undefined: u32) -> u64 {
    x86::flags::ALL & !decoder::rflags_of(undefined)
}

pub(super) fn writes_stack_pointer(insn: &Instruction) -> bool {
    insn.op_count() > 0
        && insn.op0_register().full_register() == iced_x86::Register::RSP
        && insn.mnemonic() != Mnemonic::Push
}

fn run(start: Start, seed: u64, rounds: u32) {
    let known = known();
    // Registers have their own sequence, so that the code depends on the seed alone.
    let (mut random, mut registers) = (Random(seed), Random(!seed));
    let mut guests = guests(start);
    if matches!(start, Start::Long | Start::User64) {
        // Elsewhere code may go on for ever, by way of the interrupt vectors.
        guests.push(kit::uncounted(start));
    }
    for round in 0..rounds {
        let Snippet { code, masks, listing } = snippet(&mut random, start, &known);
        let mut gprs = [0; 16];
        gprs.fill_with(|| registers.register());
        if start.bits() != 64 {
            gprs = gprs.map(|r| r & 0xFFFF_FFFF);
            gprs[8..].fill(0);
        }
        if Start::SEGMENTED.contains(&start) {
            let offset = |r: u64| r.checked_sub(DATA).filter(|&offset| offset < DATA_SIZE as u64);
            gprs = gprs.map(|r| offset(r).unwrap_or(r));
        }
        let gprs = kit::with_stack(gprs);
        let mut ends = Vec::new();
        for guest in &mut guests {
            guest.reset(&gprs);
            ends.push(guest.run(&code, 1000));
        }
        let mask = match &ends[0] {
            Ended::Fault(_, rip) => masks.iter().find(|(at, _)| at == rip).map_or(0, |m| m.1),
            Ended::Stopped | Ended::Limit => 0,
        };
        let what = format!("seed {seed}, round {round}: {gprs:x?}\n{listing}");
        let end = masks.last().map(|m| m.0);
        compare(&mut guests, &ends, mask, end, &what);
    }
}

pub(super) fn known() -> HashSet<Mnemonic> {
    (CUSTOM.iter().map(|line| line.0)).chain(PASSTHROUGH.iter().copied()).collect()
}

const LONG: u64 = 0x9E37_79B9_7F4A_7C15;
const PROTECTED: u64 = 0xDEAD_BEEF_CAFE_F00D;
const REAL: u64 = 0x0F1E_2D3C_4B5A_6978;
const ROUNDS: u32 = 3000;

/// What is written by hand can drift from the interpreter's definition: nothing of it goes
/// without a comparison. A row counts where its emission was really used, before the end of code on
/// which all runners agreed.
#[test]
fn every_custom_row_is_compared() {
    use super::{programs, segments};
    let programs: [fn(); 16] = [
        programs::flags_are_pushed,
        programs::conditions,
        programs::strings_without_a_prefix,
        programs::counted_loops,
        programs::loops_and_flags,
        programs::recursion,
        programs::recursion_in_32_bits,
        programs::jump_tables,
        programs::swapgs_swaps_bases,
        programs::smap_suspended_and_in_force,
        programs::hints_do_nothing,
        programs::vzeroupper_in_a_block_of_its_own,
        segments::loops_and_branches,
        segments::calls_and_the_stack,
        segments::data_through_every_segment,
        segments::selectors_are_bases,
    ];
    programs.iter().for_each(|program| program());
    let missing = || {
        let seen = kit::compared_by_hand();
        let rows = CUSTOM.iter().map(|row| row.0);
        rows.filter(|mnemonic| !seen.contains(mnemonic)).collect::<Vec<_>>()
    };
    let starts = [(LONG, Start::Long), (PROTECTED, Start::Protected32), (REAL, Start::Real)];
    for (seed, start) in starts {
        // In pieces, until there is nothing to look for.
        for piece in 0..u64::from(ROUNDS / 100) {
            if missing().is_empty() {
                return;
            }
            run(start, seed ^ piece << 8, 100);
        }
    }
    assert_eq!(missing(), [], "rows of CUSTOM without a lockstep case");
}

#[test]
fn long_mode() {
    run(Start::Long, LONG, ROUNDS);
}

#[test]
fn user_mode() {
    run(Start::User64, 0x1234_5678_9ABC_DEF1, 2000);
}

#[test]
fn protected_mode() {
    run(Start::Protected32, PROTECTED, ROUNDS);
}

#[test]
fn real_mode() {
    run(Start::Real, REAL, ROUNDS);
}

#[test]
fn virtual_8086_mode() {
    run(Start::Virtual8086, 0x8086_8086_8086_8086, 2000);
}

#[test]
fn protected_mode_16() {
    run(Start::Protected16, 0x0286_0286_0286_0286, ROUNDS);
}

#[test]
fn segments_with_bases_and_limits() {
    run(Start::Based32, 0x0386_0386_0386_0386, ROUNDS);
}

#[test]
fn code_of_32_bits_on_a_stack_of_16() {
    run(Start::Stack16, 0x1632_1632_1632_1632, 2000);
}
