//! Where translated code finds what it uses.

use std::mem::offset_of;
use x86::Cpu;
use x86::fpu::X87;

/// Absolute addresses that translated code uses, all below 2 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) cpu: i32,
    pub(crate) exit_request: i32,
    /// The first-level TLB's tables by [`softmmu::Rights`].
    pub(crate) tlb: [i32; 3],
    pub(crate) budget: i32,
    pub(crate) flags: i32,
    pub(crate) vector_loaded: i32,
    pub(crate) x87_loaded: i32,
    pub(crate) x87_fop: i32,
    pub(crate) x87_fip: i32,
    pub(crate) x87_fdp: i32,
    pub(crate) interrupt_waits: i32,
    pub(crate) indirect: i32,
    pub(crate) code_tag: i32,
    pub(crate) stack_base: i32,
    pub(crate) stack_limit: i32,
    /// Words for the current instruction.
    pub(crate) temporary: i32,
    pub(crate) second_temporary: i32,
    pub(crate) pointers: i32,
}

impl Addresses {
    /// The context's slot of a general-purpose register.
    pub(crate) fn gpr(&self, number: u8) -> i32 {
        self.cpu + (offset_of!(Cpu, gpr) + 8 * usize::from(number)) as i32
    }
    /// The visible selector of a segment register.
    pub(crate) fn selector(&self, number: u8) -> i32 {
        self.segment(number) + offset_of!(x86::Segment, selector) as i32
    }
    /// IA32_KERNEL_GS_BASE.
    pub(crate) fn kernel_gs_base(&self) -> i32 {
        self.cpu + offset_of!(Cpu, kernel_gs_base) as i32
    }
    /// The x87 control word.
    pub(crate) fn x87_control(&self) -> i32 {
        self.cpu + (offset_of!(Cpu, x87) + offset_of!(X87, fcw)) as i32
    }
    /// RFLAGS; its arithmetic flags are stale while translated code runs.
    pub(crate) fn rflags(&self) -> i32 {
        self.cpu + offset_of!(Cpu, rflags) as i32
    }
    /// The hidden base of a segment register.
    pub(crate) fn segment_base(&self, number: u8) -> i32 {
        self.segment(number) + offset_of!(x86::Segment, base) as i32
    }
    /// The hidden limit of a segment register.
    pub(crate) fn segment_limit(&self, number: u8) -> i32 {
        self.segment(number) + offset_of!(x86::Segment, limit) as i32
    }
    /// The hidden access rights of a segment register.
    pub(crate) fn segment_access(&self, number: u8) -> i32 {
        self.segment(number) + offset_of!(x86::Segment, access) as i32
    }
    fn segment(&self, number: u8) -> i32 {
        let segment = offset_of!(Cpu, seg) + usize::from(number) * size_of::<x86::Segment>();
        self.cpu + segment as i32
    }
}
