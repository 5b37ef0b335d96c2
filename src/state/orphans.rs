//! What was decided about records that were stranded on an old primary, and how far a replay got.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Operator;

/// What becomes of orphans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrphanChoice {
    /// They were appended to the new primary.
    Replay,
    /// They are not wanted.
    Dismiss,
    /// They stay in the old primary's log, at their own offsets.
    Keep,
}

impl OrphanChoice {
    /// What was done, for JSON and people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Dismiss => "dismissed",
            Self::Keep => "kept",
        }
    }
}

/// One decision about orphans of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanDecision {
    /// The plan whose forks made them orphans. With another fork it doesn't count any more.
    pub plan: Uuid,
    /// What was decided.
    pub decision: OrphanChoice,
    /// Who decided.
    pub operator: Operator,
    /// When, milliseconds since the epoch.
    pub at_ms: i64,
    /// The source offsets that it is about: partition, first, and the one after the last.
    pub ranges: Vec<(i32, i64, i64)>,
    /// How many records are there.
    pub records: u64,
}

/// `orphan-decision/<flow>/<source topic>`: every decision about a topic's orphans, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanDecisions {
    /// Format version, 1.
    pub v: u32,
    /// The decisions.
    pub decisions: Vec<OrphanDecision>,
}

/// `orphans-replay/<flow>/<source topic>/<partition>`: how far a replay got. Written in the same
/// Kafka transaction as the records, so it counts only as `read_committed` readers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRecord {
    /// Format version, 1.
    pub v: u32,
    /// The plan whose fork made them orphans.
    pub plan: Uuid,
    /// The next source offset to be replayed.
    pub next: i64,
    /// How many records of this partition were replayed for this plan.
    pub records: u64,
}
