//! The I/O APIC: input pins and a redirection table that turns them into
//! interrupt messages.
//!
//! Registers are reached through an index and a data window:
//!
//! | offset | register |
//! |---|---|
//! | 00H | IOREGSEL: index, bits 7:0 |
//! | 10H | IOWIN: data of the register indexed |
//! | 40H | EOIR: write-only, a vector whose level interrupts are done |
//!
//! | index | register |
//! |---|---|
//! | 00H | IOAPICID: bits 27:24 |
//! | 01H | IOAPICVER, read-only: version 20H, last entry 23 |
//! | 02H | IOAPICARB, read-only: arbitration ID, follows the ID |
//! | 10H + 2n, 11H + 2n | redirection entry n, low and high half |
//!
//! Source: Intel 82093AA datasheet; Intel ICH10 datasheet, section "Advanced
//! Programmable Interrupt Controller (D31:F0)", for version 20H and EOIR.

use serde::{Deserialize, Serialize};

use super::message::{DeliveryMode, Destination, InterruptMessage, TriggerMode};

/// Guest physical address of a PC's I/O APIC.
pub const IO_APIC_BASE: u64 = 0xFEC0_0000;
/// Number of input pins and redirection entries.
pub const IO_APIC_PINS: u8 = 24;

/// Version 20H: there is an EOI register.
const VERSION: u32 = 0x20 | (IO_APIC_PINS as u32 - 1) << 16;

/// Bit 14, read-only: a level interrupt was sent and awaits its EOI.
const REMOTE_IRR: u64 = 1 << 14;
/// Bit 15: level triggered.
const LEVEL: u64 = 1 << 15;
/// Bit 16: masked.
const MASK: u64 = 1 << 16;
/// Vector, delivery mode, destination mode, polarity, trigger mode, mask;
/// destination (63:56) and its extension (55:49), which is what paravirtual
/// guests without an IOMMU use for APIC IDs above 255. Bit 12, delivery
/// status, always reads idle: messages leave at once.
const WRITABLE: u64 = 0xFFFE_0000_0000_0000 | 0x1_AFFF;

/// One entry of the redirection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RedirectionEntry(u64);

impl RedirectionEntry {
    fn vector(self) -> u8 {
        self.0 as u8
    }

    fn delivery_mode(self) -> DeliveryMode {
        DeliveryMode::from_bits((self.0 >> 8) as u32)
    }

    pub(super) fn masked(self) -> bool {
        self.0 & MASK != 0
    }

    /// Whether the entry is served by level. The other delivery modes are
    /// edges whatever bit 15 says: nobody answers them with an EOI.
    pub(super) fn level(self) -> bool {
        let mode = self.delivery_mode();
        self.0 & LEVEL != 0 && (mode == DeliveryMode::Fixed || mode == DeliveryMode::LowestPriority)
    }

    pub(super) fn remote_irr(self) -> bool {
        self.0 & REMOTE_IRR != 0
    }

    pub(super) fn message(self) -> InterruptMessage {
        let logical = self.0 & 1 << 11 != 0;
        let id = (self.0 >> 56) as u8;
        let extended_id = (self.0 >> 49) as u32 & 0x7F;
        InterruptMessage {
            vector: self.vector(),
            delivery_mode: self.delivery_mode(),
            destination: if extended_id == 0 {
                Destination::from_byte(logical, id)
            } else {
                Destination::from_id(logical, extended_id << 8 | u32::from(id))
            },
            trigger: if self.level() { TriggerMode::Level } else { TriggerMode::Edge },
        }
    }

    /// Software writes the entry.
    fn write(&mut self, value: u64) {
        self.0 = value & WRITABLE | self.0 & REMOTE_IRR;
        // Operating systems make a stuck entry forget its remote IRR by
        // turning it to edge and back.
        if self.0 & LEVEL == 0 {
            self.0 &= !REMOTE_IRR;
        }
    }
}

/// Messages that leave the I/O APIC, each with the pin it comes from.
pub type Injections = Vec<(u8, InterruptMessage)>;

/// An I/O APIC with 24 pins.
///
/// Levels are logical: `true` is "asserted", whatever the wiring. The polarity
/// bit of an entry is stored and has no effect, since guests set it to what
/// the ACPI tables say about the wire, not to invert a device.
///
/// Every message returned should be routed at once. If no local APIC takes
/// it, say so with [`IoApic::refused`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApic {
    /// Bits 27:24 of IOAPICID.
    id: u8,
    /// IOREGSEL.
    index: u8,
    pub(super) entries: [RedirectionEntry; IO_APIC_PINS as usize],
    /// One bit for each pin that is asserted.
    asserted: u32,
}

impl IoApic {
    /// An I/O APIC after reset: all entries masked, ID `id` (0 to 15).
    pub fn new(id: u8) -> Self {
        Self {
            id: id & 0xF,
            index: 0,
            entries: [RedirectionEntry(MASK); IO_APIC_PINS as usize],
            asserted: 0,
        }
    }

    /// Resets the registers; the levels of the pins are not the I/O APIC's to
    /// reset.
    pub fn reset(&mut self) {
        *self = Self { asserted: self.asserted, ..Self::new(0) };
    }

    /// Sets the level of `pin`. Pins from 24 up do not exist: ignored.
    ///
    /// An edge-triggered pin sends on the rising edge, which is lost if the
    /// entry is masked; a level-triggered one sends when asserted, unless a
    /// former message awaits its EOI.
    pub fn set_pin(&mut self, pin: u8, level: bool) -> Option<InterruptMessage> {
        let entry = *self.entries.get(usize::from(pin))?;
        let bit = 1 << pin;
        let rising = level && self.asserted & bit == 0;
        self.asserted = if level { self.asserted | bit } else { self.asserted & !bit };
        if entry.level() {
            self.serve_level(pin)
        } else {
            (rising && !entry.masked()).then(|| entry.message())
        }
    }

    /// Whether `pin` is asserted.
    pub fn pin(&self, pin: u8) -> bool {
        pin < IO_APIC_PINS && self.asserted & 1 << pin != 0
    }

    /// A local APIC broadcasts the end of level interrupt `vector`. Pins that
    /// are still asserted send again.
    pub fn eoi(&mut self, vector: u8) -> Injections {
        let mut injections = Injections::new();
        for pin in 0..IO_APIC_PINS {
            let entry = &mut self.entries[usize::from(pin)];
            if entry.vector() == vector && entry.remote_irr() {
                entry.0 &= !REMOTE_IRR;
                injections.extend(self.serve_level(pin).map(|message| (pin, message)));
            }
        }
        injections
    }

    /// No local APIC took the message from `pin`: a level interrupt does not
    /// await an EOI then. It is tried again when the entry is written or the
    /// pin set.
    pub fn refused(&mut self, pin: u8) {
        if let Some(entry) = self.entries.get_mut(usize::from(pin)) {
            entry.0 &= !REMOTE_IRR;
        }
    }

    /// Sends from a level-triggered pin if there is something to send.
    fn serve_level(&mut self, pin: u8) -> Option<InterruptMessage> {
        let asserted = self.pin(pin);
        let entry = self.entries.get_mut(usize::from(pin))?;
        if !asserted || !entry.level() || entry.masked() || entry.remote_irr() {
            return None;
        }
        entry.0 |= REMOTE_IRR;
        Some(entry.message())
    }

    /// Reads from the register window. Registers are 32 bits wide; a narrower
    /// read gets the low bytes, the rest of a wider one is zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match offset & 0xFF {
            0x00 => u32::from(self.index),
            0x10 => self.read_indexed(),
            _ => 0,
        };
        data.fill(0);
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }

    /// Writes to the register window; narrow writes are extended with zeros.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Injections {
        let mut bytes = [0; 4];
        for (byte, value) in bytes.iter_mut().zip(data) {
            *byte = *value;
        }
        let value = u32::from_le_bytes(bytes);
        match offset & 0xFF {
            0x00 => {
                self.index = value as u8;
                Injections::new()
            }
            0x10 => self.write_indexed(value),
            0x40 => self.eoi(value as u8),
            _ => Injections::new(),
        }
    }

    /// The pin whose entry the index selects.
    fn selected_pin(&self) -> Option<u8> {
        self.index.checked_sub(0x10).map(|half| half / 2).filter(|&pin| pin < IO_APIC_PINS)
    }

    fn read_indexed(&self) -> u32 {
        match self.index {
            0x00 | 0x02 => u32::from(self.id) << 24,
            0x01 => VERSION,
            _ => {
                let entry = self.selected_pin().and_then(|pin| self.entries.get(usize::from(pin)));
                let value = entry.map_or(0, |entry| entry.0);
                (if self.index & 1 == 0 { value } else { value >> 32 }) as u32
            }
        }
    }

    fn write_indexed(&mut self, value: u32) -> Injections {
        if self.index == 0 {
            self.id = (value >> 24) as u8 & 0xF;
        }
        let Some(pin) = self.selected_pin() else {
            return Injections::new();
        };
        let entry = &mut self.entries[usize::from(pin)];
        let value = u64::from(value);
        entry.write(if self.index & 1 == 0 {
            entry.0 & !u64::from(u32::MAX) | value
        } else {
            entry.0 & u64::from(u32::MAX) | value << 32
        });
        self.serve_level(pin).map(|message| (pin, message)).into_iter().collect()
    }
}
