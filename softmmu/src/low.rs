//! Memory at host addresses below 2 GiB.
//!
//! Translated code addresses the vCPU's state and its TLB by a sign-extended 32-bit
//! displacement, without a base register, so these must lie in the lowest 2 GiB of the host
//! process.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use thiserror::Error;

/// First address that a 32-bit displacement does not reach.
pub const LOW_LIMIT: u64 = 1 << 31;

/// `MAP_32BIT`, which rustix does not name (Linux include/uapi/asm/mman.h).
const MAP_32BIT: u32 = 0x40;

/// Why low memory could not be had.
#[derive(Debug, Error)]
pub enum LowError {
    /// The kernel refused the mapping.
    #[error("cannot map {size} bytes below 2 GiB: {source}")]
    Map {
        /// Bytes asked for.
        size: usize,
        /// The kernel's answer.
        source: rustix::io::Errno,
    },
    /// The kernel ignored the placement.
    #[error("the host placed {size} bytes at {address:#x}, translated code needs them below 2 GiB")]
    TooHigh {
        /// Bytes asked for.
        size: usize,
        /// Where they were placed.
        address: u64,
    },
}

/// A value in its own pages below 2 GiB.
pub struct LowBox<T> {
    value: NonNull<T>,
    owns: PhantomData<T>,
}

// SAFETY: a LowBox owns its value like a Box does.
unsafe impl<T: Send> Send for LowBox<T> {}
// SAFETY: shared access to a LowBox only gives shared access to its value.
unsafe impl<T: Sync> Sync for LowBox<T> {}

impl<T> LowBox<T> {
    /// Moves `value` to low memory.
    pub fn new(value: T) -> Result<LowBox<T>, LowError> {
        let pages = Self::map()?;
        // SAFETY: the mapping is fresh, writable, large enough and page-aligned.
        unsafe { pages.as_ptr().write(value) };
        Ok(LowBox { value: pages, owns: PhantomData })
    }

    /// A value whose bytes are all zero.
    ///
    /// # Safety
    /// All-zero bytes must be a valid `T`.
    pub unsafe fn zeroed() -> Result<LowBox<T>, LowError> {
        Ok(LowBox { value: Self::map()?, owns: PhantomData })
    }

    fn map() -> Result<NonNull<T>, LowError> {
        const { assert!(align_of::<T>() <= 4096) };
        let size = size_of::<T>().max(1);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::from_bits_retain(MAP_32BIT);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
        let address = unsafe {
            mmap_anonymous(ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, flags)
        }
        .map_err(|source| LowError::Map { size, source })?;
        let end = address as u64 + size as u64;
        match NonNull::new(address.cast::<T>()) {
            Some(value) if end <= LOW_LIMIT => Ok(value),
            _ => {
                // SAFETY: the mapping was made above and nothing refers to it.
                let _ = unsafe { munmap(address, size) };
                Err(LowError::TooHigh { size, address: address as u64 })
            }
        }
    }

    /// The host address, below 2 GiB.
    pub fn address(&self) -> u32 {
        self.value.as_ptr() as usize as u32
    }

    /// The value as a raw pointer, valid while the box lives.
    pub fn as_ptr(&self) -> *mut T {
        self.value.as_ptr()
    }
}

impl<T> Deref for LowBox<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the pointer is valid and initialised for the life of the box.
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for LowBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`; `&mut self` makes the access exclusive.
        unsafe { self.value.as_mut() }
    }
}

impl<T> Drop for LowBox<T> {
    fn drop(&mut self) {
        let value = self.value.as_ptr();
        // SAFETY: the box owns the value and its mapping, and neither is used afterwards.
        unsafe {
            ptr::drop_in_place(value);
            let _ = munmap(value.cast::<c_void>(), size_of::<T>().max(1));
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for LowBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lies_below_2_gib_and_keeps_its_value() {
        let mut boxed = LowBox::new([7u64; 3000]).expect("low memory");
        assert!(u64::from(boxed.address()) + 3000 * 8 <= LOW_LIMIT);
        assert_eq!(boxed.address() % 4096, 0);
        boxed[2999] = 9;
        assert_eq!((boxed[0], boxed[2999]), (7, 9));
    }

    #[test]
    fn drops_its_value_once() {
        let shared = std::sync::Arc::new(());
        drop(LowBox::new(shared.clone()).expect("low memory"));
        assert_eq!(std::sync::Arc::strong_count(&shared), 1);
    }
}
