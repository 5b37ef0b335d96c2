//! What the source has of the keys that a mirror must have otherwise: kept for the failover.

use std::collections::BTreeMap;

use super::chunk::Found;
use super::decide::same;
use super::needs::WIDENED;
use super::policy::enforced;
use crate::metadata::context::Context;
use crate::state::{HeldConfigs, StateError, keys};
use crate::telemetry::metadata::{Drift, DriftAction, DriftKind, Obstacle};

/// Stores what isn't stored yet.
///
/// # Errors
/// When the state topic can't be written.
pub(super) async fn store(context: &Context, found: &[Found<'_>]) -> Result<(), StateError> {
    let Some(store) = &context.store else {
        return Ok(());
    };
    let mut news = Vec::new();
    for found in found {
        let key = keys::held_configs(&context.flow, &found.topic.source_topic);
        let held = HeldConfigs {
            v: 1,
            values: found.decision.held.clone(),
        };
        // One that can't be read is written anew.
        let stored: Option<HeldConfigs> = store.get(&key).ok().flatten();
        if stored.as_ref() != Some(&held) {
            news.push((key, held));
        }
    }
    store.put_all(&news).await
}

/// What the failover will change, topic by topic.
pub(super) fn drift(found: &[Found<'_>]) -> Vec<Drift> {
    let held = found.iter().flat_map(|found| {
        differing(&found.decision.held).map(|(key, held, value)| Drift {
            kind: DriftKind::TopicConfig,
            action: DriftAction::Hold,
            subject: format!("topic {}", found.topic.target_topic),
            detail: key.to_owned(),
            source: Some(held.to_owned()),
            target: value.map(str::to_owned),
            why: Some(match value {
                Some(_) => "set by the failover: a mirror keeps the source's timestamps".to_owned(),
                None => "set by the failover: the source's log has what its topic refuses today"
                    .to_owned(),
            }),
            failure: None,
        })
    });
    held.collect()
}

/// Each held key whose value isn't what a mirror has anyway, with the value and the mirror's, where
/// that is the same for all.
pub(in crate::metadata) fn differing(
    held: &BTreeMap<String, Option<String>>,
) -> impl Iterator<Item = (&'static str, &str, Option<&'static str>)> {
    let widened = WIDENED.into_iter().map(|key| (key, None));
    let all = enforced().map(|(key, value)| (key, Some(value)));
    all.chain(widened).filter_map(|(key, value)| {
        let held = held.get(key)?.as_deref()?;
        let differs = value.is_none_or(|value| !same(key, held, value));
        differs.then_some((key, held, value))
    })
}

/// What is seen when nothing can be held.
pub(super) fn obstacle(error: &StateError) -> Obstacle {
    Obstacle {
        kind: DriftKind::TopicConfig,
        cluster: "target".to_owned(),
        reason: "state".to_owned(),
        message: format!("what the failover shall set can't be stored: {error}"),
        hint: None,
        is_problem: true,
        since_ms: 0,
    }
}
