//! Deletes of the source that a copy may have missed, as they are kept.

use super::keys;
use super::records::{MissedDeletesRecord, TopicRecord};
use super::store::{StateError, StateStore};
use crate::telemetry::up_to_date::MissedDeletes;

/// What one partition of this copy may have missed.
///
/// # Errors
/// When the record can't be read.
pub fn missed_by(
    store: &StateStore,
    flow: &str,
    topic: &str,
    copy: &TopicRecord,
    partition: i32,
) -> Result<Option<MissedDeletes>, StateError> {
    let key = keys::missed_deletes(flow, topic, partition);
    let record: Option<MissedDeletesRecord> = store.get(&key)?;
    let is_of = |it: &MissedDeletesRecord| {
        it.source_topic_id == copy.source_topic_id && it.target_topic_id == copy.target_topic_id
    };
    Ok(record.filter(is_of).map(|it| it.missed))
}

/// The partitions of this copy that may have missed some.
///
/// # Errors
/// When a record can't be read.
pub fn missed_deletes(
    store: &StateStore,
    flow: &str,
    topic: &str,
    copy: &TopicRecord,
) -> Result<Vec<i32>, StateError> {
    let mut found = Vec::new();
    for (partition, _) in (0..).zip(&copy.origins) {
        let missed = missed_by(store, flow, topic, copy, partition)?;
        found.extend(missed.map(|_| partition));
    }
    Ok(found)
}
