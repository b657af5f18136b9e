//! The entries of a block, and the poll that lets others have the CPU.

use super::{Cold, FlagState, Unit};
use decoder::ARITHMETIC_BITS;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{FlowControl, Instruction, Mnemonic};
use interp::engine::block::Op;

impl Unit<'_> {
    /// The two entries, the instruction count and the poll. Returns the offsets of the entries
    /// with flags in EFLAGS and in the slot.
    pub(super) fn entry(&mut self, insns: &[Op], iced: &[Instruction]) -> (usize, usize) {
        let polls = !self.may_go_unpolled(iced);
        let plain = !self.env.exact && !self.env.helpers_only && !self.needs_units(insns);
        if self.live[0] != 0 && plain && self.reads_flags_first() {
            return self.entry_keeping_flags(polls);
        }
        let direct = self.offset();
        if self.live[0] != 0 {
            self.flags = FlagState::EFLAGS;
            self.save_flags();
        }
        let saved = self.offset();
        self.flags = FlagState::SAVED;
        if polls {
            self.poll();
        }
        if let Some(counter) = self.env.counter {
            dynasm!(self.ops ; .arch x64 ; add QWORD [counter], 1);
        }
        self.load_units_at_entry(insns);
        (direct, saved)
    }

    /// Leaves where somebody wants the CPU, or where the count is used up.
    fn poll(&mut self) {
        let leave = self.label();
        let (budget, request) = (self.env.addresses.budget, self.env.addresses.exit_request);
        let count = if self.env.exact { self.count as i32 } else { 0 };
        if self.env.exact {
            dynasm!(self.ops ; .arch x64 ; sub QWORD [budget], count ; js =>leave);
        }
        dynasm!(self.ops ; .arch x64 ; cmp DWORD [request], 0 ; jne =>leave);
        self.cold.push(Cold::Poll { label: leave, count, rip: self.rip, saved: true });
    }

    /// The same where flags are live and only requests are looked at. Destroys R11.
    fn poll_keeping_flags(&mut self) {
        let (leave, on) = (self.label(), self.label());
        let request = self.env.addresses.exit_request;
        dynasm!(self.ops
            ; .arch x64
            ; mov r11, rcx
            ; mov ecx, [request]
            ; jecxz =>on
            ; mov rcx, r11
            ; jmp =>leave
            ; =>on
            ; mov rcx, r11
        );
        self.cold.push(Cold::Poll { label: leave, count: 0, rip: self.rip, saved: false });
    }

    /// Whether the block needs no poll: execution only goes forward from it, or back to where a
    /// call was made. Every loop has another block, which polls, or a return that no call expects,
    /// and the stub where that one ends polls.
    fn may_go_unpolled(&self, iced: &[Instruction]) -> bool {
        let forward = |insn: &Instruction| match insn.flow_control() {
            FlowControl::Next => !insn.has_rep_prefix() && !insn.has_repne_prefix(),
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                insn.is_jcc_short_or_near() && insn.near_branch_target() > insn.ip()
            }
            FlowControl::Return => insn.mnemonic() == Mnemonic::Ret,
            _ => false,
        };
        // 32-bit code goes on at 0 behind 4 GiB.
        let ends_above = iced.last().is_some_and(|insn| self.key.wrap(insn.next_ip()) > insn.ip());
        !self.env.exact
            && !self.env.helpers_only
            && self.key.is_plain()
            && ends_above
            && iced.iter().all(forward)
    }

    /// Whether flags from outside are needed in EFLAGS, to be read or completed, and not just handed
    /// on.
    fn reads_flags_first(&self) -> bool {
        let first = self.effects.iter().find(|e| e.reads != 0 || e.writes != 0);
        first.is_some_and(|effects| effects.reads != 0 || effects.kills != ARITHMETIC_BITS)
    }

    fn entry_keeping_flags(&mut self, polls: bool) -> (usize, usize) {
        let saved = self.offset();
        self.flags = FlagState::SAVED;
        self.restore_flags();
        let direct = self.offset();
        self.flags = FlagState::EFLAGS;
        if polls {
            self.poll_keeping_flags();
        }
        if let Some(counter) = self.env.counter {
            self.add_keeping_flags(counter, 1);
        }
        (direct, saved)
    }
}
