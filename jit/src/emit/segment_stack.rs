//! The stack where its pointer has 16 bits, or its segment a base or a limit: PUSH, POP, PUSHA,
//! POPA and LEAVE with operands of either width.

use super::Unit;
use super::memory::Access;
use crate::regs::{STACK, host};
use dynasmrt::{DynamicLabel, DynasmApi, dynasm};
use iced_x86::{Instruction, OpKind, Register};
use interp::engine::block::Op;

const BASE_POINTER: u8 = 5;

/// What a push pushes.
#[derive(Clone, Copy)]
enum Pushed {
    /// A host register.
    Register(u8),
    Immediate(i32),
    Memory,
    /// A selector, by hardware number.
    Selector(u8),
}

impl Unit<'_> {
    /// Moves the stack pointer. Destroys EFLAGS where it has 16 bits.
    pub(super) fn move_segment_stack(&mut self, by: i32) {
        if self.key.has_stack16() {
            dynasm!(self.ops ; .arch x64 ; add Rw(STACK), by as i16);
        } else {
            dynasm!(self.ops ; .arch x64 ; lea Rd(STACK), [Rq(STACK) + by]);
        }
    }

    /// R11 = host address of the `size` bytes below the stack pointer, for writing.
    pub(super) fn segment_stack_slot(&mut self, size: u32, slow: DynamicLabel) {
        self.segment_stack_address(-(size as i32), size, true, slow);
    }

    /// PUSH.
    pub(super) fn push_to_segment(&mut self, op: &Op, insn: &Instruction) -> bool {
        let size = insn.stack_pointer_increment().unsigned_abs();
        if !self.can_use_stack() || !matches!(size, 2 | 4) {
            return false;
        }
        let register = insn.op0_register();
        let pushed = match insn.op0_kind() {
            OpKind::Register if register.is_gpr() => {
                match host(register.full_register().number() as u8) {
                    Some(n) => Pushed::Register(n),
                    None => return false,
                }
            }
            OpKind::Register if register.is_segment_register() => {
                Pushed::Selector((register as u32 - Register::ES as u32) as u8)
            }
            OpKind::Memory if self.can_access(op) && u32::from(op.insn.mem.size) == size => {
                Pushed::Memory
            }
            OpKind::Immediate8to16
            | OpKind::Immediate16
            | OpKind::Immediate8to32
            | OpKind::Immediate32 => Pushed::Immediate(insn.immediate(0) as i32),
            _ => return false,
        };
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        let kept = self.env.addresses.temporary;
        if matches!(pushed, Pushed::Memory) {
            self.access(op, insn, Access { size, write: false, align: 1 }, slow, true);
            if size == 2 {
                dynasm!(self.ops ; .arch x64 ; movzx r11d, WORD [r11]);
            } else {
                dynasm!(self.ops ; .arch x64 ; mov r11d, [r11]);
            }
            dynasm!(self.ops ; .arch x64 ; mov [kept], r11);
        }
        self.segment_stack_slot(size, slow);
        let source = match pushed {
            Pushed::Register(n) => n,
            Pushed::Immediate(value) => {
                dynasm!(self.ops ; .arch x64 ; mov r10d, value);
                10
            }
            Pushed::Memory => {
                dynasm!(self.ops ; .arch x64 ; mov r10, [kept]);
                10
            }
            Pushed::Selector(n) => {
                let selector = self.env.addresses.selector(n);
                dynasm!(self.ops ; .arch x64 ; movzx r10d, WORD [selector]);
                10
            }
        };
        self.store_word(source, 0, size);
        self.move_segment_stack(-(size as i32));
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// Stores host register `source` at host address R11 + `offset`.
    fn store_word(&mut self, source: u8, offset: i32, size: u32) {
        if size == 2 {
            dynasm!(self.ops ; .arch x64 ; mov [r11 + offset], Rw(source));
        } else {
            dynasm!(self.ops ; .arch x64 ; mov [r11 + offset], Rd(source));
        }
    }

    /// Loads host register `target` from host address R11 + `offset`.
    fn load_word(&mut self, target: u8, offset: i32, size: u32) {
        if size == 2 {
            dynasm!(self.ops ; .arch x64 ; mov Rw(target), [r11 + offset]);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov Rd(target), [r11 + offset]);
        }
    }

    /// POP of a register.
    pub(super) fn pop_from_segment(&mut self, op: &Op, insn: &Instruction) -> bool {
        let size = insn.stack_pointer_increment() as u32;
        let register = insn.op0_register();
        if !self.can_use_stack() || !matches!(size, 2 | 4) || insn.op0_kind() != OpKind::Register {
            return false;
        }
        if register.is_segment_register() {
            return self.pop_to_segment_register(op, insn, size);
        }
        let Some(target) = host(register.full_register().number() as u8) else { return false };
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        self.segment_stack_address(0, size, false, slow);
        self.move_segment_stack(size as i32);
        self.load_word(target, 0, size);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// PUSHA and PUSHAD.
    pub(crate) fn pusha(&mut self, op: &Op, insn: &Instruction) -> bool {
        let total = insn.stack_pointer_increment();
        let size = total.unsigned_abs() / 8;
        if !self.can_use_stack() || !matches!(size, 2 | 4) {
            return false;
        }
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        self.segment_stack_address(total, 8 * size, true, slow);
        for guest in 0..8u8 {
            let Some(source) = host(guest) else { continue };
            self.store_word(source, (7 - i32::from(guest)) * size as i32, size);
        }
        self.move_segment_stack(total);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// POPA and POPAD.
    pub(crate) fn popa(&mut self, op: &Op, insn: &Instruction) -> bool {
        let total = insn.stack_pointer_increment();
        let size = total as u32 / 8;
        if !self.can_use_stack() || !matches!(size, 2 | 4) {
            return false;
        }
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        self.segment_stack_address(0, 8 * size, false, slow);
        for guest in 0..8u8 {
            let Some(target) = host(guest).filter(|&n| n != STACK) else { continue };
            self.load_word(target, (7 - i32::from(guest)) * size as i32, size);
        }
        self.move_segment_stack(total);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// LEAVE.
    pub(super) fn leave_segment_frame(&mut self, op: &Op) -> bool {
        let size = u32::from(op.insn.op_size);
        if !self.can_use_stack() || !matches!(size, 2 | 4) {
            return false;
        }
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        dynasm!(self.ops ; .arch x64 ; mov r11d, Rd(BASE_POINTER));
        self.stack_offset_to_host(size, false, slow);
        let by = size as i32;
        if self.key.has_stack16() {
            dynasm!(self.ops
                ; .arch x64
                ; lea r10d, [Rq(BASE_POINTER) + by]
                ; mov Rw(STACK), r10w
            );
        } else {
            dynasm!(self.ops ; .arch x64 ; lea Rd(STACK), [Rq(BASE_POINTER) + by]);
        }
        self.load_word(BASE_POINTER, 0, size);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }
}
