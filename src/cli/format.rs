//! Numbers and names as a person reads them.

pub(super) use crate::telemetry::size::bytes;

use crate::shell::is_unseen;

/// A count with thousands separated, such as `1,234,567`.
pub(super) fn count(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    if value < 0 {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A large number in a few characters, such as `12.3k` or `4.0M`.
pub(super) fn short(value: f64) -> String {
    for (size, unit) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        // 999.95 of the smaller unit would round to 1000.0 of it.
        if value >= size * 0.999_95 {
            return format!("{:.1}{unit}", value / size);
        }
    }
    format!("{value:.0}")
}

/// A time in its two largest units, such as `3 min 20 s`.
pub(super) fn seconds(value: f64) -> String {
    if value < 10.0 {
        // So that a short lag doesn't read as none.
        return if value <= 0.0 {
            "0 s".to_owned()
        } else {
            format!("{:.1} s", value.max(0.1))
        };
    }
    // A float too large for the integer saturates.
    let total = value.round() as u64;
    let (days, hours) = (total / 86_400, total % 86_400 / 3_600);
    let (minutes, seconds) = (total % 3_600 / 60, total % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Text from outside without what a terminal would obey, hide, or show in another order.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if is_unseen(c) { ' ' } else { c })
        .collect()
}

/// `1 partition`, `2 partitions`.
pub(super) fn plural(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(-1_234_567), "-1,234,567");
    }

    #[test]
    fn units_never_show_a_thousand_of_the_smaller_one() {
        assert_eq!(short(999.0), "999");
        assert_eq!(short(999.96), "1.0k");
        assert_eq!(short(12_340.0), "12.3k");
        assert_eq!(short(999_960.0), "1.0M");
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1_536.0), "1.5 KiB");
        assert_eq!(bytes(1_048_575.0), "1.0 MiB");
    }

    #[test]
    fn a_short_lag_is_not_shown_as_none() {
        assert_eq!(seconds(0.0), "0 s");
        assert_eq!(seconds(0.001), "0.1 s");
        assert_eq!(seconds(59.6), "1 min 0 s");
        assert_eq!(seconds(3_700.0), "1 h 1 min");
        assert_eq!(seconds(180_000.0), "2 d 2 h");
    }

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        assert_eq!(clean("a\u{1b}[2Jb\n"), "a [2Jb ");
    }
}
