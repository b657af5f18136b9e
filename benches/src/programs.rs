//! Programs for the engines. Each does RCX rounds of a loop and ends in HLT.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// A program.
pub struct Program {
    /// What its loop is made of.
    pub name: &'static str,
    /// Machine code for address 0x10_0000.
    pub code: Vec<u8>,
}

/// Where the guest places code.
const CODE: u64 = 0x10_0000;

type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Loops of a few instructions, one for each cost of dispatch and emission.
///
/// # Panics
/// If the assembler refuses one.
pub fn programs() -> Vec<Program> {
    let bodies: [(&'static str, Body); 8] = [
        ("arithmetic", arithmetic),
        ("load-store", load_store),
        ("push-pop", push_pop),
        ("call-ret", call_ret),
        ("call-indirect", call_indirect),
        ("branches", branches),
        ("sse-double", sse_double),
        ("rep-movsq-4k", rep_movsq),
    ];
    bodies.map(|(name, body)| Program { name, code: looped(body).expect("a program") }).into()
}

/// Blocks of eight instructions, each of which ends in a jump to the next, and after the last one
/// HLT: for what happens at every first execution of code.
///
/// # Panics
/// If the assembler refuses it.
pub fn chain(blocks: usize) -> Vec<u8> {
    let assemble = || {
        let mut a = CodeAssembler::new(64)?;
        for _ in 0..blocks {
            let mut next = a.create_label();
            a.mov(rax, qword_ptr(rsi + 16))?;
            a.add(rax, rbx)?;
            a.cmp(rax, 5)?;
            a.cmovb(rdx, rax)?;
            a.mov(qword_ptr(rdi + 8), rdx)?;
            a.lea(rbx, qword_ptr(rax + rdx * 4 + 3))?;
            a.test(ebx, ebx)?;
            a.jmp(next)?;
            // Something between the blocks, as code has it.
            a.int3()?;
            a.set_label(&mut next)?;
        }
        a.hlt()?;
        a.assemble(CODE)
    };
    assemble().expect("a program")
}

fn looped(body: Body) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut top = a.create_label();
    a.set_label(&mut top)?;
    body(&mut a)?;
    a.dec(rcx)?;
    a.jnz(top)?;
    a.hlt()?;
    a.assemble(CODE)
}

fn arithmetic(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.imul_3(rax, rax, 0x4F6C_DD1D)?;
    a.add(rax, rbx)?;
    a.mov(rdx, rax)?;
    a.shr(rdx, 17)?;
    a.xor(rbx, rdx)?;
    a.rol(rbx, 5)
}

fn load_store(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rax, qword_ptr(rsi + 64))?;
    a.add(rax, qword_ptr(rsi + 72))?;
    a.mov(qword_ptr(rdi + 8), rax)?;
    a.add(dword_ptr(rdi + 16), 1)?;
    // The index is the loop's counter, kept inside one page.
    a.mov(edx, ecx)?;
    a.and(edx, 0xFF)?;
    a.movzx(edx, byte_ptr(rsi + rdx))
}

fn push_pop(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.push(rax)?;
    a.push(rbx)?;
    a.pop(rdx)?;
    a.pop(rax)
}

fn call_ret(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut function, mut behind) = (a.create_label(), a.create_label());
    a.call(function)?;
    a.jmp(behind)?;
    a.set_label(&mut function)?;
    a.add(rax, 1)?;
    a.ret()?;
    a.set_label(&mut behind)?;
    a.add(rbx, rax)
}

fn call_indirect(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut function, mut behind) = (a.create_label(), a.create_label());
    a.lea(rdx, ptr(function))?;
    a.call(rdx)?;
    a.jmp(behind)?;
    a.set_label(&mut function)?;
    a.add(rax, 1)?;
    a.ret()?;
    a.set_label(&mut behind)?;
    a.add(rbx, rax)
}

fn branches(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut odd, mut behind) = (a.create_label(), a.create_label());
    a.test(cl, 1)?;
    a.jnz(odd)?;
    a.add(rax, 3)?;
    a.jmp(behind)?;
    a.set_label(&mut odd)?;
    a.sub(rax, 1)?;
    a.set_label(&mut behind)?;
    a.cmp(rax, rcx)?;
    a.sete(bl)
}

fn sse_double(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.cvtsi2sd(xmm0, ecx)?;
    a.mulsd(xmm1, xmm0)?;
    a.addsd(xmm1, qword_ptr(rsi))?;
    a.movapd(xmmword_ptr(rdi), xmm1)
}

fn rep_movsq(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(rbx, rcx)?;
    a.mov(rdx, rsi)?;
    a.mov(rax, rdi)?;
    a.mov(ecx, 512)?;
    a.rep().movsq()?;
    a.mov(rcx, rbx)?;
    a.mov(rsi, rdx)?;
    a.mov(rdi, rax)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Guest, Runner};

    #[test]
    fn both_engines_agree_on_every_program() {
        for program in programs() {
            let mut states = Vec::new();
            for runner in [Runner::interp(), Runner::jit()] {
                let mut guest = Guest::new(runner);
                guest.load(&program.code);
                let instructions = guest.complete(100);
                states.push((instructions, guest.cpu.gpr));
            }
            assert_eq!(states[0], states[1], "{}", program.name);
            assert!(states[0].0 > 300, "{}: a loop of 100 rounds", program.name);
        }
    }

    #[test]
    fn a_chain_has_eight_instructions_a_block() {
        let mut guest = Guest::new(Runner::jit());
        guest.load(&chain(50));
        assert_eq!(guest.complete(0), 50 * 8 + 1);
    }
}
