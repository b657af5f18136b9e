//! Guest code that never ends leaves when it is asked to: not every block polls, every loop must.

use super::kit::{CODE, Guest, Runner, Start, with_stack};
use crate::{Config, Engine};
use iced_x86::code_asm::*;
use interp::engine::Exit;
use softmmu::ExitRequest;
use std::time::Duration;

/// Runs the code, which reaches its end only when it is asked to leave.
fn leaves(name: &str, build: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) {
    let mut a = CodeAssembler::new(64).expect("a code size");
    build(&mut a).expect("encodes");
    let code = a.assemble(CODE).expect("assembles");
    let config = Config { threshold: 0, exact_limit: false, count: false, ..Config::default() };
    let engine = Engine::new(config).expect("an engine");
    let mut guest = Guest::new(Start::Long, Runner::Jit(Box::new(engine)));
    guest.reset(&with_stack([0; 16]));
    guest.write(CODE, &code);
    guest.cpu.rip = CODE;
    for _ in 0..3 {
        let request = guest.mmu.exit_request.clone();
        request.clear(u32::MAX);
        let asks = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            request.set(ExitRequest::KICK);
        });
        let Runner::Jit(engine) = &mut guest.runner else { unreachable!("made above") };
        let exit = engine.run(&mut guest.cpu, &mut guest.mmu, u64::MAX);
        assert!(matches!(exit, Exit::Request), "{name}: {exit:?}");
        asks.join().expect("it only sets a bit");
    }
}

/// The one limit that holds without an exact one: who starts a processor waits for that instruction.
#[test]
fn one_instruction_of_it() {
    let config = Config { threshold: 0, exact_limit: false, count: false, ..Config::default() };
    let engine = Engine::new(config).expect("an engine");
    let mut guest = Guest::new(Start::Long, Runner::Jit(Box::new(engine)));
    guest.reset(&with_stack([0; 16]));
    // INC EAX; JMP to it.
    guest.write(CODE, &[0xFF, 0xC0, 0xEB, 0xFC]);
    guest.cpu.rip = CODE;
    let Runner::Jit(engine) = &mut guest.runner else { unreachable!("made above") };
    for rip in [CODE + 2, CODE, CODE + 2] {
        let exit = engine.run(&mut guest.cpu, &mut guest.mmu, 1);
        assert!(matches!(exit, Exit::Limit), "{exit:?}");
        assert_eq!(guest.cpu.rip, rip);
    }
}

#[test]
fn a_jump_to_itself() {
    leaves("jmp", |a| {
        let mut head = a.create_label();
        a.set_label(&mut head)?;
        a.jmp(head)
    });
}

#[test]
fn a_branch_backwards_behind_branches_forward() {
    leaves("jcc", |a| {
        let (mut head, mut on) = (a.create_label(), a.create_label());
        a.set_label(&mut head)?;
        a.inc(eax)?;
        a.jp(on)?;
        a.nop()?;
        a.set_label(&mut on)?;
        a.or(ebx, 1)?;
        a.jne(head)
    });
}

#[test]
fn calls_and_returns() {
    leaves("call", |a| {
        let (mut head, mut inner, mut outer) =
            (a.create_label(), a.create_label(), a.create_label());
        a.set_label(&mut head)?;
        a.call(outer)?;
        a.jmp(head)?;
        a.set_label(&mut outer)?;
        a.call(inner)?;
        a.ret()?;
        a.set_label(&mut inner)?;
        a.ret()
    });
}

#[test]
fn a_call_that_never_returns() {
    leaves("recursion", |a| {
        let mut head = a.create_label();
        a.set_label(&mut head)?;
        a.lea(rsp, ptr(rsp + 8))?;
        a.call(head)
    });
}

#[test]
fn returns_without_calls() {
    leaves("ret", |a| {
        let mut head = a.create_label();
        a.lea(rax, ptr(head))?;
        a.set_label(&mut head)?;
        a.push(rax)?;
        a.ret()
    });
}

#[test]
fn returns_to_a_return_site() {
    // The call is made once; its return site is returned to for ever.
    leaves("return site", |a| {
        let (mut next, mut site) = (a.create_label(), a.create_label());
        a.lea(rax, ptr(site))?;
        a.call(next)?;
        a.set_label(&mut site)?;
        a.push(rax)?;
        a.set_label(&mut next)?;
        a.ret()
    });
}

#[test]
fn indirect_jumps() {
    leaves("jmp rax", |a| {
        let (mut head, mut other) = (a.create_label(), a.create_label());
        a.set_label(&mut head)?;
        a.lea(rax, ptr(other))?;
        a.jmp(rax)?;
        a.set_label(&mut other)?;
        a.lea(rax, ptr(head))?;
        a.jmp(rax)
    });
}

#[test]
fn exceptions_and_strings() {
    leaves("strings", |a| {
        let mut head = a.create_label();
        a.set_label(&mut head)?;
        a.mov(ecx, 3)?;
        a.lea(rdi, ptr(rsp - 64))?;
        a.rep().stosb()?;
        a.cpuid()?;
        a.jmp(head)
    });
}
