//! Control and debug register bits (SDM vol. 3A, sections 2.5 and 18.2).

/// CR0.
pub mod cr0 {
    /// Protection enable.
    pub const PE: u64 = 1 << 0;
    /// Monitor coprocessor.
    pub const MP: u64 = 1 << 1;
    /// Emulation: every x87 instruction takes #NM.
    pub const EM: u64 = 1 << 2;
    /// Task switched: x87 and vector instructions take #NM.
    pub const TS: u64 = 1 << 3;
    /// Extension type, always one.
    pub const ET: u64 = 1 << 4;
    /// Numeric error: x87 errors as #MF instead of IRQ 13.
    pub const NE: u64 = 1 << 5;
    /// Write protect: supervisor writes honour read-only pages.
    pub const WP: u64 = 1 << 16;
    /// Alignment mask: #AC can occur.
    pub const AM: u64 = 1 << 18;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Cache disable.
    pub const CD: u64 = 1 << 30;
    /// Paging.
    pub const PG: u64 = 1 << 31;
    /// Bits that software may set.
    pub const ALL: u64 = PE | MP | EM | TS | ET | NE | WP | AM | NW | CD | PG;
}

/// CR3.
pub mod cr3 {
    /// Process-context identifier, with CR4.PCIDE.
    pub const PCID: u64 = 0xFFF;
    /// In the source of MOV to CR3 with CR4.PCIDE: do not flush.
    pub const NO_FLUSH: u64 = 1 << 63;
}

/// CR4.
pub mod cr4 {
    /// Virtual-8086 mode extensions.
    pub const VME: u64 = 1 << 0;
    /// Protected-mode virtual interrupts.
    pub const PVI: u64 = 1 << 1;
    /// RDTSC only at CPL 0.
    pub const TSD: u64 = 1 << 2;
    /// Debug extensions: DR4 and DR5 take #UD.
    pub const DE: u64 = 1 << 3;
    /// 4 MiB pages in 32-bit paging.
    pub const PSE: u64 = 1 << 4;
    /// Physical address extension.
    pub const PAE: u64 = 1 << 5;
    /// Machine check.
    pub const MCE: u64 = 1 << 6;
    /// Global pages.
    pub const PGE: u64 = 1 << 7;
    /// RDPMC at any CPL.
    pub const PCE: u64 = 1 << 8;
    /// FXSAVE and SSE enabled by the operating system.
    pub const OSFXSR: u64 = 1 << 9;
    /// Unmasked SIMD exceptions as #XM.
    pub const OSXMMEXCPT: u64 = 1 << 10;
    /// SGDT, SIDT, SLDT, SMSW, STR only at CPL 0.
    pub const UMIP: u64 = 1 << 11;
    /// 57-bit linear addresses.
    pub const LA57: u64 = 1 << 12;
    /// RDFSBASE and its kin.
    pub const FSGSBASE: u64 = 1 << 16;
    /// Process-context identifiers.
    pub const PCIDE: u64 = 1 << 17;
    /// XSAVE and XCR0.
    pub const OSXSAVE: u64 = 1 << 18;
    /// Supervisor-mode execution prevention.
    pub const SMEP: u64 = 1 << 20;
    /// Supervisor-mode access prevention.
    pub const SMAP: u64 = 1 << 21;
    /// Protection keys for user pages.
    pub const PKE: u64 = 1 << 22;
}

/// DR6 (SDM vol. 3B, section 18.2.3).
pub mod dr6 {
    /// Breakpoint conditions 0 to 3.
    pub const B: u64 = 0xF;
    /// Debug register access while DR7.GD is set.
    pub const BD: u64 = 1 << 13;
    /// Single step.
    pub const BS: u64 = 1 << 14;
    /// Task switch with the T bit of the TSS.
    pub const BT: u64 = 1 << 15;
    /// Value after reset, and the bits that always read one.
    pub const FIXED: u64 = 0xFFFF_0FF0;
}

/// DR7 (SDM vol. 3B, section 18.2.4).
pub mod dr7 {
    /// General detect: debug register access takes #DB.
    pub const GD: u64 = 1 << 13;
    /// Bit 10 always reads one.
    pub const FIXED: u64 = 1 << 10;
    /// Any of L0, G0 to L3, G3.
    pub const ANY_ENABLED: u64 = 0xFF;
}

/// IA32_EFER (SDM vol. 3A, section 2.2.1; AMD APM vol. 2, section 3.1.7).
pub mod efer {
    /// SYSCALL and SYSRET enabled.
    pub const SCE: u64 = 1 << 0;
    /// Long mode enabled.
    pub const LME: u64 = 1 << 8;
    /// Long mode active (read-only).
    pub const LMA: u64 = 1 << 10;
    /// Execute-disable enabled.
    pub const NXE: u64 = 1 << 11;
    /// FXSAVE and FXRSTOR leave out the XMM registers at CPL 0 in 64-bit mode (AMD).
    pub const FFXSR: u64 = 1 << 14;
}

/// XCR0 state components (SDM vol. 1, section 13.1).
pub mod xcr0 {
    /// x87, always one.
    pub const X87: u64 = 1 << 0;
    /// XMM registers and MXCSR.
    pub const SSE: u64 = 1 << 1;
    /// Upper halves of YMM registers.
    pub const AVX: u64 = 1 << 2;
    /// Opmask registers.
    pub const OPMASK: u64 = 1 << 5;
    /// Upper halves of ZMM0 to ZMM15.
    pub const ZMM_HI256: u64 = 1 << 6;
    /// ZMM16 to ZMM31.
    pub const HI16_ZMM: u64 = 1 << 7;
    /// All three AVX-512 components.
    pub const AVX512: u64 = OPMASK | ZMM_HI256 | HI16_ZMM;
    /// PKRU.
    pub const PKRU: u64 = 1 << 9;
}
