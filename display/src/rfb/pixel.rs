//! Pixel formats: what a client asks for, and pixels in it.

/// How a client wants its pixels: RFC 6143, section 7.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PixelFormat {
    /// 8, 16 or 32.
    pub(super) bits_per_pixel: u8,
    /// Bits that say something.
    pub(super) depth: u8,
    /// Most significant byte first.
    pub(super) big_endian: bool,
    /// Largest value of red, green and blue.
    pub(super) max: [u16; 3],
    /// Where each begins, from the least significant bit.
    pub(super) shift: [u8; 3],
}

impl PixelFormat {
    /// What the server offers: 32 bits, little-endian, red in bits 23:16.
    pub(super) const SERVER: PixelFormat = PixelFormat {
        bits_per_pixel: 32,
        depth: 24,
        big_endian: false,
        max: [255; 3],
        shift: [16, 8, 0],
    };

    /// The format in 16 bytes. `None` if it is none that pixels can have: colors by a map are not
    /// served.
    pub(super) fn parse(bytes: &[u8; 16]) -> Option<PixelFormat> {
        let [bits_per_pixel, depth, big_endian, true_color, maxima @ .., _, _, _] = *bytes;
        let [rh, rl, gh, gl, bh, bl, red, green, blue] = maxima;
        let format = PixelFormat {
            bits_per_pixel,
            depth,
            big_endian: big_endian != 0,
            max: [[rh, rl], [gh, gl], [bh, bl]].map(u16::from_be_bytes),
            shift: [red, green, blue],
        };
        let fits = |(&max, &shift): (&u16, &u8)| {
            u32::from(shift) + (16 - max.leading_zeros()) <= bits_per_pixel.into()
        };
        let valid = true_color != 0
            && matches!(bits_per_pixel, 8 | 16 | 32)
            && format.max.iter().zip(&format.shift).all(fits);
        valid.then_some(format)
    }

    /// The format in 16 bytes.
    pub(super) fn bytes(&self) -> [u8; 16] {
        let [r, g, b] = self.max.map(u16::to_be_bytes);
        let [rs, gs, bs] = self.shift;
        let endian = u8::from(self.big_endian);
        let (bits, depth) = (self.bits_per_pixel, self.depth);
        [bits, depth, endian, 1, r[0], r[1], g[0], g[1], b[0], b[1], rs, gs, bs, 0, 0, 0]
    }

    /// Bytes of a pixel.
    pub(super) fn size(&self) -> usize {
        usize::from(self.bits_per_pixel / 8)
    }

    /// A color in this format, in the low bits.
    pub(super) fn value(&self, rgb: [u8; 3]) -> u32 {
        rgb.iter().zip(self.max).zip(self.shift).fold(0, |value, ((&component, max), shift)| {
            let scaled = if max == 255 {
                u32::from(component)
            } else {
                (u32::from(component) * u32::from(max) + 127) / 255
            };
            value | scaled << (shift & 31)
        })
    }

    /// Appends a pixel as it goes over the line.
    pub(super) fn push(&self, output: &mut Vec<u8>, value: u32) {
        match (self.bits_per_pixel, self.big_endian) {
            (8, _) => output.push(value as u8),
            (16, false) => output.extend((value as u16).to_le_bytes()),
            (16, true) => output.extend((value as u16).to_be_bytes()),
            (_, false) => output.extend(value.to_le_bytes()),
            (_, true) => output.extend(value.to_be_bytes()),
        }
    }

    /// Appends a compressed pixel, as ZRLE has them: without the byte that says nothing.
    pub(super) fn push_compressed(&self, output: &mut Vec<u8>, value: u32) {
        if self.bits_per_pixel != 32 || self.depth > 24 {
            return self.push(output, value);
        }
        let used = self.value([255; 3]);
        let low = used & 0xff00_0000 == 0;
        let high = used & 0xff == 0;
        match (low, high, self.big_endian) {
            (true, _, false) => output.extend(&value.to_le_bytes()[..3]),
            (true, _, true) => output.extend(&value.to_be_bytes()[1..]),
            (false, true, false) => output.extend(&value.to_le_bytes()[1..]),
            (false, true, true) => output.extend(&value.to_be_bytes()[..3]),
            (false, false, _) => self.push(output, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_survive_the_line() {
        let format = PixelFormat::SERVER;
        assert_eq!(PixelFormat::parse(&format.bytes()), Some(format));
        assert_eq!(format.value([1, 2, 3]), 0x01_02_03);
    }

    #[test]
    fn sixteen_bits_are_scaled() {
        let format = PixelFormat {
            bits_per_pixel: 16,
            depth: 16,
            big_endian: true,
            max: [31, 63, 31],
            shift: [11, 5, 0],
        };
        assert_eq!(format.value([255, 255, 255]), 0xffff);
        assert_eq!(format.value([255, 0, 0]), 0xf800);
        let mut bytes = Vec::new();
        format.push_compressed(&mut bytes, format.value([0, 255, 0]));
        assert_eq!(bytes, [0x07, 0xe0]);
    }

    #[test]
    fn compressed_pixels_leave_out_the_empty_byte() {
        let push = |format: PixelFormat| {
            let mut bytes = Vec::new();
            format.push_compressed(&mut bytes, format.value([1, 2, 3]));
            bytes
        };
        let format = PixelFormat::SERVER;
        assert_eq!(push(format), [3, 2, 1]);
        assert_eq!(push(PixelFormat { big_endian: true, ..format }), [1, 2, 3]);
        assert_eq!(push(PixelFormat { shift: [24, 16, 8], ..format }), [3, 2, 1]);
        assert_eq!(push(PixelFormat { depth: 32, ..format }), [3, 2, 1, 0]);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut bytes = PixelFormat::SERVER.bytes();
        bytes[3] = 0;
        assert_eq!(PixelFormat::parse(&bytes), None, "a color map");
        for (index, value) in [(0, 24), (0, 0), (10, 32), (10, 255)] {
            let mut bytes = PixelFormat::SERVER.bytes();
            bytes[index] = value;
            assert_eq!(PixelFormat::parse(&bytes), None, "{index} {value}");
        }
    }
}
