//! The inline caches of indirect branches: for each key a table that translated code probes with
//! the target RIP.

use crate::key::Key;
use crate::pages::ByPage;
use hashbrown::HashMap;
use softmmu::{LowBox, LowError, MappingChanges};

/// Entries of a table; the index is the low 16 bits of RIP.
const ENTRIES: usize = 1 << 16;
/// Bytes of a table.
pub(crate) const TABLE_SIZE: usize = ENTRIES * size_of::<Entry>();

/// A target and the code of its block, entered with flags in the slot.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    rip: u64,
    code: u64,
}

struct Table {
    entries: LowBox<[Entry; ENTRIES]>,
    /// RIPs that were entered.
    used: ByPage<u64>,
}

/// A RIP that no entry at `index` can have.
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
        self.entries[index] = Entry { rip: absent(index), code: 0 };
    }

    fn remove(&mut self, rip: u64) {
        let index = rip as usize & (ENTRIES - 1);
        if self.entries[index].rip == rip {
            self.clear(index);
        }
    }
}

/// All tables of an engine.
#[derive(Default)]
pub(crate) struct IndirectCache {
    tables: HashMap<Key, Table>,
}

impl IndirectCache {
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

    /// Enters a target that relies on the translation of `page`.
    pub(crate) fn insert(&mut self, key: Key, rip: u64, (page, global): (u64, bool), code: u64) {
        let Some(table) = self.tables.get_mut(&key) else { return };
        let entry = &mut table.entries[rip as usize & (ENTRIES - 1)];
        if entry.rip != rip {
            table.used.insert(page, global, rip);
        }
        *entry = Entry { rip, code };
    }

    /// Drops one target.
    pub(crate) fn remove(&mut self, key: Key, rip: u64) {
        if let Some(table) = self.tables.get_mut(&key) {
            table.remove(rip);
        }
    }

    /// Drops the targets whose translation may have changed.
    pub(crate) fn purge(&mut self, changes: &MappingChanges) {
        for table in self.tables.values_mut() {
            let mut used = std::mem::take(&mut table.used);
            used.take(changes, |rip| table.remove(rip));
            table.used = used;
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.purge(&MappingChanges { everything: true, ..MappingChanges::default() });
    }
}
