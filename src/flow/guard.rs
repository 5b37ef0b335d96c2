//! Tasks that look after a running flow: strangers' writes in quiet partitions, offset maps.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::Trouble;
use super::partition::Partition;
use super::shared::Flow;
use crate::offsets::TargetOffset;
use crate::state::MapRecord;
use crate::wire::{self, OffsetSpec, TopicPartition};

/// How often the log ends of the target are compared with what was written.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// How often changed offset maps are stored: after a crash this much is read again, not copied.
const STORE_EVERY: Duration = Duration::from_secs(5);

/// Compares quiet partitions' log ends with our own count. Busy ones are checked by every answer.
pub async fn watch_log_ends(flow: Arc<Flow>, cancel: CancellationToken) {
    while cancel
        .run_until_cancelled(tokio::time::sleep(COMPARE_EVERY))
        .await
        .is_some()
    {
        let quiet: Vec<(Arc<Partition>, i64)> = flow
            .open
            .iter()
            .filter(|entry| is_quiet(entry.value()))
            .map(|entry| {
                (
                    entry.value().clone(),
                    entry
                        .value()
                        .progress
                        .target_position
                        .load(Ordering::Relaxed),
                )
            })
            .collect();
        let names: Vec<TopicPartition> = quiet
            .iter()
            .map(|(partition, _)| partition.target.clone())
            .collect();
        if names.is_empty() {
            continue;
        }
        let compared = wire::list_offsets(&flow.target, &names, OffsetSpec::Latest);
        let Some(mut ends) = cancel.run_until_cancelled(compared).await else {
            return;
        };
        for (partition, before) in quiet {
            let Some(Ok(end)) = ends.remove(&partition.target) else {
                continue;
            };
            let now = partition.progress.target_position.load(Ordering::Relaxed);
            // Only a partition that was quiet all the time can be judged.
            if now != before || !is_quiet(&partition) || end == now {
                continue;
            }
            if end > now {
                partition.fail(Trouble::ForeignWrite {
                    expected: now,
                    found: end,
                });
            } else {
                // The target lost what it had acknowledged: it is copied again from there.
                partition.fail(Trouble::LeaderMoved {
                    cluster: format!("target ({})", flow.target.name()),
                });
            }
        }
    }
}

fn is_quiet(partition: &Partition) -> bool {
    !partition.is_closed() && partition.unanswered() == 0 && !partition.has_work()
}

/// Stores changed offset maps now and then, until cancelled.
pub async fn keep_maps(flow: Arc<Flow>, cancel: CancellationToken) {
    let mut stored = HashMap::new();
    while cancel
        .run_until_cancelled(tokio::time::sleep(STORE_EVERY))
        .await
        .is_some()
    {
        store_maps(&flow, &mut stored).await;
    }
}

/// Stores the maps that changed since they were stored last.
pub async fn store_maps(flow: &Flow, stored: &mut HashMap<TopicPartition, TargetOffset>) {
    let open: Vec<Arc<Partition>> = flow
        .open
        .iter()
        .map(|entry| entry.value().clone())
        .collect();
    for partition in open {
        let Some(map) = partition.map() else { continue };
        let end = map.target_end();
        if stored.get(&partition.source) == Some(&end) {
            continue;
        }
        let key = flow.map_key(&partition.source.topic, partition.source.partition);
        match flow.store.put(&key, &MapRecord { v: 1, map }).await {
            Ok(()) => {
                stored.insert(partition.source.clone(), end);
            }
            Err(error) => {
                tracing::warn!(partition = %partition.source, %error, "the offset map could not be stored")
            }
        }
    }
}
