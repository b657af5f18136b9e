//! Guest RAM, page walks and the software TLB.
//!
//! A vCPU reaches memory through its [`Mmu`]. A hit in the first-level TLB ([`tlb`]) costs a
//! tag compare and one host access; a miss asks the second level ([`second_level`]), then the
//! page walk ([`walk`]). Everything unusual (page crossings, device memory, pages that hold
//! translated code, ROM) happens on the slow path, because such pages never get a tag.

pub mod access;
pub mod bus;
pub mod code;
pub mod exit;
pub mod flush;
pub mod host;
pub mod low;
pub mod mapping;
pub mod mmu;
pub mod paging;
pub mod ram;
pub mod run;
pub mod second_level;
pub mod stale;
pub mod tlb;
pub mod trace;
pub mod walk;
pub mod width;

pub use bus::{MsrResult, NullBus, PhysBus};
pub use code::CodeWrite;
pub use exit::ExitRequest;
pub use flush::InvpcidKind;
pub use low::{LowBox, LowError};
pub use mapping::MappingChanges;
pub use mmu::{FetchPage, Mmu, MmuError, MmuStats};
pub use paging::{Access, PagingMode, PagingState, Rights};
pub use ram::{GuestRam, PageFlags, RamError, RamRange};
pub use stale::{StalePage, StaleUses};
pub use tlb::{TLB_ENTRIES, TlbEntry};
pub use trace::{WalkStep, WalkTrace};
pub use width::Width;

#[cfg(test)]
mod tests;
