//! Looks at the start offsets of one cluster, and tells what changed since the last look.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::groups::record::{GroupRecord, StoredOffset};
use crate::groups::unseen::Unseen;
use crate::wire::{self, Cluster, StartOffsets, TopicPartition, WireError};

/// What a look has found.
pub(super) struct Looked {
    /// What changed.
    pub(super) records: Vec<GroupRecord>,
    /// The groups of which nothing is known now.
    pub(super) unseen: Unseen,
    /// Those of them that may not be described.
    pub(super) refused: BTreeSet<String>,
}

impl Looked {
    /// Of a cluster that has no share groups.
    pub(super) fn nothing() -> Self {
        Self {
            records: Vec::new(),
            unseen: Unseen::Nothing,
            refused: BTreeSet::new(),
        }
    }
}

/// One cluster, and what it had when it was looked at last.
pub(super) struct Side {
    cluster: Cluster,
    known: HashMap<String, StartOffsets>,
}

impl Side {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            known: HashMap::new(),
        }
    }

    /// Forgets a group that is on neither cluster any more.
    pub(super) fn forget(&mut self, group: &str) {
        self.known.remove(group);
    }

    /// The groups that were found so far.
    pub(super) fn known(&self) -> impl Iterator<Item = &String> {
        self.known.keys()
    }

    /// Asks for the start offsets of these groups, and of those that were known. One that isn't among
    /// these any more is gone when its coordinator says so. Tells also which can't be seen.
    pub(super) async fn look(&mut self, groups: &[String]) -> Result<Looked, WireError> {
        let listed: HashSet<&String> = groups.iter().collect();
        let known = self.known.keys().filter(|group| !listed.contains(group));
        let asked: Vec<String> = groups.iter().chain(known).cloned().collect();
        let mut records = Vec::new();
        let mut failed = HashSet::new();
        let mut refused = BTreeSet::new();
        let mut why = None;
        let mut is_any_answered = asked.is_empty();
        for (group, offsets) in wire::describe_share_group_offsets(&self.cluster, &asked).await {
            let offsets = match offsets {
                Ok(offsets) => offsets,
                Err(error) if wire::is_unsupported(&error) => return Err(error),
                Err(error) => {
                    // One group that can't be seen is no reason to leave the others.
                    tracing::debug!(group, %error, "a share group's start offsets can't be read");
                    // What is refused is there: nothing is known of it all the same.
                    is_any_answered |= !error.is_retriable();
                    if wire::is_refused_group(&error) {
                        refused.insert(group.clone());
                    }
                    failed.insert(group);
                    why.get_or_insert(error);
                    continue;
                }
            };
            is_any_answered = true;
            let before = self.known.insert(group.clone(), offsets.clone());
            records.extend(differences(&group, &before.unwrap_or_default(), &offsets));
            if offsets.is_empty() && !listed.contains(&group) {
                self.known.remove(&group);
            }
        }
        let unseen = match why {
            Some(error) if !is_any_answered => return Err(error),
            Some(error) => {
                let (names, why) = (failed, error.to_string());
                Unseen::Groups { names, why }
            }
            None => Unseen::Nothing,
        };
        Ok(Looked {
            records,
            unseen,
            refused,
        })
    }

    /// Notes what was set meanwhile, as a look would tell it.
    pub(super) fn note(&mut self, group: &str, at: &TopicPartition, offset: i64) -> GroupRecord {
        let known = self.known.entry(group.to_owned()).or_default();
        known.insert(at.clone(), offset);
        record(group, at, Some(offset))
    }
}

fn differences(group: &str, before: &StartOffsets, now: &StartOffsets) -> Vec<GroupRecord> {
    let changed = now
        .iter()
        .filter(|(at, offset)| before.get(at) != Some(offset))
        .map(|(at, offset)| record(group, at, Some(*offset)));
    let gone = before
        .keys()
        .filter(|at| !now.contains_key(at))
        .map(|at| record(group, at, None));
    changed.chain(gone).collect()
}

/// A start offset in the shape of a consumer group's position, without what it doesn't have.
fn record(group: &str, at: &TopicPartition, offset: Option<i64>) -> GroupRecord {
    GroupRecord::Offset {
        group: group.to_owned(),
        topic: at.topic.clone(),
        partition: at.partition,
        commit: offset.map(|offset| StoredOffset {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            committed_at_ms: -1,
            topic_id: uuid::Uuid::nil(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told() {
        let at = |partition| TopicPartition::new("t", partition);
        let before = StartOffsets::from([(at(0), 5), (at(1), 5), (at(2), 5)]);
        let now = StartOffsets::from([(at(0), 5), (at(1), 6), (at(3), 0)]);
        let expected = [
            record("g", &at(1), Some(6)),
            record("g", &at(3), Some(0)),
            record("g", &at(2), None),
        ];
        assert_eq!(differences("g", &before, &now), expected);
    }
}
