//! Rectangles of a picture as a client takes them: raw, or ZRLE.
//!
//! Source: RFC 6143, sections 7.7.1 and 7.7.6.

use super::pixel::PixelFormat;
use devices::vga::Frame;
use flate2::{Compress, Compression, FlushCompress};

/// Side of ZRLE's tiles.
const TILE: usize = 64;
/// Most colors of a packed palette.
const PALETTE: usize = 16;

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rectangle {
    /// Left edge.
    pub(super) x: usize,
    /// Upper edge.
    pub(super) y: usize,
    /// Width.
    pub(super) width: usize,
    /// Height.
    pub(super) height: usize,
}

impl Rectangle {
    /// What of it lies in a picture of this size; `None` if nothing does.
    pub(super) fn clip(self, width: usize, height: usize) -> Option<Rectangle> {
        let right = self.x.saturating_add(self.width).min(width);
        let bottom = self.y.saturating_add(self.height).min(height);
        (self.x < right && self.y < bottom).then(|| Rectangle {
            x: self.x,
            y: self.y,
            width: right - self.x,
            height: bottom - self.y,
        })
    }

    /// Its tiles, by rows.
    fn tiles(self) -> impl Iterator<Item = Rectangle> {
        let rows = (self.y..self.y + self.height).step_by(TILE);
        rows.flat_map(move |y| {
            let height = TILE.min(self.y + self.height - y);
            (self.x..self.x + self.width).step_by(TILE).map(move |x| {
                let width = TILE.min(self.x + self.width - x);
                Rectangle { x, y, width, height }
            })
        })
    }
}

/// The bytes of a line of a rectangle within the frame.
fn line(frame: &Frame, area: Rectangle, y: usize) -> &[u8] {
    let start = (y * frame.width + area.x) * 3;
    frame.rgb.get(start..start + area.width * 3).unwrap_or_default()
}

/// The parts of `area` in which two frames of one size differ: runs of tiles.
pub(super) fn differences(old: &Frame, new: &Frame, area: Rectangle) -> Vec<Rectangle> {
    let mut changed: Vec<Rectangle> = Vec::new();
    for tile in area.tiles() {
        let differs =
            (tile.y..tile.y + tile.height).any(|y| line(old, tile, y) != line(new, tile, y));
        if !differs {
            continue;
        }
        match changed.last_mut() {
            Some(last) if last.y == tile.y && last.x + last.width == tile.x => {
                last.width += tile.width;
            }
            _ => changed.push(tile),
        }
    }
    changed
}

/// Pixels of a rectangle, in the client's format.
fn pixels(frame: &Frame, area: Rectangle, format: &PixelFormat) -> Vec<u32> {
    let mut pixels = Vec::with_capacity(area.width * area.height);
    for y in area.y..area.y + area.height {
        for rgb in line(frame, area, y).as_chunks::<3>().0 {
            pixels.push(format.value(*rgb));
        }
    }
    pixels
}

/// The raw encoding.
pub(super) fn raw(frame: &Frame, area: Rectangle, format: &PixelFormat, output: &mut Vec<u8>) {
    for pixel in pixels(frame, area, format) {
        format.push(output, pixel);
    }
}

/// The ZRLE encoder of one connection: its compressed stream runs on from rectangle to rectangle.
pub(super) struct Zrle {
    stream: Compress,
}

impl Zrle {
    /// An encoder for a new connection.
    pub(super) fn new() -> Zrle {
        Zrle { stream: Compress::new(Compression::fast(), true) }
    }

    /// Appends the length and the compressed tiles of a rectangle.
    pub(super) fn encode(
        &mut self,
        frame: &Frame,
        area: Rectangle,
        format: &PixelFormat,
        output: &mut Vec<u8>,
    ) {
        let mut tiles = Vec::new();
        for tile in area.tiles() {
            encode_tile(&pixels(frame, tile, format), tile.width, format, &mut tiles);
        }
        let compressed = self.compress(&tiles);
        output.extend((compressed.len() as u32).to_be_bytes());
        output.extend(compressed);
    }

    fn compress(&mut self, mut input: &[u8]) -> Vec<u8> {
        let mut output = Vec::with_capacity(input.len() / 4 + 64);
        loop {
            let before = self.stream.total_in();
            // Deflating into memory does not fail; if it did, the client would see a short stream.
            if self.stream.compress_vec(input, &mut output, FlushCompress::Sync).is_err() {
                return output;
            }
            let taken = (self.stream.total_in() - before) as usize;
            input = input.get(taken..).unwrap_or_default();
            if input.is_empty() && output.len() < output.capacity() {
                return output;
            }
            output.reserve(4096);
        }
    }
}

impl Default for Zrle {
    fn default() -> Self {
        Zrle::new()
    }
}

/// Runs of equal pixels: the pixel and its count.
fn runs(pixels: &[u32]) -> Vec<(u32, usize)> {
    pixels.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect()
}

fn encode_tile(pixels: &[u32], width: usize, format: &PixelFormat, output: &mut Vec<u8>) {
    let mut palette: Vec<u32> = Vec::with_capacity(PALETTE + 1);
    let runs = runs(pixels);
    for (pixel, _) in &runs {
        if !palette.contains(pixel) {
            palette.push(*pixel);
            if palette.len() > PALETTE {
                break;
            }
        }
    }
    if let [only] = palette[..] {
        output.push(1);
        return format.push_compressed(output, only);
    }
    let pixel_size = format.size().min(3);
    if palette.len() <= PALETTE {
        let bits = match palette.len() {
            2 => 1,
            3 | 4 => 2,
            _ => 4,
        };
        output.push(palette.len() as u8);
        for &color in &palette {
            format.push_compressed(output, color);
        }
        for line in pixels.chunks(width.max(1)) {
            for group in line.chunks(8 / bits) {
                let packed = group.iter().enumerate().fold(0u8, |packed, (index, pixel)| {
                    let color = palette.iter().position(|color| color == pixel).unwrap_or(0);
                    packed | (color as u8) << (8 - bits * (index + 1))
                });
                output.push(packed);
            }
        }
    } else if runs.len() * (pixel_size + 1) < pixels.len() * pixel_size {
        output.push(128);
        for (pixel, count) in runs {
            format.push_compressed(output, pixel);
            let rest = count - 1;
            output.extend(std::iter::repeat_n(255, rest / 255));
            output.push((rest % 255) as u8);
        }
    } else {
        output.push(0);
        for &pixel in pixels {
            format.push_compressed(output, pixel);
        }
    }
}
