//! Several pushes, or several pops, behind one another: one look into the TLB for all.

use super::memory::Access;
use super::{Cold, Part, Strategy, Unit};
use crate::regs::{STACK, host};
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use interp::engine::block::Op;

/// The longest run.
const MAX_RUN: usize = 16;

impl Unit<'_> {
    /// Emits the run that begins at the current instruction and returns its length; 0 if there is
    /// none.
    pub(super) fn stack_run(&mut self, insns: &[Op], iced: &[Instruction]) -> usize {
        if self.env.helpers_only || !self.key.is_plain() {
            return 0;
        }
        let word = if self.key.is_long() { 8 } else { 4 };
        let length = |member: fn(&Instruction, i32) -> bool| {
            iced.iter().take(MAX_RUN).take_while(|insn| member(insn, word)).count()
        };
        let (pushes, pops) = (length(is_simple_push), length(is_simple_pop));
        let count = pushes.max(pops);
        if count < 2 {
            return 0;
        }
        let write = pushes != 0;
        let total = count as i32 * word;
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        if !write {
            dynasm!(self.ops ; .arch x64 ; mov r14, Rq(STACK));
        } else if self.key.is_long() {
            dynasm!(self.ops ; .arch x64 ; lea r14, [Rq(STACK) - total]);
        } else {
            dynasm!(self.ops ; .arch x64 ; lea r14d, [Rq(STACK) - total]);
        }
        self.lookup(Access { size: total as u32, write, align: 1 }, slow, true);
        for (i, insn) in iced.iter().take(count).enumerate() {
            let i = i as i32;
            if write {
                self.push_to(insn, total - (i + 1) * word, word);
            } else {
                self.pop_from(insn, i * word, word);
            }
        }
        self.move_stack(if write { -total } else { total });
        self.place(back);
        let mut sites = Vec::with_capacity(count);
        if let Some((_, part)) = self.notes.marks.last_mut() {
            *part = Part::Instructions(self.index, count);
        }
        for (i, op) in insns.iter().take(count).enumerate() {
            if i != 0 {
                self.begin(self.index + 1, op);
            }
            self.note_strategy(Strategy::Custom);
            sites.push(self.site(op, true));
        }
        let (restore, vectors, x87) = (self.flags.eflags, self.vectors, self.x87);
        self.cold.push(Cold::Slow { label: slow, back, sites, restore, vectors, x87 });
        count
    }

    fn push_to(&mut self, insn: &Instruction, offset: i32, word: i32) {
        if insn.op0_kind() != OpKind::Register {
            let value = insn.immediate(0) as i32;
            if word == 8 {
                dynasm!(self.ops ; .arch x64 ; mov QWORD [r14 + offset], value);
            } else {
                dynasm!(self.ops ; .arch x64 ; mov DWORD [r14 + offset], value);
            }
            return;
        }
        let number = insn.op0_register().full_register().number() as u8;
        let source = host(number).unwrap_or_else(|| {
            let slot = self.env.addresses.gpr(number);
            dynasm!(self.ops ; .arch x64 ; mov r13, [slot]);
            13
        });
        if word == 8 {
            dynasm!(self.ops ; .arch x64 ; mov [r14 + offset], Rq(source));
        } else {
            dynasm!(self.ops ; .arch x64 ; mov [r14 + offset], Rd(source));
        }
    }

    fn pop_from(&mut self, insn: &Instruction, offset: i32, word: i32) {
        let number = insn.op0_register().full_register().number() as u8;
        let target = host(number).unwrap_or(13);
        if word == 8 {
            dynasm!(self.ops ; .arch x64 ; mov Rq(target), [r14 + offset]);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov Rd(target), [r14 + offset]);
        }
        if host(number).is_none() {
            let slot = self.env.addresses.gpr(number);
            dynasm!(self.ops ; .arch x64 ; mov [slot], r13);
        }
    }
}

/// A general-purpose register but for the stack pointer, of the stack's width.
fn is_simple_register(insn: &Instruction) -> bool {
    let register = insn.op0_register();
    insn.op0_kind() == OpKind::Register
        && register.is_gpr()
        && register.full_register() != Register::RSP
}

fn is_simple_push(insn: &Instruction, word: i32) -> bool {
    insn.mnemonic() == Mnemonic::Push
        && insn.stack_pointer_increment() == -word
        && match insn.op0_kind() {
            OpKind::Register => is_simple_register(insn),
            OpKind::Immediate8to64
            | OpKind::Immediate32to64
            | OpKind::Immediate8to32
            | OpKind::Immediate32 => true,
            _ => false,
        }
}

fn is_simple_pop(insn: &Instruction, word: i32) -> bool {
    insn.mnemonic() == Mnemonic::Pop
        && insn.stack_pointer_increment() == word
        && is_simple_register(insn)
}
