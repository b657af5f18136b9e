//! The cold section behind a block.

use super::x87::Pointers;
use super::{FlagState, LinkRequest, Part, Unit};
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use interp::engine::block::Op;

/// Code that is rarely executed.
pub(crate) enum Cold {
    /// A memory access that missed: the helper executes the whole instruction.
    Slow {
        label: DynamicLabel,
        back: DynamicLabel,
        site: u32,
        /// The hot path goes on with flags in EFLAGS.
        restore: bool,
        vectors: bool,
        x87: bool,
        /// Of the x87 copies in front.
        pointers: Option<Box<Pointers>>,
    },
    /// The same where the helper does not come back.
    Leaving { label: DynamicLabel, site: u32, pointers: Option<Box<Pointers>> },
    /// A taken branch in the middle of the block.
    SideExit {
        /// Offset of the branch's displacement.
        site: usize,
        /// Instructions counted at the entry but not executed.
        rest: i32,
        target: u64,
        saved: bool,
        pointers: Option<Box<Pointers>>,
    },
    /// A request, or too few instructions left: `count` of them are given back. Flags may be saved
    /// already.
    Poll { label: DynamicLabel, count: i32, rip: u64, saved: bool },
    /// The host stack has no room for another call: forget all of them.
    StackFull { label: DynamicLabel, back: DynamicLabel },
    /// A constant in memory.
    Constant { label: DynamicLabel, value: u64 },
    /// Vector registers are still in the context.
    LoadVectors { label: DynamicLabel, back: DynamicLabel },
    /// x87 state is still in the context.
    LoadX87 { label: DynamicLabel, back: DynamicLabel },
}

impl Unit<'_> {
    /// The slow path of the current instruction, which continues at `back` with the flag state
    /// that the hot path has there.
    pub(super) fn add_slow(&mut self, op: &Op, label: DynamicLabel, back: DynamicLabel) {
        let site = self.site(op, true);
        let (vectors, x87) = (self.vectors, self.x87);
        let restore = self.flags.eflags;
        let pointers = self.x87_pointers.clone();
        self.cold.push(Cold::Slow { label, back, site, restore, vectors, x87, pointers });
    }

    /// The slow path of the current instruction, a branch: the helper leaves the block.
    pub(super) fn add_slow_branch(&mut self, op: &Op, label: DynamicLabel) {
        let site = self.site(op, true);
        self.cold.push(Cold::Leaving { label, site, pointers: self.x87_pointers.clone() });
    }

    /// The slow path of the current instruction, behind which execution goes on in another block.
    pub(super) fn add_leaving(&mut self, op: &Op, label: DynamicLabel) {
        self.add_slow_branch(op, label);
        if let Some(site) = self.env.sites.last_mut() {
            site.leaves = true;
        }
    }

    /// A jump to the code at `target`, through a link.
    pub(super) fn exit_to(&mut self, target: u64) {
        let saved = self.flags.slot;
        self.ops.push(0xE9);
        self.ops.push_i32(0);
        let site = self.offset() - 4;
        let key = self.key;
        self.links.push(LinkRequest { site, trampoline: 0, target, saved, key });
        self.ended = true;
    }

    /// What a piece of cold code is for.
    fn part(&self, item: &Cold) -> Part {
        match item {
            Cold::Slow { site, .. } | Cold::Leaving { site, .. } => {
                let site = self.env.sites.get(*site as usize);
                Part::Slow(site.map_or(0, |site| self.count - site.rest as usize))
            }
            Cold::SideExit { rest, .. } => Part::SideExit(self.count - 1 - *rest as usize),
            Cold::Poll { .. } => Part::Poll,
            Cold::StackFull { .. } => Part::StackFull,
            Cold::Constant { .. } => Part::Constant,
            Cold::LoadVectors { .. } => Part::LoadVectors,
            Cold::LoadX87 { .. } => Part::LoadX87,
        }
    }

    pub(super) fn emit_cold(&mut self) {
        let mut fixups = Vec::new();
        let mut counter = self.env.counter;
        let mut cold = std::mem::take(&mut self.cold);
        for item in cold.drain(..) {
            let part = self.part(&item);
            self.note(part);
            match item {
                Cold::Slow { label, back, site, restore, vectors, x87, pointers } => {
                    self.place(label);
                    if let Some(pointers) = pointers {
                        self.note_x87_pointers(&pointers);
                    }
                    dynasm!(self.ops ; .arch x64 ; mov r11d, site as i32);
                    self.call(self.env.stubs.helper);
                    if vectors {
                        self.call(self.env.stubs.load_vectors);
                    }
                    if x87 {
                        self.call(self.env.stubs.load_x87);
                    }
                    if restore {
                        self.restore_flags();
                    }
                    dynasm!(self.ops ; .arch x64 ; jmp =>back);
                }
                Cold::Leaving { label, site, pointers } => {
                    self.place(label);
                    if let Some(pointers) = pointers {
                        self.note_x87_pointers(&pointers);
                    }
                    dynasm!(self.ops ; .arch x64 ; mov r11d, site as i32);
                    self.call(self.env.stubs.helper);
                }
                Cold::SideExit { site, rest, target, saved, pointers } => {
                    fixups.push((site, self.offset()));
                    if let Some(pointers) = pointers {
                        self.note_x87_pointers(&pointers);
                    }
                    if self.env.exact {
                        self.add_keeping_flags(self.env.addresses.budget, rest);
                    }
                    if let Some(counter) = &mut counter {
                        *counter += 8;
                        self.add_keeping_flags(*counter, 1);
                    }
                    self.flags = if saved { FlagState::SAVED } else { FlagState::EFLAGS };
                    self.exit_to(target);
                }
                Cold::Poll { label, count, rip, saved } => {
                    let budget = self.env.addresses.budget;
                    self.place(label);
                    if !saved {
                        self.save_flags();
                    }
                    if count != 0 {
                        dynasm!(self.ops ; .arch x64 ; add QWORD [budget], count);
                    }
                    dynasm!(self.ops ; .arch x64 ; mov r11, QWORD rip as i64);
                    self.jump(self.env.stubs.leave_poll);
                }
                Cold::StackFull { label, back } => {
                    let base = self.env.addresses.stack_base;
                    dynasm!(self.ops ; .arch x64 ; =>label ; mov esp, base ; jmp =>back);
                }
                Cold::Constant { label, value } => {
                    self.place(label);
                    self.ops.push_u64(value);
                }
                Cold::LoadVectors { label, back } => {
                    dynasm!(self.ops ; .arch x64 ; =>label);
                    self.call(self.env.stubs.load_vectors);
                    dynasm!(self.ops ; .arch x64 ; jmp =>back);
                }
                Cold::LoadX87 { label, back } => {
                    dynasm!(self.ops ; .arch x64 ; =>label);
                    self.call(self.env.stubs.load_x87);
                    dynasm!(self.ops ; .arch x64 ; jmp =>back);
                }
            }
        }
        for i in 0..self.links.len() {
            self.note(Part::Trampoline(i));
            self.links[i].trampoline = self.offset();
            let number = self.env.first_link + i as u32;
            dynasm!(self.ops ; .arch x64 ; mov r11d, number as i32);
            let stubs = self.env.stubs;
            let target =
                if self.links[i].saved { stubs.leave_link_saved } else { stubs.leave_link };
            self.jump(target);
        }
        self.fixups = fixups;
    }
}
