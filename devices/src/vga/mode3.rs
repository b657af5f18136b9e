//! The adapter as a VGA BIOS leaves it: mode 3, 80 columns and 25 lines of text in 16 colors.
//!
//! Source: IBM VGA XGA Technical Reference Manual (1992), the table of register values by mode.

use super::VgaDevice;
use crate::bus::BusDevice;

const SEQUENCER: [u8; 5] = [0x03, 0x00, 0x03, 0x00, 0x02];
const CRTC: [u8; 25] = [
    0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00,
    0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
];
const GRAPHICS: [u8; 9] = [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x0f, 0xff];
const ATTRIBUTE: [u8; 21] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f,
    0x0c, 0x00, 0x0f, 0x08, 0x00,
];
/// Color, RAM enabled, 28 MHz clock, odd page, 400 lines.
const MISCELLANEOUS: u8 = 0x67;
/// Bytes of a character in the font of 25 lines.
const CHAR_HEIGHT: usize = 16;
/// The second character of that font, the white face, after the first, which is blank: by this the
/// font is found in a ROM.
const FONT_START: [u8; 2 * CHAR_HEIGHT] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7e, 0x81, 0xa5, 0x81, 0x81, 0xbd, 0x99,
    0x81, 0x81, 0x7e, 0, 0, 0, 0,
];

/// The font of 16 lines in an adapter's option ROM.
fn font(rom: &[u8]) -> Option<&[u8]> {
    let at = rom.windows(FONT_START.len()).position(|window| window == FONT_START)?;
    rom.get(at..at + 256 * CHAR_HEIGHT)
}

impl VgaDevice {
    /// Sets mode 3, clears the screen, and loads the font of `rom`, the adapter's option ROM, if it
    /// has one.
    pub fn set_text_mode(&mut self, rom: &[u8]) {
        self.write(0x3c2, &[MISCELLANEOUS]);
        self.write_indexed(0x3c4, &SEQUENCER);
        // Registers 0 to 7 are open.
        self.write(0x3d4, &[0x11, 0]);
        self.write_indexed(0x3d4, &CRTC);
        self.write_indexed(0x3ce, &GRAPHICS);
        let mut status = [0];
        self.read(0x3da, &mut status);
        for (index, value) in (0u8..).zip(ATTRIBUTE) {
            self.write(0x3c0, &[index]);
            self.write(0x3c0, &[value]);
        }
        self.write(0x3c0, &[0x20]);
        self.write(0x3c6, &[0xff]);
        // The EGA's 64 colors: two bits for each component.
        self.write(0x3c8, &[0]);
        for color in 0..64u8 {
            for bit in [2, 1, 0] {
                let (high, low) = (color >> bit & 1, color >> (bit + 3) & 1);
                self.write(0x3c9, &[high * 0x2a + low * 0x15]);
            }
        }
        let font = font(rom);
        if font.is_none() {
            tracing::warn!("there is no font for the text screen in the VGA's ROM");
        }
        for cell in self.vga.memory.chunks_exact_mut(4).take(0x4000) {
            cell.copy_from_slice(&[b' ', 0x07, 0, 0]);
        }
        for (character, glyph) in font.unwrap_or_default().chunks_exact(CHAR_HEIGHT).enumerate() {
            for (line, byte) in glyph.iter().enumerate() {
                if let Some(place) = self.vga.memory.get_mut((character * 32 + line) * 4 + 2) {
                    *place = *byte;
                }
            }
        }
    }

    fn write_indexed(&mut self, port: u64, values: &[u8]) {
        for (index, value) in (0u8..).zip(values) {
            self.write(port, &[index, *value]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::sync::Arc;

    #[test]
    fn mode_3_is_a_blank_screen_with_a_font() {
        let mut device = VgaDevice::new(Arc::new(ManualClock::new(0)));
        let mut rom = vec![0x55; 100];
        rom.extend(FONT_START);
        rom.extend([0x5a; 254 * CHAR_HEIGHT]);
        device.set_text_mode(&rom);
        let screen = device.vga().text().expect("a text mode");
        assert_eq!(screen.lines.len(), 25);
        assert!(screen.lines.iter().all(String::is_empty));
        assert_eq!(screen.cursor, Some((0, 0)));
        device.vga.memory[0] = 1;
        let frame = device.vga().frame();
        assert_eq!((frame.width, frame.height), (720, 400));
        let dot = |x: usize, y: usize| frame.rgb[(y * 720 + x) * 3];
        assert_eq!([dot(0, 3), dot(1, 2), dot(0, 2)], [0xaa, 0xaa, 0]);
    }
}
