//! A set of interrupt vectors, as the ISR, TMR and IRR hold it.

use serde::{Deserialize, Serialize};

/// 256 bits, one for each vector, readable as eight 32-bit registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorBitmap {
    words: [u32; 8],
}

impl VectorBitmap {
    /// Adds `vector`.
    pub fn set(&mut self, vector: u8) {
        self.words[usize::from(vector >> 5)] |= 1 << (vector & 31);
    }

    /// Removes `vector`.
    pub fn clear(&mut self, vector: u8) {
        self.words[usize::from(vector >> 5)] &= !(1 << (vector & 31));
    }

    /// Whether `vector` is in the set.
    pub fn contains(&self, vector: u8) -> bool {
        self.words[usize::from(vector >> 5)] & 1 << (vector & 31) != 0
    }

    /// The highest vector in the set, the one of the highest priority.
    pub fn highest(&self) -> Option<u8> {
        let word = self.words.iter().rposition(|&word| word != 0)?;
        Some((word as u8) << 5 | self.words[word].ilog2() as u8)
    }

    /// Bits `32 * index` to `32 * index + 31`, with `index` taken modulo 8.
    pub fn word(&self, index: u8) -> u32 {
        self.words[usize::from(index & 7)]
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.words == [0; 8]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_is_the_last_vector_set() {
        let mut set = VectorBitmap::default();
        assert_eq!(set.highest(), None);
        for vector in [0, 31, 32, 200, 255] {
            set.set(vector);
            assert_eq!(set.highest(), Some(vector));
        }
        set.clear(255);
        assert_eq!(set.highest(), Some(200));
        assert!(set.contains(31) && !set.contains(30));
        assert_eq!(set.word(0), 1 << 31 | 1);
        assert_eq!(set.word(1), 1);
        for vector in [0, 31, 32, 200] {
            set.clear(vector);
        }
        assert!(set.is_empty());
    }
}
