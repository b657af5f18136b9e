//! BT, BTS, BTR and BTC on memory with the bit's number in a register: the number also selects the
//! word, before or behind the operand's address.

use super::Unit;
use super::memory::Access;
use super::passthrough::{map_registers, memory_is_written, set_host_address, simplify};
use crate::regs::host;
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Register};
use interp::engine::block::Op;

impl Unit<'_> {
    /// A copy whose address is that of the word that the bit is in, less the distance that the
    /// copy adds by itself.
    pub(super) fn bit_string(&mut self, op: &Op, insn: &Instruction) -> bool {
        let size = u32::from(op.insn.mem.size);
        if !self.can_access(op) || !matches!(size, 2 | 4 | 8) {
            return false;
        }
        let mut copy = *insn;
        simplify(&mut copy);
        let Some(borrowed) = map_registers(&mut copy, insn, &[10]) else { return false };
        set_host_address(&mut copy, true, None);
        if !self.encodes(&copy) {
            return false;
        }
        let write = memory_is_written(insn);
        let align = if insn.has_lock_prefix() { size } else { 1 };
        let number = insn.op1_register();
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        self.operand_offset(op, insn);
        self.word_distance(number, size);
        dynasm!(self.ops ; .arch x64 ; add r11, r10);
        match op.insn.mem.addr_size {
            2 => dynasm!(self.ops ; .arch x64 ; movzx r11d, r11w),
            4 => dynasm!(self.ops ; .arch x64 ; mov r11d, r11d),
            _ => {}
        }
        if !self.key.is_plain_segment(op.insn.mem.seg) {
            self.apply_segment(op.insn.mem.seg, op.insn.mem.addr_size, size, slow);
        }
        self.lookup(Access { size, write, align }, slow, true);
        self.word_distance(number, size);
        dynasm!(self.ops ; .arch x64 ; sub r11, r10);
        self.before_flag_use();
        self.borrow_registers(&borrowed);
        self.note_copy();
        self.put(&copy);
        self.give_back(&borrowed);
        self.after_flag_write();
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// R10 = bytes from the operand's address to the word of bit number `number`.
    fn word_distance(&mut self, number: Register, size: u32) {
        let guest = number.full_register().number() as u8;
        let slot = self.env.addresses.gpr(guest);
        match (size, host(guest)) {
            (2, Some(n)) => dynasm!(self.ops ; .arch x64 ; movsx r10, Rw(n)),
            (4, Some(n)) => dynasm!(self.ops ; .arch x64 ; movsxd r10, Rd(n)),
            (_, Some(n)) => dynasm!(self.ops ; .arch x64 ; mov r10, Rq(n)),
            (2, None) => dynasm!(self.ops ; .arch x64 ; movsx r10, WORD [slot]),
            (4, None) => dynasm!(self.ops ; .arch x64 ; movsxd r10, DWORD [slot]),
            (_, None) => dynasm!(self.ops ; .arch x64 ; mov r10, [slot]),
        }
        let (bits, bytes) = match size {
            2 => (4, 1),
            4 => (5, 2),
            _ => (6, 3),
        };
        dynasm!(self.ops ; .arch x64 ; sar r10, bits ; shl r10, bytes);
    }
}
