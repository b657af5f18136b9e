use std::sync::{Arc, Mutex, Weak};

use proptest::prelude::*;

use super::config::{command, register};
use super::*;
use crate::bus::{BusDevice, lock};
use crate::legacy::reset::{ResetControlDevice, ResetKind};

#[derive(Default)]
struct Spaces {
    io: Bus,
    memory: Bus,
}

impl AddressSpaces for Spaces {
    fn io(&self) -> &Bus {
        &self.io
    }

    fn memory(&self) -> &Bus {
        &self.memory
    }
}

/// Answers every read with the low byte of the offset.
struct Echo;

impl BusDevice for Echo {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) {}
}

struct Board {
    spaces: Arc<Spaces>,
    root: PciRoot,
    resets: Arc<Mutex<Vec<ResetKind>>>,
}

const CARD: Address = Address::new(3, 0);

fn board() -> Board {
    let spaces = Arc::new(Spaces::default());
    let weak = Arc::downgrade(&spaces);
    let weak: Weak<dyn AddressSpaces> = weak;
    let resets = Arc::new(Mutex::new(Vec::new()));
    let log = resets.clone();
    let reset = ResetControlDevice::new(Box::new(move |kind| lock(&log).push(kind)));
    let mut root = PciRoot::new(weak, Arc::new(Mutex::new(reset)));
    let echo = Arc::new(Mutex::new(Echo));
    let config = ConfigSpace::new(Identity {
        vendor: 0x1234,
        device: 0x1111,
        class: 0x03_0000,
        revision: 2,
        subsystem: (0x1af4, 0x1100),
        interrupt_pin: 1,
    });
    let windows = vec![
        Window::new(Decode::Memory(register::BAR0), 0x1000, 0, echo.clone()),
        Window::new(Decode::Io(register::BAR0 + 4), 16, 0x40, echo.clone()),
        Window::new(Decode::Rom, 0x8000, 0, echo.clone()),
    ];
    root.insert(CARD, Function::new(config, windows, Box::new(Plain)));
    root.insert(Address::new(0, 0), i440fx::host_bridge(Box::new(|_| {})));
    root.insert(Address::new(1, 0), piix::isa_bridge(IntxRouter::new(Vec::new())));
    root.insert(Address::new(1, 1), piix::ide(echo.clone(), 0));
    spaces.io.insert(0x600, 0x40, echo.clone()).unwrap();
    root.insert(Address::new(1, 3), piix::power_management(echo, 0x600));
    Board { spaces, root, resets }
}

impl Board {
    fn select(&mut self, address: Address, offset: u8) {
        let value = 1u32 << 31 | u32::from(address.devfn()) << 8 | u32::from(offset & 0xfc);
        self.root.write(0, &value.to_le_bytes());
    }

    fn read(&mut self, address: Address, offset: u8) -> u32 {
        self.select(address, offset);
        let mut data = [0; 4];
        self.root.read(4, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, address: Address, offset: u8, value: u32) {
        self.select(address, offset);
        self.root.write(4, &value.to_le_bytes());
    }
}

#[test]
fn absent_functions_and_buses_read_all_ones() {
    let mut board = board();
    assert_eq!(board.read(CARD, 0), 0x1111_1234);
    assert_eq!(board.read(Address::new(4, 0), 0), u32::MAX);
    board.root.write(0, &(1u32 << 31 | 1 << 16).to_le_bytes());
    let mut data = [0; 4];
    board.root.read(4, &mut data);
    assert_eq!(data, [0xff; 4]);
    board.root.write(0, &0u32.to_le_bytes());
    board.root.read(4, &mut data);
    assert_eq!(data, [0xff; 4], "not enabled");
}

#[test]
fn narrow_accesses_reach_their_bytes_and_0xcf9_resets() {
    let mut board = board();
    board.select(CARD, register::VENDOR);
    let (mut byte, mut word) = ([0], [0; 2]);
    board.root.read(6, &mut word);
    board.root.read(5, &mut byte);
    assert_eq!((word, byte), ([0x11, 0x11], [0x12]));
    board.root.write(1, &[6]);
    assert_eq!(*lock(&board.resets), [ResetKind::System]);
    let mut address = [0; 4];
    board.root.read(0, &mut address);
    assert_eq!(u32::from_le_bytes(address), 0x8000_1800, "not the address register's byte");
}

#[test]
fn base_address_registers_size_and_move() {
    let mut board = board();
    for (offset, mask) in [(0x10, 0xffff_f000), (0x14, 0xffff_fff1), (0x30, 0xffff_8001)] {
        board.write(CARD, offset, u32::MAX);
        assert_eq!(board.read(CARD, offset), mask, "{offset:#x}");
    }
    board.write(CARD, 0x10, 0xe000_0000);
    board.write(CARD, 0x14, 0xc000);
    board.write(CARD, 0x30, 0xe001_0001);
    assert!(!board.spaces.memory.claims(0xe000_0000));
    board.write(CARD, register::COMMAND, (command::IO | command::MEMORY).into());
    let mut data = [0];
    assert!(board.spaces.memory.read(0xe000_0023, &mut data));
    assert_eq!(data, [0x23]);
    assert!(board.spaces.io.read(0xc003, &mut data));
    assert_eq!(data, [0x43]);
    assert!(board.spaces.memory.claims(0xe001_7fff));
    board.write(CARD, 0x10, 0xe100_0000);
    assert!(!board.spaces.memory.claims(0xe000_0000));
    assert!(board.spaces.memory.claims(0xe100_0fff));
    board.write(CARD, register::COMMAND, 0);
    assert!(!board.spaces.memory.claims(0xe100_0000) && !board.spaces.io.claims(0xc000));
}

#[test]
fn a_taken_place_is_tried_again_when_it_is_free() {
    let mut board = board();
    board.write(CARD, 0x10, 0xe000_0000);
    board.write(CARD, 0x30, 0xe000_0001);
    board.write(CARD, register::COMMAND, command::MEMORY.into());
    assert!(!board.spaces.memory.claims(0xe000_4000), "the ROM is in the registers' place");
    board.write(CARD, 0x10, 0xe100_0000);
    assert!(board.spaces.memory.claims(0xe000_4000));
}

#[test]
fn pmbase_moves_the_power_registers() {
    let mut board = board();
    let pm = Address::new(1, 3);
    assert_eq!(board.read(pm, 0x40), 0x601);
    board.write(pm, 0x40, 0xb001);
    assert!(board.spaces.io.claims(0xb03f) && !board.spaces.io.claims(0x600));
    board.write(pm, 0x80, 0);
    assert!(!board.spaces.io.claims(0xb000));
}

#[test]
fn a_restored_bus_has_its_windows() {
    let mut board = board();
    board.write(CARD, 0x10, 0xe000_0000);
    board.write(CARD, register::COMMAND, command::MEMORY.into());
    let saved = serde_json::to_string(&board.root.state()).unwrap();
    let mut other = self::board();
    other.root.restore(serde_json::from_str(&saved).unwrap());
    assert!(other.spaces.memory.claims(0xe000_0000));
    assert_eq!(other.root.state(), board.root.state());
}

proptest! {
    #[test]
    fn random_accesses(accesses in prop::collection::vec(
        (any::<bool>(), 0u64..8, prop::sample::select(vec![1usize, 2, 4, 8]), any::<u64>()),
        0..200,
    )) {
        let mut board = board();
        for (write, offset, len, value) in accesses {
            let mut data = value.to_le_bytes();
            if write {
                board.root.write(offset, &data[..len]);
            } else {
                board.root.read(offset, &mut data[..len]);
            }
        }
        let state = board.root.state();
        board.root.restore(state.clone());
        prop_assert_eq!(board.root.state(), state);
    }
}
