//! A partition whose offsets were the source's goes on mapped.
//!
//! Up to the turn the map is the identity; from there on offsets differ for ever. The map is stored
//! first, then the topic's record that says so, and only then is the partition opened as a mapped one:
//! a process that dies in between finds either a partition that was never turned, whose log ends at
//! the turn, or one with its map. What is written behind the turn can never be taken for the same
//! offsets.

use super::error::Trouble;
use super::position::Position;
use super::resume::Candidate;
use super::shared::Flow;
use super::topics::TopicContext;
use super::translate;
use crate::offsets::{MapError, OffsetMap, SourceOffset, TargetOffset};
use crate::state::{StateError, TopicRecord, TurnedPartition, maps};

impl Flow {
    /// Whether a partition has a map. Its context may be older than its turn.
    pub fn is_mapped(&self, topic: &TopicContext, partition: i32) -> bool {
        self.fillers_of_mapped(topic, partition).is_some()
    }

    /// How many fillers a mapped partition has: no other will ever come.
    pub fn fillers_of_mapped(&self, topic: &TopicContext, partition: i32) -> Option<i64> {
        if topic.record.mapped {
            return Some(0);
        }
        let key = (topic.source_topic.clone(), partition);
        let turned = self.turned.get(&key)?;
        let (target_topic_id, fillers) = *turned;
        (target_topic_id == topic.record.target_topic_id).then_some(fillers)
    }

    /// Learns which partitions of a topic have turned.
    pub fn note_turned(&self, source_topic: &std::sync::Arc<str>, record: &TopicRecord) {
        for (partition, turned) in &record.turned {
            let key = (source_topic.clone(), *partition);
            let known = (record.target_topic_id, turned.fillers);
            self.turned.insert(key, known);
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
    let topic = &one.topic.source_topic;
    let key = flow.topic_key(topic);
    let _alone = flow.records.lock().await;
    let Some(mut record) = flow.store.get::<TopicRecord>(&key)? else {
        return Err(Trouble::TargetRecreated);
    };
    if record.target_topic_id != one.topic.record.target_topic_id {
        return Err(Trouble::TargetRecreated);
    }
    if !record.is_mapped(one.partition) {
        let keys = flow.map_keys(topic, one.partition);
        let map =
            map_at(&record, one.partition, position.source).map_err(|error| StateError::Value {
                key: keys.head().to_owned(),
                reason: error.to_string(),
            })?;
        // Of an earlier copy, if anything.
        maps::remove(&flow.store, &keys).await?;
        maps::save(&flow.store, &keys, &map).await?;
        let turned = TurnedPartition {
            from: position.source,
            fillers: position.fillers,
            reason,
        };
        tracing::warn!(
            topic = &**topic,
            partition = one.partition,
            from = position.source,
            reason = turned.reason,
            "offsets can't stay the same at a fair price: the partition goes on mapped from here"
        );
        record.turned.insert(one.partition, turned);
        flow.store.put(&key, &record).await?;
    }
    flow.note_turned(topic, &record);
    // Its context follows: what `status` says of the topic.
    flow.note_stale(&[topic.to_string()]);
    Ok(())
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
