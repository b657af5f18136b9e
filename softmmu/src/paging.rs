//! Paging state, and what a page's attributes permit (SDM vol. 3A, sections 4.1 and 4.6).

use x86::control::{cr0, cr4, efer};
use x86::fault::pf;

/// What is done with a linear address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Fetch,
}

/// On whose behalf an access is made. The value is the index of the TLB table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Rights {
    /// CPL 3.
    User = 0,
    /// Supervisor mode while SMAP keeps it from user pages: CR4.SMAP is set and either
    /// EFLAGS.AC is clear or the access is implicit.
    SupervisorSmap = 1,
    /// Supervisor mode without SMAP.
    Supervisor = 2,
}

impl Rights {
    /// All of them.
    pub const ALL: [Rights; 3] = [Rights::User, Rights::SupervisorSmap, Rights::Supervisor];
}

/// Paging modes (SDM vol. 3A, section 4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PagingMode {
    /// CR0.PG is clear: linear addresses are physical.
    None,
    /// 32-bit paging.
    Legacy32,
    /// PAE paging.
    Pae,
    /// 4-level paging.
    Level4,
    /// 5-level paging.
    Level5,
}

/// The registers that paging depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PagingState {
    /// CR0.
    pub cr0: u64,
    /// CR3, with the PCID under CR4.PCIDE and without bit 63.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// PKRU.
    pub pkru: u32,
    /// MAXPHYADDR, 36 to 52; 0 stands for 40.
    pub maxphyaddr: u8,
    /// CPUID does not offer pages of 1 GiB: PS is reserved in a PDPTE.
    pub without_1gib_pages: bool,
}

impl PagingState {
    /// The paging mode.
    pub fn mode(&self) -> PagingMode {
        if self.cr0 & cr0::PG == 0 {
            PagingMode::None
        } else if self.cr4 & cr4::PAE == 0 {
            PagingMode::Legacy32
        } else if self.efer & efer::LMA == 0 {
            PagingMode::Pae
        } else if self.cr4 & cr4::LA57 == 0 {
            PagingMode::Level4
        } else {
            PagingMode::Level5
        }
    }

    /// The current PCID; 0 while CR4.PCIDE is clear.
    pub fn pcid(&self) -> u16 {
        if self.cr4 & cr4::PCIDE != 0 { self.cr3 as u16 & 0xFFF } else { 0 }
    }
}

/// A translation: frame address in bits 12 to 51 and attributes combined over all levels.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Leaf(pub(crate) u64);

impl Leaf {
    pub(crate) const WRITABLE: u64 = 1 << 0;
    pub(crate) const USER: u64 = 1 << 1;
    pub(crate) const NO_EXECUTE: u64 = 1 << 2;
    pub(crate) const DIRTY: u64 = 1 << 3;
    pub(crate) const GLOBAL: u64 = 1 << 4;
    pub(crate) const LARGE: u64 = 1 << 5;
    pub(crate) const HUGE: u64 = 1 << 6;
    pub(crate) const KEY_SHIFT: u32 = 52;
    const FRAME: u64 = 0x000F_FFFF_FFFF_F000;

    /// A leaf without paging: everything is permitted.
    pub(crate) fn identity(frame: u64) -> Leaf {
        Leaf(frame & Self::FRAME | Self::WRITABLE | Self::USER | Self::DIRTY)
    }
    /// Physical address of the frame.
    pub fn frame(self) -> u64 {
        self.0 & Self::FRAME
    }
    /// R/W is set at every level.
    pub fn writable(self) -> bool {
        self.0 & Self::WRITABLE != 0
    }
    /// U/S is set at every level: a user-mode address.
    pub fn user(self) -> bool {
        self.0 & Self::USER != 0
    }
    /// XD is set at some level.
    pub fn no_execute(self) -> bool {
        self.0 & Self::NO_EXECUTE != 0
    }
    /// The dirty flag is set.
    pub fn dirty(self) -> bool {
        self.0 & Self::DIRTY != 0
    }
    /// The translation is global.
    pub fn global(self) -> bool {
        self.0 & Self::GLOBAL != 0
    }
    /// The protection key.
    pub fn key(self) -> u32 {
        (self.0 >> Self::KEY_SHIFT) as u32 & 15
    }
    /// log2 of the page size. 4 MiB pages count as two of 2 MiB.
    pub fn size_shift(self) -> u32 {
        if self.0 & Self::HUGE != 0 {
            30
        } else if self.0 & Self::LARGE != 0 {
            21
        } else {
            12
        }
    }
    /// The same translation for the 4 KiB page of `linear` in it.
    pub(crate) fn small(self, linear: u64) -> Leaf {
        let inside = linear & ((1 << self.size_shift()) - 1) & !0xFFF;
        Leaf((self.0 & !(Self::LARGE | Self::HUGE)) | inside)
    }
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flag = |on, name| if on { name } else { "-" };
        write!(
            f,
            "{:#x} 2^{} {}{}{}{}{} key {}",
            self.frame(),
            self.size_shift(),
            flag(self.writable(), "W"),
            flag(self.user(), "U"),
            flag(self.no_execute(), "N"),
            flag(self.dirty(), "D"),
            flag(self.global(), "G"),
            self.key()
        )
    }
}

/// [`PagingState`] with what is derived from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paging {
    pub(crate) state: PagingState,
    pub(crate) mode: PagingMode,
    /// Physical-address bits 51 to MAXPHYADDR.
    pub(crate) beyond_maxphyaddr: u64,
    /// Whether the fetch bit of the error code is meaningful.
    pub(crate) reports_fetch: bool,
    /// PKE in a mode that has protection keys.
    pub(crate) keys: bool,
    /// The page-directory-pointer-table registers of PAE paging.
    pub(crate) pdpte: [u64; 4],
}

impl Paging {
    pub(crate) fn new(state: PagingState) -> Paging {
        let mode = state.mode();
        let width = match state.maxphyaddr {
            0 => 40,
            width => u32::from(width).clamp(32, 52),
        };
        let has_nx = state.cr4 & cr4::PAE != 0 && state.efer & efer::NXE != 0;
        let long = matches!(mode, PagingMode::Level4 | PagingMode::Level5);
        Paging {
            state,
            mode,
            beyond_maxphyaddr: ((1u64 << 52) - 1) & !((1u64 << width) - 1),
            reports_fetch: has_nx || state.cr4 & cr4::SMEP != 0,
            keys: long && state.cr4 & cr4::PKE != 0,
            pdpte: [0; 4],
        }
    }

    /// The rights of an explicit access at `cpl` with EFLAGS.AC `ac`.
    pub(crate) fn rights(&self, cpl: u8, ac: bool) -> Rights {
        if cpl == 3 {
            Rights::User
        } else if self.state.cr4 & cr4::SMAP != 0 && !ac {
            Rights::SupervisorSmap
        } else {
            Rights::Supervisor
        }
    }

    /// The error-code bits that only say what was tried.
    pub(crate) fn attempt(&self, access: Access, rights: Rights) -> u32 {
        let user = if rights == Rights::User { pf::USER } else { 0 };
        user | match access {
            Access::Read => 0,
            Access::Write => pf::WRITE,
            Access::Fetch if self.reports_fetch => pf::FETCH,
            Access::Fetch => 0,
        }
    }

    /// Checks a present translation. `Err` is the page-fault error code.
    pub(crate) fn check(&self, leaf: Leaf, access: Access, rights: Rights) -> Result<(), u32> {
        if self.mode == PagingMode::None {
            return Ok(());
        }
        let user_mode = rights == Rights::User;
        let wp = self.state.cr0 & cr0::WP != 0;
        let mut allowed = leaf.user() || !user_mode;
        let mut code = 0;
        match access {
            Access::Fetch => {
                let smep = self.state.cr4 & cr4::SMEP != 0;
                allowed &= !leaf.no_execute();
                allowed &= user_mode || !leaf.user() || !smep;
            }
            Access::Read | Access::Write => {
                let write = access == Access::Write;
                allowed &= !(leaf.user() && rights == Rights::SupervisorSmap);
                allowed &= !write || leaf.writable() || !(user_mode || wp);
                if self.keys && leaf.user() {
                    let key = self.state.pkru >> (2 * leaf.key());
                    if key & 1 != 0 || (key & 2 != 0 && write && (user_mode || wp)) {
                        allowed = false;
                        code = pf::PROTECTION_KEY;
                    }
                }
            }
        }
        if allowed { Ok(()) } else { Err(code | pf::PRESENT | self.attempt(access, rights)) }
    }
}
