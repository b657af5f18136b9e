//! The word that pulls a vCPU out of guest code.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::low::{LowBox, LowError};

/// A set of reasons to leave guest code, set by other threads and polled at block entries. It
/// lies below 2 GiB, so that translated code tests it by absolute address.
#[derive(Debug)]
pub struct ExitRequest(LowBox<AtomicU32>);

impl ExitRequest {
    /// An interrupt may be deliverable: the interrupt line changed.
    pub const INTERRUPT: u32 = 1 << 0;
    /// The machine wants the vCPU's thread for something else (stop, reset, snapshot).
    pub const KICK: u32 = 1 << 1;
    /// Another vCPU or a device changed which pages hold code: `Mmu::sync_code_pages`.
    pub const CODE: u32 = 1 << 2;

    /// A non-maskable interrupt waits until the CPU does not block it.
    pub const NMI: u32 = 1 << 3;

    /// A word without requests.
    pub fn new() -> Result<ExitRequest, LowError> {
        Ok(ExitRequest(LowBox::new(AtomicU32::new(0))?))
    }
    /// Adds the reasons in `bits`.
    pub fn set(&self, bits: u32) {
        self.0.fetch_or(bits, Ordering::Release);
    }
    /// Takes the reasons in `bits` away and returns what was set before.
    pub fn clear(&self, bits: u32) -> u32 {
        self.0.fetch_and(!bits, Ordering::AcqRel)
    }
    /// The reasons that are set.
    #[inline(always)]
    pub fn load(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
    /// The host address of the word, below 2 GiB.
    pub fn address(&self) -> u32 {
        self.0.address()
    }
}
