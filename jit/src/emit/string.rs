//! MOVS, STOS and LODS without a repeat prefix, in ascending direction, and what sets the
//! direction. Repeated ones are the helper's, which copies by pages.

use super::Unit;
use super::memory::Access;
use crate::key::Class;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::Instruction;
use interp::engine::block::Op;
use x86::flags;

/// Hardware numbers.
const ES: u8 = 0;
const RSI: u8 = 6;
const RDI: u8 = 7;

impl Unit<'_> {
    /// CLD and STD.
    pub(crate) fn set_direction(&mut self, down: bool) -> bool {
        self.before_clobber();
        let rflags = self.env.addresses.rflags();
        let bit = flags::DF as i32;
        if down {
            dynasm!(self.ops ; .arch x64 ; or DWORD [rflags], bit);
        } else {
            dynasm!(self.ops ; .arch x64 ; and DWORD [rflags], !bit);
        }
        true
    }

    /// LODS of `size` bytes.
    pub(crate) fn lods(&mut self, op: &Op, _: &Instruction, size: u32) -> bool {
        if op.insn.prefixes.any_rep() || self.key.class(op.insn.mem.seg) == Class::Odd {
            return false;
        }
        let (slow, back) = self.begin_string();
        self.string_address(op, RSI, op.insn.mem.seg, (size, false), slow);
        match size {
            1 => dynasm!(self.ops ; .arch x64 ; mov al, [r11]),
            2 => dynasm!(self.ops ; .arch x64 ; mov ax, [r11]),
            4 => dynasm!(self.ops ; .arch x64 ; mov eax, [r11]),
            _ => dynasm!(self.ops ; .arch x64 ; mov rax, [r11]),
        }
        self.advance_index(op, RSI, size);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// STOS of `size` bytes.
    pub(crate) fn stos(&mut self, op: &Op, _: &Instruction, size: u32) -> bool {
        if op.insn.prefixes.any_rep() || self.key.class(ES) == Class::Odd {
            return false;
        }
        let (slow, back) = self.begin_string();
        self.string_address(op, RDI, ES, (size, true), slow);
        match size {
            1 => dynasm!(self.ops ; .arch x64 ; mov [r11], al),
            2 => dynasm!(self.ops ; .arch x64 ; mov [r11], ax),
            4 => dynasm!(self.ops ; .arch x64 ; mov [r11], eax),
            _ => dynasm!(self.ops ; .arch x64 ; mov [r11], rax),
        }
        self.advance_index(op, RDI, size);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// MOVS of `size` bytes.
    pub(crate) fn movs(&mut self, op: &Op, _: &Instruction, size: u32) -> bool {
        let odd = [op.insn.mem.seg, ES].iter().any(|&s| self.key.class(s) == Class::Odd);
        if op.insn.prefixes.any_rep() || odd {
            return false;
        }
        let (slow, back) = self.begin_string();
        let kept = self.env.addresses.temporary;
        self.string_address(op, RSI, op.insn.mem.seg, (size, false), slow);
        match size {
            1 => dynasm!(self.ops ; .arch x64 ; movzx r11d, BYTE [r11]),
            2 => dynasm!(self.ops ; .arch x64 ; movzx r11d, WORD [r11]),
            4 => dynasm!(self.ops ; .arch x64 ; mov r11d, [r11]),
            _ => dynasm!(self.ops ; .arch x64 ; mov r11, [r11]),
        }
        dynasm!(self.ops ; .arch x64 ; mov [kept], r11);
        self.string_address(op, RDI, ES, (size, true), slow);
        dynasm!(self.ops ; .arch x64 ; mov r10, [kept]);
        match size {
            1 => dynasm!(self.ops ; .arch x64 ; mov [r11], r10b),
            2 => dynasm!(self.ops ; .arch x64 ; mov [r11], r10w),
            4 => dynasm!(self.ops ; .arch x64 ; mov [r11], r10d),
            _ => dynasm!(self.ops ; .arch x64 ; mov [r11], r10),
        }
        self.advance_index(op, RSI, size);
        self.advance_index(op, RDI, size);
        self.place(back);
        self.add_slow(op, slow, back);
        true
    }

    /// Descending order takes the slow path.
    fn begin_string(&mut self) -> (DynamicLabel, DynamicLabel) {
        let (slow, back) = (self.label(), self.label());
        self.before_clobber();
        let rflags = self.env.addresses.rflags();
        let bit = flags::DF as i32;
        dynasm!(self.ops ; .arch x64 ; test DWORD [rflags], bit ; jnz =>slow);
        (slow, back)
    }

    /// R11 = host address of the element that an index register points to.
    fn string_address(
        &mut self,
        op: &Op,
        index: u8,
        segment: u8,
        (size, write): (u32, bool),
        slow: DynamicLabel,
    ) {
        let addr_size = op.insn.mem.addr_size;
        match addr_size {
            2 => dynasm!(self.ops ; .arch x64 ; movzx r11d, Rw(index)),
            4 => dynasm!(self.ops ; .arch x64 ; mov r11d, Rd(index)),
            _ => dynasm!(self.ops ; .arch x64 ; mov r11, Rq(index)),
        }
        if !self.key.is_plain_segment(segment) {
            self.apply_segment(segment, addr_size, size, slow);
        }
        self.lookup(Access { size, write, align: 1 }, slow, true);
    }

    /// Moves an index register on.
    fn advance_index(&mut self, op: &Op, index: u8, size: u32) {
        let by = size as i32;
        match op.insn.mem.addr_size {
            2 => dynasm!(self.ops ; .arch x64 ; lea r10d, [Rq(index) + by] ; mov Rw(index), r10w),
            4 => dynasm!(self.ops ; .arch x64 ; lea Rd(index), [Rq(index) + by]),
            _ => dynasm!(self.ops ; .arch x64 ; lea Rq(index), [Rq(index) + by]),
        }
    }
}
