//! What is seen of consumer groups from outside: `/api/v1/groups`, `twinlog groups`, metrics.
//!
//! The JSON is an interface, as that of the status report: fields may be added.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The version of the report's shape.
pub const GROUPS_VERSION: u32 = 1;

/// All groups of all flows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupsReport {
    /// The version of this shape, [`GROUPS_VERSION`].
    pub version: u32,
    /// When the report was made, milliseconds since the epoch.
    pub now_ms: i64,
    /// By flow.
    pub flows: Vec<FlowGroups>,
}

/// The groups of one flow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowGroups {
    /// The flow's name.
    pub flow: String,
    /// How both clusters' groups are watched.
    pub source: Watching,
    /// See `source`.
    pub target: Watching,
    /// Commits made on the target since the process started.
    pub commits: u64,
    /// The groups by name.
    pub groups: Vec<GroupStatus>,
    /// What a failover couldn't ask for on the source.
    #[serde(default)]
    pub sight: GroupSight,
}

/// What can't be seen of a cluster's groups for want of rights, or of knowing them. It is looked at once a minute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSight {
    /// Groups that may not be described: their last commits can't be asked for.
    pub refused: Vec<String>,
    /// Why there may be groups that no list shows.
    pub hidden: Option<String>,
    /// Groups of a type that this version doesn't know, with the type.
    pub unknown_types: BTreeMap<String, String>,
}

/// The groups of one flow in sum, as in the status report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupTotals {
    /// How both clusters' groups are watched.
    pub source: Watching,
    /// See `source`.
    pub target: Watching,
    /// How many groups are in each state, see [`GroupStatus::state`].
    pub groups: BTreeMap<String, u64>,
    /// Since when every group that could be followed has failed, milliseconds since the epoch; absent where one doesn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_since_ms: Option<i64>,
    /// How many positions wait, by reason.
    pub waiting: BTreeMap<String, u64>,
    /// Records that would be read again if the failover happened now, at most.
    pub reread_records: i64,
    /// Commits made on the target since the process started.
    pub commits: u64,
    /// How many of them were within each of [`DELAY_BOUNDS_MS`], from the source's commit on,
    /// then all that were counted: those of groups that committed while they were followed.
    pub delay_buckets: Vec<u64>,
    /// The sum of their delays, milliseconds.
    pub delay_sum_ms: u64,
}

impl GroupTotals {
    /// The sums over a flow's groups.
    pub fn new(report: &FlowGroups, delays: &DelayHistogram) -> Self {
        let (buckets, delay_sum_ms) = delays.cumulative();
        let mut totals = Self {
            source: report.source.clone(),
            target: report.target.clone(),
            commits: report.commits,
            delay_buckets: buckets.to_vec(),
            delay_sum_ms,
            failed_since_ms: all_failed_since(&report.groups),
            ..Self::default()
        };
        for group in &report.groups {
            *totals.groups.entry(group.state.clone()).or_insert(0) += 1;
            for (reason, positions) in &group.waiting {
                *totals.waiting.entry(reason.clone()).or_insert(0) += positions;
            }
            totals.reread_records = totals.reread_records.saturating_add(group.reread_records);
        }
        totals
    }
}

/// Since when all groups have failed that there is something to follow of.
fn all_failed_since(groups: &[GroupStatus]) -> Option<i64> {
    let is_followed = |group: &&GroupStatus| {
        let state = group.state.as_str();
        !["gone_on_source", "not_copied", "not_supported", "unknown"].contains(&state)
    };
    let mut since = None;
    for group in groups.iter().filter(is_followed) {
        since = since.max(Some(group.failed_since_ms?));
    }
    since
}

/// How one cluster's groups are watched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watching {
    /// `tail` (every commit is read as it happens) or `poll` (asked for at an interval, since
    /// `__consumer_offsets` may not be read).
    pub way: String,
    /// `reading` (what is there already), `following` or `failing`.
    pub state: String,
    /// Why it fails, or what can't be seen while the rest is followed.
    pub detail: Option<String>,
}

/// What kind of group it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupKind {
    /// A consumer group, whose positions are what it committed.
    #[default]
    Consumer,
    /// A share group (KIP-932), whose positions are its start offsets.
    Share,
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub group: String,
    /// `consumer` or `share`.
    #[serde(default)]
    pub kind: GroupKind,
    /// `followed`, or the reason of the position that needs most attention: `diverged`, `failed`,
    /// `active_on_target`, `copy_not_open`, `throttled`, `not_yet_copied`, `not_copied`, `not_supported` (a share
    /// group, and the target has none); `gone_on_source` when the source has no position of it any
    /// more; `unknown` when its coordinator on one of the clusters can't be asked, so that what is shown
    /// is what was known last.
    pub state: String,
    /// Since when one of its positions has failed, milliseconds since the epoch; absent where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_since_ms: Option<i64>,
    /// How many positions it has on the source.
    pub partitions: u64,
    /// How many of them wait, by reason.
    pub waiting: BTreeMap<String, u64>,
    /// The sum of its positions on the source.
    pub source_position: i64,
    /// The sum of its positions on the target.
    pub target_position: i64,
    /// Records between its positions and the source's ends (at most: offsets are counted).
    pub behind_records: i64,
    /// How many records it would read again if the failover happened now, at most.
    pub reread_records: i64,
    /// How many of its positions the target doesn't have at all.
    pub unplaced_partitions: u64,
    /// When it last committed on the source, milliseconds since the epoch; absent if unknown.
    pub committed_at_ms: Option<i64>,
    /// When its last commit was made on the target, milliseconds since the epoch.
    pub followed_at_ms: Option<i64>,
    /// From its last commit on the source to the one on the target, milliseconds.
    pub delay_ms: Option<i64>,
}

/// One group in every detail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupExplained {
    /// The flow.
    pub flow: String,
    /// In sum.
    pub status: GroupStatus,
    /// Each position.
    pub partitions: Vec<PositionExplained>,
}

/// One position of a group, step by step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PositionExplained {
    /// The source topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// `followed`, `gone_on_source`, or why it waits.
    pub state: String,
    /// Since when, milliseconds since the epoch.
    pub since_ms: i64,
    /// The position on the source.
    pub source_offset: Option<i64>,
    /// The topic's name on the target, once known.
    pub target_topic: Option<String>,
    /// The position on the target.
    pub target_offset: Option<i64>,
    /// Where the group should be on the target.
    pub wanted_offset: Option<i64>,
    /// How many records it would read again if the failover happened now, at most; absent if that
    /// can't be said.
    pub reread_records: Option<i64>,
    /// From the source's commit to the target's, a line for each step.
    pub steps: Vec<String>,
}

/// Who knows about a flow's groups.
pub trait GroupReporter: Send + Sync {
    /// All groups.
    fn report(&self) -> FlowGroups;
    /// One of them.
    fn explain(&self, group: &str) -> Option<GroupExplained>;
    /// From commit to commit.
    fn delays(&self) -> &DelayHistogram;
}

impl std::fmt::Debug for dyn GroupReporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupReporter")
    }
}

/// The upper bounds of [`DelayHistogram`]'s buckets, milliseconds; one more has no bound.
pub const DELAY_BOUNDS_MS: [i64; 12] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 60_000,
];

/// How long commits take from the source to the target.
#[derive(Debug, Default)]
pub struct DelayHistogram {
    buckets: [AtomicU64; DELAY_BOUNDS_MS.len() + 1],
    sum_ms: AtomicU64,
}

impl DelayHistogram {
    /// Counts one commit.
    pub fn note(&self, delay_ms: i64) {
        let bucket = DELAY_BOUNDS_MS.partition_point(|bound| *bound < delay_ms);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let delay_ms = u64::try_from(delay_ms).unwrap_or(0);
        self.sum_ms.fetch_add(delay_ms, Ordering::Relaxed);
    }

    /// How many were within each bound, then all of them; and their sum in milliseconds.
    pub fn cumulative(&self) -> ([u64; DELAY_BOUNDS_MS.len() + 1], u64) {
        let mut total = 0;
        let counts = std::array::from_fn(|bucket| {
            total += self.buckets[bucket].load(Ordering::Relaxed);
            total
        });
        (counts, self.sum_ms.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_counts_in_every_bucket_that_holds_it() {
        let delays = DelayHistogram::default();
        for delay_ms in [5, 6, 1_000_000] {
            delays.note(delay_ms);
        }
        let (counts, sum_ms) = delays.cumulative();
        assert_eq!(counts[..3], [1, 2, 2]);
        assert_eq!(counts[DELAY_BOUNDS_MS.len()], 3);
        assert_eq!(sum_ms, 1_000_011);
    }
}
