//! What relies on the translation of an instruction page, by page, so that a change of mappings
//! costs what it undoes and no more.

use hashbrown::HashMap;
use softmmu::MappingChanges;

/// The change after which no translation of an address holds.
pub(crate) fn everything() -> MappingChanges {
    MappingChanges { everything: true, ..MappingChanges::default() }
}

/// Items by the linear page that they rely on.
#[derive(Debug)]
pub(crate) struct ByPage<T> {
    local: HashMap<u64, Vec<T>>,
    global: HashMap<u64, Vec<T>>,
    added: usize,
}

impl<T> Default for ByPage<T> {
    fn default() -> ByPage<T> {
        ByPage { local: HashMap::new(), global: HashMap::new(), added: 0 }
    }
}

impl<T> ByPage<T> {
    /// Adds an item that relies on the page of `linear`. Global pages stay when CR3 changes.
    pub(crate) fn insert(&mut self, linear: u64, global: bool, item: T) {
        let map = if global { &mut self.global } else { &mut self.local };
        map.entry(linear & !0xFFF).or_default().push(item);
        self.added += 1;
    }

    /// Items that were added since all were taken out. Those that are of no use any more stay until
    /// their page changes: an owner that may add without end takes all of them out at times.
    pub(crate) fn added(&self) -> usize {
        self.added
    }

    /// Takes out the items whose page may have changed and gives each to `drop`.
    pub(crate) fn take(&mut self, changes: &MappingChanges, mut drop: impl FnMut(T)) {
        if changes.everything {
            self.added = 0;
            self.global.drain().for_each(|(_, items)| items.into_iter().for_each(&mut drop));
        }
        if changes.everything || changes.not_global {
            self.local.drain().for_each(|(_, items)| items.into_iter().for_each(&mut drop));
        }
        for &(start, size) in &changes.regions {
            for map in [&mut self.local, &mut self.global] {
                if map.is_empty() {
                    continue;
                }
                if size == 0x1000 {
                    map.remove(&start).into_iter().flatten().for_each(&mut drop);
                    continue;
                }
                let inside = |page: &u64, _: &mut Vec<T>| page & !(size - 1) == start;
                map.extract_if(inside).for_each(|(_, items)| items.into_iter().for_each(&mut drop));
            }
        }
    }
}
