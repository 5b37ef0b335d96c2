//! `verify`: comparing the target with the source while a flow runs.

use std::time::Duration;

use super::reader::{Reader, Table};
use super::values;

/// How a running flow compares its target with its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyRules {
    /// `background`: whether it does. Default off: it costs a librdkafka client for each side.
    pub background: bool,
    /// `bytes_per_second`: how much is read at most, both sides together. Default 10 MiB.
    pub bytes_per_second: u64,
    /// `interval`: no round begins sooner after the one before began. Default 1 h.
    pub interval: Duration,
}

pub(super) const KEYS: [&str; 3] = ["background", "bytes_per_second", "interval"];

const BYTES_PER_SECOND: u64 = 10 << 20;
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;
const INTERVAL: Duration = Duration::from_secs(3_600);
const INTERVAL_MIN: Duration = Duration::from_secs(1);

pub(super) fn read(reader: &mut Reader, table: &Table) -> VerifyRules {
    let inner = reader.inner(table, "verify", &KEYS);
    let background = reader.value(&inner, "background", |text| {
        values::choice(text, &[("off", false), ("on", true)])
    });
    let bytes_per_second = reader.value(&inner, "bytes_per_second", |text| {
        match values::size(text)? {
            size if size < BYTES_PER_SECOND_MIN => {
                Err(format!("`{text}` is too small; at least `64KiB`"))
            }
            size => Ok(size),
        }
    });
    let interval = reader.value(&inner, "interval", |text| match values::duration(text)? {
        interval if interval < INTERVAL_MIN => Err(format!("`{text}` is too short; at least `1s`")),
        interval => Ok(interval),
    });
    VerifyRules {
        background: background.unwrap_or(false),
        bytes_per_second: bytes_per_second.unwrap_or(BYTES_PER_SECOND),
        interval: interval.unwrap_or(INTERVAL),
    }
}
