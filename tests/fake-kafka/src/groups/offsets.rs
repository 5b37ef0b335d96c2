//! Committed offsets and those that wait for their transaction's end (`OffsetMetadataManager`).
//!
//! Nothing is changed here but by [`Offsets::replay`] and [`Offsets::end_transaction`], with what is
//! in the log: so a coordinator that loads the log knows the same.

use std::collections::{BTreeMap, BTreeSet};

use super::records::OffsetValue;

/// A topic and a partition of it.
pub type At = (String, i32);

/// An offset and the place of its record in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The record's offset in `__consumer_offsets`.
    pub record_offset: i64,
    /// What was committed.
    pub value: OffsetValue,
}

type ByPartition = BTreeMap<At, Stored>;

/// The offsets of all groups of one partition of `__consumer_offsets`.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    committed: BTreeMap<String, ByPartition>,
    /// By producer and group.
    pending: BTreeMap<i64, BTreeMap<String, ByPartition>>,
}

impl Offsets {
    /// A group's committed offsets.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = (&At, &Stored)> {
        self.committed.get(group).into_iter().flatten()
    }

    /// A group's committed offset of a partition.
    pub fn get(&self, group: &str, at: &At) -> Option<&Stored> {
        self.committed.get(group)?.get(at)
    }

    /// Whether an open transaction has committed an offset for the partition.
    pub fn is_pending(&self, group: &str, at: &At) -> bool {
        self.pending
            .values()
            .filter_map(|groups| groups.get(group))
            .any(|offsets| offsets.contains_key(at))
    }

    /// Whether an open transaction has committed offsets for the group.
    pub fn has_open_transaction(&self, group: &str) -> bool {
        self.pending
            .values()
            .any(|groups| groups.contains_key(group))
    }

    /// The partitions that a group has offsets of, committed or pending: what deleting it takes
    /// back, each once (`OffsetMetadataManager.deleteAllOffsets`).
    pub fn partitions_of(&self, group: &str) -> BTreeSet<At> {
        let pending = self.pending.values().filter_map(|groups| groups.get(group));
        self.committed
            .get(group)
            .into_iter()
            .chain(pending)
            .flat_map(|offsets| offsets.keys().cloned())
            .collect()
    }

    /// Groups and partitions with an offset, committed or pending, of a topic
    /// (`OffsetMetadataManager.onPartitionsDeleted`).
    pub fn of_topic(&self, topic: &str) -> BTreeSet<(String, At)> {
        self.committed
            .iter()
            .chain(self.pending.values().flatten())
            .flat_map(|(group, offsets)| {
                let of_topic = offsets.keys().filter(|at| at.0 == topic);
                of_topic.map(move |at| (group.clone(), at.clone()))
            })
            .collect()
    }

    /// Takes a record from the log; `producer` is that of a transactional batch
    /// (`OffsetMetadataManager.replay`).
    pub fn replay(
        &mut self,
        record_offset: i64,
        producer: Option<i64>,
        group: &str,
        at: At,
        value: Option<OffsetValue>,
    ) {
        let Some(value) = value else {
            self.remove(group, &at);
            return;
        };
        let offsets = match producer {
            None => self.committed.entry(group.to_owned()).or_default(),
            Some(producer) => {
                let groups = self.pending.entry(producer).or_default();
                groups.entry(group.to_owned()).or_default()
            }
        };
        let stored = Stored {
            record_offset,
            value,
        };
        offsets.insert(at, stored);
    }

    /// A tombstone takes back what is pending, too.
    fn remove(&mut self, group: &str, at: &At) {
        if let Some(offsets) = self.committed.get_mut(group) {
            offsets.remove(at);
            if offsets.is_empty() {
                self.committed.remove(group);
            }
        }
        for groups in self.pending.values_mut() {
            if let Some(offsets) = groups.get_mut(group) {
                offsets.remove(at);
            }
        }
    }

    /// Takes a transaction's marker from the log
    /// (`OffsetMetadataManager.replayEndTransactionMarker`).
    pub fn end_transaction(&mut self, producer: i64, commit: bool) {
        let groups = self.pending.remove(&producer).unwrap_or_default();
        if !commit {
            return;
        }
        for (group, offsets) in groups {
            if offsets.is_empty() {
                continue;
            }
            let committed = self.committed.entry(group).or_default();
            for (at, stored) in offsets {
                // A commit that came after it, outside of the transaction, stays.
                let is_newer = committed
                    .get(&at)
                    .is_none_or(|existing| stored.record_offset > existing.record_offset);
                if is_newer {
                    committed.insert(at, stored);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> At {
        ("t".to_owned(), 0)
    }

    fn value(offset: i64) -> OffsetValue {
        OffsetValue {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            committed_at_ms: 0,
            expires_at_ms: None,
            topic_id: None,
        }
    }

    fn committed(offsets: &Offsets) -> Option<i64> {
        offsets.get("g", &at()).map(|stored| stored.value.offset)
    }

    #[test]
    fn a_transaction_s_offset_counts_once_it_is_committed() {
        let mut offsets = Offsets::default();
        offsets.replay(0, Some(7), "g", at(), Some(value(10)));
        assert_eq!(committed(&offsets), None);
        assert!(offsets.is_pending("g", &at()) && offsets.has_open_transaction("g"));
        offsets.end_transaction(7, true);
        assert_eq!(committed(&offsets), Some(10));
        assert!(!offsets.is_pending("g", &at()) && !offsets.has_open_transaction("g"));
    }

    #[test]
    fn an_aborted_transaction_leaves_the_offset_as_it_was() {
        let mut offsets = Offsets::default();
        offsets.replay(0, None, "g", at(), Some(value(5)));
        offsets.replay(1, Some(7), "g", at(), Some(value(10)));
        offsets.end_transaction(7, false);
        assert_eq!(committed(&offsets), Some(5));
    }

    #[test]
    fn a_later_commit_outside_of_the_transaction_stays() {
        let mut offsets = Offsets::default();
        offsets.replay(0, Some(7), "g", at(), Some(value(10)));
        offsets.replay(1, None, "g", at(), Some(value(5)));
        offsets.end_transaction(7, true);
        assert_eq!(committed(&offsets), Some(5));
    }

    #[test]
    fn a_tombstone_takes_back_what_is_pending() {
        let mut offsets = Offsets::default();
        offsets.replay(0, None, "g", at(), Some(value(5)));
        offsets.replay(1, Some(7), "g", at(), Some(value(10)));
        assert_eq!(offsets.partitions_of("g").len(), 1);
        offsets.replay(2, None, "g", at(), None);
        assert_eq!(committed(&offsets), None);
        offsets.end_transaction(7, true);
        assert_eq!(committed(&offsets), None);
    }
}
