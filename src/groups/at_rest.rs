//! The rules of following for whoever only looks: at what is remembered, and at what stands on the target now.
//!
//! A preflight, the last barrier of a cut-over and a process that begins to follow see the same, so they must say the
//! same. Nobody tells the former two when something was committed: behind a crash what may be ours by its epoch is.

use std::sync::Arc;

use super::decide::{Blocked, Commit, Situation, Verdict, decide, is_from_before, is_ours};
use super::positions::Place;
use crate::offsets::{TargetOffset, Translation};
use crate::state::{GroupPositions, Memory};
use crate::wire::{GroupOffset, TopicPartition};

/// One position of a group, as it is to be brought to the target.
pub struct Resting<'a> {
    /// The partition on the source, by which it is remembered.
    pub source: &'a TopicPartition,
    /// The partition on the target.
    pub target: &'a TopicPartition,
    /// Where the source's position is there.
    pub wanted: i64,
    /// Whether positions of others on the target are overwritten (`groups.on_diverged: follow`).
    pub overwrite: bool,
    /// Whether all that was committed by us is remembered: then nothing else is ours.
    pub memory: Memory,
    /// Where the copy goes on in a log that was there before, or 0. See [`is_from_before`].
    pub continued_at: i64,
}

impl Resting<'_> {
    /// What becomes of it where this stands on the target.
    pub fn verdict(&self, remembered: &GroupPositions, there: Option<&GroupOffset>) -> Verdict {
        let (topic, partition) = (self.source.topic.as_str(), self.source.partition);
        let applied = remembered.on_target(topic, partition);
        let is_before_the_copy =
            |there: &GroupOffset| is_from_before(self.continued_at, applied, there.offset);
        let was_left_by_us =
            |there: &GroupOffset| remembered.is_ours((topic, partition), there.offset);
        let may_lack = self.memory == Memory::MayLackTheLast && remembered.may_lack_the_last();
        let lacks_it = |there: &GroupOffset| may_lack && there.leader_epoch < 0;
        let was_on_its_way =
            |there: &GroupOffset| remembered.is_also_ours((topic, partition), there.offset);
        let foreign = match (remembered.strangers(topic, partition), there) {
            // A client's newer word: the epoch says so, or that all of ours is remembered. One that puts the group back to
            // where we had it wants it followed from there.
            (Some(word), Some(there))
                if !lacks_it(there) && !was_on_its_way(there) && there.offset != word =>
            {
                (!was_left_by_us(there)).then_some(there.offset)
            }
            (word, _) => word,
        };
        let is_ours = there.is_some_and(|there| {
            let may_be_ours = lacks_it(there) || is_before_the_copy(there);
            is_ours(was_left_by_us(there), foreign, may_be_ours)
        });
        // What groups write beside a position is followed, and no reason to move one that is right.
        let commit = |offset, leader_epoch| Commit {
            offset,
            leader_epoch,
            metadata: Arc::from(""),
            committed_at_ms: -1,
        };
        let target = there.map(|there| commit(there.offset, there.leader_epoch));
        let verdict = decide(&Situation {
            source: &commit(self.wanted, -1),
            place: &Place::Known {
                target: self.target.clone(),
                answer: Translation::Exact(TargetOffset(self.wanted)),
                first: TargetOffset(i64::MIN),
            },
            target: target.as_ref(),
            is_ours,
            foreign,
            overwrite: self.overwrite,
        });
        match verdict {
            // Whoever put it there: nothing is to be done.
            Verdict::Blocked(Blocked::Diverged { offset }) if offset == self.wanted => {
                Verdict::Current
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::table::Row;
    use super::*;

    /// What is known of one position.
    #[derive(Clone, Debug)]
    struct Facts {
        applied: Option<i64>,
        also: Option<i64>,
        foreign: Option<i64>,
        there: Option<(i64, i32)>,
        wanted: i64,
        continued_at: i64,
        overwrite: bool,
        memory: Memory,
        /// Something may have been committed for the group since it was stored.
        is_touched: bool,
    }

    impl Facts {
        fn may_be_ours(&self, leader_epoch: i32) -> bool {
            self.memory == Memory::MayLackTheLast && self.is_touched && leader_epoch < 0
        }
    }

    fn facts() -> impl Strategy<Value = Facts> {
        let offset = 1..5_i64;
        let there = (offset.clone(), -1..2_i32);
        (
            prop::option::of(offset.clone()),
            prop::option::of(offset.clone()),
            prop::option::of(offset.clone()),
            prop::option::of(there),
            offset,
            0..4_i64,
            any::<bool>(),
            prop_oneof![Just(Memory::Whole), Just(Memory::MayLackTheLast)],
            any::<bool>(),
        )
            .prop_map(
                |(
                    applied,
                    also,
                    foreign,
                    there,
                    wanted,
                    continued_at,
                    overwrite,
                    memory,
                    is_touched,
                )| Facts {
                    applied,
                    also,
                    foreign,
                    there,
                    wanted,
                    continued_at,
                    overwrite,
                    memory,
                    is_touched,
                },
            )
    }

    fn remembered(facts: &Facts) -> GroupPositions {
        let mut record = GroupPositions {
            seen_until_ms: if facts.is_touched {
                1_000
            } else {
                GroupPositions::NEVER
            },
            ..GroupPositions::default()
        };
        if let Some(applied) = facts.applied {
            record
                .topics
                .insert("t".to_owned(), vec![(0, 100, applied)]);
        }
        if let Some(also) = facts.also {
            record.note_also(("t", 0), also);
        }
        if let Some(foreign) = facts.foreign {
            record.foreign.insert("t".to_owned(), vec![(0, foreign)]);
        }
        record
    }

    fn at_rest(facts: &Facts) -> Verdict {
        let at = TopicPartition::new("t", 0);
        let there = facts.there.map(|(offset, leader_epoch)| GroupOffset {
            offset,
            leader_epoch,
            metadata: String::new(),
        });
        let resting = Resting {
            source: &at,
            target: &at,
            wanted: facts.wanted,
            overwrite: facts.overwrite,
            memory: facts.memory,
            continued_at: facts.continued_at,
        };
        resting.verdict(&remembered(facts), there.as_ref())
    }

    fn commit(offset: i64, leader_epoch: i32) -> Commit {
        Commit {
            offset,
            leader_epoch,
            metadata: Arc::from(""),
            committed_at_ms: 0,
        }
    }

    /// A process that begins to follow, and for which the commits on the target are near in time.
    fn followed(facts: &Facts) -> Verdict {
        let mut row = Row::default();
        row.applied = facts.applied;
        facts.also.into_iter().for_each(|also| row.note_sent(also));
        row.foreign = facts.foreign.map(|offset| commit(offset, -1));
        let there = facts.there.map(|(offset, epoch)| commit(offset, epoch));
        row.settle(there.as_ref(), |told| facts.may_be_ours(told.leader_epoch));
        let foreign = row.foreign.as_ref().map(|it| it.offset);
        let is_ours = there.as_ref().is_some_and(|there| {
            let is_before = is_from_before(facts.continued_at, row.applied, there.offset);
            let may_be_ours = facts.may_be_ours(there.leader_epoch) || is_before;
            is_ours(row.is_ours(there.offset), foreign, may_be_ours)
        });
        decide(&Situation {
            source: &commit(facts.wanted, -1),
            place: &Place::Known {
                target: TopicPartition::new("t", 0),
                answer: Translation::Exact(TargetOffset(facts.wanted)),
                first: TargetOffset(0),
            },
            target: there.as_ref(),
            is_ours,
            foreign,
            overwrite: facts.overwrite,
        })
    }

    proptest! {
        /// Whoever looks says what following does about it.
        #[test]
        fn all_who_bring_groups_say_the_same_of_somebody_else_s_commit(facts in facts()) {
            let followed = match followed(&facts) {
                Verdict::Blocked(Blocked::Diverged { offset }) if offset == facts.wanted => {
                    Verdict::Current
                }
                other => other,
            };
            prop_assert_eq!(at_rest(&facts), followed);
        }
    }

    fn told(facts: &Facts) -> (Option<i64>, bool) {
        match at_rest(facts) {
            Verdict::Current => (None, false),
            Verdict::Commit {
                offset, restores, ..
            } => (Some(offset), restores),
            Verdict::Blocked(Blocked::Diverged { offset }) => (Some(-offset), false),
            Verdict::Blocked(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_ours_has_covered_comes_back_and_what_was_put_back_is_followed() {
        let facts = |epoch| Facts {
            applied: Some(3),
            also: None,
            foreign: Some(2),
            there: Some((3, epoch)),
            wanted: 4,
            continued_at: 0,
            overwrite: false,
            memory: Memory::MayLackTheLast,
            is_touched: true,
        };
        // A commit of ours was on its way when they committed, and nobody could take it back any more.
        assert_eq!(told(&facts(-1)), (Some(2), true));
        // A client goes on where we had put the group.
        assert_eq!(told(&facts(7)), (Some(4), false));
    }

    /// All of ours is remembered: also what was sent, had no answer, and covered theirs.
    #[test]
    fn what_was_sent_and_covered_theirs_is_no_word_of_theirs() {
        let facts = Facts {
            applied: Some(1),
            also: Some(3),
            foreign: Some(2),
            there: Some((3, -1)),
            wanted: 4,
            continued_at: 0,
            overwrite: false,
            memory: Memory::Whole,
            is_touched: true,
        };
        assert_eq!(told(&facts), (Some(2), true));
    }

    #[test]
    fn what_was_seen_to_be_somebody_else_s_stays_also_before_the_copy() {
        let facts = |foreign| Facts {
            applied: None,
            also: None,
            foreign,
            there: Some((2, 5)),
            wanted: 4,
            continued_at: 3,
            overwrite: false,
            memory: Memory::MayLackTheLast,
            is_touched: true,
        };
        assert_eq!(told(&facts(Some(2))), (Some(-2), false));
        assert_eq!(told(&facts(None)), (Some(4), false));
    }

    /// Nothing there is ours: neither without a record, nor by one that only tells where the group is on the source.
    #[test]
    fn a_group_that_was_never_committed_for_is_left_where_it_is_behind_a_crash() {
        let at = TopicPartition::new("t", 0);
        let there = GroupOffset {
            offset: 77,
            leader_epoch: -1,
            metadata: String::new(),
        };
        let resting = Resting {
            source: &at,
            target: &at,
            wanted: 30,
            overwrite: false,
            memory: Memory::MayLackTheLast,
            continued_at: 0,
        };
        let seen = GroupPositions {
            v: 1,
            seen_until_ms: GroupPositions::NEVER,
            ahead: [("t".to_owned(), vec![(0, 30)])].into(),
            ..GroupPositions::default()
        };
        for record in [GroupPositions::default(), seen] {
            let verdict = resting.verdict(&record, Some(&there));
            let kept = Verdict::Blocked(Blocked::Diverged { offset: 77 });
            assert_eq!(verdict, kept, "{record:?}");
        }
    }

    #[test]
    fn who_commits_up_to_the_fork_behind_a_commit_of_ours_means_it() {
        let facts = |applied| Facts {
            applied: Some(applied),
            also: None,
            foreign: None,
            there: Some((2, 5)),
            wanted: 9,
            continued_at: 3,
            overwrite: false,
            memory: Memory::MayLackTheLast,
            is_touched: true,
        };
        assert_eq!(told(&facts(3)), (Some(9), false), "it comes late");
        assert_eq!(told(&facts(4)), (Some(-2), false), "it was set back");
    }
}
