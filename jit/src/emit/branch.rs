//! Near jumps, calls and returns.

use super::memory::Access;
use super::merge::Member;
use super::{Cold, FlagState, LinkRequest, Unit};
use crate::regs::{STACK, host};
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, OpKind};
use interp::engine::block::Op;

impl Unit<'_> {
    /// The target of a direct branch; none where the helper must see it.
    pub(super) fn target(&self, insn: &Instruction) -> Option<u64> {
        match insn.op0_kind() {
            OpKind::NearBranch64 => {
                let target = insn.near_branch_target();
                let canonical = ((target << 16) as i64 >> 16) as u64 == target;
                (self.key.is_long() && canonical).then_some(target)
            }
            OpKind::NearBranch16 | OpKind::NearBranch32 => self.short_target(insn),
            _ => None,
        }
    }

    /// Operand and stack width of near branches in bytes: those of the mode, or the helper's.
    fn word(&self) -> u32 {
        if self.key.is_long() { 8 } else { 4 }
    }

    /// JMP.
    pub(crate) fn jmp(&mut self, op: &Op, insn: &Instruction) -> bool {
        if let Some(target) = self.target(insn) {
            self.exit_to(target);
            return true;
        }
        if !self.is_near_indirect(op, insn) {
            return false;
        }
        let slow = self.label();
        self.save_for_exit();
        self.load_target(op, insn, slow);
        self.lookup_target(slow);
        let code = self.env.indirect + 8;
        dynasm!(self.ops ; .arch x64 ; jmp QWORD [r10 + code]);
        self.add_slow_branch(op, slow);
        self.ended = true;
        true
    }

    /// Jcc.
    pub(crate) fn jcc(&mut self, _: &Op, insn: &Instruction) -> bool {
        let Some(target) = self.target(insn) else { return false };
        self.keep_pointer();
        self.before_flag_use();
        let mut condition = insn.condition_code() as u8 - 1;
        let mut target = target;
        let copy_follows =
            (self.index + 1).is_multiple_of(self.body) && self.index + 1 != self.count;
        if copy_follows {
            // Taken, the loop goes on in its next copy.
            condition ^= 1;
            target = self.next;
        }
        self.ops.push(0x0F);
        self.ops.push(0x80 | condition);
        self.ops.push_i32(0);
        let site = self.offset() - 4;
        self.exit_by(site, target);
        true
    }

    /// The branch with its displacement at `site` leaves the block, at its end or in the middle.
    pub(super) fn exit_by(&mut self, site: usize, target: u64) {
        let rest = (self.count - self.index - 1) as i32;
        let (saved, key) = (self.flags.slot, self.key);
        let pointers = self.x87_pointers.clone();
        if rest != 0 && (self.env.exact || self.env.counter.is_some() || pointers.is_some()) {
            self.cold.push(Cold::SideExit { site, rest, target, saved, pointers });
        } else {
            self.links.push(LinkRequest { site, trampoline: 0, target, saved, key });
        }
    }

    /// CALL near.
    pub(crate) fn call_near(&mut self, op: &Op, insn: &Instruction) -> bool {
        if !self.key.is_plain() {
            return self.call_in_segment(op, insn);
        }
        let slow = self.label();
        let target = self.target(insn);
        // With an operand-size prefix the return address has 16 bits.
        let direct_ok = target.is_some() && u32::from(op.insn.op_size) == self.word();
        if !direct_ok && (target.is_some() || !self.is_near_indirect(op, insn)) {
            return false;
        }
        self.save_for_exit();
        let kept = self.env.addresses.temporary;
        if target.is_none() {
            // The target is looked up first: one that is not canonical faults before anything is
            // written.
            self.load_target(op, insn, slow);
            dynasm!(self.ops ; .arch x64 ; mov [kept], r11);
            self.lookup_target(slow);
            self.carried = None;
        }
        let pushed = self.push_return(op, slow);
        let full = self.label();
        let back = self.label();
        let limit = self.env.addresses.stack_limit;
        dynasm!(self.ops ; .arch x64 ; cmp rsp, limit ; jb =>full ; =>back);
        self.cold.push(Cold::StackFull { label: full, back });
        let word = self.word() as i32;
        match target {
            Some(target) => {
                let owed = std::mem::take(&mut self.owed);
                self.move_stack(owed - word);
                self.ops.push(0xE8);
                self.ops.push_i32(0);
                let site = self.offset() - 4;
                let key = self.key;
                self.links.push(LinkRequest { site, trampoline: 0, target, saved: true, key });
            }
            None => {
                self.move_stack(-word);
                let code = self.env.indirect + 8;
                dynasm!(self.ops
                    ; .arch x64
                    ; movzx r10d, WORD [kept]
                    ; shl r10d, 4
                    ; mov r11, [kept]
                    ; call QWORD [r10 + code]
                );
            }
        }
        if !(pushed && target.is_some()) {
            self.add_slow_branch(op, slow);
        }
        self.return_site();
        true
    }

    /// Where the host's return behind a call ends: at the guest's return address, if the guest
    /// returns there, too. Keeps R10 where it does not.
    pub(super) fn return_site(&mut self) {
        let next = self.next;
        if let Ok(next) = i32::try_from(next as i64) {
            dynasm!(self.ops ; .arch x64 ; cmp r11, next);
        } else if !self.key.is_long() {
            dynasm!(self.ops ; .arch x64 ; cmp r11d, next as i32);
        } else {
            let label = self.label();
            dynasm!(self.ops ; .arch x64 ; cmp r11, [=>label]);
            self.cold.push(Cold::Constant { label, value: next });
        }
        self.ops.push(0x0F);
        self.ops.push(0x85);
        self.relative(self.return_miss());
        self.flags = FlagState::SAVED;
        self.exit_to(next);
    }

    /// The host's return for a guest's to R11, which tells in R10 where it was, should it miss.
    pub(super) fn host_return(&mut self, op: &Op) {
        let site = self.site(op, true) as i32;
        dynasm!(self.ops ; .arch x64 ; mov r10d, site ; ret);
    }

    /// RET near.
    pub(crate) fn ret(&mut self, op: &Op, insn: &Instruction) -> bool {
        if !self.key.is_plain() {
            return self.ret_in_segment(op, insn);
        }
        if u32::from(op.insn.op_size) != self.word() {
            return false;
        }
        let slow = self.label();
        self.save_for_exit();
        let size = self.word();
        let member = self.member();
        match member {
            Some(member) => {
                self.member_stack_access(op, member, 0);
                self.load_word_at(member.displacement());
            }
            None => {
                dynasm!(self.ops ; .arch x64 ; mov r11, Rq(STACK));
                self.lookup(Access { size, write: false, align: 1 }, slow, true);
                self.load_word_at(0);
            }
        }
        let release = if insn.op_count() > 0 { insn.immediate16() } else { 0 };
        let owed = std::mem::take(&mut self.owed);
        self.move_stack(owed + size as i32 + i32::from(release));
        self.host_return(op);
        if member.is_none() {
            self.add_slow_branch(op, slow);
        }
        self.ended = true;
        true
    }

    fn is_near_indirect(&self, op: &Op, insn: &Instruction) -> bool {
        if !self.key.is_plain() {
            return self.is_indirect_in_segment(op, insn);
        }
        let word = self.word();
        match insn.op0_kind() {
            OpKind::Register => insn.op0_register().size() as u32 == word,
            OpKind::Memory => {
                u32::from(op.insn.mem.size) == word
                    && u32::from(op.insn.op_size) == word
                    && self.can_access(op)
                    && (insn.is_jmp_near_indirect() || insn.is_call_near_indirect())
            }
            _ => false,
        }
    }

    /// R11 = target of an indirect branch.
    fn load_target(&mut self, op: &Op, insn: &Instruction, slow: DynamicLabel) {
        if !self.key.is_plain() {
            return self.load_target_in_segment(op, insn, slow);
        }
        if insn.op0_kind() == OpKind::Memory {
            let access = Access { size: self.word(), write: false, align: 1 };
            self.access(op, insn, access, slow, false);
            self.load_word_at_address();
            return;
        }
        let number = insn.op0_register().full_register().number() as u8;
        match (host(number), self.key.is_long()) {
            (Some(n), true) => dynasm!(self.ops ; .arch x64 ; mov r11, Rq(n)),
            (Some(n), false) => dynasm!(self.ops ; .arch x64 ; mov r11d, Rd(n)),
            (None, _) => {
                let slot = self.env.addresses.gpr(number);
                dynasm!(self.ops ; .arch x64 ; mov r11, [slot]);
            }
        }
    }

    /// R11 = word at host address R11 plus `at`.
    fn load_word_at(&mut self, at: i32) {
        self.move_word(self.word(), true, 11, 11, at);
    }

    /// R11 = word at host address R10 + R11.
    fn load_word_at_address(&mut self) {
        if self.key.is_long() {
            dynasm!(self.ops ; .arch x64 ; mov r11, [r10 + r11]);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov r11d, [r10 + r11]);
        }
    }

    /// Probes the inline cache for the target in R11: R10 is then the offset of its entry.
    fn lookup_target(&mut self, slow: DynamicLabel) {
        if !self.key.is_plain() {
            return self.lookup_in_segment(slow);
        }
        let table = self.env.indirect;
        dynasm!(self.ops
            ; .arch x64
            ; movzx r10d, r11w
            ; shl r10d, 4
            ; cmp r11, [r10 + table]
            ; jne =>slow
        );
    }

    /// Writes the return address below the stack pointer, which stays. Returns whether no slow path
    /// is needed for it.
    fn push_return(&mut self, op: &Op, slow: DynamicLabel) -> bool {
        let word = self.word();
        let member = self.member();
        match member {
            Some(member) => self.member_stack_access(op, member, -(word as i32)),
            None => self.stack_slot(word, slow),
        }
        let at = member.map_or(0, Member::displacement);
        let next = self.next;
        match i32::try_from(next as i64) {
            Ok(next) => self.store_constant(word, 11, at, next),
            Err(_) if word == 4 => self.store_constant(word, 11, at, next as i32),
            Err(_) => {
                dynasm!(self.ops ; .arch x64 ; mov r10, QWORD next as i64);
                self.move_word(word, false, 10, 11, at);
            }
        }
        member.is_some()
    }
}
