//! A VGA adapter with the Bochs VBE extension: QEMU's "standard VGA", PCI 1234:1111.
//!
//! | where | what |
//! |---|---|
//! | ports 0x3B4, 0x3B5, 0x3BA, 0x3C0 to 0x3CF, 0x3D4, 0x3D5, 0x3DA | VGA registers |
//! | ports 0x1CE, 0x1CF, 0x1D0 | VBE dispi index and data |
//! | 0xA0000 to 0xBFFFF | the VGA window |
//! | BAR 0, 16 MiB | video memory, linear |
//! | BAR 2, 4 KiB | 0x400: ports 0x3C0 to 0x3DF; 0x500: dispi registers |
//! | ROM | the VGA BIOS |
//!
//! | file | holds |
//! |---|---|
//! | `registers.rs` | sequencer, CRTC, graphics, attribute controllers, DAC |
//! | `dispi.rs` | the VBE extension's registers |
//! | `memory.rs` | planes behind the window: latches, write modes |
//! | `screen.rs` | what a monitor would show: text lines, pixels |
//! | `mode3.rs` | the text mode that a VGA BIOS leaves |
//! | `changes.rs` | word of changes for those who look |
//! | `device.rs` | the attachments |
//!
//! Video memory is one array. A planar byte `n` of plane `p` is at `4n + p`; chain-4, and the
//! linear modes of VBE, count bytes.
//!
//! Sources: IBM VGA XGA Technical Reference Manual (1992); Bochs, "VBE DISPI interface"
//! (vbe.txt); QEMU documentation, docs/specs/standard-vga.

mod blink;
mod changes;
mod cp437;
mod device;
mod dispi;
mod memory;
mod mode3;
mod registers;
mod screen;
#[cfg(test)]
mod tests;

pub use blink::Blink;
pub use changes::Changes;
pub use device::{
    LinearWindow, MmioWindow, OptionRom, PORTS, VgaDevice, VgaWindow, WINDOW_BASE, WINDOW_SIZE,
    pci_function,
};
pub use screen::{BLINKING, Frame, TextCells, TextScreen};

use serde::{Deserialize, Serialize};

use dispi::Dispi;
use registers::Registers;

/// Bytes of video memory.
pub const MEMORY_SIZE: usize = 16 << 20;

/// The adapter: the pure register machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vga {
    registers: Registers,
    dispi: Dispi,
    memory: Vec<u8>,
    /// The four planes' bytes that the last read fetched.
    latch: [u8; 4],
}

impl Vga {
    /// The adapter after reset, its memory clear.
    pub fn new() -> Self {
        Self {
            registers: Registers::new(),
            dispi: Dispi::default(),
            memory: vec![0; MEMORY_SIZE],
            latch: [0; 4],
        }
    }
}

impl Default for Vga {
    fn default() -> Self {
        Self::new()
    }
}

/// `len` bytes from `start`, or what there is of them.
fn memory_slice(memory: &[u8], start: usize, len: usize) -> &[u8] {
    let start = start.min(memory.len());
    &memory[start..start.saturating_add(len).min(memory.len())]
}
