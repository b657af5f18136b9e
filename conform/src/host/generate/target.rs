//! Where memory operands lie: mostly in the window, often across a border.

use crate::host::layout::{CODE, CODE_SIZE, PAGE, WINDOW};
use crate::host::random::Random;

/// Where the canonical halves of the address space end and begin (48-bit addresses; SDM vol. 1,
/// section 3.3.7.1). In 32- and 16-bit code each is the end of the address space.
const BORDERS: [u64; 3] = [1 << 47, 0xFFFF_8000_0000_0000, 0];

/// Offsets in the window at which a segment of the LDT ends or, growing down, begins.
const LIMITS: [u64; 3] = [0x2A38, 0x1800, 0x1000];

/// Start of page `n` of the window.
pub(super) const fn page(n: usize) -> u64 {
    WINDOW + (n * PAGE) as u64
}

/// A linear address for an operand of `size` bytes.
pub(super) fn target(random: &mut Random, size: u64) -> u64 {
    let size = size.max(1);
    let inside = random.below(size);
    match random.below(100) {
        0..=64 => {
            let n = random.pick(&[1, 1, 2, 2, 5, 10]);
            let address = page(n) + random.below(PAGE as u64);
            let aligned = address & !(size.next_power_of_two().min(64) - 1);
            if random.percent(60) { aligned } else { address.min(page(n + 1) - size) }
        }
        // Across pages: both there, the second missing, the first missing, the second read-only.
        65..=72 => page(2) - inside,
        73..=78 => random.pick(&[page(3), page(6), page(11)]) - inside,
        79..=82 => random.pick(&[page(1), page(4), page(5), page(10)]) - inside,
        83..=85 => page(5) - inside,
        86..=89 => random.pick(&[page(3), page(6), page(9), page(0)]) + random.below(PAGE as u64),
        90..=93 => page(4) + random.below(PAGE as u64),
        94..=95 => WINDOW + CODE as u64 + random.below(CODE_SIZE as u64),
        96..=97 => random.pick(&BORDERS).wrapping_sub(inside),
        98 => WINDOW + random.pick(&LIMITS) - random.below(size + 1),
        _ => random.integer(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::segments::LDT;

    #[test]
    fn limits_are_those_of_segments() {
        for entry in LDT.iter().filter(|entry| entry.limit != 0xFFFF) {
            assert!(LIMITS.contains(&(u64::from(entry.limit) + 1)), "{entry:?}");
        }
    }
}
