//! What was last seen of the source, as it lies on the target. How it is judged is the same for a
//! running flow: [`crate::telemetry::failover`].

pub use crate::telemetry::failover::{Bound, Loss, Seen, TopicLoss, bound};

use crate::state::EndsRecord;

/// The end of one partition in a record.
pub fn observed_end(record: Option<&EndsRecord>, partition: i32) -> Option<i64> {
    let index = usize::try_from(partition).ok()?;
    record?.ends.get(index).copied().filter(|end| *end >= 0)
}

/// The rate of one partition in a record; `None` if it was never measured.
pub fn rate(record: Option<&EndsRecord>, partition: i32) -> Option<u64> {
    let index = usize::try_from(partition).ok()?;
    let record = record.filter(|it| !it.unmeasured.contains(&partition))?;
    record.per_second.get(index).copied()
}

/// For how long nothing had come to a partition when the source was seen last, at `seen_ms`.
pub fn quiet_ms(record: Option<&EndsRecord>, partition: i32, seen_ms: i64) -> Option<i64> {
    let index = usize::try_from(partition).ok()?;
    let since_ms = *record?.quiet_since_ms.get(index)?;
    (since_ms >= 0).then(|| seen_ms.saturating_sub(since_ms))
}
