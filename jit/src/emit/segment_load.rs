//! Loads of segment registers in real mode and V86 mode, where a selector is a base and nothing
//! else. In protected mode they are the helper's, which stays in translated code where the key
//! does not change.

use super::Unit;
use super::memory::Access;
use crate::key::Class;
use crate::regs::{CS, SS, host};
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, OpKind, Register};
use interp::engine::block::Op;
use x86::segment::ar;

/// Access rights of a V86-mode segment (SDM vol. 3B, section 21.2.1).
const V86_RIGHTS: u32 = ar::P | 3 << ar::DPL_SHIFT | ar::S | ar::RW | ar::ACCESSED;

impl Unit<'_> {
    /// Whether a load of the register leaves the key as it is, whatever the selector. SS opens
    /// the interrupt shadow, too; and a register of 4 GiB may make the segments flat.
    fn loads_base_only(&self, register: u8) -> bool {
        let class = match self.key.class(register) {
            Class::Wide => true,
            Class::Limited => !self.key.is_v86(),
            Class::Odd | Class::Free => false,
        };
        !self.key.is_protected() && register != SS && register != CS && class
    }

    /// Loads segment register `register` with the selector in R11 (zero-extended). Destroys R11
    /// and EFLAGS.
    fn load_base(&mut self, register: u8) {
        let addresses = self.env.addresses;
        let (selector, base) = (addresses.selector(register), addresses.segment_base(register));
        dynasm!(self.ops
            ; .arch x64
            ; mov [selector], r11w
            ; shl r11d, 4
            ; mov [base], r11
        );
        if self.key.is_v86() {
            let (limit, access) =
                (addresses.segment_limit(register), addresses.segment_access(register));
            dynasm!(self.ops
                ; .arch x64
                ; mov DWORD [limit], 0xFFFF
                ; mov DWORD [access], V86_RIGHTS as i32
            );
        }
    }

    /// MOV to a segment register.
    pub(super) fn mov_to_segment(&mut self, op: &Op, insn: &Instruction) -> bool {
        let register = op.insn.op[0].reg;
        if !self.loads_base_only(register) {
            return false;
        }
        if insn.op1_kind() == OpKind::Memory {
            if !self.can_access(op) || op.insn.mem.size != 2 {
                return false;
            }
            let (slow, back) = (self.label(), self.label());
            self.before_clobber();
            self.access(op, insn, Access { size: 2, write: false, align: 1 }, slow, true);
            dynasm!(self.ops ; .arch x64 ; movzx r11d, WORD [r11]);
            self.load_base(register);
            self.place(back);
            self.add_slow(op, slow, back);
            return true;
        }
        let Some(source) = host(insn.op1_register().full_register().number() as u8) else {
            return false;
        };
        self.before_clobber();
        dynasm!(self.ops ; .arch x64 ; movzx r11d, Rw(source));
        self.load_base(register);
        true
    }

    /// POP of a segment register.
    pub(super) fn pop_to_segment_register(
        &mut self,
        op: &Op,
        insn: &Instruction,
        size: u32,
    ) -> bool {
        let register = (insn.op0_register() as u32 - Register::ES as u32) as u8;
        if !self.loads_base_only(register) {
            return false;
        }
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        self.segment_stack_address(0, size, false, slow);
        self.move_segment_stack(size as i32);
        dynasm!(self.ops ; .arch x64 ; movzx r11d, WORD [r11]);
        self.load_base(register);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// LDS, LES, LFS and LGS.
    pub(crate) fn load_far_pointer(&mut self, op: &Op, insn: &Instruction, register: u8) -> bool {
        let size = u32::from(op.insn.op_size);
        let target = host(insn.op0_register().full_register().number() as u8);
        let Some(target) = target.filter(|_| insn.op0_register().size() as u32 == size) else {
            return false;
        };
        if !self.loads_base_only(register) || !self.can_access(op) || !matches!(size, 2 | 4) {
            return false;
        }
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        self.access(op, insn, Access { size: size + 2, write: false, align: 1 }, slow, true);
        if size == 2 {
            dynasm!(self.ops
                ; .arch x64
                ; mov Rw(target), [r11]
                ; movzx r11d, WORD [r11 + 2]
            );
        } else {
            dynasm!(self.ops
                ; .arch x64
                ; mov Rd(target), [r11]
                ; movzx r11d, WORD [r11 + 4]
            );
        }
        self.load_base(register);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }
}
