//! A stack that is written to before the CPU switches to it.

use super::error_code;
use crate::access::{self, Intent, is_canonical};
use crate::sync::data_breakpoints;
use softmmu::{Mmu, Width};
use x86::regs::gpr;
use x86::{Cpu, Fault, Segment};

/// The stack of an event handler, a call gate or a task: pushes go to memory, while the CPU's own
/// SS and RSP stay as they are until [`NewStack::commit`], so that a push may still fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewStack {
    /// The stack segment.
    pub(crate) segment: Segment,
    /// RSP, all of its bits; a push changes those of the stack's width.
    pub(crate) pointer: u64,
    /// Width of the stack pointer: 16, 32 or 64 bits.
    bits: u32,
    /// Privilege level of the pushes.
    cpl: u8,
    /// Type of the segment is checked: not in real and V86 mode.
    typed: bool,
    /// Error code of the #SS that a push raises.
    code: u16,
    /// Data breakpoints that the pushes have hit (DR6 bits).
    hits: u64,
}

impl NewStack {
    /// The stack in use: a push outside its limit takes #SS(0).
    pub(crate) fn current(cpu: &Cpu) -> NewStack {
        NewStack {
            segment: *cpu.ss(),
            pointer: cpu.gpr[gpr::RSP],
            bits: cpu.stack_bits(),
            cpl: cpu.cpl,
            typed: cpu.is_protected(),
            code: 0,
            hits: 0,
        }
    }

    /// A 16- or 32-bit stack for privilege level `cpl`: a push outside its limit takes
    /// #SS(selector).
    pub(crate) fn legacy(segment: Segment, pointer: u64, cpl: u8) -> NewStack {
        let bits = if segment.is_32bit() { 32 } else { 16 };
        NewStack {
            segment,
            pointer,
            bits,
            cpl,
            typed: true,
            code: error_code(segment.selector),
            hits: 0,
        }
    }

    /// A 64-bit stack for privilege level `cpl`: a push to a non-canonical address takes #SS(0).
    pub(crate) fn long(segment: Segment, pointer: u64, cpl: u8) -> NewStack {
        NewStack { segment, pointer, bits: 64, cpl, typed: false, code: 0, hits: 0 }
    }

    /// Pushes a value.
    ///
    /// # Errors
    /// #SS as the constructor says, or the fault of the store.
    pub(crate) fn push<T: Width>(
        &mut self,
        cpu: &Cpu,
        mmu: &mut Mmu,
        value: T,
    ) -> Result<(), Fault> {
        let size = T::SIZE;
        let moved = self.pointer.wrapping_sub(u64::from(size));
        let (pointer, offset) = match self.bits {
            64 => (moved, moved),
            32 => (moved & 0xFFFF_FFFF, moved & 0xFFFF_FFFF),
            _ => (self.pointer & !0xFFFF | moved & 0xFFFF, moved & 0xFFFF),
        };
        let address = if self.bits == 64 {
            if !is_canonical(cpu, offset) || !is_canonical(cpu, offset.wrapping_add(7)) {
                return Err(Fault::ss(self.code));
            }
            offset
        } else {
            let allowed = !self.typed || self.segment.writable();
            if !allowed || !self.segment.contains(offset as u32, size) {
                return Err(Fault::ss(self.code));
            }
            self.segment.base.wrapping_add(offset) & 0xFFFF_FFFF
        };
        if self.cpl == 3 {
            access::check_alignment(cpu, address, size)?;
        }
        mmu.store_as(self.cpl, address, value)?;
        if cpu.stepping {
            self.hits |= data_breakpoints(cpu, address, size, Intent::Write);
        }
        self.pointer = pointer;
        Ok(())
    }

    /// Pushes the low `size` bytes (2, 4 or 8) of a value.
    pub(crate) fn push_sized(
        &mut self,
        cpu: &Cpu,
        mmu: &mut Mmu,
        size: u8,
        value: u64,
    ) -> Result<(), Fault> {
        match size {
            2 => self.push(cpu, mmu, value as u16),
            4 => self.push(cpu, mmu, value as u32),
            _ => self.push(cpu, mmu, value),
        }
    }

    /// Loads SS and RSP. The caller calls `sync::mode_changed` afterwards. Data breakpoints that
    /// the pushes hit are due before the next instruction: the #DB is delivered behind the event
    /// whose frame hit them (Xen's advisory XSA-156 describes the endless loop that a breakpoint
    /// on the stack of #DB makes of it).
    pub(crate) fn commit(self, cpu: &mut Cpu) {
        cpu.pending_debug |= self.hits;
        cpu.seg[x86::SegReg::SS as usize] = self.segment;
        cpu.gpr[gpr::RSP] = self.pointer;
    }
}

/// SS with a null selector, as 64-bit mode uses it at privilege levels 0 to 2. The hidden DPL
/// carries the CPL.
pub(crate) fn null_stack(cpl: u8) -> Segment {
    Segment {
        access: u32::from(cpl) << x86::segment::ar::DPL_SHIFT,
        ..Segment::null(u16::from(cpl))
    }
}
