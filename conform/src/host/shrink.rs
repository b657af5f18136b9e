//! Makes a difference's input state as plain as it can be while the difference stays.

use super::compare::Difference;
use super::memory::Memory;
use super::state::{Case, State, legacy};
use super::{Bench, Verdict};
use x86::flags;

/// One simplification.
type Step = Box<dyn Fn(&mut Case)>;

/// Simplifies what differs in an engine; returns what is left, and how that differs.
pub(super) fn shrink(
    bench: &mut Bench,
    subject: usize,
    mut case: Case,
    mut found: Vec<Difference>,
) -> (Case, Vec<Difference>) {
    // Some need an engine that has cached nothing yet: by now it has.
    let cold = !matches!(bench.judge_alone(subject, &case), Some(Verdict::Different(_)));
    for step in steps() {
        let mut simpler = case.clone();
        step(&mut simpler);
        if simpler.state == case.state && simpler.memory == case.memory {
            continue;
        }
        if let Some(Verdict::Different(still)) = bench.judge_again(subject, &simpler, cold) {
            // The same difference, not another one that hid behind it.
            if still.first().map(|d| &d.what) == found.first().map(|d| &d.what) {
                (case, found) = (simpler, still);
            }
        }
    }
    (case, found)
}

fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let reset = State::new();
    let zero = Memory::zero();
    steps.push(Box::new(move |case| case.memory = zero.clone()));
    steps.push(Box::new(move |case| {
        case.state.legacy[..legacy::XMM].copy_from_slice(&reset.legacy[..legacy::XMM]);
    }));
    steps.push(Box::new(move |case| {
        let mxcsr = reset.dword(legacy::MXCSR);
        case.state.set_dword(legacy::MXCSR, mxcsr);
    }));
    steps.push(Box::new(|case| {
        (0..32).for_each(|i| case.state.set_vector(i, &[0; 64]));
    }));
    steps.push(Box::new(|case| {
        case.state.zmm_high = [[0; 32]; 16];
        case.state.zmm_rest = [[0; 64]; 16];
    }));
    for i in 0..32 {
        steps.push(Box::new(move |case| case.state.set_vector(i, &[0; 64])));
    }
    steps.push(Box::new(|case| case.state.opmask = [0; 8]));
    for i in 0..8 {
        steps.push(Box::new(move |case| case.state.opmask[i] = 0));
    }
    for i in 0..8 {
        steps.push(Box::new(move |case| {
            let at = legacy::ST + 16 * i;
            case.state.legacy[at..at + 16].fill(0);
        }));
    }
    for at in [legacy::FOP, legacy::FTW, legacy::FIP, legacy::FDP] {
        steps.push(Box::new(move |case| case.state.set_word(at, 0)));
    }
    for i in 0..16 {
        steps.push(Box::new(move |case| case.state.gpr[i] = 0));
        steps.push(Box::new(move |case| case.state.gpr[i] &= 0xFFFF_FFFF));
    }
    for flag in [
        flags::CF,
        flags::PF,
        flags::AF,
        flags::ZF,
        flags::SF,
        flags::OF,
        flags::DF,
        flags::NT,
        flags::AC,
        flags::ID,
    ] {
        steps.push(Box::new(move |case| case.state.rflags &= !flag));
    }
    steps.push(Box::new(|case| {
        if case.bits == 64 {
            case.state.fs_base = 0;
            case.state.gs_base = 0;
        }
    }));
    steps
}
