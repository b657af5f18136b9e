//! PUSH, POP and LEAVE.

use super::Unit;
use super::memory::Access;
use crate::regs::{STACK, host};
use dynasmrt::{DynamicLabel, DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use interp::engine::block::Op;

const BASE_POINTER: u8 = 5;

impl Unit<'_> {
    /// The width that pushes and pops have without an operand-size prefix, in bytes.
    pub(super) fn stack_word(&self) -> u32 {
        if self.key.is_long() { 8 } else { 4 }
    }

    /// Moves the stack pointer. Keeps flags.
    pub(super) fn move_stack(&mut self, by: i32) {
        if !self.key.is_plain() {
            return self.move_segment_stack(by);
        }
        self.add_constant(self.stack_word(), STACK, STACK, by);
    }

    /// Moves the stack pointer behind a push or pop that needed no slow path: later, if the next
    /// instruction is another one. Nothing can see it in between.
    fn move_stack_later(&mut self, by: i32) {
        self.owed += by;
    }

    /// Moves the stack pointer as far as it was put off.
    pub(super) fn pay_stack(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        if owed != 0 {
            self.move_stack(owed);
        }
    }

    /// Whether instruction `index`, the one behind the current one, neither needs the stack pointer
    /// nor may leave the block before it moves it.
    pub(super) fn continues_run(&self, index: usize, op: &Op, insn: &Instruction) -> bool {
        let is_pointer =
            insn.op_count() > 0 && insn.op0_register().full_register() == Register::RSP;
        let moves = match insn.mnemonic() {
            Mnemonic::Push | Mnemonic::Pop => !op.insn.has_mem() && !is_pointer,
            Mnemonic::Ret => true,
            Mnemonic::Call => {
                self.target(insn).is_some() && u32::from(op.insn.op_size) == self.stack_word()
            }
            _ => false,
        };
        moves && self.will_be_known(index)
    }

    /// R11 = host address of the `size` bytes below the stack pointer, for writing.
    pub(super) fn stack_slot(&mut self, size: u32, slow: DynamicLabel) {
        if !self.key.is_plain() {
            return self.segment_stack_slot(size, slow);
        }
        let by = -(size as i32);
        self.add_constant(self.stack_word(), 11, STACK, by);
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
            self.move_stack_later(-(word as i32));
            return true;
        }
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        if insn.op0_kind() == OpKind::Memory {
            let kept = self.env.addresses.temporary;
            let access = Access { size: word, write: false, align: 1 };
            self.access(op, insn, access, slow, false);
            dynasm!(self.ops ; .arch x64 ; mov r11, [r10 + r11] ; mov [kept], r11);
        }
        self.stack_slot(word, slow);
        self.store_pushed(insn, word, 0);
        self.move_stack(-(word as i32));
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// Stores the operand of a push at host address R11 plus `at`.
    fn store_pushed(&mut self, insn: &Instruction, word: u32, at: i32) {
        let source = match insn.op0_kind() {
            OpKind::Register => {
                let number = insn.op0_register().full_register().number() as u8;
                host(number).unwrap_or_else(|| {
                    let slot = self.env.addresses.gpr(number);
                    dynasm!(self.ops ; .arch x64 ; mov r10, [slot]);
                    10
                })
            }
            OpKind::Memory => {
                let kept = self.env.addresses.temporary;
                dynasm!(self.ops ; .arch x64 ; mov r10, [kept]);
                10
            }
            _ => {
                let value = insn.immediate(0) as i32;
                return self.store_constant(word, 11, at, value);
            }
        };
        self.move_word(word, false, source, 11, at);
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
            if insn.op0_register().full_register() != Register::RSP {
                self.move_stack_later(word as i32);
            }
            self.load_popped(insn, word, member.displacement());
            return true;
        }
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        dynasm!(self.ops ; .arch x64 ; mov r11, Rq(STACK));
        self.lookup(Access { size: word, write: false, align: 1 }, slow, true);
        if insn.op0_register().full_register() != Register::RSP {
            self.move_stack(word as i32);
        }
        self.load_popped(insn, word, 0);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// Loads the operand of a pop from host address R11 plus `at`.
    fn load_popped(&mut self, insn: &Instruction, word: u32, at: i32) {
        let register = insn.op0_register().full_register();
        let number = register.number() as u8;
        let target = host(number).unwrap_or(10);
        self.move_word(word, true, target, 11, at);
        if host(number).is_none() {
            let slot = self.env.addresses.gpr(number);
            dynasm!(self.ops ; .arch x64 ; mov [slot], r10);
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
        dynasm!(self.ops ; .arch x64 ; mov r11, Rq(BASE_POINTER));
        self.lookup(Access { size: word, write: false, align: 1 }, slow, false);
        if word == 8 {
            dynasm!(self.ops
                ; .arch x64
                ; lea Rq(STACK), [Rq(BASE_POINTER) + 8]
                ; mov Rq(BASE_POINTER), [r10 + r11]
            );
        } else {
            dynasm!(self.ops
                ; .arch x64
                ; lea Rd(STACK), [Rq(BASE_POINTER) + 4]
                ; mov Rd(BASE_POINTER), [r10 + r11]
            );
        }
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }
}
