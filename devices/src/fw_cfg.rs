//! QEMU's firmware configuration device: a list of items, each under a 16-bit
//! key, that firmware and kernels read byte by byte.
//!
//! | port | register |
//! |---|---|
//! | 510H | selector, 16 bits, write-only: the key; reading starts over |
//! | 511H | data, 8 bits, read-only: the next byte of the item, 0 past its end |
//! | 514H | DMA address, 64 bits, big-endian; writing its low half (518H) starts the transfer that the structure there describes (`fw_cfg/dma.rs`) |
//!
//! Source: QEMU documentation, "QEMU Firmware Configuration (fw_cfg) Device"
//! (docs/specs/fw_cfg), and the key numbers of Linux's
//! `include/uapi/linux/qemu_fw_cfg.h`.

mod dma;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{BusDevice, DmaMemory};

/// The ports of the device, for [`Bus::insert`](crate::Bus::insert).
pub const FW_CFG_PORT: u16 = 0x510;
/// Number of ports, the DMA register's included.
pub const FW_CFG_PORT_COUNT: u16 = 12;

/// Keys of the items that are not named files. Numbers are little-endian.
pub mod key {
    /// The characters `QEMU`: the device is there.
    pub const SIGNATURE: u16 = 0x00;
    /// 32-bit feature bitmap.
    pub const ID: u16 = 0x01;
    /// RAM size in bytes, 64 bits.
    pub const RAM_SIZE: u16 = 0x03;
    /// 16 bits: not zero without a graphics display.
    pub const NO_GRAPHICS: u16 = 0x04;
    /// Number of processors running, 16 bits.
    pub const CPU_COUNT: u16 = 0x05;
    /// Guest physical address to load the kernel at, 32 bits.
    pub const KERNEL_ADDRESS: u16 = 0x07;
    /// Size of the kernel in bytes, 32 bits.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Guest physical address to load the initrd at, 32 bits.
    pub const INITRD_ADDRESS: u16 = 0x0A;
    /// Size of the initrd in bytes, 32 bits.
    pub const INITRD_SIZE: u16 = 0x0B;
    /// Number of processors that there can be, 16 bits.
    pub const MAX_CPUS: u16 = 0x0F;
    /// Entry point of the kernel, 32 bits.
    pub const KERNEL_ENTRY: u16 = 0x10;
    /// The kernel, without its setup part. kvm-unit-tests reads a limit on RAM
    /// here instead, where nothing (zero) is no limit.
    pub const KERNEL_DATA: u16 = 0x11;
    /// The initrd.
    pub const INITRD_DATA: u16 = 0x12;
    /// Guest physical address to load the command line at, 32 bits.
    pub const COMMAND_LINE_ADDRESS: u16 = 0x13;
    /// Size of the command line with its terminating zero, 32 bits.
    pub const COMMAND_LINE_SIZE: u16 = 0x14;
    /// The command line with its terminating zero.
    pub const COMMAND_LINE_DATA: u16 = 0x15;
    /// Guest physical address to load the setup part of a bzImage at, 32 bits.
    pub const SETUP_ADDRESS: u16 = 0x16;
    /// Size of the setup part, 32 bits.
    pub const SETUP_SIZE: u16 = 0x17;
    /// The setup part, its header filled in by the loader.
    pub const SETUP_DATA: u16 = 0x18;
    /// The directory of named files, made from them.
    pub const FILE_DIRECTORY: u16 = 0x19;
    /// Key of the first named file.
    pub const FIRST_FILE: u16 = 0x20;
}

/// Feature bit 0: selector and data register.
const FEATURE_TRADITIONAL: u32 = 1 << 0;
/// Feature bit 1: DMA.
const FEATURE_DMA: u32 = 1 << 1;
/// Selector bit 14: once asked for writing; means nothing any more.
const SELECTOR_WRITE: u16 = 1 << 14;
/// Keys from here up have another meaning.
const END_OF_FILES: u16 = 0x4000;
/// Room for a file's name, its terminating zero included.
const NAME_SIZE: usize = 56;

/// Why a file could not be added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FwCfgError {
    /// The name does not fit in the directory, is empty or is not ASCII.
    #[error("firmware configuration file name {0:?} must be 1 to 55 ASCII characters")]
    BadName(String),
    /// There is a file of that name.
    #[error("there is already a firmware configuration file {0:?}")]
    Exists(String),
    /// No key or no room in a 32-bit size field is left.
    #[error("firmware configuration file {0:?} is one too many or too large")]
    TooLarge(String),
}

/// A Linux kernel as firmware loads it from the device.
#[derive(Clone, Debug, Default)]
pub struct LinuxImage {
    /// Setup part of the bzImage, and where to load it.
    pub setup: (u32, Vec<u8>),
    /// Protected-mode part, and where to load it.
    pub kernel: (u32, Vec<u8>),
    /// Command line without terminating zero, and where to load it.
    pub command_line: (u32, String),
    /// Initrd, and where to load it.
    pub initrd: Option<(u32, Vec<u8>)>,
}

/// What changes while a guest reads the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwCfgState {
    /// The key selected.
    selector: u16,
    /// Bytes of the item that were read.
    offset: u64,
    /// What was written to the high half of the DMA address.
    dma_high: u32,
}

/// The firmware configuration device.
pub struct FwCfg {
    items: BTreeMap<u16, Vec<u8>>,
    /// Key of each file by its name.
    files: BTreeMap<String, u16>,
    memory: Option<Arc<dyn DmaMemory>>,
    state: FwCfgState,
}

impl FwCfg {
    /// A device that tells of `ram_size` bytes of RAM and `cpu_count`
    /// processors, and has no files.
    pub fn new(ram_size: u64, cpu_count: u16) -> Self {
        let mut device = Self {
            items: BTreeMap::new(),
            files: BTreeMap::new(),
            memory: None,
            state: FwCfgState::default(),
        };
        device.set(key::SIGNATURE, b"QEMU");
        device.set(key::ID, FEATURE_TRADITIONAL.to_le_bytes());
        device.set(key::RAM_SIZE, ram_size.to_le_bytes());
        device.set(key::NO_GRAPHICS, 1u16.to_le_bytes());
        device.set(key::CPU_COUNT, cpu_count.to_le_bytes());
        device.set(key::MAX_CPUS, cpu_count.to_le_bytes());
        device.write_directory();
        device
    }

    /// Offers DMA, to and from `memory`.
    pub fn set_dma(&mut self, memory: Arc<dyn DmaMemory>) {
        self.set(key::ID, (FEATURE_TRADITIONAL | FEATURE_DMA).to_le_bytes());
        self.memory = Some(memory);
    }

    /// Sets the item under `key` to `bytes`.
    pub fn set(&mut self, key: u16, bytes: impl Into<Vec<u8>>) {
        self.items.insert(key & !SELECTOR_WRITE, bytes.into());
    }

    /// Offers a kernel, for firmware that boots it.
    pub fn set_linux(&mut self, image: LinuxImage) {
        let (command_line_address, command_line) = image.command_line;
        let mut command_line = command_line.into_bytes();
        command_line.push(0);
        let mut part = |address_key, size_key, data_key, address: u32, data: Vec<u8>| {
            self.set(address_key, address.to_le_bytes());
            self.set(size_key, u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
            self.set(data_key, data);
        };
        let (address, data) = image.setup;
        part(key::SETUP_ADDRESS, key::SETUP_SIZE, key::SETUP_DATA, address, data);
        let (kernel_address, data) = image.kernel;
        part(key::KERNEL_ADDRESS, key::KERNEL_SIZE, key::KERNEL_DATA, kernel_address, data);
        part(
            key::COMMAND_LINE_ADDRESS,
            key::COMMAND_LINE_SIZE,
            key::COMMAND_LINE_DATA,
            command_line_address,
            command_line,
        );
        let (address, data) = image.initrd.unwrap_or_default();
        part(key::INITRD_ADDRESS, key::INITRD_SIZE, key::INITRD_DATA, address, data);
        self.set(key::KERNEL_ENTRY, kernel_address.to_le_bytes());
    }

    /// Adds a named file, such as `etc/acpi/tables` or `opt/...`, and returns
    /// its key.
    ///
    /// # Errors
    /// If the name will not do or there are too many files.
    pub fn add_file(&mut self, name: &str, bytes: Vec<u8>) -> Result<u16, FwCfgError> {
        let owned = name.to_owned();
        if name.is_empty() || name.len() >= NAME_SIZE || !name.is_ascii() || name.contains('\0') {
            return Err(FwCfgError::BadName(owned));
        }
        if self.files.contains_key(name) {
            return Err(FwCfgError::Exists(owned));
        }
        let next = usize::from(key::FIRST_FILE) + self.files.len();
        let key = u16::try_from(next).ok().filter(|&key| key < END_OF_FILES);
        let (Some(key), true) = (key, u32::try_from(bytes.len()).is_ok()) else {
            return Err(FwCfgError::TooLarge(owned));
        };
        self.set(key, bytes);
        self.files.insert(owned, key);
        self.write_directory();
        Ok(key)
    }

    /// Makes the file directory item: a count and 64 bytes for each file, in
    /// order of their names. Its numbers are big-endian.
    fn write_directory(&mut self) {
        let mut directory = (self.files.len() as u32).to_be_bytes().to_vec();
        for (name, key) in &self.files {
            let size = self.items.get(key).map_or(0, Vec::len) as u32;
            directory.extend(size.to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            let mut field = name.clone().into_bytes();
            field.resize(NAME_SIZE, 0);
            directory.extend(field);
        }
        self.set(key::FILE_DIRECTORY, directory);
    }

    /// The state to save.
    pub fn state(&self) -> &FwCfgState {
        &self.state
    }

    /// Replaces the state by a saved one. The items belong to the machine's
    /// configuration and stay.
    pub fn restore(&mut self, state: FwCfgState) {
        self.state = state;
    }

    fn select(&mut self, selector: u16) {
        self.state.selector = selector & !SELECTOR_WRITE;
        self.state.offset = 0;
    }

    fn next_byte(&mut self) -> u8 {
        let item = self.items.get(&self.state.selector);
        let offset = usize::try_from(self.state.offset).unwrap_or(usize::MAX);
        self.state.offset = self.state.offset.saturating_add(1);
        item.and_then(|item| item.get(offset)).copied().unwrap_or(0)
    }
}

impl BusDevice for FwCfg {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (port, byte) in (offset..).zip(data) {
            *byte = match port {
                1 => self.next_byte(),
                4..12 if self.memory.is_some() => dma::SIGNATURE[port as usize - 4],
                _ => 0xFF,
            };
        }
    }

    /// The selector takes 16-bit writes only: a byte there would be half a key. The DMA address
    /// takes halves of 32 bits.
    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, &[low, high]) => self.select(u16::from_le_bytes([low, high])),
            (4, &[a, b, c, d]) => self.state.dma_high = u32::from_be_bytes([a, b, c, d]),
            (8, &[a, b, c, d]) => {
                let low = u32::from_be_bytes([a, b, c, d]);
                let high = std::mem::take(&mut self.state.dma_high);
                self.transfer(u64::from(high) << 32 | u64::from(low));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device() -> FwCfg {
        FwCfg::new(128 << 20, 4)
    }

    fn item(device: &mut FwCfg, key: u16, size: usize) -> Vec<u8> {
        device.write(0, &key.to_le_bytes());
        (0..size)
            .map(|_| {
                let mut byte = [0xAA];
                device.read(1, &mut byte);
                byte[0]
            })
            .collect()
    }

    #[test]
    fn numbers_and_signature() {
        let mut device = device();
        assert_eq!(item(&mut device, key::SIGNATURE, 4), b"QEMU");
        assert_eq!(item(&mut device, key::ID, 4), [1, 0, 0, 0]);
        assert_eq!(item(&mut device, key::RAM_SIZE, 8), (128u64 << 20).to_le_bytes());
        assert_eq!(item(&mut device, key::CPU_COUNT, 2), [4, 0]);
        assert_eq!(item(&mut device, key::MAX_CPUS, 2), [4, 0]);
        assert_eq!(item(&mut device, 0x11, 8), [0; 8], "kvm-unit-tests: no limit on RAM");
    }

    #[test]
    fn reading_past_the_end_gives_zeros_and_selecting_starts_over() {
        let mut device = device();
        assert_eq!(item(&mut device, key::SIGNATURE, 6), b"QEMU\0\0");
        assert_eq!(item(&mut device, key::SIGNATURE | 0x4000, 4), b"QEMU");
        assert_eq!(item(&mut device, 0xFFFF, 2), [0, 0]);
        assert_eq!(item(&mut device, 0x8000, 2), [0, 0], "another key than 0");
    }

    #[test]
    fn other_accesses_do_nothing() {
        let mut device = device();
        device.write(0, &[key::RAM_SIZE as u8]);
        device.write(1, &[1]);
        device.write(0, &[0, 0, 0, 0]);
        device.write(4, &[0; 8]);
        assert_eq!(device.state(), &FwCfgState::default());
        let mut dma = [0; 8];
        device.read(4, &mut dma);
        assert_eq!(dma, [0xFF; 8]);
        let mut word = [0; 2];
        device.read(1, &mut word);
        assert_eq!(word, [b'Q', 0xFF]);
    }

    #[test]
    fn files_are_in_the_directory() {
        let mut device = device();
        assert_eq!(item(&mut device, key::FILE_DIRECTORY, 4), [0; 4]);
        let second = device.add_file("opt/b", vec![7; 300]).unwrap();
        let first = device.add_file("etc/a", b"content".to_vec()).unwrap();
        assert_eq!((second, first), (0x20, 0x21));
        let directory = item(&mut device, key::FILE_DIRECTORY, 4 + 2 * 64);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        assert_eq!(directory[4..12], [0, 0, 0, 7, 0, 0x21, 0, 0]);
        assert_eq!(&directory[12..18], b"etc/a\0");
        assert_eq!(directory[68..76], [0, 0, 1, 0x2C, 0, 0x20, 0, 0]);
        assert_eq!(item(&mut device, first, 7), b"content");
    }

    #[test]
    fn file_names() {
        let mut device = device();
        device.add_file("etc/a", Vec::new()).unwrap();
        for (name, error) in [
            ("etc/a", FwCfgError::Exists("etc/a".into())),
            ("", FwCfgError::BadName(String::new())),
            ("é", FwCfgError::BadName("é".into())),
        ] {
            assert_eq!(device.add_file(name, Vec::new()), Err(error));
        }
        assert!(device.add_file(&"n".repeat(56), Vec::new()).is_err());
        assert!(device.add_file(&"n".repeat(55), Vec::new()).is_ok());
    }

    #[test]
    fn linux_image() {
        let mut device = device();
        device.set_linux(LinuxImage {
            setup: (0x1_0000, vec![1, 2]),
            kernel: (0x10_0000, vec![3, 4, 5]),
            command_line: (0x2_0000, "quiet".into()),
            initrd: None,
        });
        assert_eq!(item(&mut device, key::KERNEL_ADDRESS, 4), [0, 0, 0x10, 0]);
        assert_eq!(item(&mut device, key::KERNEL_SIZE, 4), [3, 0, 0, 0]);
        assert_eq!(item(&mut device, key::KERNEL_DATA, 3), [3, 4, 5]);
        assert_eq!(item(&mut device, key::SETUP_DATA, 2), [1, 2]);
        assert_eq!(item(&mut device, key::COMMAND_LINE_SIZE, 4), [6, 0, 0, 0]);
        assert_eq!(item(&mut device, key::COMMAND_LINE_DATA, 6), b"quiet\0");
        assert_eq!(item(&mut device, key::INITRD_SIZE, 4), [0; 4]);
    }

    #[test]
    fn a_restored_device_reads_on() {
        let mut device = device();
        item(&mut device, key::SIGNATURE, 2);
        let state = *device.state();
        let mut other = FwCfg::new(0, 1);
        other.restore(state);
        let mut byte = [0];
        other.read(1, &mut byte);
        assert_eq!(byte, [b'M']);
        other.restore(FwCfgState { selector: 0, offset: u64::MAX, dma_high: 0 });
        other.read(1, &mut byte);
        assert_eq!(byte, [0]);
    }

    proptest! {
        #[test]
        fn random_accesses(accesses in prop::collection::vec(
            (any::<bool>(), prop_oneof![0u64..16, any::<u64>()], prop::collection::vec(any::<u8>(), 0..9)),
            0..200,
        )) {
            let mut device = device();
            device.set_dma(crate::dma::ProbeMemory::new(64));
            for (write, offset, mut data) in accesses {
                if write {
                    device.write(offset, &data);
                } else {
                    device.read(offset, &mut data);
                }
            }
        }
    }
}
