//! LOOP, LOOPE, LOOPNE, JCXZ, JECXZ and JRCXZ, which leave the flags alone.

use super::Unit;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, Mnemonic};
use interp::engine::block::Op;

impl Unit<'_> {
    /// LOOPcc.
    pub(crate) fn count_down(&mut self, op: &Op, insn: &Instruction) -> bool {
        let Some(target) = self.target(insn) else { return false };
        self.before_flag_use();
        match op.insn.mem.addr_size {
            2 => dynasm!(self.ops ; .arch x64 ; lea r11d, [rcx - 1] ; mov cx, r11w),
            4 => dynasm!(self.ops ; .arch x64 ; lea ecx, [rcx - 1]),
            _ => dynasm!(self.ops ; .arch x64 ; lea rcx, [rcx - 1]),
        }
        let not_taken = self.label();
        match insn.mnemonic() {
            Mnemonic::Loope => dynasm!(self.ops ; .arch x64 ; jne =>not_taken),
            Mnemonic::Loopne => dynasm!(self.ops ; .arch x64 ; je =>not_taken),
            _ => {}
        }
        let zero = self.label();
        self.jump_if_zero(op.insn.mem.addr_size, zero);
        self.restore_counter(op.insn.mem.addr_size);
        self.conditional_exit(target);
        self.place(zero);
        self.restore_counter(op.insn.mem.addr_size);
        self.place(not_taken);
        true
    }

    /// JCXZ and its like.
    pub(crate) fn jump_if_counter_zero(&mut self, op: &Op, insn: &Instruction) -> bool {
        let Some(target) = self.target(insn) else { return false };
        let (zero, over) = (self.label(), self.label());
        self.jump_if_zero(op.insn.mem.addr_size, zero);
        self.restore_counter(op.insn.mem.addr_size);
        dynasm!(self.ops ; .arch x64 ; jmp =>over);
        self.place(zero);
        self.restore_counter(op.insn.mem.addr_size);
        self.conditional_exit(target);
        self.place(over);
        true
    }

    /// Jumps to the label, which is close, if the counter is zero. A counter of 16 bits takes
    /// RCX's place meanwhile, until [`Unit::restore_counter`].
    fn jump_if_zero(&mut self, addr_size: u8, zero: DynamicLabel) {
        if addr_size == 2 {
            dynasm!(self.ops ; .arch x64 ; mov r11, rcx ; movzx ecx, cx);
        }
        if addr_size == 4 {
            dynasm!(self.ops ; .arch x64 ; jecxz =>zero);
        } else {
            dynasm!(self.ops ; .arch x64 ; jrcxz =>zero);
        }
    }

    fn restore_counter(&mut self, addr_size: u8) {
        if addr_size == 2 {
            dynasm!(self.ops ; .arch x64 ; mov rcx, r11);
        }
    }

    /// A jump to the code at `target`, in the middle of the block or at its end.
    fn conditional_exit(&mut self, target: u64) {
        self.ops.push(0xE9);
        self.ops.push_i32(0);
        let site = self.offset() - 4;
        self.exit_by(site, target);
    }
}
