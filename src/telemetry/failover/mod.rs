//! Whether a failover could be done now, what it would lose, and what stands in the way.
//!
//! The failover's preflight and the running flow's readiness are judged by the same pure code, so
//! they say the same in the same words: [`judge`] turns [`Facts`] into [`Check`]s. The preflight
//! asks both clusters for the facts; readiness takes them from the registry ([`now`]).

mod check;
mod facts;
mod judge;
mod loss;
mod now;
#[cfg(test)]
mod tests;
mod versions;

pub use check::{Check, Weight, worst};
pub use facts::{Facts, GroupFacts, MinInSync, Room, StandbyHealth, Unfenceable};
pub use judge::{Intent, judge};
pub use loss::{AcceptedLoss, Bound, Habit, Loss, Seen, TopicLoss, bound};
pub use now::now;
pub use versions::{Abilities, ability_checks};

use serde::{Deserialize, Serialize};

/// The version of [`ReadinessReport`]'s shape.
pub const READINESS_VERSION: u32 = 1;

/// So many topics and groups, the worst ones, are shown where space is short.
const SHOWN_MAX: usize = 10;

/// The readiness of all flows, as `/api/v1/readiness` answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadinessReport {
    /// The version of this shape, [`READINESS_VERSION`].
    pub version: u32,
    /// When it was computed, milliseconds since the epoch.
    pub now_ms: i64,
    /// By flow.
    pub flows: Vec<Readiness>,
}

/// The short answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A failover would lose nothing, as far as known.
    Yes,
    /// It can be done, and records would be lost.
    WithLoss,
    /// Something stands in the way.
    #[default]
    No,
    /// It was done: the target is the primary.
    FailedOver,
}

impl Verdict {
    /// For a person.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::WithLoss => "with loss",
            Self::No => "no",
            Self::FailedOver => "done",
        }
    }
}

/// One flow's readiness at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Readiness {
    /// The flow's name.
    pub flow: String,
    /// Whether a failover could be done now.
    pub can_fail_over: Verdict,
    /// The one that could: `planned`, or `unplanned` where the source doesn't answer; `failback` of a
    /// flow that copies back.
    pub kind: String,
    /// Who is the primary: `source`, `promoting`, `target`; `mixed` where some topics were failed over.
    pub primary: String,
    /// When this was computed, milliseconds since the epoch.
    pub computed_at_ms: i64,
    /// When the source answered last, milliseconds since the epoch; absent if it never did.
    pub source_seen_ms: Option<i64>,
    /// What would be missing if the source were lost now.
    pub loss: Loss,
    /// What groups would read again.
    pub reread: Reread,
    /// What was looked at, the heaviest first.
    pub checks: Vec<Check>,
    /// What a failback waits for; absent while the source is the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failback: Option<Failback>,
}

/// What groups would read again after a failover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reread {
    /// Records, at most, over all groups.
    pub records: i64,
    /// Of the group that would read most.
    pub records_max: i64,
    /// Positions that the target doesn't have at all: there `auto.offset.reset` decides.
    pub unplaced_positions: u64,
    /// How many groups there are.
    pub groups_total: u64,
    /// Those that would read anything again or have unplaced positions, the worst first.
    pub groups: Vec<GroupReread>,
}

/// What one group would read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReread {
    /// The group.
    pub group: String,
    /// Records between its position on the target and its position on the source, at most.
    pub records: i64,
    /// Positions that the target doesn't have at all.
    pub unplaced_positions: u64,
    /// Why, as `twinlog groups` says it; absent with the source gone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
}

/// What stands between a failover that was done and the way back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failback {
    /// The old primary: `away`, `writable` or `fenced`.
    pub old_primary: String,
    /// Offsets there that were never copied; absent until they were measured.
    pub orphan_offsets: Option<i64>,
    /// What has to be done first; a failback can begin when none of it is a blocker.
    pub waits_for: Vec<Check>,
}

impl Readiness {
    /// Leaves the worst topics and groups only; sums stay as they are.
    pub fn keep_worst(&mut self) {
        let topics = &mut self.loss.topics;
        if topics.len() > SHOWN_MAX {
            let mut all: Vec<(String, TopicLoss)> = std::mem::take(topics).into_iter().collect();
            all.sort_by_key(|(_, loss)| std::cmp::Reverse(loss.badness()));
            topics.extend(all.into_iter().take(SHOWN_MAX));
        }
        self.reread.groups.truncate(SHOWN_MAX);
    }

    /// Whether the numbers mean anything: after a failover nothing is copied, and before the topics
    /// are discovered nothing is known.
    pub fn knows_the_copy(&self) -> bool {
        let unknown = |check: &Check| check.subject == "copy" && check.weight > Weight::Ok;
        let is_over = self.checks.iter().any(|check| check.subject == "role");
        !is_over && !self.checks.iter().any(unknown)
    }

    /// The checks that aren't just fine.
    pub fn in_the_way(&self) -> impl Iterator<Item = &Check> {
        let checks = self.checks.iter();
        checks.filter(|check| check.weight > Weight::Ok)
    }
}
