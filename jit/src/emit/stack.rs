//! PUSH, POP and LEAVE.

use super::Unit;
use super::memory::Access;
use crate::regs::{STACK, host};
use dynasmrt::{DynamicLabel, DynasmApi, dynasm};
use iced_x86::{Instruction, OpKind, Register};
use interp::engine::block::Op;

const BASE_POINTER: u8 = 5;

impl Unit<'_> {
    /// The width that pushes and pops have without an operand-size prefix, in bytes.
    fn stack_word(&self) -> u32 {
        if self.key.is_long() { 8 } else { 4 }
    }

    /// Moves the stack pointer. Keeps flags.
    pub(super) fn move_stack(&mut self, by: i32) {
        if !self.key.is_plain() {
            return self.move_segment_stack(by);
        }
        if self.key.is_long() {
            dynasm!(self.ops ; .arch x64 ; lea Rq(STACK), [Rq(STACK) + by]);
        } else {
            dynasm!(self.ops ; .arch x64 ; lea Rd(STACK), [Rq(STACK) + by]);
        }
    }

    /// R14 = host address of the `size` bytes below the stack pointer, for writing.
    pub(super) fn stack_slot(&mut self, size: u32, slow: DynamicLabel) {
        if !self.key.is_plain() {
            return self.segment_stack_slot(size, slow);
        }
        let by = -(size as i32);
        if self.key.is_long() {
            dynasm!(self.ops ; .arch x64 ; lea r14, [Rq(STACK) + by]);
        } else {
            dynasm!(self.ops ; .arch x64 ; lea r14d, [Rq(STACK) + by]);
        }
        self.lookup(Access { size, write: true, align: 1 }, slow, true);
    }

    /// PUSH of a register, an immediate or memory.
    pub(crate) fn push(&mut self, op: &Op, insn: &Instruction) -> bool {
        if !self.key.is_plain() {
            return self.push_to_segment(op, insn);
        }
        let word = self.stack_word();
        let size_ok = insn.stack_pointer_increment() == -(word as i32);
        let operand_ok = match insn.op0_kind() {
            OpKind::Register => insn.op0_register().is_gpr(),
            OpKind::Memory => self.can_access(op) && u32::from(op.insn.mem.size) == word,
            OpKind::Immediate8to64
            | OpKind::Immediate32to64
            | OpKind::Immediate8to32
            | OpKind::Immediate32 => true,
            _ => false,
        };
        if !size_ok || !operand_ok {
            return false;
        }
        if let Some(member) = self.member() {
            self.member_stack_access(op, member, -(word as i32));
            self.store_pushed(insn, word, member.displacement());
            self.move_stack(-(word as i32));
            return true;
        }
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        if insn.op0_kind() == OpKind::Memory {
            let kept = self.env.addresses.temporary;
            let access = Access { size: word, write: false, align: 1 };
            self.access(op, insn, access, slow, false);
            dynasm!(self.ops ; .arch x64 ; mov r14, [r13 + r14] ; mov [kept], r14);
        }
        self.stack_slot(word, slow);
        self.store_pushed(insn, word, 0);
        self.move_stack(-(word as i32));
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// Stores the operand of a push at host address R14 plus `at`.
    fn store_pushed(&mut self, insn: &Instruction, word: u32, at: i32) {
        let source = match insn.op0_kind() {
            OpKind::Register => {
                let number = insn.op0_register().full_register().number() as u8;
                host(number).unwrap_or_else(|| {
                    let slot = self.env.addresses.gpr(number);
                    dynasm!(self.ops ; .arch x64 ; mov r13, [slot]);
                    13
                })
            }
            OpKind::Memory => {
                let kept = self.env.addresses.temporary;
                dynasm!(self.ops ; .arch x64 ; mov r13, [kept]);
                13
            }
            _ => {
                let value = insn.immediate(0) as i32;
                if word == 8 {
                    dynasm!(self.ops ; .arch x64 ; mov QWORD [r14 + at], value);
                } else {
                    dynasm!(self.ops ; .arch x64 ; mov DWORD [r14 + at], value);
                }
                return;
            }
        };
        if word == 8 {
            dynasm!(self.ops ; .arch x64 ; mov [r14 + at], Rq(source));
        } else {
            dynasm!(self.ops ; .arch x64 ; mov [r14 + at], Rd(source));
        }
    }

    /// POP of a register.
    pub(crate) fn pop(&mut self, op: &Op, insn: &Instruction) -> bool {
        if !self.key.is_plain() {
            return self.pop_from_segment(op, insn);
        }
        let word = self.stack_word();
        let register = insn.op0_register();
        if insn.op0_kind() != OpKind::Register
            || !register.is_gpr()
            || insn.stack_pointer_increment() != word as i32
        {
            return false;
        }
        if let Some(member) = self.member() {
            self.member_stack_access(op, member, 0);
            self.pop_at(insn, word, member.displacement());
            return true;
        }
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        dynasm!(self.ops ; .arch x64 ; mov r14, Rq(STACK));
        self.lookup(Access { size: word, write: false, align: 1 }, slow, true);
        self.pop_at(insn, word, 0);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// Loads the operand of a pop from host address R14 plus `at` and moves the stack pointer.
    fn pop_at(&mut self, insn: &Instruction, word: u32, at: i32) {
        let register = insn.op0_register().full_register();
        let number = register.number() as u8;
        let target = host(number).unwrap_or(13);
        if register != Register::RSP {
            self.move_stack(word as i32);
        }
        if word == 8 {
            dynasm!(self.ops ; .arch x64 ; mov Rq(target), [r14 + at]);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov Rd(target), [r14 + at]);
        }
        if host(number).is_none() {
            let slot = self.env.addresses.gpr(number);
            dynasm!(self.ops ; .arch x64 ; mov [slot], r13);
        }
    }

    /// LEAVE.
    pub(crate) fn leave_frame(&mut self, op: &Op, _: &Instruction) -> bool {
        if !self.key.is_plain() {
            return self.leave_segment_frame(op);
        }
        let word = self.stack_word();
        if u32::from(op.insn.op_size) != word {
            return false;
        }
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        dynasm!(self.ops ; .arch x64 ; mov r14, Rq(BASE_POINTER));
        self.lookup(Access { size: word, write: false, align: 1 }, slow, false);
        if word == 8 {
            dynasm!(self.ops
                ; .arch x64
                ; lea Rq(STACK), [Rq(BASE_POINTER) + 8]
                ; mov Rq(BASE_POINTER), [r13 + r14]
            );
        } else {
            dynasm!(self.ops
                ; .arch x64
                ; lea Rd(STACK), [Rq(BASE_POINTER) + 4]
                ; mov Rd(BASE_POINTER), [r13 + r14]
            );
        }
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }
}
