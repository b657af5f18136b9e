//! Executable memory. Never writable and executable at one address: a memfd is mapped twice.

use crate::executable::{self, serialize};
use memmap2::{Mmap, MmapMut, MmapOptions};
use std::fs::File;
use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};
use thiserror::Error;

/// Size of the arena in bytes. Pages are allocated when first written.
const ARENA_SIZE: usize = 32 << 20;

/// Why instructions cannot be executed on the host.
#[derive(Debug, Error)]
pub enum NativeError {
    /// The kernel refused memory.
    #[error("cannot map executable memory ({step}): {source}; is memfd or PROT_EXEC forbidden?")]
    Map {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Nothing is free below 2 GiB.
    #[error("the host has no memory free below 2 GiB")]
    LowMemory,
    /// The arena's space is used up.
    #[error("the executable arena of {ARENA_SIZE} bytes is full")]
    Full,
}

/// The process-wide arena: append-only code.
pub(crate) struct Arena {
    code: Mmap,
    writer: Mutex<Writer>,
}

struct Writer {
    view: MmapMut,
    used: usize,
}

impl Arena {
    /// The arena, made on first use.
    pub(crate) fn get() -> Result<&'static Arena, &'static NativeError> {
        static ARENA: OnceLock<Result<Arena, NativeError>> = OnceLock::new();
        ARENA.get_or_init(|| Arena::new(ARENA_SIZE)).as_ref()
    }

    fn new(size: usize) -> Result<Arena, NativeError> {
        let fail = |step| move |e: rustix::io::Errno| NativeError::Map { step, source: e.into() };
        let file = executable::file("ringshift-native", size).map_err(fail("memfd"))?;
        let file = File::from(file);
        let map = |step| move |source| NativeError::Map { step, source };
        // SAFETY: the file is private to this process and is not resized.
        let code = unsafe { MmapOptions::new().len(size).map_exec(&file) }
            .map_err(map("mmap of the executable view"))?;
        // SAFETY: as above. The two views alias, but no reference is ever made to the bytes of
        // `code`: it is only executed.
        let view = unsafe { MmapOptions::new().len(size).map_mut(&file) }
            .map_err(map("mmap of the writable view"))?;
        Ok(Arena { code, writer: Mutex::new(Writer { view, used: 0 }) })
    }

    /// Addresses that code of this arena has.
    pub(crate) fn addresses(&self) -> Range<u64> {
        let start = self.code.as_ptr() as u64;
        start..start + self.code.len() as u64
    }

    /// Appends code. `emit` is told the address at which the code will run, a multiple of 16.
    pub(crate) fn append(
        &self,
        emit: impl FnOnce(u64) -> Vec<u8>,
    ) -> Result<u64, &'static NativeError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let start = writer.used.next_multiple_of(16);
        let address = self.addresses().start + start as u64;
        let bytes = emit(address);
        let end = start + bytes.len();
        if end > writer.view.len() {
            return Err(&NativeError::Full);
        }
        writer.view[start..end].copy_from_slice(&bytes);
        writer.used = end;
        Ok(address)
    }

    /// Replaces code that no thread is executing. The caller's thread may then execute it; for
    /// others a [`serialize`] of their own is needed.
    pub(crate) fn rewrite(&self, address: u64, bytes: &[u8]) {
        let start = (address - self.addresses().start) as usize;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.view[start..start + bytes.len()].copy_from_slice(bytes);
        drop(writer);
        serialize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_code_runs_and_can_be_rewritten() {
        let arena = Arena::get().expect("arena");
        // mov eax, 7; ret
        let address = arena.append(|_| vec![0xB8, 7, 0, 0, 0, 0xC3]).expect("room");
        assert_eq!(address % 16, 0);
        // SAFETY: the code is a complete function of this signature.
        let f: extern "sysv64" fn() -> u32 = unsafe { std::mem::transmute(address) };
        assert_eq!(f(), 7);
        arena.rewrite(address, &[0xB8, 9]);
        assert_eq!(f(), 9);
    }
}
