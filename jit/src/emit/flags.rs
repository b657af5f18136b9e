//! Where the guest's arithmetic flags are, and moving them.
//!
//! They live in EFLAGS. Where inserted code is about to destroy them and they are live, they are
//! saved to a slot in memory, once; they come back when an instruction wants them.

use super::Unit;
use dynasmrt::{DynasmApi, dynasm};

/// Which copies of the flags are valid. Where no flag is live neither need be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FlagState {
    pub(crate) eflags: bool,
    pub(crate) slot: bool,
}

impl FlagState {
    pub(crate) const EFLAGS: FlagState = FlagState { eflags: true, slot: false };
    pub(crate) const SAVED: FlagState = FlagState { eflags: false, slot: true };
}

impl Unit<'_> {
    /// Stores EFLAGS' arithmetic flags to the slot. Destroys R10.
    pub(super) fn save_flags(&mut self) {
        let slot = self.env.addresses.flags;
        dynasm!(self.ops
            ; .arch x64
            ; mov r10, rax
            ; lahf
            ; seto al
            ; mov [slot], ax
            ; mov rax, r10
        );
        self.flags.slot = true;
    }

    /// Loads EFLAGS from the slot. Destroys R10.
    pub(super) fn restore_flags(&mut self) {
        let slot = self.env.addresses.flags;
        dynasm!(self.ops
            ; .arch x64
            ; mov r10, rax
            ; movzx eax, WORD [slot]
            ; add al, 0x7F
            ; sahf
            ; mov rax, r10
        );
        self.flags.eflags = true;
    }

    /// Adds to a word in memory without touching EFLAGS. Destroys R10.
    pub(super) fn add_keeping_flags(&mut self, word: i32, by: i32) {
        dynasm!(self.ops
            ; .arch x64
            ; mov r10, [word]
            ; lea r10, [r10 + by]
            ; mov [word], r10
        );
    }

    /// Call before inserted code that destroys EFLAGS, in front of the current instruction.
    /// Destroys R10.
    pub(super) fn before_clobber(&mut self) {
        if self.live_before() != 0 && !self.flags.slot {
            self.save_flags();
        }
        self.flags.eflags = false;
    }

    /// [`Unit::before_clobber`] where every flag must survive: in front of an exit.
    pub(super) fn save_for_exit(&mut self) {
        if !self.flags.slot {
            self.save_flags();
        }
        self.flags.eflags = false;
    }

    /// Call before the copy of the current instruction: puts into EFLAGS what it reads or leaves
    /// unchanged for others to read. May destroy R10.
    pub(super) fn before_flag_use(&mut self) {
        let effects = self.effects[self.index];
        let passes = if effects.writes != 0 { self.live_after() & !effects.kills } else { 0 };
        if (effects.reads | passes) != 0 && !self.flags.eflags {
            self.restore_flags();
        }
    }

    /// Call behind the copy of the current instruction.
    pub(super) fn after_flag_write(&mut self) {
        if self.effects[self.index].writes != 0 {
            self.flags = FlagState::EFLAGS;
        }
    }
}
