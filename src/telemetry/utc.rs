//! Moments as a person reads them: UTC, whoever reads them where.

use time::OffsetDateTime;

/// Milliseconds since the epoch, such as `2026-11-25T03:15:00Z`; the number itself where it is no time
/// that anybody could mean.
pub fn to_the_second(ms: i64) -> String {
    let Some(at) = moment(ms) else {
        return format!("{ms} ms");
    };
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// The same with milliseconds, such as `2026-11-25 03:09:04.612`.
pub fn to_the_millisecond(ms: i64) -> String {
    let Some(at) = moment(ms) else {
        return format!("{ms} ms");
    };
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

/// Years that have four digits and no sign.
fn moment(ms: i64) -> Option<OffsetDateTime> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?;
    (0..10_000).contains(&at.year()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_399_999, "2000-02-28 23:59:59.999"),
            (951_782_400_000, "2000-02-29 00:00:00.000"),
            (1_795_608_545_612, "2026-11-25 12:09:05.612"),
            (-1, "1969-12-31 23:59:59.999"),
            (-62_167_219_200_000, "0000-01-01 00:00:00.000"),
            (253_402_300_799_999, "9999-12-31 23:59:59.999"),
        ] {
            assert_eq!(to_the_millisecond(ms), text);
        }
        assert_eq!(to_the_second(1_795_576_500_000), "2026-11-25T03:15:00Z");
        assert_eq!(to_the_second(-1), "1969-12-31T23:59:59Z");
        for none in [i64::MAX, i64::MIN] {
            assert_eq!(to_the_second(none), format!("{none} ms"));
        }
    }
}
