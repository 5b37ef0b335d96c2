//! Topic configs: what a topic has on the source, its copy has.
//!
//! [`policy`] says what becomes of a key, [`decide`] what to change of a topic, [`chunk`] reads both
//! clusters (and doesn't even decode answers that are the last ones), [`apply`] changes the target
//! ([`tried`]: what isn't tried again yet), [`held`] keeps for the failover what a mirror must have
//! otherwise.

mod apply;
mod chunk;
mod decide;
mod defaults;
mod held;
mod needs;
mod policy;
#[cfg(test)]
mod tests;
mod tiers;
mod tried;

use std::collections::{BTreeMap, HashSet};

use self::apply::Work;
use self::chunk::{Chunk, Found};
use self::decide::Change;
use self::defaults::TargetDefaults;
pub(super) use self::held::differing;
pub use self::needs::{Needs, may_be_widened};
pub use self::policy::{Expected, expected, is_enforced, is_resolved};
pub use self::tiers::{WHY as WHY_UNTIERED, is_untiered};
use self::tried::Tried;
use super::context::{Context, MirroredTopic};
use super::pass::Pass;
use crate::config::ConfigRules;
use crate::telemetry::metadata::{Drift, DriftAction, DriftFailure, DriftKind};
use crate::wire::{ConfigValues, WireError};

/// What is kept between looks at topic configs.
#[derive(Debug, Default)]
pub(super) struct Configs {
    /// As of the last look, by name; any change starts afresh.
    topics: Vec<MirroredTopic>,
    chunks: Vec<Chunk>,
    defaults: TargetDefaults,
    tried: Tried,
}

impl Configs {
    /// Compares both clusters, and applies what differs where `context.apply` says so.
    pub(super) async fn look(&mut self, context: &Context) -> Pass {
        let mut pass = Pass::default();
        if !context.rules.configs.enabled {
            *self = Self::default();
            return pass;
        }
        self.take_topics(context.topics.mirrored());
        if self.defaults.learn(context).await {
            self.chunks.iter_mut().for_each(Chunk::forget);
        }
        if let Err((cluster, error)) = self.look_at_all(context, &mut pass).await {
            let grant = "ALLOW DESCRIBE_CONFIGS (on the target also ALTER_CONFIGS) on the copied topics for Twinlog's principal";
            let obstacle = super::pass::obstacle(DriftKind::TopicConfig, cluster, &error, grant);
            pass.obstacles.push(obstacle);
        }
        for chunk in &self.chunks {
            pass.drift.extend(chunk.drift.iter().cloned());
            pass.obstacles.extend(chunk.obstacles.iter().cloned());
        }
        pass
    }

    fn take_topics(&mut self, mut topics: Vec<MirroredTopic>) {
        topics.retain(|topic| topic.target_replicas.is_some());
        topics.sort_by(|one, other| one.source_topic.cmp(&other.source_topic));
        if topics != self.topics {
            self.chunks = chunk::divide(&topics);
            self.topics = topics;
        }
    }

    /// A call that fails as a whole would fail for the next chunk too: the pass ends there.
    async fn look_at_all(
        &mut self,
        context: &Context,
        pass: &mut Pass,
    ) -> Result<(), (&'static str, WireError)> {
        let mut wanted = HashSet::new();
        for chunk in &mut self.chunks {
            let topics = &self.topics[chunk.topics.clone()];
            let Some(found) = chunk.look(context, topics, &self.defaults).await? else {
                continue;
            };
            for found in &found {
                let changes = found.decision.changes.iter();
                wanted.extend(changes.map(|change| tried::name_of(found.topic, change)));
            }
            settle(context, chunk, found, &mut self.tried, pass).await?;
        }
        self.tried.keep(&wanted);
        Ok(())
    }
}

/// Does what was decided about a chunk, or only shows it.
async fn settle(
    context: &Context,
    chunk: &mut Chunk,
    found: Vec<Found<'_>>,
    tried: &mut Tried,
    pass: &mut Pass,
) -> Result<(), (&'static str, WireError)> {
    chunk.drift = held::drift(&found);
    chunk.drift.extend(tiers::drift(&found));
    if !context.apply {
        for found in &found {
            let changes = found.decision.changes.iter();
            chunk
                .drift
                .extend(changes.map(|it| drift(found.topic, it, None)));
        }
        return Ok(());
    }
    let count = found.len();
    let found = chunk::still_same(context, found).await?;
    if found.len() < count {
        chunk.forget();
    }
    if let Err(error) = held::store(context, &found).await {
        chunk.obstacles.push(held::obstacle(&error));
        chunk.forget();
    }
    let work: Vec<Work<'_>> = found
        .into_iter()
        .filter(|found| !found.decision.changes.is_empty())
        .map(|found| Work {
            topic: found.topic,
            changes: found.decision.changes,
        })
        .collect();
    if work.is_empty() {
        return Ok(());
    }
    // What was just changed is looked at again, and what wasn't is tried again.
    chunk.forget();
    let applied = apply::apply(context, work, tried).await;
    chunk.drift.extend(applied.drift);
    pass.applied += applied.changes;
    pass.failed.extend(applied.failed);
    if !applied.derived_from.is_empty() {
        context.topics.configs_changed(&applied.derived_from);
    }
    applied
        .ended_by
        .map_or(Ok(()), |error| Err(("target", error)))
}

fn drift(topic: &MirroredTopic, change: &Change, failure: Option<DriftFailure>) -> Drift {
    let action = match (&change.value, change.replaces) {
        (None, _) => DriftAction::Remove,
        (Some(_), true) => DriftAction::Change,
        (Some(_), false) => DriftAction::Add,
    };
    Drift {
        kind: DriftKind::TopicConfig,
        action,
        subject: format!("topic {}", topic.target_topic),
        detail: change.key.clone(),
        source: change.source.clone(),
        target: change.target.clone(),
        why: change.why.clone(),
        failure,
    }
}

/// The configs with which a topic's copy is created, and of them those that decide whether batches
/// are accepted and how long they stay: the first that the target takes. `known` are the configs of
/// another topic there: a key that its brokers don't know would make them refuse all of them.
pub fn configs_at_creation(
    source: &ConfigValues,
    known: Option<&ConfigValues>,
    replicas: usize,
    rules: &ConfigRules,
) -> [BTreeMap<String, String>; 2] {
    let mut both = [
        decide::created_with(source, replicas, rules),
        decide::decisive(source, rules),
    ];
    for configs in &mut both {
        configs.retain(|key, _| policy::is_known(known, key));
    }
    both
}
