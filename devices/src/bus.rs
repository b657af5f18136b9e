//! The bus: which device answers at an address. One serves for I/O ports, one for MMIO.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// What a device looks like from the bus.
pub trait BusDevice: Send {
    /// Reads `data.len()` bytes (1 to 8, little-endian) from `offset` bytes into the range.
    /// Bytes that no register claims read as all-ones.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Writes `data` (1 to 8 bytes, little-endian) at `offset` bytes into the range.
    /// Bytes that no register claims are dropped.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A device as the bus holds it.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// Why a range could not be put on a bus or taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The range [{base:#x}, {base:#x}+{len:#x}) overlaps the one already mapped at {other:#x};
    /// remove that one first or choose another base.
    #[error(
        "bus range at {base:#x} of {len:#x} bytes overlaps the device mapped at {other:#x}: \
         remove that one first or choose another base"
    )]
    Overlap {
        /// First address of the refused range.
        base: u64,
        /// Bytes in the refused range.
        len: u64,
        /// First address of the range that is in the way.
        other: u64,
    },
    /// A range is empty or runs past the end of the 64-bit address space.
    #[error("bus range at {base:#x} of {len:#x} bytes is empty or wraps around")]
    BadRange {
        /// First address of the refused range.
        base: u64,
        /// Bytes in the refused range.
        len: u64,
    },
    /// No range starts at the address.
    #[error("no device is mapped at bus address {base:#x}")]
    NotMapped {
        /// The address.
        base: u64,
    },
}

struct Mapping {
    base: u64,
    /// Last address, inclusive, so that a range may end at `u64::MAX`.
    last: u64,
    /// What the device sees as the offset of `base`.
    first_offset: u64,
    device: SharedDevice,
}

impl Mapping {
    fn contains(&self, address: u64) -> bool {
        (self.base..=self.last).contains(&address)
    }
}

/// An address space of devices: ranges that do not overlap, each with the device that claims it.
///
/// Mapping changes while accesses run (a PCI base address register moves) are safe: the mapping
/// lock is released before a device is called, so a device may even remap itself.
pub struct Bus {
    /// Sorted by base.
    mappings: RwLock<Vec<Mapping>>,
    /// Index of the mapping that the last access hit. Only a hint: checked before it is used.
    last_hit: AtomicUsize,
}

impl Bus {
    /// A bus without devices.
    pub fn new() -> Self {
        Self { mappings: RwLock::new(Vec::new()), last_hit: AtomicUsize::new(0) }
    }

    /// Maps `[base, base + len)` to `device`, which sees offsets from 0.
    pub fn insert(&self, base: u64, len: u64, device: SharedDevice) -> Result<(), BusError> {
        self.insert_window(base, len, 0, device)
    }

    /// Maps each `(port, count)` to `device`, which sees the port numbers themselves as offsets:
    /// for PC devices whose registers lie at fixed, scattered ports. Either all ranges are mapped
    /// or none is.
    pub fn insert_ports(&self, ports: &[(u16, u16)], device: SharedDevice) -> Result<(), BusError> {
        for (done, &(port, count)) in ports.iter().enumerate() {
            let (base, len) = (u64::from(port), u64::from(count));
            if let Err(error) = self.insert_window(base, len, base, device.clone()) {
                for &(port, _) in ports.iter().take(done) {
                    self.remove(u64::from(port))?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Maps `[base, base + len)` to `device`, which sees offsets from `first_offset`: a window onto
    /// a part of the device's registers.
    pub fn insert_window(
        &self,
        base: u64,
        len: u64,
        first_offset: u64,
        device: SharedDevice,
    ) -> Result<(), BusError> {
        let bad_range = BusError::BadRange { base, len };
        let last = len.checked_sub(1).and_then(|span| base.checked_add(span)).ok_or(bad_range)?;
        let mut mappings = self.mappings.write().unwrap_or_else(PoisonError::into_inner);
        let index = mappings.partition_point(|mapping| mapping.last < base);
        if let Some(other) = mappings.get(index).filter(|mapping| mapping.base <= last) {
            return Err(BusError::Overlap { base, len, other: other.base });
        }
        mappings.insert(index, Mapping { base, last, first_offset, device });
        Ok(())
    }

    /// Removes the range that starts at `base`.
    pub fn remove(&self, base: u64) -> Result<(), BusError> {
        let mut mappings = self.mappings.write().unwrap_or_else(PoisonError::into_inner);
        match mappings.binary_search_by_key(&base, |mapping| mapping.base) {
            Ok(index) => {
                mappings.remove(index);
                Ok(())
            }
            Err(_) => Err(BusError::NotMapped { base }),
        }
    }

    /// Whether a device claims `address`.
    pub fn claims(&self, address: u64) -> bool {
        self.find(&self.mappings(), address).is_some()
    }

    /// Reads `data.len()` bytes (1 to 8) at `address`. Bytes beyond the range that holds `address`
    /// read as all-ones, as does the whole where no device answers. Returns whether one did.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        data.fill(0xff);
        let Some((device, offset, claimed)) = self.route(address, data.len()) else {
            return false;
        };
        if let Some(data) = data.get_mut(..claimed) {
            lock(&device).read(offset, data);
        }
        true
    }

    /// Writes `data` (1 to 8 bytes) at `address`. Bytes beyond the range that holds `address` are
    /// dropped, as is the whole where no device answers. Returns whether one did.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        let Some((device, offset, claimed)) = self.route(address, data.len()) else {
            return false;
        };
        if let Some(data) = data.get(..claimed) {
            lock(&device).write(offset, data);
        }
        true
    }

    /// The device at `address`, the offset it sees, and how many of `len` bytes are its own.
    fn route(&self, address: u64, len: usize) -> Option<(SharedDevice, u64, usize)> {
        if len == 0 {
            return None;
        }
        let mappings = self.mappings();
        let mapping = self.find(&mappings, address)?;
        let offset = mapping.first_offset.wrapping_add(address - mapping.base);
        let room = usize::try_from(mapping.last - address).unwrap_or(usize::MAX).saturating_add(1);
        Some((mapping.device.clone(), offset, len.min(room)))
    }

    fn mappings(&self) -> RwLockReadGuard<'_, Vec<Mapping>> {
        self.mappings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn find<'a>(&self, mappings: &'a [Mapping], address: u64) -> Option<&'a Mapping> {
        let hint = mappings.get(self.last_hit.load(Ordering::Relaxed));
        if let Some(mapping) = hint.filter(|mapping| mapping.contains(address)) {
            return Some(mapping);
        }
        let index = mappings.partition_point(|mapping| mapping.last < address);
        let mapping = mappings.get(index).filter(|mapping| mapping.contains(address))?;
        self.last_hit.store(index, Ordering::Relaxed);
        Some(mapping)
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

/// Locks a mutex whose earlier holder may have panicked. Device state is plain register values,
/// valid after every store, so there is nothing that a panic could have left half-done.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a device of 8-bit registers, as the PC's bus controller does: a wider access becomes one
/// byte access for each consecutive offset, lowest first (little-endian).
pub fn read_bytes(offset: u64, data: &mut [u8], mut read: impl FnMut(u64) -> u8) {
    for (index, byte) in data.iter_mut().enumerate() {
        *byte = read(offset.wrapping_add(index as u64));
    }
}

/// Writes a device of 8-bit registers; the counterpart of [`read_bytes`].
pub fn write_bytes(offset: u64, data: &[u8], mut write: impl FnMut(u64, u8)) {
    for (index, &byte) in data.iter().enumerate() {
        write(offset.wrapping_add(index as u64), byte);
    }
}

/// The value of up to 8 little-endian bytes; further bytes are ignored.
pub fn value_of(data: &[u8]) -> u64 {
    data.iter().take(8).rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Stores the low `data.len()` bytes of `value`, little-endian; bytes past the eighth become 0.
pub fn store_value(data: &mut [u8], value: u64) {
    for (index, byte) in data.iter_mut().enumerate() {
        *byte = value.checked_shr(8 * index as u32).unwrap_or(0) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that remember writes; the first access offset is kept too.
    struct Memory {
        bytes: Vec<u8>,
        last_offset: u64,
    }

    impl BusDevice for Memory {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            self.last_offset = offset;
            read_bytes(offset, data, |at| *self.bytes.get(at as usize).unwrap_or(&0xff));
        }

        fn write(&mut self, offset: u64, data: &[u8]) {
            self.last_offset = offset;
            write_bytes(offset, data, |at, value| {
                if let Some(byte) = self.bytes.get_mut(at as usize) {
                    *byte = value;
                }
            });
        }
    }

    fn memory(len: usize) -> Arc<Mutex<Memory>> {
        Arc::new(Mutex::new(Memory { bytes: vec![0; len], last_offset: 0 }))
    }

    #[test]
    fn accesses_reach_the_device_at_its_offset() {
        let bus = Bus::new();
        let device = memory(4);
        bus.insert(0x100, 4, device.clone()).unwrap();
        assert!(bus.write(0x102, &[0x34, 0x12]));
        assert_eq!(lock(&device).last_offset, 2);
        let mut data = [0; 2];
        assert!(bus.read(0x102, &mut data));
        assert_eq!(value_of(&data), 0x1234);
    }

    #[test]
    fn unclaimed_reads_are_all_ones() {
        let bus = Bus::new();
        bus.insert(0x100, 4, memory(4)).unwrap();
        for address in [0xff, 0x104, 0, u64::MAX] {
            let mut data = [0; 4];
            assert!(!bus.read(address, &mut data));
            assert_eq!(data, [0xff; 4]);
            assert!(!bus.write(address, &data));
        }
    }

    #[test]
    fn the_remainder_past_a_range_is_ones_and_is_not_written() {
        let bus = Bus::new();
        let (first, second) = (memory(2), memory(2));
        bus.insert(0x10, 2, first.clone()).unwrap();
        bus.insert(0x12, 2, second.clone()).unwrap();
        assert!(bus.write(0x11, &[1, 2, 3, 4]));
        assert_eq!(lock(&first).bytes, [0, 1]);
        assert_eq!(lock(&second).bytes, [0, 0]);
        let mut data = [0; 4];
        assert!(bus.read(0x11, &mut data));
        assert_eq!(data, [1, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn overlaps_are_refused_on_every_side() {
        let bus = Bus::new();
        bus.insert(0x100, 0x10, memory(1)).unwrap();
        for (base, len) in [(0xf8, 9), (0x100, 1), (0x10f, 4), (0x80, 0x200), (0x104, 2)] {
            assert_eq!(
                bus.insert(base, len, memory(1)),
                Err(BusError::Overlap { base, len, other: 0x100 })
            );
        }
        bus.insert(0xf8, 8, memory(1)).unwrap();
        bus.insert(0x110, 8, memory(1)).unwrap();
    }

    #[test]
    fn ranges_may_reach_the_last_address_but_not_beyond() {
        let bus = Bus::new();
        let base = u64::MAX - 1;
        assert_eq!(bus.insert(base, 3, memory(1)), Err(BusError::BadRange { base, len: 3 }));
        assert_eq!(bus.insert(5, 0, memory(1)), Err(BusError::BadRange { base: 5, len: 0 }));
        bus.insert(base, 2, memory(2)).unwrap();
        let mut data = [0; 4];
        assert!(bus.read(u64::MAX, &mut data));
        assert_eq!(data, [0, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn port_lists_show_the_device_port_numbers_and_map_all_or_nothing() {
        let bus = Bus::new();
        let device = memory(0x100);
        bus.insert_ports(&[(0x20, 2), (0xa0, 2)], device.clone()).unwrap();
        bus.write(0xa1, &[7]);
        assert_eq!(lock(&device).last_offset, 0xa1);
        assert!(bus.insert_ports(&[(0x60, 1), (0xa0, 1)], memory(1)).is_err());
        assert!(!bus.claims(0x60));
    }

    #[test]
    fn removal_frees_the_range_and_outlives_the_hint() {
        let bus = Bus::new();
        bus.insert(0x10, 1, memory(1)).unwrap();
        bus.insert(0x20, 1, memory(1)).unwrap();
        assert!(bus.claims(0x20));
        bus.remove(0x10).unwrap();
        assert!(bus.claims(0x20) && !bus.claims(0x10));
        assert_eq!(bus.remove(0x10), Err(BusError::NotMapped { base: 0x10 }));
    }

    #[test]
    fn a_poisoned_device_still_answers() {
        let bus = Bus::new();
        let device = memory(1);
        bus.insert(0, 1, device.clone()).unwrap();
        let poison = device.clone();
        let panicked = std::thread::spawn(move || {
            let _guard = poison.lock();
            panic!("poisons the device lock on purpose");
        })
        .join();
        assert!(panicked.is_err() && device.is_poisoned());
        assert!(bus.write(0, &[9]));
        let mut data = [0];
        assert!(bus.read(0, &mut data));
        assert_eq!(data, [9]);
    }

    #[test]
    fn values_are_little_endian() {
        let mut data = [0; 3];
        store_value(&mut data, 0x0403_0201);
        assert_eq!(data, [1, 2, 3]);
        assert_eq!(value_of(&data), 0x03_0201);
        let mut wide = [0xff; 10];
        store_value(&mut wide, u64::MAX);
        assert_eq!(wide[8..], [0, 0]);
    }

    proptest! {
        /// Whatever is inserted, lookups agree with a plain scan.
        #[test]
        fn lookup_agrees_with_a_scan(
            ranges in prop::collection::vec((0u64..200, 1u64..20), 0..20),
            probes in prop::collection::vec(0u64..230, 0..60),
        ) {
            let bus = Bus::new();
            let mut mapped: Vec<(u64, u64)> = Vec::new();
            for (base, len) in ranges {
                let overlaps = mapped.iter().any(|&(b, l)| base < b + l && b < base + len);
                let inserted = bus.insert(base, len, memory(1)).is_ok();
                prop_assert_eq!(inserted, !overlaps);
                if inserted {
                    mapped.push((base, len));
                }
            }
            for probe in probes {
                let expected = mapped.iter().any(|&(b, l)| (b..b + l).contains(&probe));
                prop_assert_eq!(bus.claims(probe), expected);
            }
        }
    }
}
