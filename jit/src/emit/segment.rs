//! Segmentation inline: bases are read, and limits compared, as the code runs.

use super::Unit;
use super::memory::Access;
use super::passthrough::memory_is_written;
use crate::key::Class;
use crate::regs::{CS, SS, STACK};
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use interp::engine::block::Op;

impl Unit<'_> {
    /// Whether accesses to the memory operand can be checked here.
    pub(super) fn can_use_segment(&self, op: &Op) -> bool {
        let segment = op.insn.mem.seg;
        if self.key.is_long() {
            return true;
        }
        // Code segments are not written in protected mode.
        let writes = segment == CS
            && self.key.is_protected()
            && memory_is_written(&op.insn.to_iced(self.rip));
        !writes && self.key.class(segment) != Class::Odd
    }

    /// Whether pushes and pops can be checked here.
    pub(super) fn can_use_stack(&self) -> bool {
        self.key.class(SS) != Class::Odd
    }

    /// Turns the offset in R11, which `addr_size` bytes of address gave, into a linear address,
    /// after the check of `size` bytes against the segment's limit. Destroys R10 and EFLAGS.
    pub(super) fn apply_segment(
        &mut self,
        segment: u8,
        addr_size: u8,
        size: u32,
        slow: DynamicLabel,
    ) {
        if !self.key.is_long() {
            self.check_limit(segment, addr_size, size as i32, slow);
        }
        let base = self.env.addresses.segment_base(segment);
        if self.key.is_long() {
            dynasm!(self.ops ; .arch x64 ; add r11, [base]);
        } else {
            dynasm!(self.ops ; .arch x64 ; add r11d, [base]);
        }
    }

    fn check_limit(&mut self, segment: u8, addr_size: u8, size: i32, slow: DynamicLabel) {
        let limit = self.env.addresses.segment_limit(segment);
        match (self.key.class(segment), addr_size) {
            (Class::Free, 2) => {}
            (Class::Free, _) if size == 1 => {}
            (Class::Free, _) => {
                dynasm!(self.ops ; .arch x64 ; cmp r11d, -size ; ja =>slow);
            }
            (Class::Wide, 2) if size == 1 => {}
            (Class::Wide, 2) => {
                let last = 0x1_0000 - size;
                dynasm!(self.ops ; .arch x64 ; cmp r11d, last ; ja =>slow);
            }
            (_, _) if size == 1 => {
                dynasm!(self.ops ; .arch x64 ; cmp [limit], r11d ; jb =>slow);
            }
            (Class::Odd | Class::Limited, 2) => {
                dynasm!(self.ops
                    ; .arch x64
                    ; lea r10d, [r11 + (size - 1)]
                    ; cmp [limit], r10d
                    ; jb =>slow
                );
            }
            // Offset and limit as numbers of 64 bits, so that nothing wraps.
            (Class::Odd | Class::Limited | Class::Wide, _) => {
                dynasm!(self.ops
                    ; .arch x64
                    ; mov r10d, [limit]
                    ; sub r10, size - 1
                    ; cmp r10, r11
                    ; jl =>slow
                );
            }
        }
    }

    /// Puts the host address of `size` bytes at the stack pointer plus `by` into R11.
    pub(super) fn segment_stack_address(
        &mut self,
        by: i32,
        size: u32,
        write: bool,
        slow: DynamicLabel,
    ) {
        dynasm!(self.ops ; .arch x64 ; lea r11d, [Rq(STACK) + by]);
        self.stack_offset_to_host(size, write, slow);
    }

    /// Turns an offset on the stack in R11 into the host address of `size` bytes there.
    pub(super) fn stack_offset_to_host(&mut self, size: u32, write: bool, slow: DynamicLabel) {
        let addr_size = if self.key.has_stack16() {
            dynasm!(self.ops ; .arch x64 ; movzx r11d, r11w);
            if size > 4 && self.key.class(SS) != Class::Wide {
                // Several words, each at its own offset below 64 KiB.
                dynasm!(self.ops ; .arch x64 ; cmp r11d, 0x1_0000 - size as i32 ; ja =>slow);
            }
            2
        } else {
            4
        };
        if !self.key.is_plain_segment(SS) {
            self.apply_segment(SS, addr_size, size, slow);
        }
        self.lookup(Access { size, write, align: 1 }, slow, true);
    }
}
