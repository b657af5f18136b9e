//! Operand access: effective addresses, segmentation, registers, the stack.

use decoder::{Insn, OpKind, Operand, reg};
use softmmu::{Mmu, Width};
use x86::regs::{HIGH_BYTE, gpr};
use x86::{Cpu, Fault, Mode, SegReg, Segment};

/// What an access does, for the checks of a segment's type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// Reads.
    Read,
    /// Writes, or reads and then writes.
    Write,
}

/// Truncates an address or offset to `size` bytes (2, 4 or 8).
#[inline(always)]
pub fn truncate(value: u64, size: u8) -> u64 {
    match size {
        2 => value & 0xFFFF,
        4 => value & 0xFFFF_FFFF,
        _ => value,
    }
}

/// Whether `address` is canonical for 48-bit linear addresses, or 57-bit ones with CR4.LA57.
#[inline(always)]
pub fn is_canonical(cpu: &Cpu, address: u64) -> bool {
    let unused = if cpu.cr4 & x86::control::cr4::LA57 != 0 { 7 } else { 16 };
    ((address << unused) as i64 >> unused) as u64 == address
}

/// The offset of the memory operand within its segment (SDM vol. 1, section 3.7.5).
#[inline(always)]
pub fn effective_address(cpu: &Cpu, insn: &Insn) -> u64 {
    let m = &insn.mem;
    let mut ea = m.disp;
    if m.base < 16 {
        ea = ea.wrapping_add(cpu.gpr[usize::from(m.base)]);
    } else if m.base == reg::RIP {
        ea = ea.wrapping_add(cpu.rip);
    }
    if m.index < 16 {
        ea = ea.wrapping_add(cpu.gpr[usize::from(m.index)] << m.shift);
    }
    truncate(ea, m.addr_size)
}

/// The linear address of `size` bytes at `offset` in segment number `seg`, after the checks of
/// canonical form (64-bit mode) or of type and limit.
///
/// # Errors
/// #SS(0) through SS (in 64-bit mode: also through RBP- and RSP-based operands, whose default
/// segment is SS), else #GP(0).
#[inline(always)]
pub fn linear(cpu: &Cpu, seg: u8, offset: u64, size: u32, intent: Intent) -> Result<u64, Fault> {
    let segment = &cpu.seg[usize::from(seg) % 6];
    if cpu.mode == Mode::Long {
        let base = if seg >= SegReg::FS as u8 { segment.base } else { 0 };
        let address = base.wrapping_add(offset);
        let last = address.wrapping_add(u64::from(size) - 1);
        if is_canonical(cpu, address) && is_canonical(cpu, last) {
            return Ok(address);
        }
        return Err(segment_fault(seg));
    }
    let allowed = match (cpu.mode, intent) {
        (Mode::Real | Mode::Virtual8086, _) => true,
        (_, Intent::Read) => segment.readable(),
        (_, Intent::Write) => segment.writable(),
    };
    if !allowed || !segment.contains(offset as u32, size) {
        return Err(segment_fault(seg));
    }
    Ok(segment.base.wrapping_add(offset) & 0xFFFF_FFFF)
}

/// The fault of a bad access through segment number `seg`.
#[cold]
pub fn segment_fault(seg: u8) -> Fault {
    if seg == SegReg::SS as u8 { Fault::SS0 } else { Fault::GP0 }
}

/// The linear address of the memory operand, checked for `size` bytes.
#[inline(always)]
pub fn mem_linear(cpu: &Cpu, insn: &Insn, size: u32, intent: Intent) -> Result<u64, Fault> {
    linear(cpu, insn.mem.seg, effective_address(cpu, insn), size, intent)
}

/// #AC(0) where alignment checking is in force and `address` is not a multiple of `size`
/// (SDM vol. 3A, section 6.15, interrupt 17).
#[inline(always)]
pub fn check_alignment(cpu: &Cpu, address: u64, size: u32) -> Result<(), Fault> {
    use x86::{control::cr0, flags};
    if cpu.cpl == 3
        && cpu.rflags & flags::AC != 0
        && cpu.cr0 & cr0::AM != 0
        && address & u64::from(size - 1) != 0
    {
        return Err(Fault::AC0);
    }
    Ok(())
}

/// The segments that [`Cpu::plain_bias`] speaks of, as bits.
const PLAIN_SEGMENTS: u8 = 1 << SegReg::ES as u8 | 1 << SegReg::SS as u8 | 1 << SegReg::DS as u8;

/// Whether an access needs no check but the MMU's, and its offset is its linear address.
#[inline(always)]
fn is_plain(cpu: &Cpu, seg: u8, offset: u64) -> bool {
    PLAIN_SEGMENTS >> (seg & 7) & 1 != 0 && offset.wrapping_add(cpu.plain_bias) < cpu.plain_limit
}

/// Reads at an offset in segment number `seg`.
#[inline(always)]
pub fn load_offset<T: Width>(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    seg: u8,
    offset: u64,
) -> Result<T, Fault> {
    if is_plain(cpu, seg, offset) {
        return mmu.load(offset);
    }
    load_checked(cpu, mmu, seg, offset)
}

#[inline(never)]
fn load_checked<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, seg: u8, offset: u64) -> Result<T, Fault> {
    let address = linear(cpu, seg, offset, T::SIZE, Intent::Read)?;
    load_at(cpu, mmu, address)
}

/// Writes at an offset in segment number `seg`.
#[inline(always)]
pub fn store_offset<T: Width>(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    seg: u8,
    offset: u64,
    value: T,
) -> Result<(), Fault> {
    if is_plain(cpu, seg, offset) {
        return mmu.store(offset, value);
    }
    store_checked(cpu, mmu, seg, offset, value)
}

#[inline(never)]
fn store_checked<T: Width>(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    seg: u8,
    offset: u64,
    value: T,
) -> Result<(), Fault> {
    let address = linear(cpu, seg, offset, T::SIZE, Intent::Write)?;
    store_at(cpu, mmu, address, value)
}

/// Reads the memory operand.
#[inline(always)]
pub fn load<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn) -> Result<T, Fault> {
    let offset = effective_address(cpu, insn);
    load_offset(cpu, mmu, insn.mem.seg, offset)
}

/// Writes the memory operand.
#[inline(always)]
pub fn store<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, insn: &Insn, value: T) -> Result<(), Fault> {
    let offset = effective_address(cpu, insn);
    store_offset(cpu, mmu, insn.mem.seg, offset, value)
}

/// Reads, modifies and writes the memory operand, atomically under LOCK. Returns the old value.
#[inline(always)]
pub fn modify<T: Width>(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    locked: bool,
    f: impl FnMut(T) -> T,
) -> Result<T, Fault> {
    let offset = effective_address(cpu, insn);
    if is_plain(cpu, insn.mem.seg, offset) {
        return mmu.modify(offset, locked, f);
    }
    modify_checked(cpu, mmu, insn.mem.seg, offset, locked, f)
}

#[inline(never)]
fn modify_checked<T: Width>(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    seg: u8,
    offset: u64,
    locked: bool,
    f: impl FnMut(T) -> T,
) -> Result<T, Fault> {
    let address = linear(cpu, seg, offset, T::SIZE, Intent::Write)?;
    check_alignment(cpu, address, T::SIZE)?;
    let old = mmu.modify(address, locked, f)?;
    data_breakpoint(cpu, address, T::SIZE, Intent::Write);
    Ok(old)
}

/// Reads at a linear address that has passed segmentation.
#[inline(always)]
pub fn load_at<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, address: u64) -> Result<T, Fault> {
    check_alignment(cpu, address, T::SIZE)?;
    let value = mmu.load(address)?;
    data_breakpoint(cpu, address, T::SIZE, Intent::Read);
    Ok(value)
}

/// Writes at a linear address that has passed segmentation.
#[inline(always)]
pub fn store_at<T: Width>(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    address: u64,
    value: T,
) -> Result<(), Fault> {
    check_alignment(cpu, address, T::SIZE)?;
    mmu.store(address, value)?;
    data_breakpoint(cpu, address, T::SIZE, Intent::Write);
    Ok(())
}

/// Notes a hit of a data breakpoint (SDM vol. 3B, section 18.2.5); the engine reports it behind
/// the instruction.
#[inline(always)]
pub fn data_breakpoint(cpu: &mut Cpu, address: u64, size: u32, intent: Intent) {
    if cpu.stepping {
        crate::sync::match_data_breakpoint(cpu, address, size, intent);
    }
}

/// Reads a register by the operand's number (8-bit numbers 16 to 19 are AH, CH, DH, BH).
#[inline(always)]
pub fn read_reg<T: Width>(cpu: &Cpu, number: u8) -> T {
    if T::SIZE == 1 && number >= HIGH_BYTE {
        return T::from_u64(cpu.gpr[usize::from(number & 3)] >> 8);
    }
    T::from_u64(cpu.gpr[usize::from(number & 15)])
}

/// Writes a register: 32-bit writes clear the upper half, 8- and 16-bit ones leave it.
#[inline(always)]
pub fn write_reg<T: Width>(cpu: &mut Cpu, number: u8, value: T) {
    let value = value.to_u64();
    if T::SIZE == 1 && number >= HIGH_BYTE {
        let r = &mut cpu.gpr[usize::from(number & 3)];
        *r = *r & !0xFF00 | value << 8;
        return;
    }
    let r = &mut cpu.gpr[usize::from(number & 15)];
    *r = match T::SIZE {
        1 => *r & !0xFF | value,
        2 => *r & !0xFFFF | value,
        _ => value,
    };
}

/// Reads operand `i`: register, memory or immediate. Slower than a specialised handler, for
/// instructions that are not hot.
#[inline]
pub fn read_operand<T: Width>(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    i: usize,
) -> Result<T, Fault> {
    match insn.op[i] {
        Operand { kind: OpKind::Mem, .. } => load(cpu, mmu, insn),
        Operand { kind: OpKind::Imm, .. } => Ok(T::from_u64(insn.imm)),
        Operand { kind: OpKind::Imm2, .. } => Ok(T::from_u64(u64::from(insn.imm2))),
        Operand { reg, .. } => Ok(read_reg(cpu, reg)),
    }
}

/// Writes operand `i`, a register or memory.
#[inline]
pub fn write_operand<T: Width>(
    cpu: &mut Cpu,
    mmu: &mut Mmu,
    insn: &Insn,
    i: usize,
    value: T,
) -> Result<(), Fault> {
    if insn.op[i].kind == OpKind::Mem {
        store(cpu, mmu, insn, value)
    } else {
        write_reg(cpu, insn.op[i].reg, value);
        Ok(())
    }
}

/// The stack pointer, truncated to the stack's width.
#[inline(always)]
pub fn stack_pointer(cpu: &Cpu) -> u64 {
    match cpu.stack_bits() {
        64 => cpu.gpr[gpr::RSP],
        32 => cpu.gpr[gpr::RSP] & 0xFFFF_FFFF,
        _ => cpu.gpr[gpr::RSP] & 0xFFFF,
    }
}

/// Sets the stack pointer's bits of the stack's width; a 16-bit stack leaves the rest.
#[inline(always)]
pub fn set_stack_pointer(cpu: &mut Cpu, value: u64) {
    let rsp = &mut cpu.gpr[gpr::RSP];
    *rsp = match cpu_stack_bits(cpu.mode, &cpu.seg[SegReg::SS as usize]) {
        64 => value,
        32 => value & 0xFFFF_FFFF,
        _ => *rsp & !0xFFFF | value & 0xFFFF,
    };
}

#[inline(always)]
fn cpu_stack_bits(mode: Mode, ss: &Segment) -> u32 {
    if mode == Mode::Long {
        64
    } else if ss.is_32bit() {
        32
    } else {
        16
    }
}

/// Wraps a stack offset to the stack's width.
#[inline(always)]
pub fn wrap_stack(cpu: &Cpu, offset: u64) -> u64 {
    match cpu.stack_bits() {
        64 => offset,
        32 => offset & 0xFFFF_FFFF,
        _ => offset & 0xFFFF,
    }
}

/// Pushes `value`. The stack pointer changes only when the store did not fault.
#[inline(always)]
pub fn push<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, value: T) -> Result<(), Fault> {
    let sp = wrap_stack(cpu, stack_pointer(cpu).wrapping_sub(u64::from(T::SIZE)));
    store_offset(cpu, mmu, SegReg::SS as u8, sp, value)?;
    set_stack_pointer(cpu, sp);
    Ok(())
}

/// Reads the value at `depth` bytes above the stack pointer, without popping it.
#[inline(always)]
pub fn peek<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu, depth: u64) -> Result<T, Fault> {
    let sp = wrap_stack(cpu, stack_pointer(cpu).wrapping_add(depth));
    load_offset(cpu, mmu, SegReg::SS as u8, sp)
}

/// Adds `bytes` to the stack pointer.
#[inline(always)]
pub fn release_stack(cpu: &mut Cpu, bytes: u64) {
    let sp = stack_pointer(cpu).wrapping_add(bytes);
    set_stack_pointer(cpu, sp);
}

/// Pops a value.
#[inline(always)]
pub fn pop<T: Width>(cpu: &mut Cpu, mmu: &mut Mmu) -> Result<T, Fault> {
    let value = peek(cpu, mmu, 0)?;
    release_stack(cpu, u64::from(T::SIZE));
    Ok(value)
}

/// Sets RIP to a near branch's target, after the checks of canonical form or of the CS limit.
///
/// # Errors
/// #GP(0), with RIP unchanged.
#[inline(always)]
pub fn branch_to(cpu: &mut Cpu, target: u64) -> Result<(), Fault> {
    let ok = if cpu.mode == Mode::Long {
        is_canonical(cpu, target)
    } else {
        target <= u64::from(cpu.cs().limit)
    };
    if !ok {
        return Err(Fault::GP0);
    }
    cpu.rip = target;
    Ok(())
}
