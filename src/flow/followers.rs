//! Partitions that a follower serves (KIP-392): where they end is asked of their leaders, and a follower that
//! isn't kept up to date is left.
//!
//! A follower that fell out of sync goes on answering, up to a high watermark of yesterday: nothing in its
//! answers tells.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::Trouble;
use super::partition::Partition;
use super::shared::Flow;
use crate::telemetry::progress::now_ms;
use crate::wire::{self, OffsetSpec, TopicPartition};

/// How often the leaders are asked. A follower has as long to get what its leader had committed; in sync it takes
/// one fetch, half a second at most (`replica.fetch.wait.max.ms`).
const EVERY: Duration = Duration::from_secs(3);

/// One look at a partition: where its committed data ended.
struct Look {
    partition: Arc<Partition>,
    leader_end: i64,
    follower_end: i64,
}

/// Asks leaders until cancelled, where followers may serve us at all.
pub(super) async fn watch(flow: Arc<Flow>, cancel: CancellationToken) {
    if flow.source.config().client_rack.is_none() {
        // Nobody else than leaders is read.
        return cancel.cancelled().await;
    }
    let mut before: HashMap<TopicPartition, Look> = HashMap::new();
    while cancel
        .run_until_cancelled(tokio::time::sleep(EVERY))
        .await
        .is_some()
    {
        let followed: Vec<Arc<Partition>> = flow
            .open
            .iter()
            .map(|entry| entry.value().clone())
            .filter(|partition| partition.progress.is_followed())
            .collect();
        let Some(now) = cancel.run_until_cancelled(look(&flow, followed)).await else {
            return;
        };
        for (name, now) in &now {
            if let Some(before) = before.get(name)
                && Arc::ptr_eq(&before.partition, &now.partition)
                && lags(before, now)
            {
                let partition = &now.partition;
                partition.fail(Trouble::FollowerLags {
                    broker: partition.progress.source_broker.load(Ordering::Relaxed),
                    end: now.follower_end,
                    leader_end: before.leader_end,
                });
            }
        }
        before = now;
    }
}

async fn look(flow: &Flow, followed: Vec<Arc<Partition>>) -> HashMap<TopicPartition, Look> {
    let names: Vec<TopicPartition> = followed.iter().map(|it| it.source.clone()).collect();
    let asked_ms = now_ms();
    let ask = |spec| wire::list_offsets_within(&flow.source, &names, spec, EVERY);
    let (mut ends, mut stable) =
        tokio::join!(ask(OffsetSpec::Latest), ask(OffsetSpec::LatestStable));
    let mut looks = HashMap::new();
    for partition in followed {
        let name = partition.source.clone();
        let (Some(Ok(end)), Some(Ok(stable_end))) = (ends.remove(&name), stable.remove(&name))
        else {
            continue;
        };
        let progress = &partition.progress;
        let Some(follower_end) = progress.follower_stable_end() else {
            continue;
        };
        progress.note_source_ends(end, stable_end, asked_ms);
        let look = Look {
            leader_end: stable_end,
            follower_end,
            partition,
        };
        looks.insert(name, look);
    }
    looks
}

/// Whether the follower still lacks what its leader had at the look before, and it isn't us who lag: all that the
/// follower had then is copied.
fn lags(before: &Look, now: &Look) -> bool {
    let copied = now
        .partition
        .progress
        .source_position
        .load(Ordering::Relaxed);
    now.follower_end < before.leader_end && copied >= before.follower_end
}
