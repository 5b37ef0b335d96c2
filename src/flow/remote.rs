//! Partitions whose next records are in the source's remote storage (KIP-405).
//!
//! A broker answers a fetch with one such partition when its remote storage has answered, or the fetch's own wait is
//! over (`DelayedRemoteFetch`), and before Kafka 4.2 it reads one of them for each fetch. So whoever is read there has a
//! session of its own, which waits long: the others aren't held up, and a read isn't ended by a short wait, which would
//! never come to an end. Where local data begins is asked for by ListOffsets.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::partition::Partition;
use super::shared::Flow;
use crate::wire::{self, OffsetSpec, TopicPartition};

/// How often it is asked where local data begins, of partitions that are behind.
const EVERY: Duration = Duration::from_secs(2);
/// How long a leader may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks until cancelled.
pub(super) async fn watch(flow: Arc<Flow>, cancel: CancellationToken) {
    while cancel
        .run_until_cancelled(tokio::time::sleep(EVERY))
        .await
        .is_some()
    {
        // Hardly anybody has such topics.
        if !flow.topics.iter().any(|topic| topic.is_tiered) {
            continue;
        }
        let behind = behind(&flow);
        if behind.is_empty() {
            continue;
        }
        if cancel
            .run_until_cancelled(look(&flow, behind))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// The open partitions of tiered topics that have something to copy.
fn behind(flow: &Flow) -> Vec<Arc<Partition>> {
    let is_tiered = |partition: &Partition| {
        let topic = flow.topics.get(partition.source.topic.as_str());
        topic.is_some_and(|topic| topic.is_tiered)
    };
    let open = flow.open.iter().map(|entry| entry.value().clone());
    open.filter(|partition| is_tiered(partition) && partition.progress.lag_offsets() > 0)
        .collect()
}

async fn look(flow: &Flow, behind: Vec<Arc<Partition>>) {
    let names: Vec<TopicPartition> = behind.iter().map(|it| it.source.clone()).collect();
    let spec = OffsetSpec::EarliestLocal;
    let mut starts = wire::list_offsets_within(&flow.source, &names, spec, PATIENCE).await;
    for partition in behind {
        // A broker that doesn't know the question has no remote storage.
        if let Some(Ok(start)) = starts.remove(&partition.source) {
            partition.progress.note_local_start(start);
            // Its session may be at rest: what it asks for brings nothing before it is asked for elsewhere.
            partition.meter.note_change();
        }
    }
}
