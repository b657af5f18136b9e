//! Where everything lies: the one map of the guest's memory.
//!
//! | physical address | holds |
//! |---|---|
//! | `0x0_0000` | the real-mode interrupt vector table |
//! | `0x0_0600` | the counters of checks, which every mode reaches |
//! | `0x0_7C00` | the top of the real-mode stack |
//! | `0x0_8000` | the 16-bit section, once copied there |
//! | `0x1_0000` | a scratch segment for real mode |
//! | `0x10_0000` | the Multiboot image: 32-bit, 16-bit, 64-bit and user sections |
//! | `0x20_0000` | page tables |
//! | `0x22_0000` | stacks |
//! | `0x23_0000` | address spaces and frames of the user programs |
//! | `0x30_0000` | the work area of the computations |
//!
//! In long mode the first GiB of physical memory also appears at [`KERNEL_BASE`], and the kernel
//! runs there, out of the way of user programs.

/// The environment a section's code runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Real mode (and virtual-8086 mode): 16-bit code, segment bases of 0.
    Real,
    /// Protected mode: 32-bit code, flat segments.
    Protected,
    /// Long mode, ring 0.
    Kernel,
    /// 64-bit mode, ring 3: reports by system call.
    User,
    /// Compatibility mode, ring 3: 32-bit code under long mode.
    Compatibility,
}

impl Mode {
    /// Default operand and address size of the code, bits (64 stands for 64-bit mode).
    pub(crate) fn bitness(self) -> u32 {
        match self {
            Mode::Real => 16,
            Mode::Protected | Mode::Compatibility => 32,
            Mode::Kernel | Mode::User => 64,
        }
    }

    /// Where this mode sees a physical address of the first MiB.
    pub(crate) fn low_memory(self, physical: u64) -> u64 {
        match self {
            Mode::Real | Mode::Protected => physical,
            Mode::Kernel | Mode::User | Mode::Compatibility => KERNEL_BASE + physical,
        }
    }
}

/// One section of the image.
#[derive(Debug)]
pub(crate) struct Section {
    /// First part of its symbols' names.
    pub(crate) name: &'static str,
    /// What its code is assembled for.
    pub(crate) mode: Mode,
    /// Physical address it is loaded at.
    pub(crate) load: u64,
    /// Linear address it runs at.
    pub(crate) origin: u64,
    /// Room for it, bytes.
    pub(crate) size: usize,
}

/// The sections, in the order of their load addresses.
pub(crate) static SECTIONS: [Section; 5] = [
    Section {
        name: "protected",
        mode: Mode::Protected,
        load: LOAD_BASE,
        origin: LOAD_BASE,
        size: 0x4000,
    },
    Section { name: "real", mode: Mode::Real, load: 0x10_4000, origin: 0x8000, size: 0x4000 },
    Section {
        name: "kernel",
        mode: Mode::Kernel,
        load: 0x10_8000,
        origin: KERNEL_BASE + 0x10_8000,
        size: 0x8000,
    },
    Section { name: "user", mode: Mode::User, load: 0x11_0000, origin: USER_CODE, size: 0x3000 },
    Section {
        name: "compatibility",
        mode: Mode::Compatibility,
        load: 0x11_3000,
        origin: USER_CODE + 0x3000,
        size: 0x1000,
    },
];

/// Start of the Multiboot image, physical.
pub(crate) const LOAD_BASE: u64 = 0x10_0000;
/// End of the Multiboot image, physical.
pub(crate) const LOAD_END: u64 = 0x11_4000;
/// End of the memory the guest uses, physical: 4 MiB suffice.
pub(crate) const MEMORY_END: u64 = 0x40_0000;

/// Where long mode sees physical address 0: the last 2 GiB, so that code may use 32-bit
/// sign-extended addresses, as Linux's does.
pub(crate) const KERNEL_BASE: u64 = 0xFFFF_FFFF_8000_0000;

/// Checks that passed, doubleword.
pub(crate) const CHECKS_PASSED: u64 = 0x600;
/// Checks that failed, doubleword.
pub(crate) const CHECKS_FAILED: u64 = 0x604;
/// Checks left out because the processor does not offer what they check, doubleword.
pub(crate) const CHECKS_SKIPPED: u64 = 0x608;

/// Top of the real-mode stack: below where a BIOS would load a boot sector.
pub(crate) const REAL_STACK: u32 = 0x7C00;
/// Top of the virtual-8086 task's stack.
pub(crate) const VIRTUAL_8086_STACK: u32 = 0x7000;
/// A real-mode segment free for experiments.
pub(crate) const SCRATCH_SEGMENT: u32 = 0x1000;

// Page tables, one page each, physical.

/// Page directory of the 32-bit excursion into paging.
pub(crate) const PAGE_DIRECTORY_32: u64 = 0x20_0000;
/// The kernel's PML4.
pub(crate) const PML4: u64 = 0x20_1000;
/// Page-directory-pointer table of the identity map.
pub(crate) const PDPT_LOW: u64 = 0x20_2000;
/// Page-directory-pointer table of the last 512 GiB.
pub(crate) const PDPT_HIGH: u64 = 0x20_3000;
/// Page directory that maps the first GiB, by both of them.
pub(crate) const PAGE_DIRECTORY: u64 = 0x20_4000;
/// Page directory of the window.
pub(crate) const WINDOW_DIRECTORY: u64 = 0x20_5000;
/// Page table of the window.
pub(crate) const WINDOW_TABLE: u64 = 0x20_6000;
/// End of the page tables.
pub(crate) const TABLES_END: u64 = 0x20_7000;

/// Linear address of the window: 4 KiB pages for experiments with paging.
pub(crate) const WINDOW: u64 = 0xFFFF_FFFF_C000_0000;

// Tops of stacks, physical; each has a page or more below it.

/// Stack of protected mode.
pub(crate) const PROTECTED_STACK: u64 = 0x22_4000;
/// Stack for entries to ring 0, from virtual-8086 mode or ring 3.
pub(crate) const MONITOR_STACK: u64 = 0x22_8000;
/// Stack of the hardware task.
pub(crate) const HARDWARE_TASK_STACK: u64 = 0x22_9000;
/// Stack of ring 3 in protected mode.
pub(crate) const CALLER_STACK: u64 = 0x22_A000;
/// Stack of the 64-bit kernel.
pub(crate) const KERNEL_STACK: u64 = 0x22_C000;
/// Interrupt stack 1 of the IST.
pub(crate) const INTERRUPT_STACK: u64 = 0x22_D000;
/// Stack for entries from ring 3, while a single program runs.
pub(crate) const ENTRY_STACK: u64 = 0x22_E000;

/// The first user address space; each has [`SPACE_SIZE`] bytes of its own.
pub(crate) const SPACES: u64 = 0x23_0000;
/// Distance between address spaces, bytes.
pub(crate) const SPACE_SIZE: u64 = 0x8000;
/// Offsets in an address space: PML4, PDPT, directory and table come first.
pub(crate) const SPACE_DATA: u64 = 0x4000;
/// The frame of its stack.
pub(crate) const SPACE_STACK: u64 = 0x5000;
/// The frame for the page that is mapped on demand.
pub(crate) const SPACE_LAZY: u64 = 0x6000;
/// The kernel stack of its task (one page: this is its bottom).
pub(crate) const SPACE_KERNEL_STACK: u64 = 0x7000;

/// Two frames for experiments with paging, the second below the first in the window.
pub(crate) const FRAME_FIRST: u64 = 0x25_1000;
/// See [`FRAME_FIRST`].
pub(crate) const FRAME_SECOND: u64 = 0x25_0000;

/// The work area of the computations, 1 MiB.
pub(crate) const WORK_AREA: u64 = 0x30_0000;
/// Its size, bytes.
pub(crate) const WORK_SIZE: u64 = MEMORY_END - WORK_AREA;

// Linear addresses of a user program. All lie in one page table's 2 MiB.

/// Code, four pages shared by all programs, read-only.
pub(crate) const USER_CODE: u64 = 0x40_0000;
/// One page of data, writable, each program's own.
pub(crate) const USER_DATA: u64 = 0x41_0000;
/// One page of stack, writable, each program's own.
pub(crate) const USER_STACK: u64 = 0x42_0000;
/// One page that is mapped when it is first touched.
pub(crate) const USER_LAZY: u64 = 0x43_0000;
