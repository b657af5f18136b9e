//! The first and last instructions of the child's signal handler: what must be saved and loaded
//! before and after any compiled code.

use std::arch::global_asm;

/// Registers that the kernel leaves alone when it delivers a signal.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Frame {
    pub(super) ds: u16,
    pub(super) es: u16,
    pub(super) fs: u16,
    pub(super) gs: u16,
    pub(super) fs_base: u64,
    pub(super) gs_base: u64,
    /// NT and ID, on the way out.
    pub(super) flags: u64,
}

unsafe extern "C" {
    /// The signal handler.
    #[link_name = "ringshift_conform_signal_entry"]
    pub(super) fn signal_entry();
}

// The stack is 8 below a multiple of 16 at entry, as after a call. AC must go before anything
// compiled runs, or its unaligned accesses would fault; NT because IRET would.
global_asm!(
    ".global ringshift_conform_signal_entry",
    "ringshift_conform_signal_entry:",
    "pushfq",
    "and qword ptr [rsp], {without_ac_nt_id}",
    "popfq",
    "sub rsp, 40",
    "mov rcx, rsp",
    "mov word ptr [rcx], ds",
    "mov word ptr [rcx + 2], es",
    "mov word ptr [rcx + 4], fs",
    "mov word ptr [rcx + 6], gs",
    "rdfsbase rax",
    "mov qword ptr [rcx + 8], rax",
    "rdgsbase rax",
    "mov qword ptr [rcx + 16], rax",
    "call ringshift_conform_signal",
    "mov ds, word ptr [rsp]",
    "mov es, word ptr [rsp + 2]",
    "mov fs, word ptr [rsp + 4]",
    "mov gs, word ptr [rsp + 6]",
    "mov rax, qword ptr [rsp + 8]",
    "wrfsbase rax",
    "mov rax, qword ptr [rsp + 16]",
    "wrgsbase rax",
    "pushfq",
    "and qword ptr [rsp], {without_ac_nt_id}",
    "mov rax, qword ptr [rsp + 32]",
    "or qword ptr [rsp], rax",
    "popfq",
    "add rsp, 40",
    "ret",
    // AC is bit 18, NT bit 14, ID bit 21.
    without_ac_nt_id = const !(1i64 << 18 | 1 << 14 | 1 << 21),
);
