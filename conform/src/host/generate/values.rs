//! Registers to start from.

use crate::host::random::Random;
use crate::host::state::{State, legacy};
use x86::fpu::MXCSR_INIT;

/// Masks of all x87 exceptions in the control word, and their flags in the status word.
const X87_EXCEPTIONS: u16 = 0x3F;
/// ES and B.
const X87_ERROR: u16 = 0x8080;
/// C0 to C3, SF and the flags.
const X87_STATUS: u16 = 0x477F;
/// Masks of all SIMD exceptions in MXCSR.
const SIMD_MASKS: u32 = 0x1F80;

/// Fills every register file.
pub(super) fn fill(random: &mut Random, state: &mut State) {
    for r in &mut state.gpr {
        *r = random.integer();
    }
    fill_x87(random, state);
    let mut mxcsr = MXCSR_INIT;
    if random.percent(60) {
        // Rounding, FTZ, DAZ and the sticky flags.
        mxcsr = SIMD_MASKS | random.next() as u32 & 0xE07F;
    }
    if random.percent(20) {
        mxcsr = mxcsr & !SIMD_MASKS | random.next() as u32 & SIMD_MASKS;
    }
    state.set_dword(legacy::MXCSR, mxcsr);
    for i in 0..16 {
        let at = legacy::XMM + 16 * i;
        state.legacy[at..at + 16].copy_from_slice(&random.vector());
        state.ymm_high[i] = random.vector();
        for half in state.zmm_high[i].chunks_exact_mut(16) {
            half.copy_from_slice(&random.vector());
        }
        for quarter in state.zmm_rest[i].chunks_exact_mut(16) {
            quarter.copy_from_slice(&random.vector());
        }
    }
    for k in &mut state.opmask {
        *k = match random.below(4) {
            0 => u64::MAX,
            1 => random.integer(),
            _ => random.next(),
        };
    }
}

fn fill_x87(random: &mut Random, state: &mut State) {
    let mut control = 0x37F;
    if random.percent(50) {
        // Rounding and precision control (0b01 is reserved, and behaves somehow).
        control = 0x7F | (random.next() as u16 & 0x0F00);
    }
    if random.percent(20) {
        control = control & !X87_EXCEPTIONS | random.next() as u16 & X87_EXCEPTIONS;
    }
    let mut status = (random.next() as u16 & 7) << 11;
    if random.percent(50) {
        status |= random.next() as u16 & X87_STATUS;
    }
    if status & !control & X87_EXCEPTIONS != 0 {
        if random.percent(70) {
            status &= !X87_EXCEPTIONS;
        } else {
            status |= X87_ERROR;
        }
    }
    state.set_word(legacy::FCW, control);
    state.set_word(legacy::FSW, status);
    state.legacy[legacy::FTW] = match random.below(4) {
        0 => 0,
        1 => 0xFF,
        _ => random.next() as u8,
    };
    state.set_word(legacy::FOP, random.next() as u16 & 0x7FF);
    state.set_qword(legacy::FIP, random.next() >> 17);
    state.set_qword(legacy::FDP, random.next() >> 17);
    for i in 0..8 {
        let at = legacy::ST + 16 * i;
        let value = if random.percent(70) {
            random.extended()
        } else {
            // What an MMX instruction left.
            let mut bytes = [0xFF; 10];
            bytes[..8].copy_from_slice(&random.vector()[..8]);
            bytes
        };
        state.legacy[at..at + 10].copy_from_slice(&value);
    }
}
