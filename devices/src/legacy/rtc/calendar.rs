//! Seconds since 1970-01-01 to calendar fields and back, in the proleptic Gregorian calendar.

/// Seconds in a day.
pub(super) const DAY: i64 = 86_400;

/// A point in time as a clock's registers hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) second: i64,
    pub(super) minute: i64,
    /// 0 to 23.
    pub(super) hour: i64,
    /// 1 to 31.
    pub(super) day: i64,
    /// 1 to 12.
    pub(super) month: i64,
    pub(super) year: i64,
}

impl Fields {
    /// The fields of `seconds` since 1970.
    pub(super) fn of(seconds: i64) -> Self {
        let (days, in_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // Years start in March here, so that the leap day is a year's last.
        let from_march = days + DAYS_BEFORE_1970;
        let (era, of_era) = (from_march.div_euclid(ERA), from_march.rem_euclid(ERA));
        let leaps = of_era / (4 * 365) - of_era / 36_524 + of_era / (ERA - 1);
        let year_of_era = (of_era - leaps) / 365;
        let of_year = of_era - days_before_year(year_of_era);
        let month_from_march = (5 * of_year + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        Self {
            second: in_day % 60,
            minute: in_day / 60 % 60,
            hour: in_day / 3600,
            day: of_year - days_before_month(month_from_march) + 1,
            month,
            year: 400 * era + year_of_era + i64::from(month <= 2),
        }
    }

    /// Days of the month, whatever the day is.
    pub(super) fn days_in_month(self) -> i64 {
        let first = Self { day: 1, ..self };
        let next = Self { month: self.month + 1, ..first };
        (next.seconds() - first.seconds()) / DAY
    }

    /// Seconds since 1970. Fields beyond their range carry over, so that whatever a guest puts
    /// into the registers is some time.
    pub(super) fn seconds(self) -> i64 {
        let months = 12 * self.year + self.month - 3;
        let (year, month_from_march) = (months.div_euclid(12), months.rem_euclid(12));
        let days = ERA * year.div_euclid(400)
            + days_before_year(year.rem_euclid(400))
            + days_before_month(month_from_march)
            + self.day
            - 1
            - DAYS_BEFORE_1970;
        ((days * 24 + self.hour) * 60 + self.minute) * 60 + self.second
    }
}

/// The day of the week of `seconds` since 1970: 0 is Sunday.
pub(super) fn weekday(seconds: i64) -> i64 {
    // 1970-01-01 was a Thursday.
    (seconds.div_euclid(DAY) + 4).rem_euclid(7)
}

/// Days in the 400 years after which the calendar repeats.
const ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: i64 = 719_468;

/// Days in the `year` (0 to 399) March-based years that start an era.
fn days_before_year(year: i64) -> i64 {
    365 * year + year / 4 - year / 100
}

/// Days in the `month` (0 to 11) months that start a March-based year.
fn days_before_month(month: i64) -> i64 {
    (153 * month + 2) / 5
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days() {
        for (seconds, year, month, day, week) in [
            (0, 1970, 1, 1, 4),
            (951_782_400, 2000, 2, 29, 2),
            (951_868_800, 2000, 3, 1, 3),
            (1_704_067_199, 2023, 12, 31, 0),
            (4_107_542_400, 2100, 3, 1, 1),
            (-1, 1969, 12, 31, 3),
        ] {
            let fields = Fields::of(seconds);
            assert_eq!((fields.year, fields.month, fields.day), (year, month, day));
            assert_eq!(weekday(seconds), week);
        }
    }

    proptest! {
        #[test]
        fn conversion_round_trips_and_stays_in_range(seconds in -62_000_000_000i64..300_000_000_000) {
            let fields = Fields::of(seconds);
            prop_assert_eq!(fields.seconds(), seconds);
            prop_assert!((1..=12).contains(&fields.month) && (1..=31).contains(&fields.day));
            prop_assert!(fields.hour < 24 && fields.minute < 60 && fields.second < 60);
            let tomorrow = Fields::of(seconds + DAY);
            prop_assert!(tomorrow.day == fields.day + 1 || (tomorrow.day == 1 && fields.day >= 28));
        }
    }
}
