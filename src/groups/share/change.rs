//! Sets start offsets on the target, and what that means for what is known.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;

use crate::groups::commit::Failure;
use crate::groups::decide::Blocked;
use crate::groups::table::{Group, Key, Row};
use crate::wire::{self, Cluster, StartOffsets, TopicPartition, WireError};

/// One start offset to be set.
#[derive(Debug)]
pub(super) struct Change {
    /// The source partition.
    pub(super) key: Key,
    /// The target partition.
    pub(super) target: TopicPartition,
    /// The start offset there.
    pub(super) offset: i64,
    /// The start offset on the source.
    pub(super) source_offset: i64,
    /// What the target has now.
    pub(super) before: Option<i64>,
}

/// What is to be set, by group.
pub(super) type Changes = HashMap<Arc<str>, Vec<Change>>;

/// What became of a [`Change`].
pub(super) struct Attempt {
    pub(super) group: Arc<str>,
    pub(super) change: Change,
    pub(super) result: Result<(), Failure>,
}

/// Sends. Answers for every change.
pub(super) async fn send(target: &Cluster, changes: Changes) -> Vec<Attempt> {
    let asked: HashMap<String, StartOffsets> = changes
        .iter()
        .map(|(group, changes)| {
            let offsets = changes.iter();
            let offsets = offsets.map(|change| (change.target.clone(), change.offset));
            (group.to_string(), offsets.collect())
        })
        .collect();
    let mut answers = wire::alter_share_group_offsets(target, &asked).await;
    let mut attempts = Vec::new();
    for (group, changes) in changes {
        let mut answers = answers.remove(&*group).unwrap_or_default();
        attempts.extend(changes.into_iter().map(|change| {
            let result = match answers.remove(&change.target) {
                Some(Ok(())) => Ok(()),
                Some(Err(error)) => Err(failure(&error)),
                None => Err(Failure::unmentioned()),
            };
            Attempt {
                group: group.clone(),
                change,
                result,
            }
        }));
    }
    attempts
}

/// A group with members refuses: the coordinator itself keeps us from moving it
/// (`ShareGroup.validateOffsetsAlterable`).
fn failure(error: &WireError) -> Failure {
    let blocked = match error.server_code() {
        Some(ResponseError::NonEmptyGroup) => Blocked::ActiveOnTarget,
        _ if wire::is_unsupported(error) => Blocked::NotSupported,
        _ => Blocked::Failed {
            reason: error.to_string().into(),
        },
    };
    Failure::new(blocked, error)
}

/// A start offset is about to be sent: from now on what the target has may be the old or the new
/// one, and both are ours.
pub(super) fn note_sending(group: &mut Group, change: &Change) {
    let Some(row) = group.rows.get_mut(&change.key) else {
        return;
    };
    if let Some(before) = change.before.filter(|before| row.is_ours(*before)) {
        row.applied = Some(before);
    }
    row.applied_source = change.source_offset;
    row.unconfirmed.clear();
    row.note_sent(change.offset);
}

/// Takes an answer. Returns why it wasn't set, where that is news.
pub(super) fn note_answer(
    group: &mut Group,
    change: &Change,
    result: Result<(), Failure>,
    now_ms: i64,
) -> Option<Blocked> {
    let row = group.rows.get_mut(&change.key)?;
    match result {
        Ok(()) => {
            row.set_blocked(None, now_ms);
            note_current(row, Some(change.offset), change.source_offset);
            group.followed_at_ms = now_ms;
            None
        }
        Err(failure) => {
            if !failure.was_sent {
                row.unconfirmed.clear();
            }
            let is_news = row.set_blocked(Some(failure.blocked.clone()), now_ms);
            is_news.then_some(failure.blocked)
        }
    }
}

/// The target has the right start offset. True when that is news for the ledger.
pub(super) fn note_current(row: &mut Row, on_target: Option<i64>, source_offset: i64) -> bool {
    let is_news = row.applied != on_target
        || row.applied_source != source_offset
        || !row.unconfirmed.is_empty();
    row.applied = on_target;
    row.applied_source = source_offset;
    row.unconfirmed.clear();
    is_news
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(offset: i64, before: Option<i64>) -> Change {
        Change {
            key: ("t".into(), 0),
            target: TopicPartition::new("t", 0),
            offset,
            source_offset: offset,
            before,
        }
    }

    fn group(applied: Option<i64>) -> Group {
        let mut group = Group::default();
        group.rows.entry(("t".into(), 0)).or_default().applied = applied;
        group
    }

    fn ours(group: &Group) -> Vec<i64> {
        let row = &group.rows[&("t".into(), 0)];
        (0..100).filter(|offset| row.is_ours(*offset)).collect()
    }

    fn failed(was_sent: bool) -> Result<(), Failure> {
        Err(Failure {
            blocked: Blocked::ActiveOnTarget,
            was_sent,
        })
    }

    #[test]
    fn while_it_is_sent_and_unanswered_the_old_and_the_new_one_are_ours() {
        let mut group = group(Some(10));
        note_sending(&mut group, &change(20, Some(10)));
        assert_eq!(ours(&group), [10, 20]);
        note_answer(&mut group, &change(20, Some(10)), failed(true), 1);
        assert_eq!(ours(&group), [10, 20]);
    }

    #[test]
    fn an_answer_leaves_one() {
        for (result, expected) in [(Ok(()), 20), (failed(false), 10)] {
            let mut group = group(Some(10));
            note_sending(&mut group, &change(20, Some(10)));
            note_answer(&mut group, &change(20, Some(10)), result, 1);
            assert_eq!(ours(&group), [expected]);
        }
    }

    #[test]
    fn what_somebody_else_set_is_not_ours_when_it_is_overwritten() {
        let mut group = group(Some(10));
        note_sending(&mut group, &change(20, Some(15)));
        assert_eq!(ours(&group), [10, 20]);
    }
}
