//! Topics that keep their old records in tiered storage on the source, and can't on the target. Pure.
//!
//! Whether brokers have tiers is their owner's affair (`policy`), but how long records stay follows
//! the source: the target's disks then hold what the source has in its tiers, too.

use super::chunk::Found;
use super::decide::same;
use super::policy::{Policy, policy};
use crate::config::ConfigRules;
use crate::telemetry::metadata::{Drift, DriftAction, DriftKind};
use crate::wire::ConfigValues;

const TIERED: &str = "remote.storage.enable";
/// What bounds how much stays.
const RETENTION: [&str; 2] = ["retention.ms", "retention.bytes"];

/// What somebody should know about it.
pub const WHY: &str = "the source has old records in tiered storage, the target all that retention keeps on its disks: \
     have room there, or set retention.ms or retention.bytes in configs.fixed";

/// Whether the target's disks hold what the source has in tiers. Not where a rule of the user's says
/// how much the target keeps. `None` for a target whose topic isn't there yet.
pub fn is_untiered(
    source: &ConfigValues,
    target: Option<&ConfigValues>,
    rules: &ConfigRules,
) -> bool {
    let has_tiers = |configs: &ConfigValues| {
        let value = configs.get(TIERED).and_then(|it| it.value.as_deref());
        value.is_some_and(|value| same(TIERED, value, "true"))
    };
    let follows = |key| matches!(policy(rules, key), Policy::Resolved | Policy::Override);
    let may_get_tiers = target.is_none() && policy(rules, TIERED) != Policy::Ignored;
    has_tiers(source)
        && !target.is_some_and(has_tiers)
        && !may_get_tiers
        && RETENTION.into_iter().all(follows)
}

/// Of the topics of a chunk.
pub(super) fn drift<'a>(found: &'a [Found<'_>]) -> impl Iterator<Item = Drift> + 'a {
    let untiered = found.iter().filter(|found| found.decision.is_untiered);
    untiered.map(|found| Drift {
        kind: DriftKind::TopicConfig,
        action: DriftAction::Leave,
        subject: format!("topic {}", found.topic.target_topic),
        detail: TIERED.to_owned(),
        source: Some("true".to_owned()),
        target: Some("false".to_owned()),
        why: Some(WHY.to_owned()),
        failure: None,
    })
}
