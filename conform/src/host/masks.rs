//! The facts by which a difference between the host and an engine is none. Each is applied only
//! where something does differ, and counted.

use std::fmt;

/// A documented (or, where its source says so, observed) fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Mask {
    /// Flags that an instruction leaves undefined.
    UndefinedFlags,
    /// RF in the image of RFLAGS.
    ResumeFlag,
    /// P in a page fault's error code, for the kernel's half.
    KernelHalf,
    /// Bits 32 to 63 of registers outside 64-bit mode.
    UpperHalves,
    /// Which null selector.
    NullSelectors,
    /// Which operand of MOVS or CMPS faults.
    StringOperands,
    /// Which access or check of a CALL, far transfer, far pointer or ENTER faults.
    SeveralAccesses,
    /// A pending x87 error against the fault of an operand.
    PendingX87,
    /// The pieces of an image of x87 state, or of an 80-bit operand.
    X87Environment,
    /// #AC against another fault of the same operand.
    AlignmentOrder,
    /// #GP for alignment against #SS for the address.
    MisalignedStack,
    /// #UD against the page fault of fetching what would follow.
    UndefinedFetch,
    /// Elements of gathers and scatters.
    GatherOrder,
    /// Which byte of a large operand a page fault reports.
    FaultAddress,
    /// Stack frames of faulting far calls and of ENTER.
    PartialFrame,
    /// Registers after a POPA that faulted.
    PartialPop,
    /// MASKMOVDQU's masked-out bytes.
    EmptyMaskedStore,
    /// What XRSTOR touches.
    XrstorExtent,
    /// MXCSR.MM.
    MxcsrMask,
    /// Repeat prefixes on LOOPE and LOOPNE, and CLZERO.
    ReservedPrefix,
    /// Non-canonical offsets with FS and GS.
    CanonicalOffset,
    /// x87 instruction, operand and opcode pointers.
    X87Pointers,
    /// The limit that holds the number of the processor.
    ProcessorNumber,
}

impl Mask {
    /// All of them, in the order of their numbers.
    pub const ALL: [Mask; 23] = [
        Mask::UndefinedFlags,
        Mask::ResumeFlag,
        Mask::KernelHalf,
        Mask::UpperHalves,
        Mask::NullSelectors,
        Mask::StringOperands,
        Mask::SeveralAccesses,
        Mask::PendingX87,
        Mask::X87Environment,
        Mask::AlignmentOrder,
        Mask::MisalignedStack,
        Mask::UndefinedFetch,
        Mask::GatherOrder,
        Mask::FaultAddress,
        Mask::PartialFrame,
        Mask::PartialPop,
        Mask::EmptyMaskedStore,
        Mask::XrstorExtent,
        Mask::MxcsrMask,
        Mask::ReservedPrefix,
        Mask::CanonicalOffset,
        Mask::X87Pointers,
        Mask::ProcessorNumber,
    ];

    /// Its name, as reports and `--without-mask` know it.
    pub fn name(self) -> &'static str {
        self.line().0
    }

    /// What it leaves out, and who says so.
    pub fn source(self) -> &'static str {
        self.line().1
    }

    fn line(self) -> (&'static str, &'static str) {
        match self {
            Mask::UndefinedFlags => (
                "undefined-flags",
                "Flags that the SDM leaves undefined after an instruction (vol. 2, \"Flags Affected\" \
                 of each), by the table of iced-x86 (rflags_undefined); besides, for BSF and BSR all \
                 but ZF, and OF after RCL and RCR by more than one.",
            ),
            Mask::ResumeFlag => (
                "resume-flag",
                "RF in the image that an exception between two iterations of a repeated string \
                 instruction leaves: to be set (SDM vol. 3B, \"Instruction-Breakpoint Exception \
                 Condition\"), but clear behind a single-step trap of AMD's processors (observed on \
                 Zen 5).",
            ),
            Mask::KernelHalf => (
                "kernel-half",
                "Bit 0 (P) of the page-fault error code for addresses of the kernel's half: Linux \
                 shows user code a protection fault there, whatever it was (arch/x86/mm/fault.c, \
                 set_signal_archinfo).",
            ),
            Mask::UpperHalves => (
                "upper-halves",
                "Bits 32 to 63 of registers in 16- and 32-bit code: not preserved by a change of mode \
                 (SDM vol. 1, section 3.4.1.1; AMD APM vol. 1, \"GPR High 32 Bits Across Mode \
                 Switches\").",
            ),
            Mask::NullSelectors => (
                "null-selectors",
                "Which of the null selectors 0 to 3 a segment register holds (SDM vol. 3A, section \
                 3.4.2): the return to the signal handler may make them 0 (observed on Zen 3 and Zen \
                 5).",
            ),
            Mask::StringOperands => (
                "string-operands",
                "MOVS and CMPS of which both operands fault: which of the two is reported. SDM \
                 vol. 3A, section 6.9, table 6-2: within a class the order is \
                 implementation-dependent. Each side's fault must be one that an operand really \
                 gives.",
            ),
            Mask::SeveralAccesses => (
                "several-accesses",
                "CALL, far transfers, far pointers, BOUND and ENTER, of which several accesses \
                 fault, or one does and the check of the target fails: which is reported. SDM \
                 vol. 3A, section 6.9, table 6-2: within a class the order is \
                 implementation-dependent. Zen 5 reads a far RET's outer stack pointer, and \
                 writes a CALL's return address, before it checks the target. From 64-bit code it \
                 writes a CALL's return address at ESP where the target is 32-bit code. Each \
                 side's fault must be one that an access or the target's selector really gives. \
                 For ENTER also #AC by the final stack pointer, which Zen 5 checks as it would a \
                 write; the SDM (vol. 2A, ENTER) lists its page fault alone.",
            ),
            Mask::PendingX87 => (
                "pending-x87",
                "A pending x87 error against the fault of the same instruction's operand. SDM \
                 vol. 3A, section 6.9, table 6-2: within a class the order is \
                 implementation-dependent, and both are in the last class.",
            ),
            Mask::X87Environment => (
                "x87-environment",
                "FLDENV, FNSTENV, FRSTOR, FNSAVE, FXSAVE, FXRSTOR, XSAVE, XRSTOR and x87 operands \
                 of 80 bits, which are accessed in pieces (Zen 5 looks at the last byte of \
                 FXSAVE's image first, at an offset that begins again at 0): which piece's fault \
                 is reported. SDM vol. 3A, section 6.9, table 6-2: within a class the order is \
                 implementation-dependent. Each side's fault must be one that the operand really \
                 gives.",
            ),
            Mask::AlignmentOrder => (
                "alignment-order",
                "#AC against #PF, #GP or #SS, for operands larger than 16 bytes or of no fixed \
                 size: whether their alignment gives #AC or #GP, and when, is the \
                 implementation's affair (SDM vol. 3A, section 6.15, interrupt 17; vol. 2A, \
                 FXSAVE). Each side's fault must be one that the operand really gives.",
            ),
            Mask::MisalignedStack => (
                "misaligned-stack",
                "#GP by misalignment against #SS by the address, for operands of 16 bytes or more \
                 in SS. SDM vol. 3A, section 6.9, table 6-2: within a class the order is \
                 implementation-dependent; section 13.1.4 has #GP for the misalignment. Each must \
                 be what the operand really gives.",
            ),
            Mask::UndefinedFetch => (
                "undefined-fetch",
                "#UD against the page fault of the fetch at the end of the code pages, for an \
                 undefined instruction that runs into the missing page: how many bytes are \
                 fetched before it is known to be undefined is the processor's affair (observed \
                 on Zen 3 and Zen 5; SDM vol. 3A, table 6-2, has the fetch first).",
            ),
            Mask::GatherOrder => (
                "gather-order",
                "Destination, mask and memory of a gather or scatter that faults, and which \
                 element's fault it is: elements may be done in any order, and partial results \
                 stay (SDM vol. 2C, VPGATHERDD/VPGATHERDQ and VPSCATTERDD). Both sides must \
                 fault, with a fault that an element under the mask really gives.",
            ),
            Mask::FaultAddress => (
                "fault-address",
                "The address of a page fault of an operand of more than 8 bytes: which of its \
                 bytes is accessed first is not documented. Each side's must lie in a part of the \
                 operand whose page faults.",
            ),
            Mask::PartialFrame => (
                "partial-frame",
                "Bytes below the stack pointer, in the frame that a far CALL or ENTER which faulted \
                 would have made: AMD's processors write the return address before they compare the \
                 target with the limit of CS (observed on Zen 5; SDM vol. 2A, CALL, compares first).",
            ),
            Mask::PartialPop => (
                "partial-pop",
                "Registers other than the stack pointer after a POPA that faulted: some may have been \
                 loaded, and a restart loads them again (observed on Zen 3 and Zen 5; SDM vol. 2B, \
                 POPA, is silent).",
            ),
            Mask::EmptyMaskedStore => (
                "empty-masked-store",
                "Faults of MASKMOVQ and MASKMOVDQU by bytes that the mask leaves out: \
                 implementation-dependent (SDM vol. 2B, MASKMOVDQU; vol. 2B, MASKMOVQ). They must \
                 be ones that the operand really gives.",
            ),
            Mask::XrstorExtent => (
                "xrstor-extent",
                "Faults of XRSTOR by pages, by a segment's limit or by an address that is not \
                 canonical, inside the largest area, in components that it initializes rather \
                 than loads: the processor may access all of the area (observed on Zen 3 and \
                 Zen 5, limits on Zen 5; SDM vol. 1, section 13.8).",
            ),
            Mask::MxcsrMask => (
                "mxcsr-mask",
                "MXCSR.MM, bit 17 (the misaligned exception mask of AMD's processors), which guests \
                 are not offered: in the MXCSR_MASK that FXSAVE and XSAVE store, and where LDMXCSR, \
                 FXRSTOR or XRSTOR sets it.",
            ),
            Mask::ReservedPrefix => (
                "reserved-prefix",
                "Whether LOOPE and LOOPNE with a repeat prefix branch, and whether CLZERO with one is \
                 undefined: reserved uses, with unpredictable results (SDM vol. 2A, section 2.1.1).",
            ),
            Mask::CanonicalOffset => (
                "canonical-offset",
                "#GP against #PF or #AC, for an operand with FS or GS whose offset is not \
                 canonical but whose linear address is, in any of its bytes or, under a mask, of \
                 those of the element that faults: observed on Zen 3 and Zen 5 alone. The SDM (vol. \
                 1, section 3.3.7.1) wants the linear address canonical, which is what the engines \
                 check.",
            ),
            Mask::ProcessorNumber => (
                "processor-number",
                "The limit that LSL loads of the GDT's entry 15: Linux keeps the number of the \
                 processor there (arch/x86/include/asm/segment.h, GDT_ENTRY_CPUNODE), and a case may \
                 run on any.",
            ),
            Mask::X87Pointers => (
                "x87-pointers",
                "FOP, FIP and FDP on AMD's processors, which save and restore them only while an \
                 unmasked x87 exception is pending (Linux knows it as X86_BUG_FXSAVE_LEAK): they are \
                 compared where the signal frame holds them. In the images that FNSTENV, FNSAVE, \
                 FXSAVE and XSAVE write they are compared on AMD's processors with XSAVEERPTR, which \
                 load them always, but for the 16-bit format of FNSTENV and FNSAVE and where a switch \
                 of processes may have cleared them. Of 64-bit pointers, \
                 48 bits: Zen 5 keeps 57. FCS and FDS are deprecated, and the signal frame does not have \
                 them (SDM vol. 1, section 8.1.8).",
            ),
        }
    }

    /// The mask with this name.
    pub fn by_name(name: &str) -> Option<Mask> {
        Mask::ALL.into_iter().find(|mask| mask.name() == name)
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of masks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Masks(u32);

impl Masks {
    /// None of them.
    pub const NONE: Masks = Masks(0);

    /// Adds one.
    pub fn insert(&mut self, mask: Mask) {
        self.0 |= 1 << mask as u32;
    }

    /// Whether it is in the set.
    pub fn contains(self, mask: Mask) -> bool {
        self.0 >> mask as u32 & 1 != 0
    }

    /// The members.
    pub fn iter(self) -> impl Iterator<Item = Mask> {
        Mask::ALL.into_iter().filter(move |&mask| self.contains(mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mask_has_its_name_and_source() {
        for (number, mask) in Mask::ALL.into_iter().enumerate() {
            assert_eq!(mask as usize, number);
            assert_eq!(Mask::by_name(mask.name()), Some(mask));
            assert!(mask.source().len() > 40, "{mask}");
        }
    }
}
