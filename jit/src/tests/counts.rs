//! What the counters say, against what is known of the code.

use super::kit::{CODE, DATA, Ended, Guest, Runner, Start, with_stack};
use crate::{Config, Engine, Stats};
use decoder::Code;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

const ROUNDS: u64 = 1000;

/// Runs a program to its UD2 and returns the counters, with the number of instructions executed.
fn count(
    threshold: u8,
    limit: u64,
    program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> (Stats, u64) {
    let mut a = CodeAssembler::new(64).expect("a code size");
    program(&mut a).and_then(|()| a.ud2()).expect("room");
    let code = a.assemble(CODE).expect("assembles");
    let config = Config { threshold, exact_limit: limit != u64::MAX, ..Config::default() };
    let mut engine = Engine::new(config).expect("an engine");
    engine.count_strategies().expect("memory");
    let mut guest = Guest::new(Start::Long, Runner::Jit(Box::new(engine)));
    guest.reset(&with_stack([0; 16]));
    let before = guest.cpu.instructions;
    let mut end = guest.run(&code, limit);
    while end == Ended::Limit {
        end = guest.resume(limit);
    }
    assert!(matches!(end, Ended::Fault(..)), "{end:?}");
    let Runner::Jit(engine) = &guest.runner else { unreachable!("made above") };
    (engine.stats(), guest.cpu.instructions + engine.counted() - before)
}

/// Every strategy, a slow path, side exits, calls, and an exit to the engine in each round.
fn mixed(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut top, mut skip, mut over, mut function) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.mov(ecx, ROUNDS as u32)?;
    a.jmp(over)?;
    a.set_label(&mut function)?;
    a.add(rbx, 3)?;
    a.ret()?;
    a.set_label(&mut over)?;
    a.mov(edi, DATA as u32)?;
    a.set_label(&mut top)?;
    a.call(function)?;
    a.mov(rax, qword_ptr(rdi))?;
    // Crosses a page each time.
    a.mov(rdx, qword_ptr(rdi + 0xFFC))?;
    a.test(cl, 1)?;
    a.je(skip)?;
    a.inc(rax)?;
    a.xlatb()?;
    a.set_label(&mut skip)?;
    a.push(rax)?;
    a.pop(rax)?;
    a.dec(ecx)?;
    a.jne(top)
}

fn consistent(stats: &Stats, executed: u64) {
    assert_eq!(stats.instructions(), executed);
    let mix = stats.shares.expect("counted");
    assert_eq!(mix.total(), stats.translated, "{mix:?}");
    // UD2 at the end was left to a helper, but not executed.
    assert!(mix.helper + 1 >= stats.helpers && mix.helper <= stats.helpers, "{mix:?}");
    assert_eq!(mix.slow, stats.slow_accesses);
    let sum = |left: &dyn Fn(&crate::Left) -> u64| stats.by_code.values().map(left).sum::<u64>();
    assert_eq!(sum(&|left| left.helpers), stats.helpers);
    assert_eq!(sum(&|left| left.slow), stats.slow_accesses);
}

#[test]
fn every_instruction_has_one_strategy() {
    let (stats, executed) = count(0, u64::MAX, mixed);
    consistent(&stats, executed);
    assert_eq!(stats.interpreted, 0);
    assert_eq!(stats.by_code[&Code::Xlat_m8].helpers, ROUNDS / 2);
    let slow = stats.by_code[&Code::Mov_r64_rm64].slow;
    assert!((ROUNDS..ROUNDS + 10).contains(&slow), "{slow}");
    let mix = stats.shares.expect("counted");
    // In a round: ADD, MOV, TEST, DEC, and every other time INC; CALL, RET, JE, PUSH, POP, JNE.
    let copies = ROUNDS * 4 + ROUNDS / 2 + 2;
    assert!(mix.passthrough.abs_diff(copies) < 10, "{} of {copies}", mix.passthrough);
    let custom = ROUNDS * 6 + 1;
    assert!(mix.custom.abs_diff(custom) < 10, "{} of {custom}", mix.custom);
}

#[test]
fn in_small_pieces_and_half_interpreted() {
    for (threshold, limit) in [(0, 7), (5, u64::MAX), (5, 13), (30, 1000)] {
        let (stats, executed) = count(threshold, limit, mixed);
        consistent(&stats, executed);
        assert!(threshold == 0 || stats.interpreted > 0);
    }
}

#[test]
fn a_return_to_nowhere_is_not_executed() {
    for limit in [u64::MAX, 1000] {
        let (stats, executed) = count(0, limit, |a| {
            a.mov(rax, 0x1234_5678_9ABC_DEF0u64)?;
            a.push(rax)?;
            a.ret()
        });
        assert_eq!((executed, stats.instructions()), (2, 2), "limit {limit}");
        assert_eq!(stats.shares.expect("counted").total(), 2);
    }
}

#[test]
fn flushes_lose_nothing() {
    let code = |a: &mut CodeAssembler| mixed(a);
    let (whole, _) = count(0, u64::MAX, code);
    // The same with a flush in the middle.
    let mut a = CodeAssembler::new(64).unwrap();
    mixed(&mut a).and_then(|()| a.ud2()).unwrap();
    let bytes = a.assemble(CODE).unwrap();
    let mut engine = Engine::new(Config { threshold: 0, ..Config::default() }).unwrap();
    engine.count_strategies().unwrap();
    let mut guest = Guest::new(Start::Long, Runner::Jit(Box::new(engine)));
    guest.reset(&with_stack([0; 16]));
    assert_eq!(guest.run(&bytes, 5000), Ended::Limit);
    let Runner::Jit(engine) = &mut guest.runner else { unreachable!("made above") };
    engine.flush();
    assert!(matches!(guest.resume(u64::MAX), Ended::Fault(..)));
    let Runner::Jit(engine) = &guest.runner else { unreachable!("made above") };
    let parts = engine.stats();
    assert_eq!(parts.instructions(), whole.instructions());
    assert_eq!(parts.by_code[&Code::Xlat_m8].helpers, ROUNDS / 2);
    let (a, b) = (parts.shares.unwrap(), whole.shares.unwrap());
    assert!(a.passthrough.abs_diff(b.passthrough) < 20, "{a:?} {b:?}");
    assert!(parts.by_block.values().map(|left| left.helpers).sum::<u64>() >= ROUNDS / 2);
}

#[test]
fn the_table_is_readable() {
    let (stats, _) = count(0, u64::MAX, mixed);
    let text = stats.tables().to_string();
    for part in ["copies on the host CPU", "interpreted", "Top instructions", "Top blocks", "XLAT"]
    {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let top: Vec<_> = stats.top_instructions().iter().map(|row| row.1).collect();
    let weights: Vec<_> = top.iter().map(|left| left.helpers + left.slow + left.exits).collect();
    assert!(weights.len() <= 20 && weights.is_sorted_by(|a, b| a >= b), "{weights:?}");
}

#[test]
fn the_hottest_block_is_found() {
    let mut a = CodeAssembler::new(64).unwrap();
    let mut top = a.create_label();
    a.mov(ecx, 100_000).unwrap();
    a.nop().unwrap();
    a.set_label(&mut top).unwrap();
    a.dec(ecx).unwrap();
    a.jne(top).unwrap();
    a.ud2().unwrap();
    let bytes = a.assemble(CODE).unwrap();
    let mut engine = Engine::new(Config { threshold: 0, ..Config::default() }).unwrap();
    engine.count_strategies().unwrap();
    let mut guest = Guest::new(Start::Long, Runner::Jit(Box::new(engine)));
    guest.reset(&with_stack([0; 16]));
    guest.run(&bytes, u64::MAX);
    let Runner::Jit(engine) = &guest.runner else { unreachable!("made above") };
    assert_eq!(engine.hottest_block(), Some(CODE + 6));
}
