//! Names for the architecture's bits, as the Intel SDM gives them, and descriptor encoders.

use crate::layout::KERNEL_BASE;

/// CR0: protection enable.
pub(crate) const CR0_PE: u32 = 1 << 0;
/// CR0: monitor coprocessor.
pub(crate) const CR0_MP: u32 = 1 << 1;
/// CR0: x87 emulation.
pub(crate) const CR0_EM: u32 = 1 << 2;
/// CR0: task switched.
pub(crate) const CR0_TS: u32 = 1 << 3;
/// CR0: numeric error, reported by #MF.
pub(crate) const CR0_NE: u32 = 1 << 5;
/// CR0: write protect, also for ring 0.
pub(crate) const CR0_WP: u32 = 1 << 16;
/// CR0: paging.
pub(crate) const CR0_PG: u32 = 1 << 31;

/// CR4: page-size extensions.
pub(crate) const CR4_PSE: u32 = 1 << 4;
/// CR4: physical-address extension.
pub(crate) const CR4_PAE: u32 = 1 << 5;
/// CR4: FXSAVE and SSE.
pub(crate) const CR4_OSFXSR: u32 = 1 << 9;
/// CR4: unmasked SSE exceptions by #XM.
pub(crate) const CR4_OSXMMEXCPT: u32 = 1 << 10;
/// CR4: XSAVE and XCR0.
pub(crate) const CR4_OSXSAVE: u32 = 1 << 18;

/// EFLAGS: trap flag.
pub(crate) const EFLAGS_TF: u32 = 1 << 8;
/// EFLAGS: interrupt-enable flag.
pub(crate) const EFLAGS_IF: u32 = 1 << 9;
/// EFLAGS: direction flag.
pub(crate) const EFLAGS_DF: u32 = 1 << 10;
/// EFLAGS: resume flag.
pub(crate) const EFLAGS_RF: u32 = 1 << 16;
/// EFLAGS: virtual-8086 mode.
pub(crate) const EFLAGS_VM: u32 = 1 << 17;
/// EFLAGS: bit 1, always set.
pub(crate) const EFLAGS_FIXED: u32 = 1 << 1;

/// MSR: extended feature enable register.
pub(crate) const IA32_EFER: u32 = 0xC000_0080;
/// EFER: SYSCALL enable.
pub(crate) const EFER_SCE: u32 = 1 << 0;
/// EFER: long mode enable.
pub(crate) const EFER_LME: u32 = 1 << 8;
/// EFER: long mode active.
pub(crate) const EFER_LMA: u32 = 1 << 10;
/// EFER: execute-disable enable.
pub(crate) const EFER_NXE: u32 = 1 << 11;
/// MSR: segment selectors of SYSCALL and SYSRET.
pub(crate) const IA32_STAR: u32 = 0xC000_0081;
/// MSR: entry point of SYSCALL.
pub(crate) const IA32_LSTAR: u32 = 0xC000_0082;
/// MSR: flags that SYSCALL clears.
pub(crate) const IA32_FMASK: u32 = 0xC000_0084;
/// MSR: the GS base that SWAPGS brings in.
pub(crate) const IA32_KERNEL_GS_BASE: u32 = 0xC000_0102;

/// Page-table entry: present.
pub(crate) const PAGE_PRESENT: u32 = 1 << 0;
/// Page-table entry: writable.
pub(crate) const PAGE_WRITE: u32 = 1 << 1;
/// Page-table entry: for ring 3, too.
pub(crate) const PAGE_USER: u32 = 1 << 2;
/// Page-table entry: accessed.
pub(crate) const PAGE_ACCESSED: u32 = 1 << 5;
/// Page-table entry: dirty.
pub(crate) const PAGE_DIRTY: u32 = 1 << 6;
/// Page-directory entry: maps a large page.
pub(crate) const PAGE_LARGE: u32 = 1 << 7;
/// Upper half of a page-table entry: execute-disable.
pub(crate) const PAGE_NX_HIGH: u32 = 1 << 31;

/// Selectors in the one GDT, which serves every mode.
pub(crate) mod selector {
    /// 32-bit flat code, ring 0.
    pub(crate) const CODE32: u32 = 0x08;
    /// Flat data, ring 0.
    pub(crate) const DATA32: u32 = 0x10;
    /// 16-bit code of base 0 and limit 0xFFFF, the last step before real mode.
    pub(crate) const CODE16: u32 = 0x18;
    /// 16-bit data of the same shape.
    pub(crate) const DATA16: u32 = 0x20;
    /// 64-bit code, ring 0. SYSCALL takes SS from the descriptor after it.
    pub(crate) const CODE64: u32 = 0x28;
    /// Data for 64-bit code, ring 0.
    pub(crate) const DATA64: u32 = 0x30;
    /// Base of SYSRET's selectors: SS is the next descriptor, 64-bit CS the one after.
    pub(crate) const SYSRET_BASE: u32 = 0x38;
    /// 32-bit code, ring 3 (with its RPL).
    pub(crate) const USER_CODE32: u32 = 0x38 | 3;
    /// Data, ring 3 (with its RPL).
    pub(crate) const USER_DATA: u32 = 0x40 | 3;
    /// 64-bit code, ring 3 (with its RPL).
    pub(crate) const USER_CODE: u32 = 0x48 | 3;
    /// 16 bytes of data at linear 0.
    pub(crate) const TINY: u32 = 0x50;
    /// A data segment that is not present.
    pub(crate) const ABSENT: u32 = 0x58;
    /// TSS of protected mode.
    pub(crate) const TSS32: u32 = 0x60;
    /// TSS of the hardware task.
    pub(crate) const TSS32_OTHER: u32 = 0x68;
    /// TSS of long mode, two slots wide.
    pub(crate) const TSS64: u32 = 0x70;
    /// Call gate to a routine of ring 0 that adds.
    pub(crate) const GATE_ADD: u32 = 0x80;
    /// Call gate to where ring 0 goes on.
    pub(crate) const GATE_LEAVE: u32 = 0x88;
}

/// A segment descriptor (SDM volume 3, 3.4.5). `access` is the type, S, DPL and P byte; `flags`
/// the G, D/B and L nibble.
pub(crate) fn descriptor(base: u32, limit: u32, access: u8, flags: u8) -> u64 {
    let (base, limit) = (u64::from(base), u64::from(limit));
    limit & 0xFFFF
        | (base & 0xFF_FFFF) << 16
        | u64::from(access) << 40
        | (limit >> 16 & 0xF) << 48
        | u64::from(flags & 0xF) << 52
        | (base >> 24) << 56
}

/// A 32-bit call gate for ring 3 (SDM volume 3, 5.8.3).
pub(crate) fn call_gate(entry: u32, parameters: u8) -> u64 {
    let (low, high) = (u64::from(entry & 0xFFFF), u64::from(entry >> 16));
    low | u64::from(selector::CODE32) << 16 | u64::from(parameters) << 32 | 0xEC << 40 | high << 48
}

/// The GDT behind the names in [`selector`]: the three TSSs lie at the given addresses, and the
/// two call gates are given.
pub(crate) fn global_descriptor_table(
    tss32: u32,
    tss32_other: u32,
    tss64: u64,
    gates: [u64; 2],
) -> Vec<u8> {
    const FLAT: u32 = 0xF_FFFF;
    let entries: [u64; GDT_SIZE / 8] = [
        0,
        descriptor(0, FLAT, 0x9A, 0xC),
        descriptor(0, FLAT, 0x92, 0xC),
        descriptor(0, 0xFFFF, 0x9A, 0x0),
        descriptor(0, 0xFFFF, 0x92, 0x0),
        descriptor(0, FLAT, 0x9A, 0xA),
        descriptor(0, FLAT, 0x92, 0xC),
        descriptor(0, FLAT, 0xFA, 0xC),
        descriptor(0, FLAT, 0xF2, 0xC),
        descriptor(0, FLAT, 0xFA, 0xA),
        descriptor(0, 0xF, 0x92, 0x0),
        descriptor(0, 0xF, 0x12, 0x0),
        descriptor(tss32, TSS32_SIZE - 1, 0x89, 0x0),
        descriptor(tss32_other, TSS32_SIZE - 1, 0x89, 0x0),
        descriptor(tss64 as u32, TSS64_SIZE - 1, 0x89, 0x0),
        tss64 >> 32,
        gates[0],
        gates[1],
    ];
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// Size of the GDT, bytes.
pub(crate) const GDT_SIZE: usize = 18 * 8;

/// Size of a 32-bit TSS without I/O permission map, bytes.
pub(crate) const TSS32_SIZE: u32 = 104;
/// Size of a 64-bit TSS without I/O permission map, bytes.
pub(crate) const TSS64_SIZE: u32 = 104;

/// The operand of LGDT and LIDT in 16 and 32-bit code.
pub(crate) fn table_pointer32(base: u32, size: usize) -> Vec<u8> {
    [&(size as u16).wrapping_sub(1).to_le_bytes()[..], &base.to_le_bytes()].concat()
}

/// The operand of LGDT and LIDT in 64-bit code.
pub(crate) fn table_pointer64(base: u64, size: usize) -> Vec<u8> {
    [&(size as u16).wrapping_sub(1).to_le_bytes()[..], &base.to_le_bytes()].concat()
}

/// A 32-bit interrupt gate, ring 0 (SDM volume 3, 6.11).
pub(crate) fn interrupt_gate32(handler: u32) -> [u8; 8] {
    let (low, high) = (u64::from(handler & 0xFFFF), u64::from(handler >> 16));
    (low | u64::from(selector::CODE32) << 16 | 0x8E00 << 32 | high << 48).to_le_bytes()
}

/// A 64-bit interrupt gate (SDM volume 3, 6.14.1). `ist` 0 means no stack of its own.
pub(crate) fn interrupt_gate64(handler: u64, dpl: u8, ist: u8) -> [u8; 16] {
    let low = handler & 0xFFFF
        | u64::from(selector::CODE64) << 16
        | u64::from(ist) << 32
        | u64::from(0x8E | dpl << 5) << 40
        | (handler >> 16 & 0xFFFF) << 48;
    (u128::from(low) | u128::from(handler >> 32) << 64).to_le_bytes()
}

/// Where long mode's kernel sees a physical address of the first GiB.
pub(crate) fn high(physical: u64) -> u64 {
    KERNEL_BASE + physical
}

/// The manual's mnemonic of an exception (SDM volume 3, table 6-1).
pub(crate) fn mnemonic(vector: u32) -> &'static str {
    const MNEMONICS: [&str; 22] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9", "#TS", "#NP", "#SS",
        "#GP", "#PF", "15", "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
    ];
    MNEMONICS.get(vector as usize).copied().unwrap_or("an interrupt")
}

/// Does delivery of this exception push an error code (SDM volume 3, table 6-1)?
pub(crate) fn pushes_error_code(vector: u32) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}
