//! What was last seen of the source, as it lies on the target. How it is judged is the same for a
//! running flow: [`crate::telemetry::failover`].

pub use crate::telemetry::failover::{Bound, Habit, Loss, Seen, TopicLoss, bound};

use std::collections::BTreeMap;

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

/// How one partition is written to, besides its rate.
pub fn habit(record: Option<&EndsRecord>, partition: i32) -> Habit {
    let of = |counts: &BTreeMap<i32, u64>| counts.get(&partition).copied().unwrap_or(0);
    record.map_or(Habit::default(), |it| Habit {
        at_once: of(&it.at_once),
        per_hour: of(&it.per_hour),
    })
}

/// What one partition may lack by the end and the rate of a process before the last one, by the age that they have.
/// Nobody measured it since: it is less than a bound, and padding reaches as far at least.
pub fn carried(record: Option<&EndsRecord>, at: (i32, i64), now_ms: i64) -> Option<Bound> {
    let (partition, copied) = at;
    let record = record?;
    let seen_ms = *record.carried_ms.get(&partition)?;
    let rate = record.per_second.get(usize::try_from(partition).ok()?);
    let seen = Seen {
        copied,
        observed: observed_end(Some(record), partition),
        per_second: rate.copied(),
        habit: habit(Some(record), partition),
    };
    (seen_ms >= 0).then(|| bound(seen, now_ms.saturating_sub(seen_ms)))
}

/// For how long nothing had come to a partition when the source was seen last, at `seen_ms`.
pub fn quiet_ms(record: Option<&EndsRecord>, partition: i32, seen_ms: i64) -> Option<i64> {
    let index = usize::try_from(partition).ok()?;
    let since_ms = *record?.quiet_since_ms.get(index)?;
    (since_ms >= 0).then(|| seen_ms.saturating_sub(since_ms))
}
