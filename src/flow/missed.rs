//! What a copy may have missed of the source's deletes: noticed, written down, and known until the copy is made anew.
//!
//! How it is found is in [`up_to_date`](crate::telemetry::up_to_date). It must be known whatever happens next: so
//! a partition is closed *before* what was read behind the hole, and opened again when the record of it is stored.
//! The copy then goes on. Up to where the source ended at that time nothing is noticed again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::Trouble;
use super::partition::Partition;
use super::position::Position;
use super::resume::Candidate;
use super::shared::Flow;
use super::stale_keys::{self, TooMany};
use super::tombstones::{Placed, Tombstones};
use super::topics::TopicContext;
use crate::config::OnMissedDeletes;
use crate::state::{
    EndsRecord, MissedDeletesRecord, ObservedRecord, StateError, StateStore, TopicRecord, keys,
    missed_by,
};
use crate::telemetry::progress::now_ms;
use crate::telemetry::up_to_date::MissedDeletes;

/// What processes before this one knew of the source's ends.
#[derive(Debug, Default)]
pub struct Before {
    /// When they saw them last.
    at_ms: Option<i64>,
    /// By source topic.
    ends: HashMap<String, EndsRecord>,
}

impl Before {
    /// As the state topic has it, which this process will overwrite.
    pub fn remembered(store: &StateStore, flow: &str) -> Self {
        let prefix = keys::all_ends(flow);
        let ends = store.keys(&prefix).into_iter().filter_map(|key| {
            let record = store.get(&key).ok().flatten()?;
            Some((key.strip_prefix(&prefix)?.to_owned(), record))
        });
        let observed: Option<ObservedRecord> = store.get(&keys::observed(flow)).ok().flatten();
        Self {
            at_ms: observed.map(|it| it.at_ms),
            ends: ends.collect(),
        }
    }

    /// When they saw the ends last.
    pub(super) fn seen_ms(&self) -> Option<i64> {
        self.at_ms
    }

    /// The shortest `delete.retention.ms` that they knew to decide about what isn't copied yet.
    pub fn delete_retention_ms(&self, topic: &str) -> Option<i64> {
        self.ends.get(topic)?.delete_retention_ms
    }

    /// When a copy that is at `position` now had all that the source had; `None` if nobody knows.
    pub fn up_to_date_ms(&self, topic: &str, partition: i32, position: i64) -> Option<i64> {
        let record = self.ends.get(topic)?;
        let end = *record.ends.get(usize::try_from(partition).ok()?)?;
        match record.behind.get(&partition) {
            Some(_) => self.carried_ms(topic, partition),
            // An older Twinlog wrote no one down that was behind.
            None if end <= position => self.carried_ms(topic, partition),
            None => None,
        }
    }

    /// The same of a partition that isn't opened yet, by the process before: what it says of its own position.
    pub fn carried_ms(&self, topic: &str, partition: i32) -> Option<i64> {
        let record = self.ends.get(topic)?;
        if let Some(since_ms) = record.behind.get(&partition) {
            return Some(*since_ms).filter(|it| *it >= 0);
        }
        let end = *record.ends.get(usize::try_from(partition).ok()?)?;
        // Of a stopped one the ends were seen at other times.
        let is_told = end >= 0 && !record.stopped.contains_key(&partition);
        self.at_ms.filter(|_| is_told)
    }
}

/// What was found when the keys of a partition were compared.
#[derive(Debug)]
pub struct Compared {
    /// Because of this.
    missed: MissedDeletes,
    /// What has to be done for it, until an opening takes it.
    tombstones: Option<Tombstones>,
    /// Whether there is anything to do.
    is_mendable: bool,
}

/// How a partition goes on.
pub(super) enum Begun {
    /// First its keys are compared.
    Compare,
    /// With tombstones for these keys.
    With(Tombstones),
}

/// Begins to watch a partition that is opened at this position, and stores what was noticed.
///
/// # Errors
/// When that can't be stored.
pub(super) async fn begin(
    flow: &Flow,
    one: &Candidate,
    position: &Position,
) -> Result<Begun, Trouble> {
    let (topic, partition) = (&one.topic, one.partition);
    let name = &*topic.source_topic;
    let stored = missed_by(
        &flow.store,
        &flow.config.name,
        name,
        &topic.record,
        partition,
    )?;
    let key = (topic.source_topic.clone(), partition);
    let noticed = flow.missed.get(&key).map(|it| *it.value());
    let missed = match (stored, noticed) {
        (Some(stored), Some(noticed)) => Some(stored.and(noticed)),
        (stored, noticed) => stored.or(noticed),
    };
    if let Some(missed) = missed.filter(|_| missed != stored) {
        note(flow, topic, partition, missed).await?;
    }
    flow.missed.remove(&key);
    let record = &topic.record;
    let origin = match record.continued {
        Some(_) => None,
        None => record.origin(partition),
    };
    let is_new = origin.is_some_and(|origin| position.source <= origin);
    let known = || match is_new {
        // Nothing is copied that could have been deleted since.
        true => Some(now_ms()),
        // A key that was deleted for good before the copy began isn't in it.
        false => (flow.before)
            .up_to_date_ms(name, partition, position.source)
            .max(record.begun_at_ms),
    };
    let progress = flow.progress.partition(&topic.source_topic, partition);
    let retention_before_ms = flow.before.delete_retention_ms(name);
    progress.begin_up_to_date(|it| {
        it.begin(ids(record), (origin, position.source), known, missed);
        let now_as_it_is = topic.rules.delete_retention_ms;
        it.note_retention(now_ms(), now_as_it_is, retention_before_ms);
    });
    Ok(missed.map_or(Begun::With(Tombstones::default()), |missed| {
        mending(flow, one, missed)
    }))
}

/// Whether the partition's keys have to be compared, or have been.
fn mending(flow: &Flow, one: &Candidate, missed: MissedDeletes) -> Begun {
    let rules = &one.topic.rules;
    let is_wanted = flow.config.on_missed_deletes == OnMissedDeletes::Mend
        && rules.source_compacted
        && rules.target_compacted;
    if !is_wanted {
        return Begun::With(Tombstones::default());
    }
    let key = (one.topic.source_topic.clone(), one.partition);
    let is_same = |of: &MissedDeletes| (of.from, of.until) == (missed.from, missed.until);
    match flow.compared.get_mut(&key) {
        Some(mut compared) if is_same(&compared.missed) => match compared.tombstones.take() {
            Some(tombstones) => Begun::With(tombstones),
            // Those that are on their way may be lost: what there is to do is looked for again.
            None if compared.is_mendable => Begun::Compare,
            None => Begun::With(Tombstones::default()),
        },
        _ => Begun::Compare,
    }
}

/// Compares the keys of both logs. What was missed is forgotten if none lives on.
///
/// # Errors
/// When a log can't be read, or the state can't be written.
pub(super) async fn compare(
    flow: &Flow,
    one: &Candidate,
    position: &Position,
) -> Result<(), Trouble> {
    let (topic, partition) = (&one.topic, one.partition);
    let (name, copy) = (&*topic.source_topic, &topic.record);
    let Some(missed) = missed_by(&flow.store, &flow.config.name, name, copy, partition)? else {
        return Ok(());
    };
    let found = stale_keys::compare(flow, one, position).await?;
    let (count, tombstones) = match found {
        Ok(found) => {
            let count = found.keys.len();
            (
                count,
                Some(Tombstones::new(found.keys, found.until, now_ms())),
            )
        }
        Err(TooMany(why)) => {
            tracing::warn!(
                topic = name,
                partition,
                "missed deletes can't be mended: {why}"
            );
            (0, None)
        }
    };
    let is_mendable = count > 0;
    if tombstones.is_some() {
        tracing::info!(
            topic = name,
            partition,
            keys = count,
            "keys that the source has no more were looked for"
        );
        if !is_mendable {
            forget_partition(flow, name, partition).await?;
        }
    }
    let compared = Compared {
        missed,
        tombstones,
        is_mendable,
    };
    flow.compared
        .insert((topic.source_topic.clone(), partition), compared);
    Ok(())
}

async fn forget_partition(flow: &Flow, topic: &str, partition: i32) -> Result<(), StateError> {
    let key = keys::missed_deletes(&flow.config.name, topic, partition);
    flow.store.remove(&key).await
}

/// Writes down what became of the tombstones that were placed. What can't be stored now is stored the next time.
pub(super) async fn settle(flow: &Flow) {
    // They come from a comparison.
    if flow.compared.is_empty() {
        return;
    }
    let open: Vec<Arc<Partition>> = flow.open.iter().map(|it| it.value().clone()).collect();
    for partition in open {
        let copied = partition.progress.source_position.load(Ordering::Relaxed);
        let Some(placed) = partition.tombstones().outcome(copied) else {
            continue;
        };
        if let Err(error) = settle_one(flow, &partition, placed).await {
            tracing::debug!(partition = %partition.source, %error, "what was mended could not be stored");
            // Nor can that of the others, and each would wait for it.
            return;
        }
        *partition.tombstones() = Tombstones::default();
    }
}

async fn settle_one(flow: &Flow, partition: &Partition, placed: Placed) -> Result<(), StateError> {
    let (topic, number) = (&partition.source.topic, partition.source.partition);
    let Some(missed) = partition.progress.missed_deletes() else {
        return Ok(());
    };
    let Some(context) = flow.topics.get(topic.as_str()).map(|it| it.clone()) else {
        return Ok(());
    };
    let Placed { placed, left } = placed;
    let missed = (left > 0).then_some(MissedDeletes {
        keys: Some(left),
        ..missed
    });
    match missed {
        Some(missed) => note(flow, &context, number, missed).await?,
        None => forget_partition(flow, topic, number).await?,
    }
    partition.progress.note_missed_deletes(missed);
    let key = (context.source_topic.clone(), number);
    if let Some(mut compared) = flow.compared.get_mut(&key) {
        compared.is_mendable = false;
    }
    tracing::info!(
        topic,
        partition = number,
        placed,
        left,
        "keys that the source has no more have a tombstone now"
    );
    Ok(())
}

async fn note(
    flow: &Flow,
    topic: &TopicContext,
    partition: i32,
    missed: MissedDeletes,
) -> Result<(), StateError> {
    let (source_topic_id, target_topic_id) = ids(&topic.record);
    let record = MissedDeletesRecord {
        v: 1,
        source_topic_id,
        target_topic_id,
        missed,
    };
    let key = keys::missed_deletes(&flow.config.name, &topic.source_topic, partition);
    flow.store.put(&key, &record).await
}

fn ids(record: &TopicRecord) -> (uuid::Uuid, uuid::Uuid) {
    (record.source_topic_id, record.target_topic_id)
}

/// Forgets what a copy missed that is gone.
pub(super) async fn forget(
    flow: &Flow,
    topic: &str,
    known: &TopicRecord,
) -> Result<(), StateError> {
    for (partition, _) in (0..).zip(&known.origins) {
        let key = keys::missed_deletes(&flow.config.name, topic, partition);
        if flow.store.get::<MissedDeletesRecord>(&key)?.is_some() {
            flow.store.remove(&key).await?;
        }
    }
    flow.missed.retain(|(of, _), _| &**of != topic);
    flow.compared.retain(|(of, _), _| &**of != topic);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn before(record: EndsRecord) -> Before {
        Before {
            at_ms: Some(9_000),
            ends: HashMap::from([("t".to_owned(), record)]),
        }
    }

    fn ends(ends: &[i64]) -> EndsRecord {
        EndsRecord {
            ends: ends.to_vec(),
            ..EndsRecord::default()
        }
    }

    #[test]
    fn a_copy_that_was_at_the_end_was_so_until_the_ends_were_seen_last() {
        let before = before(ends(&[7, 8, -1]));
        assert_eq!(before.up_to_date_ms("t", 0, 7), Some(9_000));
        assert_eq!(before.up_to_date_ms("t", 1, 9), Some(9_000));
        // An older Twinlog doesn't say who is behind.
        assert_eq!(before.up_to_date_ms("t", 1, 7), None);
        assert_eq!(before.up_to_date_ms("t", 2, 7), None, "never seen");
        assert_eq!(before.up_to_date_ms("t", 3, 7), None);
        assert_eq!(before.up_to_date_ms("other", 0, 7), None);
    }

    #[test]
    fn a_copy_that_was_behind_is_as_old_as_it_was_then() {
        let before = before(EndsRecord {
            behind: BTreeMap::from([(0, 500), (1, -1)]),
            ..ends(&[7, 8, 9])
        });
        assert_eq!(before.up_to_date_ms("t", 0, 5), Some(500));
        assert_eq!(before.up_to_date_ms("t", 0, 7), Some(500));
        assert_eq!(before.up_to_date_ms("t", 1, 8), None);
        assert_eq!(before.up_to_date_ms("t", 2, 9), Some(9_000));
    }

    #[test]
    fn nobody_knows_when_the_end_of_a_stopped_partition_was_seen() {
        let before = before(EndsRecord {
            stopped: BTreeMap::from([(0, "gap".to_owned())]),
            ..ends(&[7])
        });
        assert_eq!(before.up_to_date_ms("t", 0, 7), None);
    }

    #[test]
    fn records_of_an_older_twinlog_are_read() {
        let old = r#"{"v":1,"at_ms":5,"ends":[7],"per_second":[0],"record_bytes":1}"#;
        let record: EndsRecord = serde_json::from_str(old).expect("an old record");
        assert_eq!(before(record).up_to_date_ms("t", 0, 7), Some(9_000));
    }
}
