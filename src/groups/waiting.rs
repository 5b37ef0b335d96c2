//! Positions that can't be applied now, and when to look at them again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::positions::{Place, Positions};
use super::table::Key;
use crate::offsets::{SourceOffset, Translation};

/// One position of one group.
pub type RowName = (Arc<str>, Key);

/// What waits. However often a group commits meanwhile, each of its positions waits once.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Positions past the copy's end, by source partition and offset: only the lowest of a
    /// partition is looked at.
    past_copy: HashMap<Key, BTreeSet<(i64, Arc<str>)>>,
    due: BTreeMap<Instant, Vec<RowName>>,
    /// What is in `due`.
    scheduled: HashSet<RowName>,
}

impl Waiting {
    /// Until the copy reaches this source offset. `before` is where the position waited until now.
    pub fn for_copy(&mut self, (group, key): RowName, offset: i64, before: Option<i64>) {
        let waiting = self.past_copy.entry(key).or_default();
        if let Some(before) = before {
            waiting.remove(&(before, group.clone()));
        }
        waiting.insert((offset, group));
    }

    /// Until nothing any more: the group is gone.
    pub fn no_longer(&mut self, group: &Arc<str>, rows: Vec<(Key, i64)>) {
        for (key, offset) in rows {
            let Some(waiting) = self.past_copy.get_mut(&key) else {
                continue;
            };
            waiting.remove(&(offset, group.clone()));
            if waiting.is_empty() {
                self.past_copy.remove(&key);
            }
        }
    }

    /// Whether any waits for the copy.
    pub fn is_for_copy(&self) -> bool {
        !self.past_copy.is_empty()
    }

    /// When the first of those that wait for some time has waited long enough.
    pub fn due_at(&self) -> Option<Instant> {
        self.due.first_key_value().map(|(at, _)| *at)
    }

    /// For some time.
    pub fn for_a_while(&mut self, row: RowName, pause: Duration) {
        if self.scheduled.insert(row.clone()) {
            let due = self.due.entry(Instant::now() + pause).or_default();
            due.push(row);
        }
    }

    /// Takes out what has waited long enough, and what the copy has reached.
    pub fn wake(&mut self, positions: &dyn Positions) -> Vec<RowName> {
        let now = Instant::now();
        let mut woken = Vec::new();
        while let Some(entry) = self.due.first_entry() {
            if *entry.key() > now {
                break;
            }
            woken.extend(entry.remove());
        }
        for row in &woken {
            self.scheduled.remove(row);
        }
        self.past_copy.retain(|key, waiting| {
            while let Some((offset, _)) = waiting.first() {
                let place = positions.place(&key.0, key.1, SourceOffset(*offset));
                if is_not_yet_copied(&place) {
                    break;
                }
                let reached = waiting.pop_first().map(|(_, group)| (group, key.clone()));
                woken.extend(reached);
            }
            !waiting.is_empty()
        });
        woken
    }
}

/// Whether the copy hasn't reached a position, or can't say so.
pub fn is_not_yet_copied(place: &Place) -> bool {
    matches!(
        place,
        Place::Unknown
            | Place::Known {
                answer: Translation::NotYetCopied { .. },
                ..
            }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_group_that_is_gone_nothing_waits() {
        let mut waiting = Waiting::default();
        let key: Key = (Arc::from("t"), 0);
        for number in 0..1_000 {
            let group: Arc<str> = format!("g{number}").into();
            waiting.for_copy((group.clone(), key.clone()), number, None);
            waiting.no_longer(&group, vec![(key.clone(), number)]);
        }
        assert!(waiting.past_copy.is_empty());
    }

    use crate::offsets::TargetOffset;
    use crate::wire::TopicPartition;

    /// A copy that has reached this source offset.
    struct CopiedTo(i64);

    impl Positions for CopiedTo {
        fn source_topic_id(&self, _: &str) -> uuid::Uuid {
            unreachable!("not asked for here")
        }

        fn take_noted(&self) -> HashSet<Arc<str>> {
            unreachable!("not asked for here")
        }

        fn told(&self) -> &tokio::sync::Notify {
            unreachable!("not asked for here")
        }

        fn take_moved(&self) -> Vec<(Arc<str>, i32)> {
            Vec::new()
        }

        fn continued_at(&self, _topic: &str, _partition: i32) -> i64 {
            0
        }

        fn place(&self, topic: &str, partition: i32, committed: SourceOffset) -> Place {
            let copied_end = SourceOffset(self.0);
            Place::Known {
                target: TopicPartition::new(topic, partition),
                answer: if committed > copied_end {
                    Translation::NotYetCopied { copied_end }
                } else {
                    Translation::Exact(TargetOffset(committed.0))
                },
                first: TargetOffset(0),
            }
        }

        fn back(&self, _: &str, _: i32, _: TargetOffset) -> Option<SourceOffset> {
            None
        }

        fn target_topic(&self, _: &str) -> Option<Arc<str>> {
            None
        }

        fn source_end(&self, _: &str, _: i32) -> Option<i64> {
            None
        }

        fn source_topic(&self, _: &str) -> Option<Arc<str>> {
            None
        }
    }

    fn row(group: &str) -> RowName {
        (group.into(), ("t".into(), 0))
    }

    #[test]
    fn positions_wake_in_the_order_in_which_the_copy_reaches_them() {
        let mut waiting = Waiting::default();
        waiting.for_copy(row("late"), 30, None);
        waiting.for_copy(row("soon"), 10, None);
        assert!(waiting.wake(&CopiedTo(9)).is_empty());
        assert_eq!(waiting.wake(&CopiedTo(10)), [row("soon")]);
        assert_eq!(waiting.wake(&CopiedTo(30)), [row("late")]);
        assert!(waiting.past_copy.is_empty());
    }

    #[test]
    fn a_group_that_commits_on_waits_once() {
        let mut waiting = Waiting::default();
        let mut before = None;
        for offset in 10..1_000 {
            waiting.for_copy(row("busy"), offset, before.replace(offset));
            waiting.for_a_while(row("busy"), Duration::from_secs(60));
        }
        assert_eq!(waiting.past_copy[&row("busy").1].len(), 1);
        assert_eq!(waiting.due.values().map(Vec::len).sum::<usize>(), 1);
        assert_eq!(waiting.wake(&CopiedTo(999)), [row("busy")]);
    }

    #[test]
    fn a_pause_ends_and_can_begin_again() {
        let mut waiting = Waiting::default();
        for _ in 0..2 {
            waiting.for_a_while(row("g"), Duration::ZERO);
            assert_eq!(waiting.wake(&CopiedTo(0)), [row("g")]);
        }
    }
}
