//! The CPU state in which a loaded kernel starts.
//!
//! Each boot protocol documents part of it; what none documents is as after
//! reset: zero for general registers, DR6, DR7 and XCR0 at their reset values.

/// The state of the boot CPU at the kernel's first instruction.
///
/// RFLAGS is 2 in every case: interrupts masked, direction up, no single-step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 64-bit mode, paging on.
    Long64(Long64),
    /// 32-bit protected mode, paging off.
    Protected32(Protected32),
    /// Real-address mode.
    Real16(Real16),
}

/// Entry in 64-bit mode: CR0 = PE, ET, PG; CR4 = PAE; EFER = LME, LMA.
/// The IDT is empty (limit 0) and LDTR is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Long64 {
    /// First instruction, linear and (by the identity mapping) physical.
    pub rip: u64,
    /// Linux: address of `boot_params`.
    pub rsi: u64,
    /// Physical address of the PML4 table. The tables in guest memory map
    /// linear 0 to 4 GiB onto the same physical addresses, writable, in 2 MiB
    /// pages.
    pub cr3: u64,
    /// The GDT in guest memory that holds the segments below.
    pub gdt: DescriptorTable,
    /// CS: 64-bit code, DPL 0.
    pub code: Segment,
    /// DS, ES, SS, FS and GS: flat, writable data, DPL 0.
    pub data: Segment,
    /// TR: a busy TSS at 0 with limit 0x67, which no kernel relies upon.
    pub task: Segment,
}

/// Entry in 32-bit protected mode: CR0 = PE, ET; CR4 = 0; EFER = 0.
/// The IDT is empty (limit 0) and LDTR is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protected32 {
    /// First instruction, linear and physical.
    pub eip: u32,
    /// Multiboot: the boot loader's magic number, 0x2BADB002.
    pub eax: u32,
    /// Multiboot: the information block. PVH: `hvm_start_info`.
    pub ebx: u32,
    /// Linux: `boot_params`.
    pub esi: u32,
    /// The GDT in guest memory that holds the segments below.
    pub gdt: DescriptorTable,
    /// CS: flat 32-bit code, DPL 0.
    pub code: Segment,
    /// DS, ES, SS, FS and GS: flat, writable data, DPL 0.
    pub data: Segment,
    /// TR: a busy 32-bit TSS at 0 with limit 0x67, as PVH asks.
    pub task: Segment,
}

/// Entry in real-address mode: CR0 = ET. The IVT is at 0 with limit 0x3FF;
/// DS, ES, SS, FS and GS are 0 with base 0. No loader here makes it: it is for
/// firmware and for guests that start where the processor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Real16 {
    /// CS selector.
    pub cs: u16,
    /// CS base, which at reset is not the selector shifted by four.
    pub cs_base: u64,
    /// First instruction, an offset from the base.
    pub ip: u16,
}

impl Real16 {
    /// The reset vector, FFFF_FFF0 (SDM Vol. 3A, 11.1.4).
    pub const RESET: Self = Self { cs: 0xF000, cs_base: 0xFFFF_0000, ip: 0xFFF0 };

    /// A real-mode program entered at linear address `segment * 16 + ip`.
    pub const fn at(segment: u16, ip: u16) -> Self {
        Self { cs: segment, cs_base: (segment as u64) << 4, ip }
    }
}

impl Entry {
    /// CR0 at entry.
    pub const fn cr0(&self) -> u64 {
        match self {
            Self::Long64(_) => 0x8000_0011,
            Self::Protected32(_) => 0x11,
            Self::Real16(_) => 0x10,
        }
    }

    /// CR4 at entry.
    pub const fn cr4(&self) -> u64 {
        match self {
            Self::Long64(_) => 1 << 5,
            Self::Protected32(_) | Self::Real16(_) => 0,
        }
    }

    /// The EFER MSR at entry.
    pub const fn efer(&self) -> u64 {
        match self {
            Self::Long64(_) => 1 << 8 | 1 << 10,
            Self::Protected32(_) | Self::Real16(_) => 0,
        }
    }

    /// The linear address of the first instruction.
    pub const fn address(&self) -> u64 {
        match self {
            Self::Long64(state) => state.rip,
            Self::Protected32(state) => state.eip as u64,
            Self::Real16(state) => state.cs_base.wrapping_add(state.ip as u64),
        }
    }
}

/// A GDTR value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorTable {
    /// Linear (and physical) address of the table.
    pub base: u64,
    /// Offset of the table's last byte.
    pub limit: u16,
}

/// A segment register: the selector and the descriptor it was loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// The descriptor as it stands in the GDT (SDM Vol. 3A, 3.4.5). The TSS of
    /// 64-bit mode has a second half, which is zero.
    pub descriptor: u64,
}

impl Segment {
    /// The segment's base address.
    pub const fn base(&self) -> u64 {
        (self.descriptor >> 16 & 0xFF_FFFF) | (self.descriptor >> 56) << 24
    }

    /// The segment's limit in bytes, granularity applied.
    pub const fn limit(&self) -> u32 {
        let raw = (self.descriptor & 0xFFFF | self.descriptor >> 32 & 0xF_0000) as u32;
        if self.descriptor >> 55 & 1 == 1 { raw << 12 | 0xFFF } else { raw }
    }

    /// The access rights as LAR reports them, shifted to bit 0: bits 0-3 type,
    /// 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G.
    pub const fn access(&self) -> u16 {
        (self.descriptor >> 40 & 0xF0FF) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_taken_apart_as_the_manual_says() {
        // Base 0x12345678, limit 0xABCDE pages, type 0xB, present, D and G.
        let segment = Segment { selector: 8, descriptor: 0x12CA_9B34_5678_BCDE };
        assert_eq!(segment.base(), 0x1234_5678);
        assert_eq!(segment.limit(), 0xABCD_EFFF);
        assert_eq!(segment.access(), 0xC09B);
    }

    #[test]
    fn the_reset_vector_is_sixteen_bytes_below_four_gib() {
        assert_eq!(Entry::Real16(Real16::RESET).address(), 0xFFFF_FFF0);
        assert_eq!(Entry::Real16(Real16::at(0x7C0, 0x10)).address(), 0x7C10);
    }
}
