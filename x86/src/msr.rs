//! Model-specific register numbers (SDM vol. 4; AMD APM vol. 2, appendix A; Linux
//! Documentation/virt/kvm/x86/msr.rst for the paravirtual ones).

/// Time-stamp counter.
pub const IA32_TSC: u32 = 0x10;
/// Platform ID.
pub const IA32_PLATFORM_ID: u32 = 0x17;
/// Local APIC base, enable bits.
pub const IA32_APIC_BASE: u32 = 0x1B;
/// Feature control.
pub const IA32_FEATURE_CONTROL: u32 = 0x3A;
/// TSC adjustment.
pub const IA32_TSC_ADJUST: u32 = 0x3B;
/// Speculation control.
pub const IA32_SPEC_CTRL: u32 = 0x48;
/// Prediction command.
pub const IA32_PRED_CMD: u32 = 0x49;
/// Microcode revision.
pub const IA32_BIOS_SIGN_ID: u32 = 0x8B;
/// MTRR capabilities.
pub const IA32_MTRRCAP: u32 = 0xFE;
/// Architectural capabilities.
pub const IA32_ARCH_CAPABILITIES: u32 = 0x10A;
/// SYSENTER code segment.
pub const IA32_SYSENTER_CS: u32 = 0x174;
/// SYSENTER stack pointer.
pub const IA32_SYSENTER_ESP: u32 = 0x175;
/// SYSENTER entry point.
pub const IA32_SYSENTER_EIP: u32 = 0x176;
/// Machine-check capabilities.
pub const IA32_MCG_CAP: u32 = 0x179;
/// Machine-check status.
pub const IA32_MCG_STATUS: u32 = 0x17A;
/// Machine-check control.
pub const IA32_MCG_CTL: u32 = 0x17B;
/// Miscellaneous features.
pub const IA32_MISC_ENABLE: u32 = 0x1A0;
/// Debug control.
pub const IA32_DEBUGCTL: u32 = 0x1D9;
/// First variable MTRR base.
pub const IA32_MTRR_PHYSBASE0: u32 = 0x200;
/// Fixed MTRR 64 KiB.
pub const IA32_MTRR_FIX64K: u32 = 0x250;
/// Page attribute table.
pub const IA32_PAT: u32 = 0x277;
/// Default memory type.
pub const IA32_MTRR_DEF_TYPE: u32 = 0x2FF;
/// TSC deadline of the local APIC timer.
pub const IA32_TSC_DEADLINE: u32 = 0x6E0;
/// First x2APIC register.
pub const X2APIC_BASE: u32 = 0x800;
/// Last x2APIC register.
pub const X2APIC_LAST: u32 = 0x8FF;
/// Extended supervisor state mask.
pub const IA32_XSS: u32 = 0xDA0;
/// Extended features.
pub const IA32_EFER: u32 = 0xC000_0080;
/// SYSCALL selectors.
pub const IA32_STAR: u32 = 0xC000_0081;
/// SYSCALL entry, 64-bit mode.
pub const IA32_LSTAR: u32 = 0xC000_0082;
/// SYSCALL entry, compatibility mode.
pub const IA32_CSTAR: u32 = 0xC000_0083;
/// SYSCALL flag mask.
pub const IA32_FMASK: u32 = 0xC000_0084;
/// FS base.
pub const IA32_FS_BASE: u32 = 0xC000_0100;
/// GS base.
pub const IA32_GS_BASE: u32 = 0xC000_0101;
/// Base that SWAPGS exchanges with GS.
pub const IA32_KERNEL_GS_BASE: u32 = 0xC000_0102;
/// Auxiliary TSC value, for RDTSCP and RDPID.
pub const IA32_TSC_AUX: u32 = 0xC000_0103;
