//! What becomes of each config key: the one table of defaults, with the reason for each.

use super::needs::{LIMIT, SEGMENT};
use crate::config::ConfigRules;
use crate::wire::ConfigValues;

/// What becomes of a key. The first that applies, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy<'a> {
    /// Has this value while the topic is a mirror, whatever anybody says; the source's is held
    /// for the failover.
    Enforced(&'static str),
    /// Has this value by `configs.fixed`.
    Fixed(&'a str),
    /// Left alone.
    Ignored,
    /// Has the source's effective value, whether that is an override or a broker's default.
    Resolved,
    /// As [`Policy::Override`], but no more than the target has replicas.
    Capped,
    /// Overridden as on the source, and only there.
    Override,
}

/// The largest duration: no limit.
const NO_LIMIT: &str = "9223372036854775807";

/// What a mirror must have. Append times are written as create times, so that they stay what
/// the source's consumers saw; and history must not be refused for its age, nor a record for a
/// producer's wrong clock.
const ENFORCED: [(&str, &str); 4] = [
    ("message.timestamp.type", "CreateTime"),
    ("message.timestamp.before.max.ms", NO_LIMIT),
    ("message.timestamp.after.max.ms", NO_LIMIT),
    // Up to 3.5 there is nothing else; from 3.6 to 3.9 it counts where the other two have no limit
    // (`LogConfig.getMessageTimestampBeforeMaxMs`, KIP-937).
    (OBSOLETE, NO_LIMIT),
];

/// Gone with 4.0, which refuses it as unknown.
const OBSOLETE: &str = "message.timestamp.difference.max.ms";

/// What isn't copied unless `configs.follow` says so. An entry that ends with `.` stands for all
/// keys that begin with it.
const IGNORED: [&str; 7] = [
    // Replicas of a cluster, by its broker ids.
    "follower.replication.throttled.replicas",
    "leader.replication.throttled.replicas",
    // Whether to lose records rather than wait: decided for each cluster's own operation.
    "unclean.leader.election.enable",
    // Tiered storage needs a plugin that the standby may not have; without it the brokers refuse
    // the whole change.
    "remote.storage.enable",
    "remote.log.",
    "local.retention.ms",
    "local.retention.bytes",
];

/// Where a broker's default that differs changes what consumers can read or whether a batch is
/// accepted.
const RESOLVED: [&str; 8] = [
    // A smaller limit refuses batches.
    "max.message.bytes",
    // Another codec recompresses every batch, and consumers may not know it.
    "compression.type",
    // Whether old records of a key vanish, and when; how long records stay.
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "delete.retention.ms",
    "min.compaction.lag.ms",
    "max.compaction.lag.ms",
];

/// At most the replicas that a copy has.
pub(super) const MIN_IN_SYNC: &str = "min.insync.replicas";

/// The enforced keys and their values.
pub(super) fn enforced() -> impl Iterator<Item = (&'static str, &'static str)> {
    ENFORCED.into_iter()
}

/// Whether a mirror must have a value of its own for this key, whatever the source has.
pub fn is_enforced(key: &str) -> bool {
    enforced().any(|(enforced, _)| enforced == key)
}

/// Whether a target takes a key, by the configs that one of its topics has. Where they couldn't be
/// read, it is taken for a new one.
pub(super) fn is_known(known: Option<&ConfigValues>, key: &str) -> bool {
    known.map_or(key != OBSOLETE, |known| known.contains_key(key))
}

/// What becomes of a key by these rules.
pub(super) fn policy<'a>(rules: &'a ConfigRules, key: &str) -> Policy<'a> {
    if let Some((_, value)) = enforced().find(|(enforced, _)| *enforced == key) {
        return Policy::Enforced(value);
    }
    if let Some(value) = rules.fixed.get(key) {
        return Policy::Fixed(value);
    }
    let follows = rules.follow.matches(key);
    if !follows && (rules.ignore.matches(key) || is_ignored(key)) {
        Policy::Ignored
    } else if is_resolved(key) {
        Policy::Resolved
    } else if key == MIN_IN_SYNC {
        Policy::Capped
    } else {
        Policy::Override
    }
}

/// What a copy is expected to have where the source overrides a key, for whoever compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// The source's value.
    AsSource,
    /// A number that is no smaller than the source's: its log may need more.
    AtLeast,
    /// This value, whatever the source has.
    Value(&'a str),
    /// Anything: the key is left alone, or depends on the target's replicas.
    Anything,
}

/// What a copy is expected to have by these rules where the source overrides `key`.
pub fn expected<'a>(rules: &'a ConfigRules, key: &str) -> Expected<'a> {
    match policy(rules, key) {
        Policy::Enforced(value) => Expected::Value(value),
        Policy::Fixed(value) => Expected::Value(value),
        Policy::Resolved | Policy::Override if [LIMIT, SEGMENT].contains(&key) => Expected::AtLeast,
        Policy::Resolved | Policy::Override => Expected::AsSource,
        Policy::Ignored | Policy::Capped => Expected::Anything,
    }
}

/// Whether a differing default matters, unless a rule says otherwise.
pub fn is_resolved(key: &str) -> bool {
    RESOLVED.contains(&key)
}

fn is_ignored(key: &str) -> bool {
    IGNORED
        .iter()
        .any(|ignored| key == *ignored || (ignored.ends_with('.') && key.starts_with(ignored)))
}
