//! Counting instructions without an exact limit.

use super::kit::{CODE, DATA, Guest, Runner, Start, with_stack};
use crate::{Config, Engine};
use iced_x86::code_asm::*;

/// Without an exact limit instructions are counted block by block, to the same number.
#[test]
fn counters_agree_with_the_budget() {
    let config = Config { threshold: 0, exact_limit: false, ..Config::default() };
    for round in [1u32, 7, 300] {
        let build = |a: &mut CodeAssembler| {
            let (mut head, mut odd, mut next) =
                (a.create_label(), a.create_label(), a.create_label());
            a.mov(ecx, round).unwrap();
            a.set_label(&mut head).unwrap();
            a.test(ecx, 1).unwrap();
            a.jne(odd).unwrap();
            a.add(eax, 5).unwrap();
            a.cld().unwrap();
            a.jmp(next).unwrap();
            a.set_label(&mut odd).unwrap();
            a.mov(dword_ptr(DATA), eax).unwrap();
            a.set_label(&mut next).unwrap();
            a.dec(ecx).unwrap();
            a.jne(head).unwrap();
            // A fault in the middle of a block.
            a.inc(ebx).unwrap();
            a.mov(rax, qword_ptr(0x4000_0000_0000u64)).unwrap();
            a.inc(ebx).unwrap();
        };
        let code = {
            let mut a = CodeAssembler::new(64).expect("a code size");
            build(&mut a);
            a.assemble(CODE).expect("assembles")
        };
        let mut counts = Vec::new();
        let jit = Runner::Jit(Box::new(Engine::new(config).expect("an engine")));
        for runner in [Runner::Interp(Box::default()), jit] {
            let mut guest = Guest::new(Start::Long, runner);
            guest.reset(&with_stack([0; 16]));
            guest.run(&code, u64::MAX);
            counts.push(guest.executed());
        }
        assert_eq!(counts[0], counts[1], "{round} rounds");
    }
}
