//! The inline caches of indirect branches: for each key a table that translated code probes with
//! the target.
//!
//! A target is known by its tag: RIP, with the number of the code segment above it. The index is
//! taken from the linear address, which is RIP on flat segments.

use crate::cache::Place;
use crate::key::Key;
use crate::pages::{ByPage, everything};
use hashbrown::HashMap;
use softmmu::{LowBox, LowError, MappingChanges};

/// Entries of a table; the index is the low 16 bits of the linear address.
const ENTRIES: usize = 1 << 16;
/// Bytes of a table.
pub(crate) const TABLE_SIZE: usize = ENTRIES * size_of::<Entry>();

/// Tables before everything is dropped. A system uses a dozen; a guest that loads every kind of
/// segment into every register would have thousands.
const MAX_TABLES: usize = 48;

/// Targets entered in a table, those that were overwritten included, before it is emptied.
const MAX_ENTERED: usize = 2 * ENTRIES;

/// A target and the code of its block, entered with flags in the slot.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    tag: u64,
    code: u64,
}

struct Table {
    entries: LowBox<[Entry; ENTRIES]>,
    /// Tags that were entered, and where.
    used: ByPage<(u64, u16)>,
}

/// A tag that is no target's: on flat segments the index is a part of the tag, and the number of
/// other segments is not zero.
fn absent(index: usize) -> u64 {
    if index == 0 { 1 } else { 0 }
}

impl Table {
    fn new() -> Result<Table, LowError> {
        // SAFETY: integers may be zero.
        let entries = unsafe { LowBox::<[Entry; ENTRIES]>::zeroed()? };
        let mut table = Table { entries, used: ByPage::default() };
        table.clear(0);
        Ok(table)
    }

    fn clear(&mut self, index: usize) {
        self.entries[index] = Entry { tag: absent(index), code: 0 };
    }

    fn remove(&mut self, tag: u64, index: u16) {
        let index = usize::from(index);
        if self.entries[index].tag == tag {
            self.clear(index);
        }
    }

    fn purge(&mut self, changes: &MappingChanges) {
        let mut used = std::mem::take(&mut self.used);
        used.take(changes, |(tag, index)| self.remove(tag, index));
        self.used = used;
    }

    fn insert(&mut self, (tag, index): (u64, u16), linear: u64, global: bool, code: u64) {
        if self.entries[usize::from(index)].tag != tag {
            if self.used.added() >= MAX_ENTERED {
                self.purge(&everything());
            }
            self.used.insert(linear, global, (tag, index));
        }
        self.entries[usize::from(index)] = Entry { tag, code };
    }
}

/// All tables of an engine.
#[derive(Default)]
pub(crate) struct IndirectCache {
    tables: HashMap<Key, Table>,
}

impl IndirectCache {
    /// Whether there is a table for `key`, or room for it and some more.
    pub(crate) fn has_room(&self, key: Key) -> bool {
        self.tables.len() < MAX_TABLES || self.tables.contains_key(&key)
    }

    /// Drops the tables themselves. No code may be left that knows their addresses.
    pub(crate) fn drop_tables(&mut self) {
        self.tables.clear();
    }

    /// The address of the table for `key`, made on first use.
    pub(crate) fn address(&mut self, key: Key) -> Result<i32, LowError> {
        if let Some(table) = self.tables.get(&key) {
            return Ok(table.entries.address() as i32);
        }
        let table = Table::new()?;
        let address = table.entries.address() as i32;
        self.tables.insert(key, table);
        Ok(address)
    }

    /// The addresses of all tables.
    pub(crate) fn addresses(&self) -> Vec<i32> {
        self.tables.values().map(|table| table.entries.address() as i32).collect()
    }

    /// Enters a target; its page may be a global one.
    pub(crate) fn insert(&mut self, place: &Place, global: bool, code: u64) {
        let Some(table) = self.tables.get_mut(&place.key) else { return };
        table.insert((place.tag(), place.linear as u16), place.linear, global, code);
    }

    /// The address of the table for `key`, and the code for the target of this tag and linear
    /// address, if it is there.
    pub(crate) fn probe(&self, key: Key, tag: u64, linear: u64) -> Option<(u64, u64)> {
        let table = self.tables.get(&key)?;
        let entry = &table.entries[linear as usize & (ENTRIES - 1)];
        (entry.tag == tag).then_some((u64::from(table.entries.address()), entry.code))
    }

    /// Drops one target.
    pub(crate) fn remove(&mut self, place: &Place) {
        if let Some(table) = self.tables.get_mut(&place.key) {
            table.remove(place.tag(), place.linear as u16);
        }
    }

    /// Drops the targets whose translation may have changed.
    pub(crate) fn purge(&mut self, changes: &MappingChanges) {
        for table in self.tables.values_mut() {
            table.purge(changes);
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.purge(&everything());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_that_take_turns_do_not_pile_up() {
        let mut cache = IndirectCache::default();
        let key = Key::default();
        cache.address(key).unwrap();
        let place = |linear| Place { rip: linear, gpa: linear & 0xFFFF, linear, key, segment: 0 };
        let (stays, first, second) = (place(0x5000), place(0x1_2340), place(0x2_2340));
        cache.insert(&stays, false, 5);
        for round in 0..3 * MAX_ENTERED as u64 {
            cache.insert(if round & 1 == 0 { &first } else { &second }, round & 2 == 0, round);
        }
        let table = &cache.tables[&key];
        assert!(table.used.added() <= MAX_ENTERED);
        let code = |cache: &IndirectCache, place: &Place| {
            cache.probe(key, place.tag(), place.linear).map(|(_, code)| code)
        };
        assert_eq!(code(&cache, &second), Some(3 * MAX_ENTERED as u64 - 1));
        assert_eq!((code(&cache, &first), code(&cache, &stays)), (None, None));
        cache.clear();
        assert_eq!(code(&cache, &second), None);
    }
}
