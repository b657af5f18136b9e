//! The process-wide cache of thunks, by what they execute.

use crate::arena::Arena;
use crate::facts::{Facts, facts, is_candidate};
use crate::recovery;
use crate::thunk::Thunk;
use decoder::Insn;
use hashbrown::HashMap;
use iced_x86::{Encoder, Register};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Thunks kept. A guest could make more distinct instructions than this; they run through one
/// slot that is emitted anew for each execution.
const MAX_THUNKS: usize = 1 << 16;
/// Handle of an instruction beyond [`MAX_THUNKS`].
const UNCACHED: usize = usize::MAX;
/// Room for the code of one thunk; the longest take about 300 bytes.
const TRANSIENT_SIZE: usize = 1024;

/// Thunks by handle; entry 0 stays empty.
static THUNKS: [AtomicPtr<Thunk>; MAX_THUNKS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_THUNKS];

#[derive(Default)]
struct Index {
    by_key: HashMap<Key, usize>,
    /// Address of the code of uncached thunks, once there is any thunk.
    transient: Option<u64>,
}

static INDEX: LazyLock<Mutex<Index>> = LazyLock::new(Mutex::default);

/// What a thunk executes: the instruction's bytes with operands replaced, and what was replaced.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    bytes: [u8; 15],
    len: u8,
    rsp_as: u8,
}

/// How an instruction is executed on the host.
#[derive(Clone, Copy, Debug)]
pub enum Prepared {
    /// By this thunk.
    Cached(&'static Thunk),
    /// The cache is full: see [`run_uncached`].
    Uncached,
}

/// The handle for [`thunk`] of an instruction, to be kept in [`Insn::handle`]; 0 where it is not
/// an instruction for a thunk, or one that the host does not have.
pub fn prepare(insn: &Insn) -> usize {
    if !is_candidate(insn.code) {
        return 0;
    }
    facts(insn).map_or(0, |facts| insert(&facts).unwrap_or(0))
}

/// The thunk of a handle that [`prepare`] gave.
#[inline(always)]
pub fn thunk(handle: usize) -> Option<Prepared> {
    if handle >= MAX_THUNKS {
        return (handle == UNCACHED).then_some(Prepared::Uncached);
    }
    let pointer = THUNKS[handle].load(Ordering::Acquire);
    // SAFETY: entries are null or lead to thunks that were leaked.
    unsafe { pointer.as_ref() }.map(Prepared::Cached)
}

/// Lends the thunk of an instruction that found no room in the cache to `use_thunk`, and returns
/// what that returns; nothing if there is no such thunk.
pub fn run_uncached<R>(insn: &Insn, use_thunk: impl FnOnce(&Thunk) -> R) -> Option<R> {
    let facts = facts(insn)?;
    let arena = Arena::get().ok()?;
    let index = INDEX.lock().unwrap_or_else(PoisonError::into_inner);
    let address = index.transient?;
    let (thunk, bytes) = Thunk::emit(&facts, address)?;
    if bytes.len() > TRANSIENT_SIZE {
        return None;
    }
    arena.rewrite(address, &bytes);
    // The lock is held meanwhile: the slot is this thread's.
    let result = use_thunk(&thunk);
    drop(index);
    Some(result)
}

fn insert(facts: &Facts) -> Option<usize> {
    recovery::install().ok()?;
    let key = key(facts)?;
    let mut index = INDEX.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(&handle) = index.by_key.get(&key) {
        return Some(handle);
    }
    let handle = index.by_key.len() + 1;
    if handle >= MAX_THUNKS {
        return Some(UNCACHED);
    }
    let arena = Arena::get().ok()?;
    if index.transient.is_none() {
        // Reserved before the arena can be full.
        index.transient = Some(arena.append(|_| vec![0xCC; TRANSIENT_SIZE]).ok()?);
    }
    let mut made = None;
    let appended = arena.append(|address| match Thunk::emit(facts, address) {
        Some((thunk, bytes)) => {
            made = Some(thunk);
            bytes
        }
        None => Vec::new(),
    });
    if appended.is_err() {
        return Some(UNCACHED);
    }
    THUNKS[handle].store(Box::leak(Box::new(made?)), Ordering::Release);
    index.by_key.insert(key, handle);
    Some(handle)
}

fn key(facts: &Facts) -> Option<Key> {
    let mut encoder = Encoder::new(64);
    encoder.encode(&facts.with_memory_at(Register::RSI, 0), 0).ok()?;
    let encoded = encoder.take_buffer();
    let mut bytes = [0; 15];
    bytes.get_mut(..encoded.len())?.copy_from_slice(&encoded);
    Some(Key { bytes, len: encoded.len() as u8, rsp_as: facts.rsp_as.unwrap_or(0xFF) })
}

#[cfg(test)]
mod survival;
#[cfg(test)]
mod tests;
