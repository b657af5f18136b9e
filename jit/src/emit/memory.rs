//! Memory operands through the software TLB, inline.
//!
//! The tag of a hit XORed with the linear address is the offset in the page, so one comparison
//! sees misses and page crossings alike.

use super::Unit;
use crate::regs::{gpr64, host};
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
    /// In R14.
    R14,
    /// Known now.
    Constant(u64),
}

impl Unit<'_> {
    /// Whether the operand can be reached without the interpreter.
    pub(super) fn can_access(&self, op: &Op) -> bool {
        self.can_use_segment(op)
    }

    /// Puts the operand's host address into R13 + R14, or into R14 alone if `collapse`. Destroys
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
            Address::R14 => self.lookup(access, slow, collapse),
            Address::Constant(linear) => self.lookup_constant(linear, access, slow, collapse),
        }
    }

    /// Translates the linear address in R14.
    pub(super) fn lookup(&mut self, access: Access, slow: DynamicLabel, collapse: bool) {
        let table = self.env.addresses.tlb[self.key.rights() as usize];
        let tag = table + if access.write { TAG_WRITE } else { TAG_READ };
        let page = table + PAGE;
        let limit = 4096 - access.size as i32;
        if access.align > 1 {
            let mask = access.align as i32 - 1;
            dynasm!(self.ops ; .arch x64 ; test r14d, mask ; jnz =>slow);
        }
        if self.env.host.bmi2 {
            dynasm!(self.ops ; .arch x64 ; rorx r13d, r14d, INDEX_SHIFT);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov r13d, r14d ; shr r13d, INDEX_SHIFT);
        }
        dynasm!(self.ops
            ; .arch x64
            ; and r13d, INDEX_MASK
            ; xor r14, [r13 + tag]
            ; cmp r14, limit
            ; ja =>slow
        );
        if collapse {
            dynasm!(self.ops ; .arch x64 ; add r14, [r13 + page]);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov r13, [r13 + page]);
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
        dynasm!(self.ops ; .arch x64 ; cmp r14, [tag] ; jne =>slow);
        let offset = (linear & 0xFFF) as i32;
        if collapse {
            dynasm!(self.ops ; .arch x64 ; mov r14, [page] ; add r14, offset);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov r13, [page] ; mov r14d, offset);
        }
    }

    /// R14 = `value`.
    pub(super) fn load_constant(&mut self, value: u64) {
        if let Ok(value) = u32::try_from(value) {
            dynasm!(self.ops ; .arch x64 ; mov r14d, value as i32);
        } else if let Ok(value) = i32::try_from(value as i64) {
            dynasm!(self.ops ; .arch x64 ; mov r14, DWORD value);
        } else {
            dynasm!(self.ops ; .arch x64 ; mov r14, QWORD value as i64);
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
        Address::R14
    }

    /// R14 = the operand's offset within its segment.
    pub(super) fn operand_offset(&mut self, op: &Op, insn: &Instruction) {
        if let Address::Constant(value) = self.effective_address(op, insn) {
            self.load_constant(value);
        }
    }

    /// The offset within the segment. Keeps EFLAGS.
    fn effective_address(&mut self, op: &Op, insn: &Instruction) -> Address {
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
        let base = self.address_register(base, Register::R14);
        let index = self.address_register(index, Register::R13);
        let plain = index == Register::None && displacement == 0;
        if plain && op.insn.mem.addr_size == 8 {
            if base != Register::R14 {
                let n = base.number() as u8;
                dynasm!(self.ops ; .arch x64 ; mov r14, Rq(n));
            }
            return Address::R14;
        }
        let (code, target) = match op.insn.mem.addr_size {
            8 => (Code::Lea_r64_m, Register::R14),
            _ => (Code::Lea_r32_m, Register::R14D),
        };
        let operand = operand(base, index, insn.memory_index_scale(), displacement);
        if let Ok(lea) = Instruction::with2(code, target, operand) {
            self.put(&lea);
        }
        if op.insn.mem.addr_size == 2 {
            dynasm!(self.ops ; .arch x64 ; movzx r14d, r14w);
        }
        Address::R14
    }

    /// R14 = the address of an operand without an index, plus `from`. Keeps EFLAGS.
    pub(super) fn load_operand_base(&mut self, op: &Op, insn: &Instruction, from: i64) {
        let base = self.address_register(insn.memory_base(), Register::R14);
        let (code, target) = match op.insn.mem.addr_size {
            8 => (Code::Lea_r64_m, Register::R14),
            _ => (Code::Lea_r32_m, Register::R14D),
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
        let address = self.effective_address(op, insn);
        if let Address::Constant(value) = address {
            self.load_constant(value);
        }
        match (target.size(), host(number)) {
            (8, Some(n)) => dynasm!(self.ops ; .arch x64 ; mov Rq(n), r14),
            (4, Some(n)) => dynasm!(self.ops ; .arch x64 ; mov Rd(n), r14d),
            (_, Some(n)) => dynasm!(self.ops ; .arch x64 ; mov Rw(n), r14w),
            (size, None) => {
                let slot = self.env.addresses.gpr(number);
                match size {
                    8 => dynasm!(self.ops ; .arch x64 ; mov [slot], r14),
                    4 => dynasm!(self.ops ; .arch x64 ; mov r14d, r14d ; mov [slot], r14),
                    _ => dynasm!(self.ops ; .arch x64 ; mov [slot], r14w),
                }
            }
        }
        true
    }
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
