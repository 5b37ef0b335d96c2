//! How the standby's partitions are, as its metadata tells.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::shared::Flow;
use crate::state::missing_replicas;
use crate::telemetry::failover::{MinInSync, StandbyHealth};
use crate::wire::{self, Cluster, Metadata};

/// How often it is looked whether somebody has to be asked for `min.insync.replicas`.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Publishes how the copies' partitions are.
pub(super) fn note(flow: &Flow, target: &Metadata) {
    let min = flow.progress.min_in_sync();
    let mut health = StandbyHealth {
        state_replicas: missing_replicas(target).map(|missing| (missing.has, missing.wanted)),
        ..StandbyHealth::default()
    };
    for context in &flow.topics {
        let name = &context.record.target_topic;
        let Some(topic) = target.topics.get(name) else {
            continue;
        };
        for partition in &topic.partitions {
            let (in_sync, replicas) = (partition.in_sync.len(), partition.replicas.len());
            let wanted = min.of(name, replicas);
            health.add(partition.leader, in_sync, replicas, wanted);
        }
    }
    flow.progress.set_standby(health);
}

/// Asks how many replicas have to be in sync where that makes a difference, until cancelled.
pub(super) async fn keep(flow: Arc<Flow>, cancel: CancellationToken) {
    let mut asked = BTreeSet::new();
    loop {
        let topics = with_replicas_away(&flow);
        // While nothing is away nobody is asked; what was asked a moment ago may have been changed to mend it.
        if !topics.is_empty() || !asked.is_empty() {
            let names: Vec<String> = topics.iter().cloned().collect();
            let asking = cancel.run_until_cancelled(min_in_sync(&flow.target, &names));
            let Some(min) = asking.await else { return };
            flow.progress.set_min_in_sync(min);
            note(&flow, &flow.target.cached());
            asked = topics;
        }
        let pause = cancel.run_until_cancelled(tokio::time::sleep(LOOK_EVERY));
        if pause.await.is_none() {
            return;
        }
    }
}

/// Copies of which a replica isn't in sync.
fn with_replicas_away(flow: &Flow) -> BTreeSet<String> {
    let target = flow.target.cached();
    let mut found = BTreeSet::new();
    for context in &flow.topics {
        let name = &context.record.target_topic;
        let partitions = target.topics.get(name).map(|topic| &topic.partitions);
        let mut partitions = partitions.into_iter().flatten();
        if partitions.any(|it| it.in_sync.len() < it.replicas.len()) {
            found.insert(name.clone());
        }
    }
    found
}

/// How many replicas of these topics have to be in sync.
pub async fn min_in_sync(target: &Cluster, topics: &[String]) -> MinInSync {
    let (configs, is_capped) = tokio::join!(
        wire::describe_topic_configs(target, topics),
        wire::caps_min_in_sync(target),
    );
    let undescribed = configs.iter().filter_map(|(name, values)| {
        let error = values.as_ref().err()?;
        Some(format!("{name}: {error}"))
    });
    let undescribed: Vec<String> = undescribed.collect();
    let why = undescribed.iter().min().cloned();
    let told = configs.into_iter().filter_map(|(topic, values)| {
        let values = values.ok()?;
        let min = values.get("min.insync.replicas")?.value.as_deref()?;
        Some((topic, min.parse().ok()?))
    });
    MinInSync {
        by_topic: told.collect(),
        is_capped,
        unknown: why.map(|why| (undescribed.len(), why)),
    }
}
