//! Interrupt flag, PUSHF and selectors: privileged or sensitive, on the virtual state.

use super::Unit;
use crate::regs::host;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, OpKind};
use interp::engine::block::Op;
use x86::flags;

/// What PUSHF stores of RFLAGS besides the arithmetic flags.
const PUSHED: i32 =
    (flags::ALL & !flags::ARITHMETIC & !flags::VM & !flags::RF) as i32 | flags::FIXED_ONE as i32;

impl Unit<'_> {
    /// Whether CLI and STI act on IF: at CPL 0 IOPL always allows them.
    fn owns_interrupt_flag(&self) -> bool {
        self.key.mode().cpl() == 0
    }

    /// CLI.
    pub(crate) fn cli(&mut self, _: &Op, _: &Instruction) -> bool {
        if !self.owns_interrupt_flag() {
            return false;
        }
        self.before_clobber();
        let rflags = self.env.addresses.rflags();
        dynasm!(self.ops ; .arch x64 ; and DWORD [rflags], !(flags::IF as i32));
        true
    }

    /// STI in front of another instruction of the block: no interrupt is taken before that has
    /// ended, since only entries of blocks poll.
    pub(crate) fn sti(&mut self, op: &Op, _: &Instruction) -> bool {
        if !self.owns_interrupt_flag() || self.index + 1 == self.count {
            return false;
        }
        // With an interrupt waiting the helper opens the flag and leaves.
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        let rflags = self.env.addresses.rflags();
        let waits = self.env.addresses.interrupt_waits;
        dynasm!(self.ops
            ; .arch x64
            ; cmp DWORD [waits], 0
            ; jne =>slow
            ; or DWORD [rflags], flags::IF as i32
            ; =>back
        );
        self.add_slow(op, slow, back);
        true
    }

    /// SWAPGS.
    pub(crate) fn swapgs(&mut self, _: &Op, _: &Instruction) -> bool {
        if !self.key.is_long() || !self.owns_interrupt_flag() {
            return false;
        }
        let (user, kernel) =
            (self.env.addresses.segment_base(5), self.env.addresses.kernel_gs_base());
        dynasm!(self.ops
            ; .arch x64
            ; mov r10, [user]
            ; mov r11, [kernel]
            ; mov [user], r11
            ; mov [kernel], r10
        );
        true
    }

    /// STAC.
    pub(crate) fn stac(&mut self, op: &Op, _: &Instruction) -> bool {
        self.set_access_override(op, true)
    }

    /// CLAC.
    pub(crate) fn clac(&mut self, op: &Op, _: &Instruction) -> bool {
        self.set_access_override(op, false)
    }

    /// The helper suspends SMAP or puts it in force; what follows has another key and is another
    /// block, to which this one links all the same.
    fn set_access_override(&mut self, op: &Op, on: bool) -> bool {
        let Some(key) = self.key.with_access_override(on) else { return false };
        if self.index + 1 != self.count {
            return false;
        }
        self.key = key;
        self.call_helper(op);
        let (cache, base) = (self.env.addresses.indirect, self.env.addresses.stack_base);
        let table = self.env.indirect_behind;
        dynasm!(self.ops
            ; .arch x64
            ; mov QWORD [cache], table
            // Returns to calls made under the other key must not be predicted.
            ; mov esp, base
        );
        let next = self.next;
        self.exit_to(next);
        true
    }

    /// PUSHF.
    pub(crate) fn pushf(&mut self, op: &Op, insn: &Instruction) -> bool {
        let word = -insn.stack_pointer_increment();
        if self.key.is_long() && word != 8 || self.key.is_v86() || !self.can_use_stack() {
            return false;
        }
        let (slow, back) = (self.label(), self.label());
        if !self.flags.slot {
            self.save_flags();
        }
        self.flags.eflags = false;
        let kept = self.env.addresses.temporary;
        let (saved, rflags) = (self.env.addresses.flags, self.env.addresses.rflags());
        self.stack_slot(word as u32, slow);
        dynasm!(self.ops
            ; .arch x64
            ; mov [kept], r11
            ; movzx r10d, WORD [saved]
            ; mov r11d, r10d
            ; shr r11d, 8
            ; and r11d, 0xD5
            ; and r10d, 1
            ; shl r10d, 11
            ; or r11d, r10d
            ; mov r10d, [rflags]
            ; and r10d, PUSHED
            ; or r10d, r11d
            ; or r10d, 2
            ; mov r11, [kept]
        );
        match word {
            8 => dynasm!(self.ops ; .arch x64 ; mov [r11], r10),
            4 => dynasm!(self.ops ; .arch x64 ; mov [r11], r10d),
            _ => dynasm!(self.ops ; .arch x64 ; mov [r11], r10w),
        }
        self.move_stack(-word);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// MOV of a selector to a register; everything else is a passthrough or the helper's.
    pub(crate) fn mov(&mut self, op: &Op, insn: &Instruction) -> bool {
        if op.insn.op[0].kind == decoder::OpKind::Seg {
            return self.mov_to_segment(op, insn);
        }
        let is_selector = insn.op_count() == 2
            && insn.op0_kind() == OpKind::Register
            && insn.op0_register().is_gpr()
            && insn.op1_kind() == OpKind::Register
            && insn.op1_register().is_segment_register();
        if !is_selector {
            return self.passthrough(op, insn);
        }
        let segment = (insn.op1_register() as u32 - iced_x86::Register::ES as u32) as u8;
        let slot = self.env.addresses.selector(segment);
        let number = insn.op0_register().full_register().number() as u8;
        let context = self.env.addresses.gpr(number);
        dynasm!(self.ops ; .arch x64 ; movzx r10d, WORD [slot]);
        match (host(number), insn.op0_register().size()) {
            (Some(n), 2) => dynasm!(self.ops ; .arch x64 ; mov Rw(n), r10w),
            (Some(n), _) => dynasm!(self.ops ; .arch x64 ; mov Rd(n), r10d),
            (None, 2) => dynasm!(self.ops ; .arch x64 ; mov [context], r10w),
            (None, _) => dynasm!(self.ops ; .arch x64 ; mov [context], r10),
        }
        true
    }
}
