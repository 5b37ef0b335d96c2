//! What to do about one position of one group: a pure decision.

use std::sync::Arc;

use super::positions::Place;
use crate::offsets::Translation;
use crate::wire::TopicPartition;

/// A committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch that was committed with it, or -1.
    pub leader_epoch: i32,
    /// What the group wrote beside it; empty for none.
    pub metadata: Arc<str>,
    /// The coordinator's time of the commit, milliseconds since the epoch; -1 where that is unknown.
    pub committed_at_ms: i64,
}

/// Why a position isn't on the target. Stable words for metrics and scripts: [`Blocked::word`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Blocked {
    /// The group is past what is copied yet.
    NotYetCopied {
        /// The end of the copy, as a source offset.
        copied_end: i64,
    },
    /// The flow doesn't copy the topic.
    NotCopied,
    /// The partition isn't being copied at this moment.
    CopyNotOpen,
    /// The group has members on the target: moving it would pull records from under them.
    ActiveOnTarget,
    /// Somebody else committed on the target.
    Diverged {
        /// What they committed.
        offset: i64,
    },
    /// The target doesn't have groups of this kind.
    NotSupported,
    /// The target has no quota for commits of the group at the moment: its newest position is committed a little later.
    Throttled,
    /// The target refused, or couldn't be asked.
    Failed {
        /// Why, in the broker's words.
        reason: Arc<str>,
    },
}

impl Blocked {
    /// A short, stable word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotYetCopied { .. } => "not_yet_copied",
            Self::NotCopied => "not_copied",
            Self::CopyNotOpen => "copy_not_open",
            Self::ActiveOnTarget => "active_on_target",
            Self::Diverged { .. } => "diverged",
            Self::NotSupported => "not_supported",
            Self::Throttled => "throttled",
            Self::Failed { .. } => "failed",
        }
    }
}

/// What to do about a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The target has it.
    Current,
    /// Commit this offset on the target.
    Commit {
        /// Where.
        target: TopicPartition,
        /// The position.
        offset: i64,
        /// A commit of ours landed behind one of a real client, and this puts theirs back.
        restores: bool,
    },
    /// Nothing can be done now.
    Blocked(Blocked),
}

/// What is known when a decision is made.
pub struct Situation<'a> {
    /// The group's position on the source.
    pub source: &'a Commit,
    /// Where that is on the target.
    pub place: &'a Place,
    /// The group's position on the target.
    pub target: Option<&'a Commit>,
    /// Whether the target's position is one that we wrote.
    pub is_ours: bool,
    /// The last position that somebody else committed on the target, while it counts.
    pub foreign: Option<i64>,
    /// Whether positions of others on the target are overwritten (`groups.on_diverged: follow`).
    pub overwrite: bool,
}

/// Whether a position on the target is one of ours. One that we know to have committed is; one that only may be ours is
/// where nobody else was seen to commit (`foreign`).
pub fn is_ours(is_known: bool, foreign: Option<i64>, may_be: bool) -> bool {
    is_known || (foreign.is_none() && may_be)
}

/// Whether a position on the target may be of the time when the target was the primary: one up to where the copy goes on
/// in a log that was there before (`continued_at`, 0 in any other). Whoever comes back late with one is no reason to leave
/// the group behind. As soon as a commit of ours (`applied`) stands behind that place, that time is over for the group: it had
/// no members there, and who commits now means it.
pub fn is_from_before(continued_at: i64, applied: Option<i64>, offset: i64) -> bool {
    let is_over = applied.is_some_and(|applied| applied > continued_at);
    continued_at > 0 && offset <= continued_at && !is_over
}

/// Decides. The rules, first match wins:
///
/// 1. A topic that isn't copied, a copy that isn't open and a position past the copy's end wait.
/// 2. What somebody else committed on the target stays, and comes back if a commit of ours that was
///    on its way has covered it; unless it is where the group would go anyway.
/// 3. Otherwise the group goes on where the map says.
pub fn decide(situation: &Situation<'_>) -> Verdict {
    let (target, wanted) = match situation.place {
        Place::NotCopied => return Verdict::Blocked(Blocked::NotCopied),
        Place::Unknown => return Verdict::Blocked(Blocked::CopyNotOpen),
        Place::Known {
            target,
            answer,
            first,
        } => match answer {
            Translation::Exact(offset) if offset >= first => (target, offset.0),
            // Before everything that can be read there: the first record is the next one.
            Translation::Exact(_) | Translation::BeforeStart { .. } => (target, first.0),
            Translation::NotYetCopied { copied_end } => {
                return Verdict::Blocked(Blocked::NotYetCopied {
                    copied_end: copied_end.0,
                });
            }
        },
    };
    let commit = |offset, restores| Verdict::Commit {
        target: target.clone(),
        offset,
        restores,
    };
    let Some(on_target) = situation.target else {
        return commit(wanted, false);
    };
    if situation.overwrite {
        return if is_at(on_target, wanted, situation.source) {
            Verdict::Current
        } else {
            commit(wanted, false)
        };
    }
    match situation.foreign {
        Some(foreign) if foreign != wanted => {
            if situation.is_ours && on_target.offset != foreign {
                commit(foreign, true)
            } else {
                let offset = on_target.offset;
                Verdict::Blocked(Blocked::Diverged { offset })
            }
        }
        _ if on_target.offset == wanted => {
            if situation.is_ours && on_target.metadata != situation.source.metadata {
                commit(wanted, false)
            } else {
                Verdict::Current
            }
        }
        _ if situation.is_ours => commit(wanted, false),
        _ => Verdict::Blocked(Blocked::Diverged {
            offset: on_target.offset,
        }),
    }
}

fn is_at(on_target: &Commit, wanted: i64, source: &Commit) -> bool {
    on_target.offset == wanted && on_target.metadata == source.metadata
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offsets::{SourceOffset, TargetOffset};

    fn at(offset: i64) -> Commit {
        Commit {
            offset,
            leader_epoch: -1,
            metadata: "".into(),
            committed_at_ms: 0,
        }
    }

    fn place(answer: Translation) -> Place {
        Place::Known {
            target: TopicPartition::new("t", 0),
            answer,
            first: TargetOffset(10),
        }
    }

    fn exact(offset: i64) -> Place {
        place(Translation::Exact(TargetOffset(offset)))
    }

    fn judge(
        place: &Place,
        target: Option<Commit>,
        is_ours: bool,
        foreign: Option<i64>,
    ) -> Verdict {
        decide(&Situation {
            source: &at(100),
            place,
            target: target.as_ref(),
            is_ours,
            foreign,
            overwrite: false,
        })
    }

    fn commit(offset: i64, restores: bool) -> Verdict {
        Verdict::Commit {
            target: TopicPartition::new("t", 0),
            offset,
            restores,
        }
    }

    #[test]
    fn a_position_that_the_target_lacks_is_committed_and_one_it_has_is_not() {
        assert_eq!(judge(&exact(50), None, false, None), commit(50, false));
        assert_eq!(
            judge(&exact(50), Some(at(50)), true, None),
            Verdict::Current
        );
        assert_eq!(
            judge(&exact(50), Some(at(50)), false, None),
            Verdict::Current
        );
    }

    #[test]
    fn our_own_position_is_moved_forward_and_back() {
        for before in [40, 60] {
            let verdict = judge(&exact(50), Some(at(before)), true, None);
            assert_eq!(verdict, commit(50, false));
        }
    }

    #[test]
    fn what_somebody_else_committed_stays() {
        let diverged = Verdict::Blocked(Blocked::Diverged { offset: 40 });
        assert_eq!(judge(&exact(50), Some(at(40)), false, None), diverged);
        assert_eq!(judge(&exact(50), Some(at(40)), false, Some(40)), diverged);
    }

    #[test]
    fn a_client_s_commit_that_ours_has_covered_comes_back() {
        let verdict = judge(&exact(50), Some(at(45)), true, Some(40));
        assert_eq!(verdict, commit(40, true));
    }

    #[test]
    fn somebody_else_s_commit_at_the_right_place_is_no_divergence() {
        assert_eq!(
            judge(&exact(50), Some(at(50)), false, Some(50)),
            Verdict::Current
        );
        let verdict = judge(&exact(50), Some(at(45)), true, Some(50));
        assert_eq!(verdict, commit(50, false));
    }

    #[test]
    fn before_the_copy_s_start_the_group_goes_on_at_its_first_record() {
        let first = SourceOffset(10);
        let before = place(Translation::BeforeStart { first });
        assert_eq!(judge(&before, None, false, None), commit(10, false));
        // The target's own retention went on.
        assert_eq!(judge(&exact(5), None, false, None), commit(10, false));
    }

    #[test]
    fn what_is_not_copied_yet_waits() {
        let copied_end = SourceOffset(90);
        let verdict = judge(
            &place(Translation::NotYetCopied { copied_end }),
            None,
            false,
            None,
        );
        assert_eq!(
            verdict,
            Verdict::Blocked(Blocked::NotYetCopied { copied_end: 90 })
        );
    }
}
