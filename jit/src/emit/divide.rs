//! DIV and IDIV, on the host once it is certain that they do not raise #DE.

use super::Unit;
use super::memory::Access;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, OpKind, Register};
use interp::engine::block::Op;

impl Unit<'_> {
    /// DIV: overflows exactly if the dividend's upper half is not below the divisor.
    pub(crate) fn div(&mut self, op: &Op, insn: &Instruction) -> bool {
        self.divide(op, insn, |unit, size, slow| {
            if size == 8 {
                dynasm!(unit.ops ; .arch x64 ; cmp rdx, r11 ; jae =>slow);
            } else {
                dynasm!(unit.ops ; .arch x64 ; cmp edx, r11d ; jae =>slow);
            }
        })
    }

    /// IDIV: the host runs it where the dividend is a sign-extended number and the divisor is
    /// neither 0 nor -1; the helper does the rest.
    pub(crate) fn idiv(&mut self, op: &Op, insn: &Instruction) -> bool {
        self.divide(op, insn, |unit, size, slow| {
            if size == 8 {
                dynasm!(unit.ops
                    ; .arch x64
                    ; mov r10, rax
                    ; sar r10, 63
                    ; cmp r10, rdx
                    ; jne =>slow
                    ; lea r10, [r11 + 1]
                    ; cmp r10, 1
                    ; jbe =>slow
                );
            } else {
                dynasm!(unit.ops
                    ; .arch x64
                    ; mov r10d, eax
                    ; sar r10d, 31
                    ; cmp r10d, edx
                    ; jne =>slow
                    ; lea r10d, [r11 + 1]
                    ; cmp r10d, 1
                    ; jbe =>slow
                );
            }
        })
    }

    /// Divides by R11 after `check`.
    fn divide(
        &mut self,
        op: &Op,
        insn: &Instruction,
        check: fn(&mut Self, u32, DynamicLabel),
    ) -> bool {
        let memory = insn.op0_kind() == OpKind::Memory;
        let size =
            if memory { u32::from(op.insn.mem.size) } else { insn.op0_register().size() as u32 };
        if !matches!(size, 4 | 8) || memory && !self.can_access(op) {
            return false;
        }
        let divisor = if size == 8 { Register::R11 } else { Register::R11D };
        let mut copy = *insn;
        copy.set_segment_prefix(Register::None);
        copy.set_op0_kind(OpKind::Register);
        copy.set_op0_register(divisor);
        if !self.encodes(&copy) {
            return false;
        }
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        if memory {
            self.access(op, insn, Access { size, write: false, align: 1 }, slow, false);
            if size == 8 {
                dynasm!(self.ops ; .arch x64 ; mov r11, [r10 + r11]);
            } else {
                dynasm!(self.ops ; .arch x64 ; mov r11d, [r10 + r11]);
            }
        } else {
            self.load_register(insn.op0_register(), 11);
        }
        check(self, size, slow);
        self.before_flag_use();
        self.note_copy();
        self.put(&copy);
        self.after_flag_write();
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// Host register `to` = the whole of the guest register that `register` is a part of.
    pub(super) fn load_register(&mut self, register: Register, to: u8) {
        let number = register.full_register().number() as u8;
        match crate::regs::host(number) {
            Some(n) => dynasm!(self.ops ; .arch x64 ; mov Rq(to), Rq(n)),
            None => {
                let slot = self.env.addresses.gpr(number);
                dynasm!(self.ops ; .arch x64 ; mov Rq(to), [slot]);
            }
        }
    }
}
