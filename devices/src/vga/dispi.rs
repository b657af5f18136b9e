//! The VBE extension of Bochs: 16-bit registers behind an index.

use serde::{Deserialize, Serialize};

/// Register indices.
pub(super) mod index {
    pub(crate) const ID: u16 = 0;
    pub(crate) const X_RESOLUTION: u16 = 1;
    pub(crate) const Y_RESOLUTION: u16 = 2;
    pub(crate) const BITS_PER_PIXEL: u16 = 3;
    pub(crate) const ENABLE: u16 = 4;
    pub(crate) const BANK: u16 = 5;
    pub(crate) const VIRTUAL_WIDTH: u16 = 6;
    pub(crate) const VIRTUAL_HEIGHT: u16 = 7;
    pub(crate) const X_OFFSET: u16 = 8;
    pub(crate) const Y_OFFSET: u16 = 9;
    /// Video memory in units of 64 KiB.
    pub(crate) const MEMORY_64K: u16 = 10;
}

/// The newest version of the interface: 32 bits per pixel, memory size.
const ID_NEWEST: u16 = 0xb0c5;
const ID_OLDEST: u16 = 0xb0c0;
const ENABLED: u16 = 1 << 0;
const GET_CAPABILITIES: u16 = 1 << 1;
const EIGHT_BIT_DAC: u16 = 1 << 5;
const NO_CLEAR: u16 = 1 << 7;
const MAX_X: u16 = 2560;
const MAX_Y: u16 = 1600;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dispi {
    pub(super) index: u16,
    id: u16,
    pub(super) x: u16,
    pub(super) y: u16,
    pub(super) bits: u16,
    enable: u16,
    pub(super) bank: u16,
    pub(super) virtual_width: u16,
    pub(super) x_offset: u16,
    pub(super) y_offset: u16,
}

impl Default for Dispi {
    fn default() -> Self {
        Self {
            index: 0,
            id: ID_NEWEST,
            x: 0,
            y: 0,
            bits: 8,
            enable: 0,
            bank: 0,
            virtual_width: 0,
            x_offset: 0,
            y_offset: 0,
        }
    }
}

impl Dispi {
    /// Whether the extension drives the display.
    pub(super) fn enabled(&self) -> bool {
        self.enable & ENABLED != 0
    }

    /// Whether the palette has 8-bit components.
    pub(super) fn eight_bit_dac(&self) -> bool {
        self.enable & EIGHT_BIT_DAC != 0
    }

    /// Bytes of a pixel; 15 bits take two, 4 bits are planar and count none.
    pub(super) fn bytes_per_pixel(&self) -> usize {
        usize::from(self.bits).div_ceil(8)
    }

    /// Bytes of a line.
    pub(super) fn pitch(&self) -> usize {
        let width = usize::from(self.virtual_width.max(self.x));
        if self.bits == 4 { width / 2 } else { width * self.bytes_per_pixel() }
    }

    pub(super) fn read(&self, register: u16) -> u16 {
        let capabilities = self.enable & GET_CAPABILITIES != 0;
        match register {
            index::ID => self.id,
            index::X_RESOLUTION if capabilities => MAX_X,
            index::Y_RESOLUTION if capabilities => MAX_Y,
            index::BITS_PER_PIXEL if capabilities => 32,
            index::X_RESOLUTION => self.x,
            index::Y_RESOLUTION => self.y,
            index::BITS_PER_PIXEL => self.bits,
            index::ENABLE => self.enable,
            index::BANK => self.bank,
            index::VIRTUAL_WIDTH => self.virtual_width.max(self.x),
            index::VIRTUAL_HEIGHT => (super::MEMORY_SIZE / self.pitch().max(1)).min(0xffff) as u16,
            index::X_OFFSET => self.x_offset,
            index::Y_OFFSET => self.y_offset,
            index::MEMORY_64K => (super::MEMORY_SIZE >> 16) as u16,
            _ => 0xffff,
        }
    }

    /// Writes a register; `true` when the visible memory is to be cleared.
    pub(super) fn write(&mut self, register: u16, value: u16) -> bool {
        match register {
            index::ID if (ID_OLDEST..=ID_NEWEST).contains(&value) => self.id = value,
            index::X_RESOLUTION if !self.enabled() && value <= MAX_X => self.x = value & !7,
            index::Y_RESOLUTION if !self.enabled() && value <= MAX_Y => self.y = value,
            index::BITS_PER_PIXEL if !self.enabled() => {
                let bits = if value == 0 { 8 } else { value };
                if matches!(bits, 4 | 8 | 15 | 16 | 24 | 32) {
                    self.bits = bits;
                }
            }
            index::ENABLE => {
                let was = self.enabled();
                self.enable = value;
                if self.enabled() && !was {
                    self.virtual_width = self.x;
                    self.x_offset = 0;
                    self.y_offset = 0;
                    self.bank = 0;
                    return value & NO_CLEAR == 0;
                }
            }
            index::BANK => self.bank = value & 0x1ff,
            index::VIRTUAL_WIDTH if value >= self.x => self.virtual_width = value & !7,
            index::X_OFFSET => self.x_offset = value,
            index::Y_OFFSET => self.y_offset = value,
            _ => {}
        }
        false
    }
}
