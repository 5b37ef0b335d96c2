//! Topic configs: what a topic has on the source, its copy has.
//!
//! [`policy`] says what becomes of a key, [`decide`] what to change of a topic, [`chunk`] reads both
//! clusters (and doesn't even decode answers that are the last ones), [`apply`] changes the target
//! ([`tried`]: what isn't tried again yet), [`held`] keeps for the failover what a mirror must have
//! otherwise.

mod agreed;
mod apply;
mod chunk;
mod decide;
mod defaults;
mod held;
mod needs;
mod policy;
mod rests;
#[cfg(test)]
mod tests;
mod tiers;
mod tried;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use self::apply::Work;
use self::chunk::{Chunk, Found};
use self::decide::Change;
use self::defaults::TargetDefaults;
pub use self::defaults::binding_min_in_sync;
pub(super) use self::held::differing;
pub use self::needs::{CLEANUP, Needs, may_be_widened};
pub use self::policy::{Expected, expected, is_enforced, is_resolved};
pub use self::rests::fingerprint as fingerprint_of_rules;
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
    /// As of the last look.
    mirrored: Option<Arc<[MirroredTopic]>>,
    /// Those of them that can be compared, by name; any change starts afresh.
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

    /// The next look asks about all topics, however short ago the last one was.
    pub(super) fn hurry(&mut self) {
        self.chunks.iter_mut().for_each(Chunk::hurry);
    }

    fn take_topics(&mut self, mirrored: Arc<[MirroredTopic]>) {
        let before = self.mirrored.replace(mirrored.clone());
        if before.is_some_and(|before| Arc::ptr_eq(&before, &mirrored)) {
            return;
        }
        let comparable = mirrored.iter().filter(|it| it.target_replicas.is_some());
        let mut topics: Vec<MirroredTopic> = comparable.cloned().collect();
        topics.sort_by(|one, other| one.source_topic.cmp(&other.source_topic));
        if topics != self.topics {
            self.chunks = chunk::divide(&topics);
            self.topics = topics;
        }
        self.chunks.iter_mut().for_each(Chunk::rules_were_made);
    }

    /// A call that fails as a whole would fail for the next chunk too: the pass ends there.
    async fn look_at_all(
        &mut self,
        context: &Context,
        pass: &mut Pass,
    ) -> Result<(), (&'static str, WireError)> {
        let mut wanted = HashSet::new();
        let bytes = Chunk::bytes(&self.chunks);
        for chunk in &mut self.chunks {
            let topics = &self.topics[chunk.topics.clone()];
            if !chunk.is_due(context, bytes) {
                chunk.compare_rules(context, topics);
                continue;
            }
            let (defaults, tried) = (&self.defaults, &mut self.tried);
            let looked = look_at(context, chunk, topics, defaults, tried, pass).await;
            if looked.is_err() {
                // Whatever had been seen by then: it wasn't acted on.
                chunk.forget();
            }
            wanted.extend(looked?);
        }
        self.tried.keep(&wanted);
        Ok(())
    }
}

/// Looks at a chunk, and does what follows; the names of the changes that it needs.
async fn look_at(
    context: &Context,
    chunk: &mut Chunk,
    topics: &[MirroredTopic],
    defaults: &TargetDefaults,
    tried: &mut Tried,
    pass: &mut Pass,
) -> Result<HashSet<String>, (&'static str, WireError)> {
    let looked = chunk.look(context, topics, defaults, tried).await?;
    chunk.compare_rules(context, topics);
    let Some(found) = looked else {
        return Ok(HashSet::new());
    };
    let names = found.iter().flat_map(|found| {
        let changes = found.decision.changes.iter();
        changes.map(|change| tried::name_of(found.topic, change))
    });
    let names = names.collect();
    settle(context, chunk, found, tried, pass).await?;
    Ok(names)
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
                .extend(changes.map(|it| drift(&found.topic.target_topic, it, None)));
        }
        return Ok(());
    }
    let count = found.len();
    let mut found = chunk::still_same(context, found).await?;
    if found.len() < count {
        chunk.forget();
    }
    let doubtful = agreed::take_out_doubtful(context, &mut found).await;
    if !doubtful.is_empty() {
        chunk.forget();
    }
    for (topic, change) in &doubtful {
        let why = "not most brokers of the source tell this value: it is asked for again";
        chunk.drift.push(Drift {
            why: Some(why.to_owned()),
            ..drift(topic, change, None)
        });
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

fn drift(topic: &str, change: &Change, failure: Option<DriftFailure>) -> Drift {
    let action = match (&change.value, change.replaces) {
        (None, _) => DriftAction::Remove,
        (Some(_), true) => DriftAction::Change,
        (Some(_), false) => DriftAction::Add,
    };
    Drift {
        kind: DriftKind::TopicConfig,
        action,
        subject: format!("topic {topic}"),
        detail: change.key.clone(),
        source: change.source.clone(),
        target: change.target.clone(),
        why: change.why.clone(),
        failure,
    }
}

/// The configs with which a topic's copy is created, and of them those that decide whether batches
/// are accepted and how long they stay: the first that the target takes. `known` are the configs of
/// another topic there: a key that its brokers don't know would make them refuse all of them. `replicas` is how many
/// it has, and [`binding_min_in_sync`].
pub fn configs_at_creation(
    source: &ConfigValues,
    known: Option<&ConfigValues>,
    replicas: (usize, Option<&str>),
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

/// Where the target refuses [`CLEANUP`] of a new topic's configs: what the copy gets beside the others, so that it loses
/// no key that the source keeps.
pub fn configs_without_compaction(
    source: &ConfigValues,
    rules: &ConfigRules,
) -> BTreeMap<String, String> {
    decide::without_compaction(source, rules)
}
