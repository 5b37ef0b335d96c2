//! How the standby's partitions are, as its metadata tells.

use super::shared::Flow;
use crate::state::missing_replicas;
use crate::telemetry::failover::StandbyHealth;
use crate::wire::Metadata;

/// Publishes how the copies' partitions are. `min.insync.replicas` isn't looked up here: whoever
/// wants to fail over asks for it.
pub(super) fn note(flow: &Flow, target: &Metadata) {
    let mut health = StandbyHealth {
        state_replicas: missing_replicas(target).map(|missing| (missing.has, missing.wanted)),
        ..StandbyHealth::default()
    };
    for context in &flow.topics {
        let Some(topic) = target.topics.get(&context.record.target_topic) else {
            continue;
        };
        for partition in &topic.partitions {
            let (in_sync, replicas) = (partition.in_sync.len(), partition.replicas.len());
            health.add(partition.leader, in_sync, replicas, 1);
        }
    }
    flow.progress.set_standby(health);
}
