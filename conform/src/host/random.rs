//! Deterministic random numbers and the values that instructions stumble over.

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator for a case: the same numbers for the same seed and coordinates.
    pub(crate) fn new(seed: u64, coordinates: [u64; 2]) -> Random {
        let mut random = Random(seed);
        for c in coordinates {
            random.0 = random.next() ^ c.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        random
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A number below `n` (0 for `n` = 0).
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// An element of a list that is not empty.
    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// An integer: random, small, or near a boundary of some width.
    pub(crate) fn integer(&mut self) -> u64 {
        let near = self.below(5).wrapping_sub(2);
        match self.below(8) {
            0 | 1 => self.next(),
            2 => self.below(64),
            3 => near,
            4 => (1u64 << self.below(64)).wrapping_add(near),
            5 => self.next() >> self.below(64),
            6 => i64::from(self.next() as i8) as u64,
            _ => self.pick(&BOUNDARIES).wrapping_add(near),
        }
    }

    /// The bits of a single-precision number.
    pub(crate) fn single(&mut self) -> u32 {
        let sign = (self.next() as u32) & 1 << 31;
        match self.below(4) {
            0 => self.next() as u32,
            1 => sign | self.pick(&SINGLES),
            // About as large as its neighbours, so that sums do not just round.
            2 => sign | (0x3F00_0000 + (self.next() as u32 & 0x01FF_FFFF)),
            _ => (self.integer() as i32 as f32).to_bits(),
        }
    }

    /// The bits of a double-precision number.
    pub(crate) fn double(&mut self) -> u64 {
        let sign = self.next() & 1 << 63;
        match self.below(4) {
            0 => self.next(),
            1 => sign | self.pick(&DOUBLES),
            2 => sign | (0x3FE0_0000_0000_0000 + (self.next() & 0x003F_FFFF_FFFF_FFFF)),
            _ => (self.integer() as i64 as f64).to_bits(),
        }
    }

    /// The bytes of a double extended-precision number, valid or not.
    pub(crate) fn extended(&mut self) -> [u8; 10] {
        let sign = (self.next() & 0x8000) as u16;
        let (exponent, fraction) = match self.below(6) {
            0 => (self.next() as u16 & 0x7FFF, self.next()),
            1 => self.pick(&EXTENDEDS),
            2 => (0x3FF0 + self.below(0x20) as u16, self.next() | 1 << 63),
            3 => (0x3FFF + self.below(64) as u16, 1 << 63 | self.next() << 40),
            4 => (self.next() as u16 & 0x7FFF, self.next() | 1 << 63),
            _ => (0x7FFF, self.next()),
        };
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&fraction.to_le_bytes());
        bytes[8..].copy_from_slice(&(sign | exponent).to_le_bytes());
        bytes
    }

    /// 16 bytes of a vector: integers of one width, or numbers of one precision.
    pub(crate) fn vector(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        match self.below(7) {
            0 => {}
            1 => bytes.fill(self.next() as u8),
            2 => bytes.chunks_mut(4).for_each(|c| c.copy_from_slice(&self.single().to_le_bytes())),
            3 => bytes.chunks_mut(8).for_each(|c| c.copy_from_slice(&self.double().to_le_bytes())),
            4 => bytes.chunks_mut(8).for_each(|c| c.copy_from_slice(&self.integer().to_le_bytes())),
            5 => bytes.chunks_mut(2).for_each(|c| {
                c.copy_from_slice(&(self.integer() as u16).to_le_bytes());
            }),
            _ => bytes.chunks_mut(8).for_each(|c| c.copy_from_slice(&self.next().to_le_bytes())),
        }
        bytes
    }

    /// Fills memory.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(16) {
            // Cheap randomness for most of it; numbers that mean something for the rest.
            let value = if self.next() & 7 == 0 {
                self.vector()
            } else {
                (u128::from(self.next()) << 64 | u128::from(self.next())).to_le_bytes()
            };
            chunk.copy_from_slice(&value[..chunk.len()]);
        }
    }
}

/// Where widths end, and linear addresses are canonical no longer.
const BOUNDARIES: [u64; 10] = [
    0x80,
    0x8000,
    0x8000_0000,
    0x8000_0000_0000_0000,
    0x100,
    0x1_0000,
    0x1_0000_0000,
    0x0000_8000_0000_0000,
    0xFFFF_8000_0000_0000,
    0x7FFF_FFFF_FFFF_FFFF,
];

/// Zero, denormals, the smallest and largest normal, one, infinity, quiet and signalling NaN,
/// and where integers of 16, 32 and 64 bits end.
const SINGLES: [u32; 14] = [
    0,
    1,
    0x007F_FFFF,
    0x0080_0000,
    0x3F80_0000,
    0x7F7F_FFFF,
    0x7F80_0000,
    0x7FC0_0000,
    0x7F80_0001,
    0x4700_0000,
    0x4F00_0000,
    0x4EFF_FFFF,
    0x5F00_0000,
    0x3F00_0000,
];

/// As [`SINGLES`].
const DOUBLES: [u64; 14] = [
    0,
    1,
    0x000F_FFFF_FFFF_FFFF,
    0x0010_0000_0000_0000,
    0x3FF0_0000_0000_0000,
    0x7FEF_FFFF_FFFF_FFFF,
    0x7FF0_0000_0000_0000,
    0x7FF8_0000_0000_0000,
    0x7FF0_0000_0000_0001,
    0x40E0_0000_0000_0000,
    0x41E0_0000_0000_0000,
    0x41DF_FFFF_FFC0_0000,
    0x43E0_0000_0000_0000,
    0x3FE0_0000_0000_0000,
];

/// Exponent and significand: zero, denormal, pseudo-denormal, unnormal, one, largest, infinity,
/// pseudo-infinity, quiet and signalling NaN, pseudo-NaN, indefinite.
const EXTENDEDS: [(u16, u64); 13] = [
    (0, 0),
    (0, 1),
    (0, 0x7FFF_FFFF_FFFF_FFFF),
    (0, 0x8000_0000_0000_0000),
    (0x3FFF, 0x4000_0000_0000_0000),
    (0x3FFF, 0x8000_0000_0000_0000),
    (0x7FFE, 0xFFFF_FFFF_FFFF_FFFF),
    (0x7FFF, 0x8000_0000_0000_0000),
    (0x7FFF, 0),
    (0x7FFF, 0xC000_0000_0000_0001),
    (0x7FFF, 0x8000_0000_0000_0001),
    (0x7FFF, 0x4000_0000_0000_0000),
    (0x7FFF, 0xC000_0000_0000_0000),
];
