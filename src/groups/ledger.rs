//! What we committed for each group, remembered in the state topic.
//!
//! After a restart the target's positions must be told apart: ours may be moved, others' must not.
//! What we committed is stored every few seconds, so the last commits before a crash are missing
//! there. They are known by their time: no later than a little after the time at which the record was
//! stored. A group that has rested for longer than that gets its record before it is committed for
//! again. A group's first commit waits until its record is stored. So a group without a record was never touched, nor was
//! one whose record has no time ([`GroupPositions::NEVER`]): that one only tells where the group is on the source, and what
//! somebody else committed. What is left to them is remembered too: its time alone would make it ours.
//!
//! Whoever ends in order stores what is missing before it gives its claim back, and says so there: behind that
//! nothing has to be guessed, and any other position is somebody else's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::table::{Group, Key, Table};
use crate::state::{GroupPositions, StateError, StateStore, TopicRecord, keys};

/// Commits this much later than a record was stored may still be ours: records are stored every five
/// seconds while groups move.
const UNSTORED_MS: i64 = 15_000;
/// A group's record that is older is stored again before the group's next commit. That and its commit
/// have the time that is missing to [`UNSTORED_MS`].
pub const STALE_AFTER: Duration = Duration::from_secs(10);

/// What the state topic remembers of one group.
#[derive(Debug, Default)]
pub struct Remembered {
    /// The position on the source and on the target, by source topic and partition.
    pub positions: BTreeMap<Key, (i64, i64)>,
    /// What somebody else committed on the target, by source topic and partition.
    pub foreign: BTreeMap<Key, i64>,
    /// What else is ours on the target, by source topic and partition.
    pub also: BTreeMap<Key, Vec<i64>>,
    seen_until_ms: i64,
}

impl Remembered {
    /// Whether a commit on the target, with its leader epoch and time, may be one of ours that
    /// wasn't stored any more. Ordinary clients commit with the epoch that they read with.
    pub fn may_be_ours(&self, leader_epoch: i32, committed_at_ms: i64) -> bool {
        self.is_touched()
            && leader_epoch < 0
            && committed_at_ms <= self.seen_until_ms.saturating_add(UNSTORED_MS)
    }

    /// Whether anything may have been committed for the group since its positions were noted.
    pub fn is_touched(&self) -> bool {
        self.seen_until_ms > 0
    }
}

/// Reads what is remembered of all groups of a flow.
///
/// # Errors
/// When a record can't be read.
pub fn read(
    store: &StateStore,
    flow: &str,
    table: &mut Table,
) -> Result<Vec<(Arc<str>, Remembered)>, StateError> {
    let prefix = keys::groups(flow);
    let mut all = Vec::new();
    for key in store.keys(&prefix) {
        let Some(record) = store.get::<GroupPositions>(&key)? else {
            continue;
        };
        let group = table.name(&key[prefix.len()..]);
        let mut remembered = Remembered {
            seen_until_ms: record.seen_until_ms,
            ..Remembered::default()
        };
        for (topic, positions) in record.foreign {
            let topic = table.name(&topic);
            for (partition, offset) in positions {
                remembered
                    .foreign
                    .insert((topic.clone(), partition), offset);
            }
        }
        for (topic, positions) in record.also {
            let topic = table.name(&topic);
            for (partition, offset) in positions {
                let also = remembered.also.entry((topic.clone(), partition));
                also.or_default().push(offset);
            }
        }
        for (topic, positions) in record.topics {
            let topic = table.name(&topic);
            for (partition, source, target) in positions {
                let key = (topic.clone(), partition);
                remembered.positions.insert(key, (source, target));
            }
        }
        all.push((group, remembered));
    }
    Ok(all)
}

/// What each source topic of a flow is called on the target.
///
/// # Errors
/// When a record can't be read.
pub fn target_topics(
    store: &StateStore,
    flow: &str,
) -> Result<HashMap<String, String>, StateError> {
    let prefix = keys::topic(flow, "");
    let mut topics = HashMap::new();
    for key in store.keys(&prefix) {
        if let Some(record) = store.get::<TopicRecord>(&key)? {
            topics.insert(key[prefix.len()..].to_owned(), record.target_topic);
        }
    }
    Ok(topics)
}

/// A group's record as it is now, `seen_until_ms` by the clocks of the target's coordinators, for the claim's generation.
pub fn record(group: &Group, seen_until_ms: i64, generation: u64) -> GroupPositions {
    let seen_until_ms = match group.is_touched() {
        true => seen_until_ms,
        false => GroupPositions::NEVER,
    };
    let mut foreign: BTreeMap<String, Vec<(i32, i64)>> = BTreeMap::new();
    let mut topics: BTreeMap<String, Vec<(i32, i64, i64)>> = BTreeMap::new();
    let mut ahead: BTreeMap<String, Vec<(i32, i64)>> = BTreeMap::new();
    let mut record = GroupPositions {
        v: 1,
        seen_until_ms,
        generation,
        ..GroupPositions::default()
    };
    for ((topic, partition), row) in &group.rows {
        if let Some(target) = row.applied {
            let positions = topics.entry(topic.to_string()).or_default();
            positions.push((*partition, row.applied_source, target));
        }
        if let Some(commit) = &row.foreign {
            let positions = foreign.entry(topic.to_string()).or_default();
            positions.push((*partition, commit.offset));
        }
        record.note_all_also((&**topic, *partition), row.also_ours());
        // What can't be committed on the target (yet) tells what would be read again there.
        let source = row.source.as_ref().map(|source| source.offset);
        if let Some(source) = source
            && row.applied.is_none_or(|_| row.applied_source < source)
        {
            let positions = ahead.entry(topic.to_string()).or_default();
            positions.push((*partition, source));
        }
    }
    GroupPositions {
        topics,
        ahead,
        foreign,
        ..record
    }
}

#[cfg(test)]
mod tests {
    use super::super::decide::Commit;
    use super::*;

    /// A commit may not be taken, or its answer may be lost.
    #[test]
    fn what_stood_there_and_what_was_sent_are_remembered_as_ours() {
        let mut table = Table::default();
        let (group, topic) = (table.name("g"), table.name("t"));
        let group = table.groups.entry(group).or_default();
        let row = group.rows.entry((topic, 0)).or_default();
        row.applied = Some(30);
        row.note_sent(40);
        let mut record = record(group, 0, 0);
        for offset in [30, 40] {
            assert!(record.is_ours(("t", 0), offset), "{offset}");
        }
        assert!(!record.is_ours(("t", 0), 77));
        for target in [50, 60] {
            record.note(("t", 0), target, target);
        }
        for offset in [30, 40, 50, 60] {
            assert!(record.is_ours(("t", 0), offset), "{offset}");
        }
        for target in 100..200 {
            record.note(("t", 0), target, target);
        }
        assert!(record.also["t"].len() <= 4, "{record:?}");
    }

    /// A group of a topic with very many partitions is written every few seconds.
    #[test]
    fn each_partition_is_noted_without_a_look_at_the_others() {
        const PARTITIONS: i32 = 300_000;
        let mut table = Table::default();
        let (group, topic) = (table.name("g"), table.name("t"));
        let group = table.groups.entry(group).or_default();
        for partition in 0..PARTITIONS {
            let row = group.rows.entry((topic.clone(), partition)).or_default();
            row.applied = Some(30);
            row.note_sent(40);
        }
        let record = record(group, 0, 0);
        assert!(record.also["t"].len() >= PARTITIONS as usize);
        for partition in [0, PARTITIONS - 1] {
            for offset in [30, 40] {
                assert!(record.is_ours(("t", partition), offset), "{offset}");
            }
        }
    }

    /// Where it is on the source, and what others committed, is stored all the same.
    #[test]
    fn a_record_of_a_group_that_was_never_committed_for_claims_nothing() {
        let mut table = Table::default();
        let (name, topic) = (table.name("g"), table.name("t"));
        let group = table.groups.entry(name).or_default();
        let row = group.rows.entry((topic, 0)).or_default();
        row.source = Some(Commit {
            offset: 30,
            leader_epoch: -1,
            metadata: Arc::from(""),
            committed_at_ms: 5,
        });
        let seen = record(group, 7, 0);
        assert_eq!(seen.seen_until_ms, GroupPositions::NEVER);
        assert!(!seen.may_lack_the_last());
        assert_eq!(seen.ahead["t"], [(0, 30)]);
        let remembered = Remembered {
            seen_until_ms: seen.seen_until_ms,
            ..Remembered::default()
        };
        assert!(
            !remembered.may_be_ours(-1, -1),
            "also where no time is told"
        );
        // Its record must be there before its first commit is.
        group.is_sending = true;
        assert_eq!(record(group, 7, 0).seen_until_ms, 7);
    }

    #[test]
    fn only_a_commit_without_epoch_and_near_in_time_may_be_ours() {
        let remembered = Remembered {
            seen_until_ms: 100_000,
            ..Remembered::default()
        };
        assert!(remembered.may_be_ours(-1, 100_000 + UNSTORED_MS));
        assert!(!remembered.may_be_ours(-1, 100_001 + UNSTORED_MS));
        assert!(!remembered.may_be_ours(0, 100_000));
    }
}
