//! Moments as a person reads them.

/// Milliseconds since the epoch as UTC, such as `2026-11-25 03:09:04.612`; the number itself where it
/// is no time that anybody could mean.
pub(super) fn utc(ms: i64) -> String {
    const DAY_MS: i64 = 86_400_000;
    // The years 0000 to 9999.
    if !(-62_167_219_200_000..253_402_300_800_000).contains(&ms) {
        return format!("{ms} ms");
    }
    let (days, of_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    // Years are counted from March 1st, so that a leap day is a year's last; 400 years have
    // 146,097 days, and the epoch is 719,468 days after March 1st, 0000.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:03}",
        era * 400 + year + next,
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1_000 % 60,
        of_day % 1_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000");
        assert_eq!(utc(951_782_399_999), "2000-02-28 23:59:59.999");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00.000");
        assert_eq!(utc(1_709_251_199_000), "2024-02-29 23:59:59.000");
        assert_eq!(utc(1_795_608_545_612), "2026-11-25 12:09:05.612");
        assert_eq!(utc(-1), "1969-12-31 23:59:59.999");
        assert_eq!(utc(-62_167_219_200_000), "0000-01-01 00:00:00.000");
        assert_eq!(utc(253_402_300_799_999), "9999-12-31 23:59:59.999");
        assert_eq!(utc(i64::MAX), format!("{} ms", i64::MAX));
    }
}
