//! Changes over a medium that is only read: what `snapshot=on` gives.
//!
//! They are kept in a temporary file without a name, at the offsets that they have on the medium,
//! so that a guest that writes a lot fills a disk and not the host's memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{BlockDevice, check_range};

/// Bytes kept together.
const CLUSTER: u64 = 4096;

/// The overlay. Dropped, the changes are gone.
pub struct Overlay {
    base: Box<dyn BlockDevice>,
    changes: File,
    /// Which clusters are in `changes`: a bit each, 64 to a word.
    present: BTreeMap<u64, u64>,
}

impl Overlay {
    /// An overlay without changes.
    ///
    /// # Errors
    /// If the host's directory for temporary files takes none.
    pub fn new(base: Box<dyn BlockDevice>) -> io::Result<Self> {
        Ok(Self { base, changes: tempfile::tempfile()?, present: BTreeMap::new() })
    }

    /// Bytes of the cluster at `start` that the medium has.
    fn cluster_len(&self, start: u64) -> usize {
        self.base.size().saturating_sub(start).min(CLUSTER) as usize
    }

    fn has(&self, start: u64) -> bool {
        let index = start / CLUSTER;
        self.present.get(&(index / 64)).is_some_and(|word| word >> (index % 64) & 1 != 0)
    }
}

/// The pieces of `len` bytes from `offset` in clusters: cluster start, offset into it, offset into
/// the data, length.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done as u64;
        let inside = (at % CLUSTER) as usize;
        let count = (CLUSTER as usize - inside).min(len - done);
        let piece = (at - inside as u64, inside, done, count);
        done += count;
        Some(piece)
    })
}

impl BlockDevice for Overlay {
    fn size(&self) -> u64 {
        self.base.size()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        check_range(self.size(), offset, data.len())?;
        for (start, inside, at, count) in pieces(offset, data.len()) {
            let Some(target) = data.get_mut(at..at + count) else { break };
            if self.has(start) {
                self.changes.read_exact_at(target, start + inside as u64)?;
            } else {
                self.base.read_at(start + inside as u64, target)?;
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        check_range(self.size(), offset, data.len())?;
        for (start, inside, at, count) in pieces(offset, data.len()) {
            let Some(source) = data.get(at..at + count) else { break };
            if self.has(start) {
                self.changes.write_all_at(source, start + inside as u64)?;
                continue;
            }
            let mut cluster = vec![0; self.cluster_len(start)];
            if count < cluster.len() {
                self.base.read_at(start, &mut cluster)?;
            }
            if let Some(target) = cluster.get_mut(inside..inside + count) {
                target.copy_from_slice(source);
            }
            self.changes.write_all_at(&cluster, start)?;
            let index = start / CLUSTER;
            *self.present.entry(index / 64).or_default() |= 1 << (index % 64);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Nothing outlives the process.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_overlay_behaves_as_its_medium_would(
            operations in prop::collection::vec(
                (any::<bool>(), 0u64..10_500, prop::collection::vec(any::<u8>(), 0..6000)), 0..20),
        ) {
            let base: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
            let mut plain = base.clone();
            let mut overlay = Overlay::new(Box::new(base)).unwrap();
            for (write, offset, mut data) in operations {
                if write {
                    let done = overlay.write_at(offset, &data).is_ok();
                    prop_assert_eq!(done, plain.write_at(offset, &data).is_ok());
                } else {
                    let done = overlay.read_at(offset, &mut data).is_ok();
                    let mut expected = data.clone();
                    prop_assert_eq!(done, plain.read_at(offset, &mut expected).is_ok());
                    prop_assert_eq!(&data, &expected);
                }
            }
        }
    }
}
