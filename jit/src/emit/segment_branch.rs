//! Near branches where RIP is an offset in a code segment, or the stack is not a plain one.
//!
//! Direct targets are checked against CS's limit at translation. Indirect ones need no check: what
//! is found in the cache of indirect branches was executed in the same code segment.

use super::memory::Access;
use super::{Cold, LinkRequest, Unit};
use crate::regs::host;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, OpKind};
use interp::engine::block::Op;

impl Unit<'_> {
    /// The target of a direct branch outside 64-bit mode; none beyond the limit.
    pub(super) fn short_target(&self, insn: &Instruction) -> Option<u64> {
        let target = match insn.op0_kind() {
            OpKind::NearBranch16 => insn.near_branch_target() & 0xFFFF,
            _ => insn.near_branch_target() & 0xFFFF_FFFF,
        };
        (!self.key.is_long() && target <= self.env.segment.limit).then_some(target)
    }

    /// Where a return goes that nothing predicted.
    pub(super) fn return_miss(&self) -> u64 {
        if self.key.has_flat_code() {
            self.env.stubs.return_miss
        } else {
            self.env.stubs.return_miss_based
        }
    }

    pub(super) fn is_indirect_in_segment(&self, op: &Op, insn: &Instruction) -> bool {
        let size = u32::from(op.insn.op_size);
        let near = insn.is_jmp_near_indirect() || insn.is_call_near_indirect();
        near && matches!(size, 2 | 4)
            && match insn.op0_kind() {
                OpKind::Register => insn.op0_register().size() as u32 == size,
                OpKind::Memory => u32::from(op.insn.mem.size) == size && self.can_access(op),
                _ => false,
            }
    }

    /// R11 = target of an indirect branch, zero-extended.
    pub(super) fn load_target_in_segment(
        &mut self,
        op: &Op,
        insn: &Instruction,
        slow: DynamicLabel,
    ) {
        let size = u32::from(op.insn.op_size);
        if insn.op0_kind() == OpKind::Memory {
            self.access(op, insn, Access { size, write: false, align: 1 }, slow, true);
            self.load_extended(size);
            return;
        }
        let Some(source) = host(insn.op0_register().full_register().number() as u8) else { return };
        if size == 2 {
            dynasm!(self.ops ; .arch x64 ; movzx r11d, Rw(source));
        } else {
            dynasm!(self.ops ; .arch x64 ; mov r11d, Rd(source));
        }
    }

    /// R11 = word at host address R11, zero-extended.
    fn load_extended(&mut self, size: u32) {
        if size == 2 {
            dynasm!(self.ops ; .arch x64 ; movzx r11d, WORD [r11]);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov r11d, [r11]);
        }
    }

    /// Probes the inline cache for the target in R11: R10 is then the offset of its entry.
    /// Destroys R11.
    pub(super) fn lookup_in_segment(&mut self, slow: DynamicLabel) {
        let (table, tag) = (self.env.indirect, self.env.addresses.code_tag);
        if self.key.has_flat_code() {
            dynasm!(self.ops ; .arch x64 ; movzx r10d, r11w);
        } else {
            let base = self.env.segment.base as i32;
            dynasm!(self.ops
                ; .arch x64
                ; lea r10d, [r11 + base]
                ; or r11, [tag]
                ; movzx r10d, r10w
            );
        }
        dynasm!(self.ops
            ; .arch x64
            ; shl r10d, 4
            ; cmp r11, [r10 + table]
            ; jne =>slow
        );
    }

    /// CALL near.
    pub(super) fn call_in_segment(&mut self, op: &Op, insn: &Instruction) -> bool {
        let target = self.target(insn);
        let size = u32::from(op.insn.op_size);
        let direct_ok = target.is_some() && matches!(size, 2 | 4);
        // A return must end where the call's block goes on.
        let back_ok = self.next <= self.env.segment.limit && (size == 4 || self.next <= 0xFFFF);
        if !self.can_use_stack() || !back_ok || !direct_ok && !self.is_indirect_in_segment(op, insn)
        {
            return false;
        }
        let slow = self.label();
        self.save_for_exit();
        let kept = self.env.addresses.temporary;
        if target.is_none() {
            self.load_target_in_segment(op, insn, slow);
            dynasm!(self.ops ; .arch x64 ; mov [kept], r11);
        }
        self.segment_stack_slot(size, slow);
        if target.is_none() {
            // Nothing is written before the target is known to be there.
            let back = self.env.addresses.second_temporary;
            dynasm!(self.ops ; .arch x64 ; mov [back], r11 ; mov r11, [kept]);
            self.lookup_in_segment(slow);
            dynasm!(self.ops ; .arch x64 ; mov r11, [back]);
        }
        let next = self.next as i32;
        if size == 2 {
            dynasm!(self.ops ; .arch x64 ; mov WORD [r11], next as i16);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov DWORD [r11], next);
        }
        self.move_segment_stack(-(size as i32));
        let (full, back) = (self.label(), self.label());
        let limit = self.env.addresses.stack_limit;
        dynasm!(self.ops ; .arch x64 ; cmp rsp, limit ; jb =>full ; =>back);
        self.cold.push(Cold::StackFull { label: full, back });
        match target {
            Some(target) => {
                self.ops.push(0xE8);
                self.ops.push_i32(0);
                let site = self.offset() - 4;
                let key = self.key;
                self.links.push(LinkRequest { site, trampoline: 0, target, saved: true, key });
            }
            None => {
                let code = self.env.indirect + 8;
                dynasm!(self.ops ; .arch x64 ; call QWORD [r10 + code]);
            }
        }
        self.add_slow_branch(op, slow);
        self.return_site();
        true
    }

    /// RET near.
    pub(super) fn ret_in_segment(&mut self, op: &Op, insn: &Instruction) -> bool {
        let size = u32::from(op.insn.op_size);
        if !self.can_use_stack() || !matches!(size, 2 | 4) {
            return false;
        }
        let slow = self.label();
        self.save_for_exit();
        self.segment_stack_address(0, size, false, slow);
        self.load_extended(size);
        let release = if insn.op_count() > 0 { insn.immediate16() } else { 0 };
        let by = size as i32 + i32::from(release);
        if self.key.has_stack16() {
            // More than 32 KiB are released as less than nothing.
            self.move_segment_stack(i32::from(by as i16));
        } else {
            self.move_segment_stack(by);
        }
        self.host_return(op);
        self.add_slow_branch(op, slow);
        self.ended = true;
        true
    }
}
