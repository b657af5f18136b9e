//! What a monitor would show: the text screen as lines, and every mode as pixels.

use std::io;

use super::blink::Blink;
use super::cp437::CHARACTERS;
use super::{Vga, memory_slice};

/// Sequencer clocking mode: characters are 8 dots wide, not 9.
const EIGHT_DOTS: u8 = 1 << 0;
/// Graphics miscellaneous: graphics mode.
const GRAPHICS: u8 = 1 << 0;
/// Largest side of a picture; registers can say more.
const MAX_SIDE: usize = 4096;

/// A text screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextScreen {
    /// The lines from the top, without trailing blanks.
    pub lines: Vec<String>,
    /// Column and line of the cursor, if it shows.
    pub cursor: Option<(usize, usize)>,
}

/// A text screen with its attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextCells {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
    /// By lines from the top: a character, and its attribute: foreground color in bits 3:0,
    /// background in 7:4; bit 8, [`BLINKING`].
    pub cells: Vec<(char, u16)>,
    /// Column and line of the cursor, if it shows.
    pub cursor: Option<(usize, usize)>,
}

/// In [`TextCells`]: the character blinks.
pub const BLINKING: u16 = 1 << 8;

/// A picture: 8 bits of red, green and blue for each pixel, by lines from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Pixels in a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// `width * height * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Frame {
    fn black(width: usize, height: usize) -> Self {
        let (width, height) = (width.clamp(1, MAX_SIDE), height.clamp(1, MAX_SIDE));
        Self { width, height, rgb: vec![0; width * height * 3] }
    }

    fn set(&mut self, x: usize, y: usize, color: [u8; 3]) {
        if x < self.width && y < self.height {
            let at = (y * self.width + x) * 3;
            if let Some(pixel) = self.rgb.get_mut(at..at + 3) {
                pixel.copy_from_slice(&color);
            }
        }
    }

    /// Writes the picture as PNG.
    ///
    /// # Errors
    /// If `output` cannot be written.
    pub fn write_png(&self, output: impl io::Write) -> io::Result<()> {
        let mut encoder = png::Encoder::new(output, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(io::Error::other)?;
        writer.write_image_data(&self.rgb).map_err(io::Error::other)?;
        writer.finish().map_err(io::Error::other)
    }
}

/// The geometry of a text mode.
struct TextMode {
    columns: usize,
    rows: usize,
    char_height: usize,
    char_width: usize,
    start: usize,
    /// Cells from a row to the next.
    pitch: usize,
}

impl Vga {
    fn is_text(&self) -> bool {
        !self.dispi.enabled() && self.registers.graphics[6] & GRAPHICS == 0
    }

    fn crtc(&self, index: usize) -> usize {
        self.registers.crtc.get(index).copied().unwrap_or(0).into()
    }

    /// Scan lines that show.
    fn visible_lines(&self) -> usize {
        let overflow = self.crtc(7);
        (self.crtc(0x12) | (overflow & 2) << 7 | (overflow & 0x40) << 3) + 1
    }

    /// The last scan line before the split screen, whose lower part begins at address 0.
    fn line_compare(&self) -> usize {
        self.crtc(0x18) | (self.crtc(7) & 0x10) << 4 | (self.crtc(9) & 0x40) << 3
    }

    fn text_mode(&self) -> TextMode {
        let char_height = (self.crtc(9) & 0x1f) + 1;
        TextMode {
            columns: (self.crtc(1) + 1).min(256),
            rows: (self.visible_lines() / char_height).clamp(1, 128),
            char_height,
            char_width: if self.registers.sequencer[1] & EIGHT_DOTS != 0 { 8 } else { 9 },
            start: self.crtc(0xc) << 8 | self.crtc(0xd),
            pitch: self.crtc(0x13) * 2,
        }
    }

    /// Character and attribute of a cell.
    fn cell(&self, mode: &TextMode, column: usize, row: usize) -> (u8, u8) {
        let at = match (row * mode.char_height).checked_sub(self.line_compare() + 1) {
            None => mode.start + row * mode.pitch,
            // The lower part of a split screen.
            Some(below) => below.div_ceil(mode.char_height) * mode.pitch,
        };
        self.cell_at(at + column)
    }

    fn cell_at(&self, address: usize) -> (u8, u8) {
        let cell = memory_slice(&self.memory, (address & 0xffff) * 4, 2);
        (cell.first().copied().unwrap_or(0), cell.get(1).copied().unwrap_or(0))
    }

    fn cursor(&self, mode: &TextMode) -> Option<(usize, usize)> {
        let at = (self.crtc(0xe) << 8 | self.crtc(0xf)).checked_sub(mode.start)?;
        let (row, column) = (at.checked_div(mode.pitch)?, at.checked_rem(mode.pitch)?);
        let shown = self.crtc(0xa) & 0x20 == 0 && row < mode.rows && column < mode.columns;
        shown.then_some((column, row))
    }

    /// The text on the screen; `None` in a graphics mode.
    pub fn text(&self) -> Option<TextScreen> {
        if !self.is_text() {
            return None;
        }
        let mode = self.text_mode();
        let lines = (0..mode.rows).map(|row| {
            let line: String = (0..mode.columns)
                .map(|column| CHARACTERS[usize::from(self.cell(&mode, column, row).0)])
                .collect();
            line.trim_end().to_owned()
        });
        Some(TextScreen { lines: lines.collect(), cursor: self.cursor(&mode) })
    }

    /// The text on the screen with its attributes; `None` in a graphics mode.
    pub fn text_cells(&self) -> Option<TextCells> {
        if !self.is_text() {
            return None;
        }
        let mode = self.text_mode();
        if !self.registers.display_enabled() {
            let cells = vec![(' ', 0); mode.columns * mode.rows];
            return Some(TextCells { columns: mode.columns, rows: mode.rows, cells, cursor: None });
        }
        let blink = self.blink_enabled();
        let mut cells = Vec::with_capacity(mode.columns * mode.rows);
        for row in 0..mode.rows {
            for column in 0..mode.columns {
                let (character, attribute) = self.cell(&mode, column, row);
                let attribute = u16::from(attribute);
                let attribute = if blink && attribute & 0x80 != 0 {
                    attribute & 0x7f | BLINKING
                } else {
                    attribute
                };
                cells.push((CHARACTERS[usize::from(character)], attribute));
            }
        }
        let cursor = self.cursor(&mode);
        Some(TextCells { columns: mode.columns, rows: mode.rows, cells, cursor })
    }

    /// The picture's width and height in pixels.
    pub fn resolution(&self) -> (usize, usize) {
        if self.dispi.enabled() {
            return (self.dispi.x.max(1).into(), self.dispi.y.max(1).into());
        }
        let frame = self.frame();
        (frame.width, frame.height)
    }

    /// Bit 7 of attributes means blinking, not a bright background.
    pub(super) fn blink_enabled(&self) -> bool {
        self.registers.attribute[0x10] & 8 != 0
    }

    /// Whether something on the screen blinks: the cursor, or characters.
    pub fn blinks(&self) -> bool {
        if !self.is_text() || !self.registers.display_enabled() {
            return false;
        }
        let mode = self.text_mode();
        let cells = (0..mode.rows).flat_map(|row| (0..mode.columns).map(move |at| (row, at)));
        self.cursor(&mode).is_some()
            || self.blink_enabled() && { cells }
                .any(|(row, column)| self.cell(&mode, column, row).1 & 0x80 != 0)
    }

    /// The picture on the screen, in any mode; what blinks shows.
    pub fn frame(&self) -> Frame {
        self.frame_at(Blink::SHOWN)
    }

    /// The picture on the screen, in any mode, while what blinks is in these halves.
    pub fn frame_at(&self, blink: Blink) -> Frame {
        if self.dispi.enabled() {
            return self.linear_frame();
        }
        if !self.registers.display_enabled() {
            return Frame::black(640, 480);
        }
        if self.is_text() { self.text_frame(blink) } else { self.graphics_frame() }
    }

    /// The color of palette entry `index`.
    fn dac(&self, index: u8) -> [u8; 3] {
        let at = usize::from(index & self.registers.pel_mask) * 3;
        let entry = memory_slice(&self.registers.palette, at, 3);
        let component = |i: usize| {
            let value = entry.get(i).copied().unwrap_or(0);
            if self.dispi.eight_bit_dac() {
                value
            } else {
                (value & 0x3f) << 2 | (value & 0x3f) >> 4
            }
        };
        [component(0), component(1), component(2)]
    }

    /// The color of a 4-bit pixel, by way of the attribute controller.
    fn attribute_color(&self, pixel: u8) -> [u8; 3] {
        let attribute = &self.registers.attribute;
        let color = attribute[usize::from(pixel & 0xf & attribute[0x12])];
        let select = attribute[0x14];
        self.dac(if attribute[0x10] & 0x80 != 0 {
            color & 0x0f | (select & 0x0f) << 4
        } else {
            color & 0x3f | (select & 0x0c) << 4
        })
    }

    fn text_frame(&self, blink: Blink) -> Frame {
        let mode = self.text_mode();
        let mut frame = Frame::black(mode.columns * mode.char_width, mode.rows * mode.char_height);
        let cursor = self.cursor(&mode).filter(|_| blink.cursor);
        let cursor_lines = (self.crtc(0xa) & 0x1f)..=(self.crtc(0xb) & 0x1f);
        let map = self.registers.sequencer[3];
        // Character map A serves characters whose attribute bit 3 is set, B the others.
        let font = |select: u8| (usize::from(select & 3) << 1 | usize::from(select >> 2)) * 0x2000;
        let font_a = font(map >> 2 & 3 | map >> 3 & 4);
        let font_b = font(map & 3 | map >> 2 & 4);
        let blinking = self.blink_enabled();
        let line_graphics = self.registers.attribute[0x10] & 4 != 0;
        // Smooth scrolling: the picture begins within a row and a character, but below the split.
        let row_scan = self.crtc(8) & 0x1f;
        let panning = self.text_panning(mode.char_width);
        let pans_below = self.registers.attribute[0x10] & 0x20 == 0;
        let split = self.line_compare() + 1;
        for y in 0..frame.height {
            let below = y.checked_sub(split);
            let scan = below.unwrap_or(y + row_scan);
            let (row, line) = (scan / mode.char_height, scan % mode.char_height);
            let first = if below.is_some() { 0 } else { mode.start };
            let start = first + row * mode.pitch;
            let left = if below.is_some() && !pans_below { 0 } else { panning };
            let is_cursor_line = below.is_none() && cursor_lines.contains(&line);
            // One column more where the first is cut.
            for column in 0..mode.columns + usize::from(left > 0) {
                let (character, attribute) = self.cell_at(start + column);
                let background = attribute >> 4 & if blinking { 7 } else { 15 };
                let colors =
                    [self.attribute_color(background), self.attribute_color(attribute & 15)];
                let font = if attribute & 8 != 0 { font_a } else { font_b };
                let at = (font + usize::from(character) * 32 + line) * 4 + 2;
                let mut bits = u16::from(self.memory.get(at).copied().unwrap_or(0)) << 1;
                if line_graphics && (0xc0..=0xdf).contains(&character) {
                    bits |= bits >> 1 & 1;
                }
                if blinking && attribute & 0x80 != 0 && !blink.characters {
                    bits = 0;
                }
                if is_cursor_line && cursor == Some((column, row)) {
                    bits = 0x1ff;
                }
                for dot in 0..mode.char_width {
                    if let Some(x) = (column * mode.char_width + dot).checked_sub(left) {
                        frame.set(x, y, colors[usize::from(bits >> (8 - dot) & 1)]);
                    }
                }
            }
        }
        frame
    }

    /// Dots that the picture is moved to the left by. Characters of 9 dots count them from 8.
    fn text_panning(&self, char_width: usize) -> usize {
        let bytes = self.crtc(8) >> 5 & 3;
        let dots = usize::from(self.registers.attribute[0x13] & 0xf);
        let dots = match char_width {
            9 if dots >= 8 => 0,
            9 => dots + 1,
            _ => dots & 7,
        };
        bytes * char_width + dots
    }

    /// Planar 16-color modes, CGA's packed modes and 256 colors.
    fn graphics_frame(&self) -> Frame {
        let registers = &self.registers;
        let wide = registers.graphics[5] & 0x40 != 0;
        let packed = registers.graphics[5] & 0x20 != 0;
        // Each pixel is shown twice where the dot clock is halved, or in 256 colors.
        let dots = (self.crtc(1) + 1) * 8;
        let width = if wide { dots / 2 } else { dots };
        let lines = self.visible_lines();
        let double = self.crtc(9) & 0x80 != 0;
        let repeat = ((self.crtc(9) & 0x1f) + 1) * if double { 2 } else { 1 };
        // CGA's and Hercules's banks: scan line bit 0 replaces an address bit.
        let cga_banks = self.crtc(0x17) & 1 == 0;
        let repeat = if cga_banks { repeat.div_ceil(2) } else { repeat }.max(1);
        let height = lines / repeat;
        let start = self.crtc(0xc) << 8 | self.crtc(0xd);
        let pitch = self.crtc(0x13) * 2;
        // Panning moves the picture left by dots; below the split only where the mode says so.
        let panning = usize::from(registers.attribute[0x13] & 7);
        let panning = if wide { panning / 2 } else { panning };
        let pans_below = registers.attribute[0x10] & 0x20 == 0;
        let split = self.line_compare() + 1;
        let mut frame = Frame::black(width, height);
        for y in 0..frame.height {
            let below = (y * repeat).checked_sub(split).map(|lines| lines.div_ceil(repeat));
            let (start, left, line_number) = match below {
                None => (start, panning, y),
                Some(line) => (0, if pans_below { panning } else { 0 }, line),
            };
            let (row, bank) = if cga_banks {
                (line_number / 2, (line_number & 1) * 0x2000)
            } else {
                (line_number, 0)
            };
            let line = start + row * pitch;
            for column in 0..frame.width {
                let x = column + left;
                let byte = |at: usize| self.memory.get(at).copied().unwrap_or(0);
                let color = if wide {
                    self.dac(byte((line * 4 + x) & 0x3_ffff))
                } else if packed {
                    // Two bits a pixel, even and odd bytes in planes 0 and 1.
                    let at = line + x / 8 + bank;
                    let plane = (x / 4) & 1;
                    let value = byte((at & 0xffff) * 4 + plane) >> (6 - 2 * (x & 3)) & 3;
                    self.attribute_color(value)
                } else {
                    let at = ((line + x / 8 + bank) & 0xffff) * 4;
                    let planes = memory_slice(&self.memory, at, 4);
                    let pixel = planes.iter().enumerate().fold(0, |pixel, (plane, byte)| {
                        pixel | (byte >> (7 - (x & 7)) & 1) << plane
                    });
                    self.attribute_color(pixel)
                };
                frame.set(column, y, color);
            }
        }
        frame
    }

    fn linear_frame(&self) -> Frame {
        let dispi = &self.dispi;
        let mut frame = Frame::black(dispi.x.into(), dispi.y.into());
        let size = dispi.bytes_per_pixel();
        let (left, top) = (usize::from(dispi.x_offset), usize::from(dispi.y_offset));
        let palette: Vec<[u8; 3]> = (0..=255).map(|index| self.dac(index)).collect();
        let planar: Vec<[u8; 3]> = (0..16).map(|pixel| self.attribute_color(pixel)).collect();
        let lines = frame.rgb.chunks_exact_mut(frame.width * 3);
        for (y, line) in lines.enumerate() {
            let start = (top + y) * dispi.pitch();
            let pixels = line.as_chunks_mut::<3>().0.iter_mut().enumerate();
            if dispi.bits == 4 {
                for (x, pixel) in pixels {
                    let at = (start + (left + x) / 8 * 4) & !3;
                    let planes = memory_slice(&self.memory, at, 4);
                    let bit = 7 - (left + x) % 8;
                    let index = planes
                        .iter()
                        .enumerate()
                        .fold(0, |index, (plane, byte)| index | (byte >> bit & 1) << plane);
                    *pixel = planar[usize::from(index & 15)];
                }
                continue;
            }
            let source = memory_slice(&self.memory, start + left * size, frame.width * size);
            for ((_, pixel), bytes) in pixels.zip(source.chunks_exact(size.max(1))) {
                *pixel = match *bytes {
                    [index] => palette[usize::from(index)],
                    [low, high] => from_16_bits(u16::from_le_bytes([low, high]), dispi.bits),
                    [blue, green, red] | [blue, green, red, _] => [red, green, blue],
                    _ => [0; 3],
                };
            }
        }
        frame
    }
}

/// A pixel of 5-5-5 or 5-6-5 bits.
fn from_16_bits(pixel: u16, bits: u16) -> [u8; 3] {
    let scale = |value: u16, width: u32| (u32::from(value) * 255 / ((1 << width) - 1)) as u8;
    if bits == 15 {
        [scale(pixel >> 10 & 31, 5), scale(pixel >> 5 & 31, 5), scale(pixel & 31, 5)]
    } else {
        [scale(pixel >> 11 & 31, 5), scale(pixel >> 5 & 63, 6), scale(pixel & 31, 5)]
    }
}
