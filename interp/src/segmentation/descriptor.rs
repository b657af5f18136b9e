//! Descriptors in the GDT and LDT (SDM vol. 3A, sections 3.4.5, 3.5 and 5.8.3).

use super::error_code;
use softmmu::Mmu;
use x86::segment::ar;
use x86::{Cpu, Fault, Segment, flags};

/// The types of system descriptors (SDM vol. 3A, table 3-2). In IA-32e mode the 32-bit ones are
/// the 64-bit ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SystemKind {
    Reserved,
    Tss16Available,
    Ldt,
    Tss16Busy,
    CallGate16,
    TaskGate,
    InterruptGate16,
    TrapGate16,
    TssAvailable,
    TssBusy,
    CallGate,
    InterruptGate,
    TrapGate,
}

/// An 8-byte descriptor as read from its table, with where it was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    /// The selector that named it.
    pub(crate) selector: u16,
    /// The eight bytes.
    pub(crate) raw: u64,
    /// Linear address of the first byte.
    pub(crate) address: u64,
}

impl Descriptor {
    const fn high(self) -> u32 {
        (self.raw >> 32) as u32
    }
    pub(crate) const fn dpl(self) -> u8 {
        (self.high() >> ar::DPL_SHIFT) as u8 & 3
    }
    pub(crate) const fn present(self) -> bool {
        self.high() & ar::P != 0
    }
    pub(crate) const fn is_system(self) -> bool {
        self.high() & ar::S == 0
    }
    pub(crate) const fn is_code(self) -> bool {
        self.high() & (ar::S | ar::CODE) == ar::S | ar::CODE
    }
    pub(crate) const fn is_conforming(self) -> bool {
        self.is_code() && self.high() & ar::DC != 0
    }
    /// Data or readable code.
    pub(crate) const fn is_readable(self) -> bool {
        !self.is_system() && (self.high() & ar::CODE == 0 || self.high() & ar::RW != 0)
    }
    pub(crate) const fn is_writable_data(self) -> bool {
        self.high() & (ar::S | ar::CODE | ar::RW) == ar::S | ar::RW
    }
    /// The L bit.
    pub(crate) const fn is_64bit(self) -> bool {
        self.high() & ar::L != 0
    }
    /// The D/B bit.
    pub(crate) const fn is_32bit(self) -> bool {
        self.high() & ar::DB != 0
    }
    /// The type of a system descriptor; [`SystemKind::Reserved`] for code and data.
    pub(crate) const fn system_kind(self) -> SystemKind {
        if !self.is_system() {
            return SystemKind::Reserved;
        }
        match self.high() >> 8 & 0xF {
            1 => SystemKind::Tss16Available,
            2 => SystemKind::Ldt,
            3 => SystemKind::Tss16Busy,
            4 => SystemKind::CallGate16,
            5 => SystemKind::TaskGate,
            6 => SystemKind::InterruptGate16,
            7 => SystemKind::TrapGate16,
            9 => SystemKind::TssAvailable,
            0xB => SystemKind::TssBusy,
            0xC => SystemKind::CallGate,
            0xE => SystemKind::InterruptGate,
            0xF => SystemKind::TrapGate,
            _ => SystemKind::Reserved,
        }
    }
    /// The hidden part of a segment register that loads this descriptor.
    pub(crate) fn segment(self) -> Segment {
        Segment::from_descriptor(self.selector, self.raw)
    }
    /// Gates: the selector of the target segment or TSS.
    pub(crate) const fn gate_selector(self) -> u16 {
        (self.raw >> 16) as u16
    }
    /// Gates: the low 32 bits of the target's offset.
    pub(crate) const fn gate_offset(self) -> u32 {
        self.raw as u32 & 0xFFFF | self.high() & 0xFFFF_0000
    }
    /// Call gates: the number of parameters to copy, 0 to 31.
    pub(crate) const fn gate_parameters(self) -> u32 {
        self.high() & 0x1F
    }
}

/// Base and last valid offset of the table that `selector` points into, `None` for the LDT
/// while LDTR is null.
pub(crate) fn table(cpu: &Cpu, selector: u16) -> Option<(u64, u32)> {
    if selector & 4 == 0 {
        Some((cpu.gdtr.base, u32::from(cpu.gdtr.limit)))
    } else if cpu.ldtr.present() {
        Some((cpu.ldtr.base, cpu.ldtr.limit))
    } else {
        None
    }
}

/// Linear addresses of system structures have 32 bits outside IA-32e mode.
pub(crate) fn wrap_linear(cpu: &Cpu, address: u64) -> u64 {
    if cpu.long_mode_active() { address } else { address & 0xFFFF_FFFF }
}

/// Reads the descriptor that `selector` names.
///
/// # Errors
/// `error(selector)` when it lies outside its table; the page fault of reading it.
pub(crate) fn fetch(
    cpu: &Cpu,
    mmu: &mut Mmu,
    selector: u16,
    error: impl Fn(u16) -> Fault,
) -> Result<Descriptor, Fault> {
    let (base, limit) = table(cpu, selector).ok_or(error(error_code(selector)))?;
    if u32::from(selector | 7) > limit {
        return Err(error(error_code(selector)));
    }
    let address = wrap_linear(cpu, base.wrapping_add(u64::from(selector & !7)));
    Ok(Descriptor { selector, raw: mmu.load_system(address)?, address })
}

/// Reads the upper half of a 16-byte descriptor of IA-32e mode.
///
/// # Errors
/// `error(selector)` when it lies outside the table or its type field is not zero.
pub(crate) fn fetch_upper(
    cpu: &Cpu,
    mmu: &mut Mmu,
    descriptor: Descriptor,
    error: impl Fn(u16) -> Fault,
) -> Result<u64, Fault> {
    let selector = descriptor.selector;
    let (_, limit) = table(cpu, selector).ok_or(error(error_code(selector)))?;
    if u32::from(selector | 7) + 8 > limit {
        return Err(error(error_code(selector)));
    }
    let upper: u64 = mmu.load_system(descriptor.address.wrapping_add(8))?;
    if upper >> 40 & 0x1F != 0 {
        return Err(error(error_code(selector)));
    }
    Ok(upper)
}

/// Sets the accessed bit in memory, where it is clear (SDM vol. 3A, section 3.4.5.1).
pub(crate) fn set_accessed(cpu: &Cpu, mmu: &mut Mmu, found: Descriptor) -> Result<(), Fault> {
    if found.high() & ar::ACCESSED == 0 {
        update_type(cpu, mmu, found.address, |byte| byte | 1)?;
    }
    Ok(())
}

/// The busy bit in the type byte of a TSS descriptor.
pub(crate) const BUSY: u8 = 2;

/// Changes the byte of a descriptor that holds type, S, DPL and P, atomically and as a supervisor
/// whatever the CPL. Returns the old byte.
pub(crate) fn update_type(
    cpu: &Cpu,
    mmu: &mut Mmu,
    descriptor: u64,
    f: impl FnMut(u8) -> u8,
) -> Result<u8, Fault> {
    mmu.set_privilege(0, false);
    let old = mmu.modify(descriptor.wrapping_add(5), true, f);
    mmu.set_privilege(cpu.cpl, cpu.rflags & flags::AC != 0);
    old
}
