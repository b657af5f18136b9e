//! Memory operands through the software TLB, inline.
//!
//! The tag of a hit XORed with the linear address is the offset in the page, so one comparison
//! sees misses and page crossings alike.

use super::Unit;
use crate::regs::{gpr64, host, is_in_context};
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Code, Instruction, MemoryOperand, Register};
use interp::engine::block::Op;
use softmmu::{TLB_ENTRIES, TlbEntry};
use std::mem::offset_of;

const TAG_READ: i32 = offset_of!(TlbEntry, read) as i32;
const TAG_WRITE: i32 = offset_of!(TlbEntry, write) as i32;
const PAGE: i32 = offset_of!(TlbEntry, page) as i32;
/// Bytes of an entry, as a shift.
const ENTRY_SHIFT: i8 = 5;
/// Shift and mask that turn an address into the offset of its entry.
const INDEX_SHIFT: i8 = 12 - ENTRY_SHIFT;
const INDEX_MASK: i32 = ((TLB_ENTRIES - 1) << ENTRY_SHIFT) as i32;
const _: () = assert!(size_of::<TlbEntry>() == 1 << ENTRY_SHIFT);

/// What an operand is accessed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Access {
    /// Bytes.
    pub(super) size: u32,
    /// Written, or read and written.
    pub(super) write: bool,
    /// Alignment below which the slow path is taken, 1 for none.
    pub(super) align: u32,
}

/// Where an address is.
enum Address {
    /// In the register that was asked for.
    Register,
    /// Known now.
    Constant(u64),
}

impl Unit<'_> {
    /// Whether the operand can be reached without the interpreter.
    pub(super) fn can_access(&self, op: &Op) -> bool {
        self.can_use_segment(op)
    }

    /// Puts the operand's host address into R10 + R11, or into R11 alone if `collapse`. Destroys
    /// both and EFLAGS.
    pub(super) fn access(
        &mut self,
        op: &Op,
        insn: &Instruction,
        access: Access,
        slow: DynamicLabel,
        collapse: bool,
    ) {
        match self.linear_address(op, insn, access, slow) {
            Address::Register => self.lookup(access, slow, collapse),
            Address::Constant(linear) => self.lookup_constant(linear, access, slow, collapse),
        }
    }

    /// Translates the linear address in R11.
    pub(super) fn lookup(&mut self, access: Access, slow: DynamicLabel, collapse: bool) {
        let table = self.env.addresses.tlb[self.key.rights() as usize];
        let tag = table + if access.write { TAG_WRITE } else { TAG_READ };
        let page = table + PAGE;
        let limit = 4096 - access.size as i32;
        if access.align > 1 {
            let mask = access.align as i32 - 1;
            dynasm!(self.ops ; .arch x64 ; test r11d, mask ; jnz =>slow);
        }
        if self.env.host.bmi2 {
            dynasm!(self.ops ; .arch x64 ; rorx r10d, r11d, INDEX_SHIFT);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov r10d, r11d ; shr r10d, INDEX_SHIFT);
        }
        dynasm!(self.ops
            ; .arch x64
            ; and r10d, INDEX_MASK
            ; xor r11, [r10 + tag]
            ; cmp r11, limit
            ; ja =>slow
        );
        if collapse {
            dynasm!(self.ops ; .arch x64 ; add r11, [r10 + page]);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov r10, [r10 + page]);
        }
    }

    fn lookup_constant(&mut self, linear: u64, access: Access, slow: DynamicLabel, collapse: bool) {
        let misaligned = linear & u64::from(access.align - 1) != 0;
        let crosses = linear & 0xFFF > 0x1000 - u64::from(access.size);
        if misaligned || crosses {
            dynasm!(self.ops ; .arch x64 ; jmp =>slow);
            return;
        }
        let index = (linear >> INDEX_SHIFT) as i32 & INDEX_MASK;
        let table = self.env.addresses.tlb[self.key.rights() as usize] + index;
        let tag = table + if access.write { TAG_WRITE } else { TAG_READ };
        let page = table + PAGE;
        self.load_constant(linear & !0xFFF);
        dynasm!(self.ops ; .arch x64 ; cmp r11, [tag] ; jne =>slow);
        let offset = (linear & 0xFFF) as i32;
        if collapse {
            dynasm!(self.ops ; .arch x64 ; mov r11, [page] ; add r11, offset);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov r10, [page] ; mov r11d, offset);
        }
    }

    /// R11 = `value`.
    pub(super) fn load_constant(&mut self, value: u64) {
        self.load_constant_in(value, 11);
    }

    fn load_constant_in(&mut self, value: u64, to: u8) {
        if let Ok(value) = u32::try_from(value) {
            dynasm!(self.ops ; .arch x64 ; mov Rd(to), value as i32);
        } else if let Ok(value) = i32::try_from(value as i64) {
            dynasm!(self.ops ; .arch x64 ; mov Rq(to), DWORD value);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov Rq(to), QWORD value as i64);
        }
    }

    /// Moves between a host register and memory at host register `base` plus `displacement`, in
    /// the shortest encoding.
    pub(super) fn move_word(&mut self, word: u32, load: bool, register: u8, base: u8, at: i32) {
        let (code, register) = match (word, load) {
            (8, true) => (Code::Mov_r64_rm64, gpr64(register)),
            (8, false) => (Code::Mov_rm64_r64, gpr64(register)),
            (_, true) => (Code::Mov_r32_rm32, Register::EAX + u32::from(register)),
            (_, false) => (Code::Mov_rm32_r32, Register::EAX + u32::from(register)),
        };
        let memory = operand(gpr64(base), Register::None, 1, i64::from(at));
        let insn = match load {
            true => Instruction::with2(code, register, memory),
            false => Instruction::with2(code, memory, register),
        };
        if let Ok(insn) = insn {
            self.put(&insn);
        }
    }

    /// Stores a constant, sign-extended where a word has 8 bytes.
    pub(super) fn store_constant(&mut self, word: u32, base: u8, at: i32, value: i32) {
        let code = if word == 8 { Code::Mov_rm64_imm32 } else { Code::Mov_rm32_imm32 };
        let memory = operand(gpr64(base), Register::None, 1, i64::from(at));
        if let Ok(insn) = Instruction::with2(code, memory, value) {
            self.put(&insn);
        }
    }

    /// Register `to` = `from` + `by`, with 8 bytes or zero-extended from 4. Keeps EFLAGS.
    pub(super) fn add_constant(&mut self, word: u32, to: u8, from: u8, by: i32) {
        let (code, target) = match word {
            8 => (Code::Lea_r64_m, gpr64(to)),
            _ => (Code::Lea_r32_m, Register::EAX + u32::from(to)),
        };
        let memory = operand(gpr64(from), Register::None, 1, i64::from(by));
        if let Ok(insn) = Instruction::with2(code, target, memory) {
            self.put(&insn);
        }
    }

    /// The operand's linear address.
    fn linear_address(
        &mut self,
        op: &Op,
        insn: &Instruction,
        access: Access,
        slow: DynamicLabel,
    ) -> Address {
        let offset = self.effective_address(op, insn);
        let segment = op.insn.mem.seg;
        if self.key.is_plain_segment(segment) {
            return offset;
        }
        if let Address::Constant(value) = offset {
            self.load_constant(value);
        }
        self.apply_segment(segment, op.insn.mem.addr_size, access.size, slow);
        Address::Register
    }

    /// R11 = the operand's offset within its segment.
    pub(super) fn operand_offset(&mut self, op: &Op, insn: &Instruction) {
        self.operand_offset_in(op, insn, 11);
    }

    /// The same in host register `to`, 10 or 11. R11 is kept where it is R10, unless base and index
    /// are both in the context. Keeps EFLAGS.
    pub(super) fn operand_offset_in(&mut self, op: &Op, insn: &Instruction, to: u8) {
        if let Address::Constant(value) = self.effective_address_in(op, insn, to) {
            self.load_constant_in(value, to);
        }
    }

    /// The offset within the segment, in R11 unless it is known. Keeps EFLAGS.
    fn effective_address(&mut self, op: &Op, insn: &Instruction) -> Address {
        self.effective_address_in(op, insn, 11)
    }

    /// The same in host register `to`.
    fn effective_address_in(&mut self, op: &Op, insn: &Instruction, to: u8) -> Address {
        let cut = |value: u64| match op.insn.mem.addr_size {
            2 => value & 0xFFFF,
            4 => value & 0xFFFF_FFFF,
            _ => value,
        };
        if insn.is_ip_rel_memory_operand() {
            return Address::Constant(cut(insn.ip_rel_memory_address()));
        }
        let (base, index) = (insn.memory_base(), insn.memory_index());
        let displacement = displacement(insn);
        if base == Register::None && index == Register::None {
            return Address::Constant(cut(displacement as u64));
        }
        let only_one = to == 10 && !is_in_context(index);
        let base =
            self.address_register(base, if only_one { Register::R10 } else { Register::R11 });
        let index = self.address_register(index, Register::R10);
        let plain = index == Register::None && displacement == 0;
        if plain && op.insn.mem.addr_size == 8 {
            let n = base.number() as u8;
            if n != to {
                dynasm!(self.ops ; .arch x64 ; mov Rq(to), Rq(n));
            }
            return Address::Register;
        }
        let (code, target) = match op.insn.mem.addr_size {
            8 => (Code::Lea_r64_m, gpr64(to)),
            _ => (Code::Lea_r32_m, Register::EAX + u32::from(to)),
        };
        let operand = operand(base, index, insn.memory_index_scale(), displacement);
        if let Ok(lea) = Instruction::with2(code, target, operand) {
            self.put(&lea);
        }
        if op.insn.mem.addr_size == 2 {
            dynasm!(self.ops ; .arch x64 ; movzx Rd(to), Rw(to));
        }
        Address::Register
    }

    /// R11 = the address of an operand without an index, plus `from`. Keeps EFLAGS.
    pub(super) fn load_operand_base(&mut self, op: &Op, insn: &Instruction, from: i64) {
        let base = self.address_register(insn.memory_base(), Register::R11);
        let (code, target) = match op.insn.mem.addr_size {
            8 => (Code::Lea_r64_m, Register::R11),
            _ => (Code::Lea_r32_m, Register::R11D),
        };
        let operand = operand(base, Register::None, 1, displacement(insn) + from);
        if let Ok(lea) = Instruction::with2(code, target, operand) {
            self.put(&lea);
        }
    }

    /// The host register that holds an address register of the guest, `scratch` being loaded with
    /// those that live in the context.
    fn address_register(&mut self, guest: Register, scratch: Register) -> Register {
        if guest == Register::None {
            return guest;
        }
        let number = guest.full_register().number() as u8;
        match host(number) {
            Some(number) => gpr64(number),
            None => {
                let slot = self.env.addresses.gpr(number);
                let n = scratch.number() as u8;
                dynasm!(self.ops ; .arch x64 ; mov Rq(n), [slot]);
                scratch
            }
        }
    }

    /// LEA.
    pub(crate) fn lea(&mut self, op: &Op, insn: &Instruction) -> bool {
        let target = insn.op0_register();
        let number = target.full_register().number() as u8;
        let direct = goes_to_its_register(op, insn);
        let to = direct.unwrap_or(11);
        if let Address::Constant(value) = self.effective_address_in(op, insn, to) {
            self.load_constant_in(value, to);
        }
        if direct.is_some() {
            self.keep_pointer();
            return true;
        }
        match (target.size(), host(number)) {
            (8, Some(n)) => dynasm!(self.ops ; .arch x64 ; mov Rq(n), r11),
            (4, Some(n)) => dynasm!(self.ops ; .arch x64 ; mov Rd(n), r11d),
            (_, Some(n)) => dynasm!(self.ops ; .arch x64 ; mov Rw(n), r11w),
            (size, None) => {
                let slot = self.env.addresses.gpr(number);
                match size {
                    8 => dynasm!(self.ops ; .arch x64 ; mov [slot], r11),
                    4 => dynasm!(self.ops ; .arch x64 ; mov r11d, r11d ; mov [slot], r11),
                    _ => dynasm!(self.ops ; .arch x64 ; mov [slot], r11w),
                }
            }
        }
        true
    }
}

/// The host register to which LEA's address can go straight: it has the size of the result, and no
/// part of it passes through scratch registers.
pub(super) fn goes_to_its_register(op: &Op, insn: &Instruction) -> Option<u8> {
    let target = insn.op0_register();
    let fits = target.size() == usize::from(op.insn.mem.addr_size) && target.size() >= 4;
    // A base of the context passes through R11.
    let clean = !is_in_context(insn.memory_base());
    host(target.full_register().number() as u8).filter(|_| fits && clean)
}

/// The displacement as a signed number that a 64-bit address adds.
fn displacement(insn: &Instruction) -> i64 {
    let value = insn.memory_displacement64();
    let wide = [insn.memory_base(), insn.memory_index()].iter().any(|r| r.size() == 8);
    if wide || insn.memory_displ_size() == 8 { value as i64 } else { i64::from(value as i32) }
}

/// `[base + index * scale + displacement]` for 64-bit addressing.
pub(super) fn operand(
    base: Register,
    index: Register,
    scale: u32,
    displacement: i64,
) -> MemoryOperand {
    let size = match displacement {
        0 => 0,
        -128..=127 => 1,
        _ => 8,
    };
    MemoryOperand::new(base, index, scale, displacement, size, false, Register::None)
}
