//! What was last seen of the source, as it lies on the target. How it is judged is the same for a
//! running flow: [`crate::telemetry::failover`].

pub use crate::telemetry::failover::{Bound, Loss, Seen, TopicLoss, bound};

use crate::state::EndsRecord;

/// The end of one partition in a record.
pub fn observed_end(record: Option<&EndsRecord>, partition: i32) -> Option<i64> {
    let index = usize::try_from(partition).ok()?;
    record?.ends.get(index).copied().filter(|end| *end >= 0)
}

/// The rate of one partition in a record.
pub fn rate(record: Option<&EndsRecord>, partition: i32) -> u64 {
    let index = usize::try_from(partition).ok();
    index
        .zip(record)
        .and_then(|(index, record)| record.per_second.get(index).copied())
        .unwrap_or(0)
}
