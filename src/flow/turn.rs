//! A partition whose offsets were the source's goes on mapped.
//!
//! Up to the turn the map is the identity; from there on offsets differ for ever. The map is stored
//! first, then the topic's record that says so, and only then is the partition opened as a mapped one:
//! a process that dies in between finds either a partition that was never turned, whose log ends at
//! the turn, or one with its map. What is written behind the turn can never be taken for the same
//! offsets.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::cut_back::within;
use super::error::Trouble;
use super::foreign::{Foreign, Found, merged};
use super::position::Position;
use super::relearn::{self, Logs};
use super::resume::Candidate;
use super::shared::Flow;
use super::topics::TopicContext;
use super::translate;
use crate::offsets::{MapError, OffsetMap, Run, SourceOffset, TargetOffset};
use crate::state::{StateError, TopicRecord, TurnedPartition, maps};

/// What a mapped partition's target has for ever besides records of the data producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Fillers: no other will ever come.
    pub fillers: i64,
    /// Offsets that somebody else wrote, as far as they are known.
    pub strangers: i64,
}

impl Flow {
    /// Whether a partition has a map. Its context may be older than its turn.
    pub fn is_mapped(&self, topic: &TopicContext, partition: i32) -> bool {
        self.settled(topic, partition).is_some()
    }

    /// What isn't counted in a mapped partition.
    pub fn settled(&self, topic: &TopicContext, partition: i32) -> Option<Settled> {
        let key = (topic.source_topic.clone(), partition);
        let turned = self.turned.get(&key).map(|turned| *turned);
        let turned = turned.filter(|(id, _)| *id == topic.record.target_topic_id);
        let mapped = topic.record.mapped.then(Settled::default);
        turned.map(|(_, settled)| settled).or(mapped)
    }

    /// Learns which partitions of a topic have turned.
    pub fn note_turned(&self, source_topic: &Arc<str>, record: &TopicRecord) {
        for (partition, turned) in &record.turned {
            let key = (source_topic.clone(), *partition);
            let settled = Settled {
                fillers: turned.fillers,
                strangers: turned.strangers(),
            };
            self.turned.insert(key, (record.target_topic_id, settled));
        }
    }
}

/// Turns a partition at `position`, which is where its log ends.
pub(super) async fn turn(
    flow: &Flow,
    one: &Candidate,
    position: Position,
    reason: String,
) -> Result<(), Trouble> {
    let turned = TurnedPartition {
        from: position.source,
        fillers: position.fillers,
        reason,
        foreign: Vec::new(),
    };
    store(flow, one, turned, position.source).await
}

/// Turns a partition at `from`, behind which its records aren't at the source's offsets. Nothing is stored unless
/// a map can be made of them.
pub(super) async fn turn_back(
    flow: &Flow,
    one: &Candidate,
    (from, fillers): (i64, i64),
    logs: Logs,
) -> Result<(), Trouble> {
    let misplaced = Trouble::Misplaced { from };
    let Ok(mut map) = map_at(&one.topic.record, one.partition, from) else {
        return Err(misplaced);
    };
    match relearn::complete(flow, one, logs, &mut map).await {
        Err(Trouble::MapMismatch { .. }) => return Err(misplaced),
        completed => completed?,
    }
    let turned = TurnedPartition {
        from,
        fillers,
        reason: format!(
            "fillers were refused among records on their way, so those from target offset {from} on are elsewhere"
        ),
        foreign: Vec::new(),
    };
    store(flow, one, turned, from).await
}

/// Goes on mapped behind what somebody else wrote in a log that ends at `end`. A partition that isn't
/// mapped yet turns before the first of these offsets: what is ours behind it is shifted.
pub(super) async fn keep_foreign(
    flow: &Flow,
    one: &Candidate,
    found: Found,
    end: i64,
) -> Result<(), Trouble> {
    let Some(&(from, _)) = found.foreign.first() else {
        return Ok(());
    };
    let turned = TurnedPartition {
        from,
        fillers: found.fillers,
        reason: format!(
            "somebody else wrote to the copy, from target offset {from} on (on_foreign_write: map)"
        ),
        foreign: found.foreign,
    };
    store(flow, one, turned, end).await
}

/// The target's log was cut at `end`, and so many fillers are left in it. What others wrote behind it is gone.
pub(super) async fn cut_back(
    flow: &Flow,
    one: &Candidate,
    end: i64,
    fillers: i64,
) -> Result<(), Trouble> {
    let topic = &one.topic.source_topic;
    let key = flow.topic_key(topic);
    let _alone = flow.records.lock().await;
    let record = flow.store.get::<TopicRecord>(&key)?;
    let same = |it: &TopicRecord| it.target_topic_id == one.topic.record.target_topic_id;
    let Some(mut record) = record.filter(same) else {
        return Err(Trouble::TargetRecreated);
    };
    if let Some(turned) = record.turned.get_mut(&one.partition) {
        turned.from = turned.from.min(end);
        turned.fillers = fillers;
        turned.foreign = within(&turned.foreign, end);
        flow.store.put(&key, &record).await?;
    }
    flow.note_turned(topic, &record);
    flow.note_stale(&[topic.to_string()]);
    Ok(())
}

/// `end` is where the target's log ends: the map of a partition that turns reaches to there.
async fn store(
    flow: &Flow,
    one: &Candidate,
    turned: TurnedPartition,
    end: i64,
) -> Result<(), Trouble> {
    let topic = &one.topic.source_topic;
    let key = flow.topic_key(topic);
    let _alone = flow.records.lock().await;
    let Some(mut record) = flow.store.get::<TopicRecord>(&key)? else {
        return Err(Trouble::TargetRecreated);
    };
    if record.target_topic_id != one.topic.record.target_topic_id {
        return Err(Trouble::TargetRecreated);
    }
    let is_mapped = record.is_mapped(one.partition);
    if !is_mapped {
        let keys = flow.map_keys(topic, one.partition);
        let map =
            map_of(&record, one.partition, &turned, end).map_err(|error| StateError::Value {
                key: keys.head().to_owned(),
                reason: error.to_string(),
            })?;
        // Of an earlier copy, if anything.
        maps::remove(&flow.store, &keys).await?;
        maps::save(&flow.store, &keys, &map).await?;
    }
    // The record may have arrived although its answer didn't.
    if !is_mapped || !turned.foreign.is_empty() {
        tracing::warn!(
            topic = &**topic,
            partition = one.partition,
            from = turned.from,
            reason = turned.reason,
            "offsets can't stay as they are: the partition goes on mapped from here"
        );
        add(&mut record.turned, one.partition, turned);
        flow.store.put(&key, &record).await?;
    }
    flow.note_turned(topic, &record);
    // A group that had read all goes on behind the stranger.
    flow.note_moved((topic.clone(), one.partition));
    // Its context follows: what `status` says of the topic.
    flow.note_stale(&[topic.to_string()]);
    Ok(())
}

/// What is known of the partition stays: the first turn, and the number of fillers.
fn add(all: &mut BTreeMap<i32, TurnedPartition>, partition: i32, turned: TurnedPartition) {
    match all.entry(partition) {
        Entry::Vacant(entry) => {
            entry.insert(turned);
        }
        Entry::Occupied(mut entry) => {
            let foreign = &mut entry.get_mut().foreign;
            foreign.extend(turned.foreign);
            *foreign = merged(std::mem::take(foreign));
        }
    }
}

/// The map of a partition that was the same up to the turn. What is ours behind the first stranger was
/// written as if he weren't there: as many offsets further as he has before it.
fn map_of(
    record: &TopicRecord,
    partition: i32,
    turned: &TurnedPartition,
    end: i64,
) -> Result<OffsetMap, MapError> {
    let mut map = map_at(record, partition, turned.from)?;
    let foreign = Foreign::new(turned.foreign.clone());
    let start = map.source_end().0;
    let ours = Run {
        source_start: SourceOffset(start),
        target_start: TargetOffset(start),
        len: u64::try_from(foreign.out(end) - start).unwrap_or(0),
    };
    for run in foreign.runs_of(ours) {
        map.push_copied(run.source_start, run.target_start, run.len)?;
    }
    map.push_gap(TargetOffset(end));
    Ok(map)
}

/// The map of a partition that is the same up to `at`.
fn map_at(record: &TopicRecord, partition: i32, at: i64) -> Result<OffsetMap, MapError> {
    let origin = record.origin(partition).unwrap_or(0);
    if at < origin {
        // What is below the origin has no place on the source: the first record goes right here.
        return Ok(OffsetMap::starting_at(
            SourceOffset(origin),
            TargetOffset(at),
        ));
    }
    translate::identity(record, partition, origin, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offsets::Translation;
    use crate::state::ContinuedLog;

    fn record(origin: i64) -> TopicRecord {
        TopicRecord {
            begun_at_ms: None,
            v: 1,
            source_topic_id: uuid::Uuid::nil(),
            target_topic: "t".to_owned(),
            target_topic_id: uuid::Uuid::nil(),
            created: true,
            mapped: false,
            reason: String::new(),
            origins: vec![origin],
            continued: None,
            turned: Default::default(),
        }
    }

    fn translate(map: &OffsetMap, offset: i64) -> Option<i64> {
        match map.translate(SourceOffset(offset)) {
            Translation::Exact(offset) => Some(offset.0),
            _ => None,
        }
    }

    #[test]
    fn a_map_is_the_identity_up_to_the_turn_and_shifted_behind_it() {
        let mut map = map_at(&record(10), 0, 50).expect("a map");
        map.push_hole(SourceOffset(50), 1_000).expect("a hole");
        map.push_copied(SourceOffset(1_050), TargetOffset(50), 7)
            .expect("records");
        for (source, target) in [(9, None), (10, Some(10)), (49, Some(49)), (50, Some(50))] {
            assert_eq!(translate(&map, source), target, "{source}");
        }
        assert_eq!(translate(&map, 700), Some(50), "the next record");
        assert_eq!(translate(&map, 1_056), Some(56));
    }

    fn strangers_at(from: i64, foreign: Vec<(i64, i64)>) -> TurnedPartition {
        TurnedPartition {
            from,
            fillers: 0,
            reason: String::new(),
            foreign,
        }
    }

    #[test]
    fn what_is_ours_behind_a_stranger_is_as_much_further_as_he_is_long() {
        let turned = strangers_at(50, vec![(50, 55), (60, 61)]);
        let map = map_of(&record(10), 0, &turned, 70).expect("a map");
        for (source, target) in [(10, 10), (49, 49), (50, 55), (54, 59), (55, 61), (63, 69)] {
            assert_eq!(translate(&map, source), Some(target), "{source}");
        }
        assert_eq!((map.source_end().0, map.target_end().0), (64, 70));
        // At the end, and before all that is ours.
        let map = map_of(&record(10), 0, &strangers_at(50, vec![(50, 55)]), 55).expect("a map");
        assert_eq!((map.source_end().0, map.target_end().0), (50, 55));
        assert_eq!(translate(&map, 50), Some(55));
        let map = map_of(&record(0), 0, &strangers_at(0, vec![(0, 5)]), 9).expect("a map");
        assert_eq!((translate(&map, 0), translate(&map, 4)), (Some(5), Some(9)));
    }

    #[test]
    fn a_stranger_below_the_origin_shifts_what_is_filled_there() {
        // Fillers up to 40, five of somebody else's, fillers again.
        let turned = strangers_at(40, vec![(40, 45)]);
        let map = map_of(&record(100), 0, &turned, 60).expect("a map");
        assert_eq!((map.source_end().0, map.target_end().0), (100, 60));
        assert_eq!(translate(&map, 100), Some(60));
        let map = map_of(&record(100), 0, &turned, 110).expect("a map");
        assert_eq!(
            (translate(&map, 100), translate(&map, 104)),
            (Some(105), Some(109))
        );
    }

    #[test]
    fn a_turn_below_the_origin_begins_the_map_there() {
        let map = map_at(&record(1_000), 0, 3).expect("a map");
        assert_eq!(translate(&map, 1_000), Some(3));
        assert_eq!((map.source_end().0, map.target_end().0), (1_000, 3));
    }

    #[test]
    fn what_only_the_target_has_stays_a_gap() {
        let mut record = record(0);
        record.continued = Some(ContinuedLog {
            plan: uuid::Uuid::nil(),
            data_producer_id: 1,
            filler_producer_id: 2,
            bases: vec![20],
            only_on_target: vec![vec![(10, 20)]],
            only_on_source: Vec::new(),
        });
        let map = map_at(&record, 0, 30).expect("a map");
        assert_eq!(translate(&map, 9), Some(9));
        assert_eq!(translate(&map, 12), Some(20));
        assert_eq!(translate(&map, 25), Some(25));
    }

    #[test]
    fn a_record_of_an_older_twinlog_is_read() {
        let old = r#"{"v":1,"source_topic_id":"00000000-0000-0000-0000-000000000000","target_topic":"t",
            "target_topic_id":"00000000-0000-0000-0000-000000000000","created":true,"mapped":false,
            "reason":"","origins":[0,5]}"#;
        let mut record: TopicRecord = serde_json::from_str(old).expect("an old record");
        assert!(!record.is_mapped(0) && !record.has_maps());
        let turned = TurnedPartition {
            from: 7,
            fillers: 2,
            reason: "dear".to_owned(),
            foreign: Vec::new(),
        };
        record.turned.insert(1, turned);
        let text = serde_json::to_string(&record).expect("text");
        assert_eq!(
            serde_json::from_str::<TopicRecord>(&text).ok(),
            Some(record.clone())
        );
        assert!(record.is_mapped(1) && !record.is_mapped(0));
        assert_eq!(record.why_mapped(), "1 of 2 partition(s), 1: dear");
    }
}
