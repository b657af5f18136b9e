//! How a device reaches guest memory by itself.

use std::sync::{Arc, Mutex};

use crate::bus::lock;

/// Guest-physical memory as a bus master sees it: RAM only. The implementation also tells whoever
/// caches code of the pages that were written.
pub trait DmaMemory: Send + Sync {
    /// Fills `data` from guest-physical address `address`. `false`, with `data` all-ones, when part
    /// of the range is not RAM.
    fn read(&self, address: u64, data: &mut [u8]) -> bool;

    /// Stores `data` at guest-physical address `address`. `false`, with nothing stored, when part of
    /// the range is not RAM.
    fn write(&self, address: u64, data: &[u8]) -> bool;
}

/// Plain bytes from address 0: the test's guest memory.
#[derive(Debug, Default)]
pub struct ProbeMemory(pub Mutex<Vec<u8>>);

impl ProbeMemory {
    /// `len` zero bytes.
    pub fn new(len: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(vec![0; len])))
    }
}

fn range(address: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(address).ok()?;
    Some(start..start.checked_add(len)?)
}

impl DmaMemory for ProbeMemory {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let bytes = lock(&self.0);
        match range(address, data.len()).and_then(|range| bytes.get(range)) {
            Some(source) => {
                data.copy_from_slice(source);
                true
            }
            None => {
                data.fill(0xff);
                false
            }
        }
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        let mut bytes = lock(&self.0);
        match range(address, data.len()).and_then(|range| bytes.get_mut(range)) {
            Some(target) => {
                target.copy_from_slice(data);
                true
            }
            None => false,
        }
    }
}
