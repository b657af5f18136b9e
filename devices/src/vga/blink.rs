//! What blinks, and when it shows.
//!
//! A VGA divides its vertical retraces: the cursor shows for 8 fields of 16, blinking characters for
//! 16 of 32. Mode 3 has 70 fields a second.
//!
//! Source: IBM VGA XGA Technical Reference Manual (1992), attribute mode control register.

use std::time::Duration;

/// A field of 449 scan lines at 31.5 kHz.
const FIELD: Duration = Duration::from_nanos(14_268_000);
const CURSOR_FIELDS: u32 = 8;

/// Which halves of their periods the things that blink are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blink {
    /// The cursor shows.
    pub cursor: bool,
    /// Blinking characters show.
    pub characters: bool,
}

impl Blink {
    /// All shows.
    pub const SHOWN: Blink = Blink { cursor: true, characters: true };
    /// How long nothing changes: half of the cursor's period.
    pub const STEP: Duration = FIELD.saturating_mul(CURSOR_FIELDS);

    /// At this time from any beginning.
    pub fn at(time: Duration) -> Blink {
        let steps = time.as_nanos() / Blink::STEP.as_nanos();
        Blink { cursor: steps.is_multiple_of(2), characters: (steps / 2).is_multiple_of(2) }
    }

    /// How long it stays so from this time on.
    pub fn lasts(time: Duration) -> Duration {
        let past = time.as_nanos() % Blink::STEP.as_nanos();
        Blink::STEP.saturating_sub(Duration::from_nanos(past as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_blink_at_half_the_cursors_pace() {
        let halves: Vec<_> = (0..5)
            .map(|step| Blink::at(Blink::STEP * step + Duration::from_millis(1)))
            .map(|blink| (blink.cursor, blink.characters))
            .collect();
        assert_eq!(
            halves,
            [(true, true), (false, true), (true, false), (false, false), (true, true)]
        );
        let time = Blink::STEP * 7 + Duration::from_millis(3);
        assert_eq!(Blink::lasts(time) + Duration::from_millis(3), Blink::STEP);
    }
}
