//! The test device of QEMU (`pc-testdev`), which kvm-unit-tests drive.
//!
//! | place | read | write |
//! |---|---|---|
//! | ports 0xE0 to 0xE3 | the bytes last written | 1, 2 or 4 bytes |
//! | port 0xE4 | all ones | 32 bits: what is cached of the translation to this guest-physical page is dropped |
//! | ports 0x2000 to 0x2017 | all ones | 1 byte: the level, 0 or 1, of interrupt line `port - 0x2000` |
//! | 64 KiB of device memory at 0xFF000000 | what was written | |
//!
//! Source: kvm-unit-tests, `lib/x86` and `x86/eventinj.c`; QEMU, `hw/misc/pc-testdev.c`.

use serde::{Deserialize, Serialize};

use crate::bus::{BusDevice, read_bytes, value_of, write_bytes};

/// The device's ports, for [`crate::Bus::insert_ports`].
pub const PORTS: &[(u16, u16)] = &[(LATCH, 4), (FLUSH, 4), (LINES, LINE_COUNT)];
/// Where the device's memory lies.
pub const MEMORY_BASE: u64 = 0xff00_0000;
/// How large it is, in bytes.
pub const MEMORY_SIZE: u64 = 0x1_0000;

const LATCH: u16 = 0xe0;
const FLUSH: u16 = 0xe4;
const LINES: u16 = 0x2000;
const LINE_COUNT: u16 = 24;

/// What the device's ports do to the machine.
pub struct Outputs {
    /// Sets interrupt line 0 to 23 to a level.
    pub line: Box<dyn Fn(u8, bool) + Send>,
    /// Drops cached translations to the page at this guest-physical address.
    pub flush: Box<dyn Fn(u64) + Send>,
}

/// What the ports hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestDeviceState {
    latch: [u8; 4],
}

/// The ports.
pub struct TestDevice {
    state: TestDeviceState,
    outputs: Outputs,
}

impl TestDevice {
    /// A device whose latch is zero.
    pub fn new(outputs: Outputs) -> Self {
        Self { state: TestDeviceState::default(), outputs }
    }

    /// The state to save.
    pub fn state(&self) -> &TestDeviceState {
        &self.state
    }

    /// Takes a saved state.
    pub fn restore(&mut self, state: TestDeviceState) {
        self.state = state;
    }
}

impl BusDevice for TestDevice {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let latch = self.state.latch;
        read_bytes(offset, data, |port| {
            let index = port.wrapping_sub(u64::from(LATCH)) as usize;
            latch.get(index).copied().unwrap_or(0xff)
        });
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset == u64::from(FLUSH) {
            (self.outputs.flush)(value_of(data) & !0xfff);
        } else if let Some(line) = offset.checked_sub(u64::from(LINES)) {
            (self.outputs.line)(line as u8, data.first().is_some_and(|level| level & 1 != 0));
        } else {
            let latch = &mut self.state.latch;
            write_bytes(offset, data, |port, byte| {
                let index = port.wrapping_sub(u64::from(LATCH)) as usize;
                if let Some(place) = latch.get_mut(index) {
                    *place = byte;
                }
            });
        }
    }
}

/// The memory, for [`crate::Bus::insert`]: RAM behind a device's decoder.
pub struct TestMemory(Box<[u8]>);

impl Default for TestMemory {
    fn default() -> Self {
        Self(vec![0; MEMORY_SIZE as usize].into())
    }
}

impl BusDevice for TestMemory {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        read_bytes(offset, data, |at| self.0.get(at as usize).copied().unwrap_or(0xff));
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        write_bytes(offset, data, |at, byte| {
            if let Some(place) = self.0.get_mut(at as usize) {
                *place = byte;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bus, lock};
    use std::sync::{Arc, Mutex};

    type Log<T> = Arc<Mutex<Vec<T>>>;

    fn device() -> (Bus, Log<(u8, bool)>, Log<u64>) {
        let (lines, pages) = (Log::default(), Log::default());
        let (line_log, page_log) = (lines.clone(), pages.clone());
        let outputs = Outputs {
            line: Box::new(move |line, level| lock(&line_log).push((line, level))),
            flush: Box::new(move |page| lock(&page_log).push(page)),
        };
        let bus = Bus::new();
        bus.insert_ports(PORTS, Arc::new(Mutex::new(TestDevice::new(outputs)))).unwrap();
        bus.insert(MEMORY_BASE, MEMORY_SIZE, Arc::new(Mutex::new(TestMemory::default()))).unwrap();
        (bus, lines, pages)
    }

    #[test]
    fn the_latch_keeps_bytes_at_their_ports() {
        let (bus, ..) = device();
        bus.write(0xe0, &0x1234_5678u32.to_le_bytes());
        bus.write(0xe0, &[0xaa]);
        bus.write(0xe2, &[0xbb, 0xcc]);
        let mut data = [0; 4];
        bus.read(0xe0, &mut data);
        assert_eq!(data, [0xaa, 0x56, 0xbb, 0xcc]);
        let mut data = [0; 2];
        bus.read(0xe1, &mut data);
        assert_eq!(data, [0x56, 0xbb]);
    }

    #[test]
    fn lines_follow_their_ports() {
        let (bus, lines, pages) = device();
        bus.write(0x200e, &[1]);
        bus.write(0x2017, &[0]);
        bus.write(0x2018, &[1]);
        assert_eq!(*lock(&lines), [(14, true), (23, false)]);
        assert!(lock(&pages).is_empty());
    }

    #[test]
    fn pages_are_flushed_by_address() {
        let (bus, _, pages) = device();
        bus.write(0xe4, &0x1234_5678u32.to_le_bytes());
        assert_eq!(*lock(&pages), [0x1234_5000]);
    }

    #[test]
    fn memory_is_memory() {
        let (bus, ..) = device();
        bus.write(MEMORY_BASE + 8, &[1, 2, 3, 4, 5, 6, 7, 8]);
        let mut data = [0; 4];
        bus.read(MEMORY_BASE + 10, &mut data);
        assert_eq!(data, [3, 4, 5, 6]);
        bus.write(MEMORY_BASE + MEMORY_SIZE - 1, &[9, 9]);
    }
}
