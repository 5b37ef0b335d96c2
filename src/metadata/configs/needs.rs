//! What a copy must take although the source's topic doesn't any more. Pure.
//!
//! A log may be older than the settings of its topic: it keeps batches that are larger than today's
//! `max.message.bytes` or `segment.bytes`, and records without a key behind a `cleanup.policy` that
//! refuses new ones (until the source's own cleaner drops them). The copy gets such batches as new
//! ones, so it has wider settings than the source as long as it needs them, and the source's are
//! held for the failover.
//!
//! Where the target doesn't let the copy be compacted, what would take old records for their age or size is switched off:
//! the source keeps the last record of each key for ever. That isn't held for the failover, for it is needed there, too.

use super::policy::{Policy, policy};
use crate::config::ConfigRules;
use crate::state::HeldConfigs;

/// The largest batch.
pub(super) const LIMIT: &str = "max.message.bytes";
/// A batch must fit one segment (`UnifiedLog.append`, RECORD_LIST_TOO_LARGE).
pub(super) const SEGMENT: &str = "segment.bytes";
/// Whether records go by age, or all but the last of each key.
pub const CLEANUP: &str = "cleanup.policy";
/// What would delete records of a topic that on the source only compacts.
pub(super) const RETENTION: [&str; 2] = ["retention.ms", "retention.bytes"];

/// The keys that may be wider than on the source.
pub(super) const WIDENED: [&str; 5] = [LIMIT, SEGMENT, CLEANUP, RETENTION[0], RETENTION[1]];

/// What the log of one source topic needs beyond the topic's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// What `max.message.bytes` must be at least.
    pub batch_bytes: u64,
    /// What `segment.bytes` must be at least.
    pub segment_bytes: u64,
    /// What an earlier run raised stays as it is: how much of it was needed isn't known any more.
    pub stays_raised: bool,
    /// The log has records without a key.
    pub without_key: bool,
    /// The target refused to compact the copy, though the source's topic is.
    pub refuses_compaction: bool,
}

impl Needs {
    /// What is remembered of an earlier run.
    pub fn of_held(held: &HeldConfigs) -> Self {
        let has = |key: &str| held.values.contains_key(key);
        Self {
            stays_raised: has(LIMIT) || has(SEGMENT),
            without_key: has(CLEANUP),
            ..Self::default()
        }
    }

    /// One of the two sizes must be at least this.
    pub fn take_size(&mut self, key: &str, least: u64) {
        let size = match key {
            SEGMENT => &mut self.segment_bytes,
            _ => &mut self.batch_bytes,
        };
        // Both are of `ConfigDef.Type.INT`.
        *size = (*size).max(least.min(u64::from(i32::MAX.unsigned_abs())));
    }

    /// What a size must be at least, where the target overrides it with `raised`.
    pub(super) fn least(&self, key: &str, raised: Option<u64>) -> Option<u64> {
        let least = match key {
            LIMIT => self.batch_bytes,
            SEGMENT => self.segment_bytes,
            _ => return None,
        };
        Some(least.max(raised.filter(|_| self.stays_raised).unwrap_or(0)))
    }
}

/// Whether the copy's value of a key may be another than the source's: not where a rule of the
/// user's pins it or leaves it alone.
pub fn may_be_widened(rules: &ConfigRules, key: &str) -> bool {
    rules.enabled && matches!(policy(rules, key), Policy::Resolved | Policy::Override)
}
