//! Changes in memory over a medium that is only read: what `snapshot=on` gives.

use std::collections::BTreeMap;
use std::io;

use super::{BlockDevice, check_range};

/// Bytes kept together.
const CLUSTER: u64 = 4096;

/// The overlay. Dropped, the changes are gone.
pub struct Overlay {
    base: Box<dyn BlockDevice>,
    clusters: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    /// An overlay without changes.
    pub fn new(base: Box<dyn BlockDevice>) -> Self {
        Self { base, clusters: BTreeMap::new() }
    }

    /// Bytes of the cluster at `start` that the medium has.
    fn cluster_len(&self, start: u64) -> usize {
        self.base.size().saturating_sub(start).min(CLUSTER) as usize
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
            match self.clusters.get(&start).and_then(|c| c.get(inside..inside + count)) {
                Some(source) => target.copy_from_slice(source),
                None => self.base.read_at(start + inside as u64, target)?,
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        check_range(self.size(), offset, data.len())?;
        for (start, inside, at, count) in pieces(offset, data.len()) {
            if !self.clusters.contains_key(&start) {
                let mut cluster = vec![0; self.cluster_len(start)];
                self.base.read_at(start, &mut cluster)?;
                self.clusters.insert(start, cluster);
            }
            let cluster = self.clusters.get_mut(&start);
            if let (Some(target), Some(source)) =
                (cluster.and_then(|c| c.get_mut(inside..inside + count)), data.get(at..at + count))
            {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
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
            let mut overlay = Overlay::new(Box::new(base));
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
