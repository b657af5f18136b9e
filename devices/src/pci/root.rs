//! Configuration mechanism 1 and the functions of bus 0.

use std::collections::BTreeMap;
use std::sync::Weak;

use serde::{Deserialize, Serialize};

use super::config::ConfigSpace;
use super::{Address, AddressSpaces, Function};
use crate::bus::{BusDevice, SharedDevice, store_value, value_of};
use crate::legacy::reset::RESET_PORT;

/// First port of the mechanism, for [`crate::Bus::insert`].
pub const CONFIG_PORT: u64 = 0xcf8;
/// Number of its ports.
pub const CONFIG_PORT_COUNT: u64 = 8;

/// CONFIG_ADDRESS bit 31: the data register reaches configuration space.
const ENABLE: u32 = 1 << 31;
/// Bits of CONFIG_ADDRESS that are kept.
const ADDRESS_MASK: u32 = ENABLE | 0x00ff_fffc;
const DATA: u64 = 4;

/// The state to save: the address register, and each function's space by device and function
/// number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciState {
    address: u32,
    functions: BTreeMap<u8, ConfigSpace>,
}

/// The root of the bus: ports 0xCF8 to 0xCFF.
///
/// A 32-bit access at 0xCF8 is CONFIG_ADDRESS; a byte access at 0xCF9 is the reset control register
/// that shares the port; other narrow accesses below 0xCFC reach nothing.
pub struct PciRoot {
    address: u32,
    functions: BTreeMap<u8, Function>,
    spaces: Weak<dyn AddressSpaces>,
    reset_control: SharedDevice,
}

impl PciRoot {
    /// A bus without functions. Windows are mapped in `spaces`; `reset_control` answers byte accesses
    /// at 0xCF9.
    pub fn new(spaces: Weak<dyn AddressSpaces>, reset_control: SharedDevice) -> Self {
        Self { address: 0, functions: BTreeMap::new(), spaces, reset_control }
    }

    /// Puts a function at `address`, over one that was there.
    pub fn insert(&mut self, address: Address, function: Function) {
        self.functions.insert(address.devfn(), function);
        self.update();
    }

    /// The function at `address`.
    pub fn function(&self, address: Address) -> Option<&Function> {
        self.functions.get(&address.devfn())
    }

    /// Where functions are.
    pub fn addresses(&self) -> Vec<Address> {
        self.functions.keys().map(|&devfn| Address::from_devfn(devfn)).collect()
    }

    /// Reads configuration space as software does; where no function is, all-ones.
    pub fn read_config(&self, address: Address, offset: u8, data: &mut [u8]) {
        match self.functions.get(&address.devfn()) {
            Some(function) => function.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes configuration space as software does.
    pub fn write_config(&mut self, address: Address, offset: u8, data: &[u8]) {
        if let Some(function) = self.functions.get_mut(&address.devfn()) {
            function.write(offset, data);
            self.update();
        }
    }

    /// Moves every window to where its function wants it. All of them are looked at, since a place
    /// may have become free.
    fn update(&mut self) {
        let Some(spaces) = self.spaces.upgrade() else { return };
        for function in self.functions.values_mut() {
            function.update(&*spaces);
        }
    }

    /// What CONFIG_ADDRESS selects for a data access at `offset` into the data register: only bus 0
    /// exists.
    fn selected(&self, offset: u64) -> Option<(Address, u8)> {
        let on_bus_0 = self.address >> 16 & 0xff == 0;
        if self.address & ENABLE == 0 || !on_bus_0 {
            return None;
        }
        let address = Address::from_devfn((self.address >> 8) as u8);
        Some((address, (self.address as u8 & 0xfc) | (offset as u8 & 3)))
    }

    /// The state to save.
    pub fn state(&self) -> PciState {
        let functions =
            self.functions.iter().map(|(&devfn, f)| (devfn, f.config().clone())).collect();
        PciState { address: self.address, functions }
    }

    /// Takes a saved state and moves windows to match. Functions that the state does not have, or
    /// that are not the same, stay as they are.
    pub fn restore(&mut self, state: PciState) {
        self.address = state.address & ADDRESS_MASK;
        for (devfn, saved) in state.functions {
            if let Some(function) = self.functions.get_mut(&devfn)
                && function.config_mut().restore(saved)
            {
                function.apply_all();
            }
        }
        self.update();
    }
}

impl BusDevice for PciRoot {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match (offset, data.len()) {
            (0, 4) => store_value(data, self.address.into()),
            (1, 1) => crate::bus::lock(&self.reset_control).read(u64::from(RESET_PORT), data),
            (DATA.., _) => match self.selected(offset) {
                Some((address, register)) => self.read_config(address, register, data),
                None => data.fill(0xff),
            },
            _ => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data.len()) {
            (0, 4) => self.address = value_of(data) as u32 & ADDRESS_MASK,
            (1, 1) => crate::bus::lock(&self.reset_control).write(u64::from(RESET_PORT), data),
            (DATA.., _) => {
                if let Some((address, register)) = self.selected(offset) {
                    self.write_config(address, register, data);
                }
            }
            _ => {}
        }
    }
}
