//! Tasks that look after a running flow: strangers' writes in quiet partitions, stored
//! offset maps, how far the source was copied.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::Trouble;
use super::in_turn::InTurn;
use super::missed;
use super::partition::Partition;
use super::shared::Flow;
use super::topics::TopicContext;
use crate::offsets::{OffsetMap, SourceOffset, TargetOffset};
use crate::state::{DrillRecord, SeenRecord, StateRecord, keys, maps};
use crate::wire::{self, OffsetSpec, TopicPartition};

/// How often the log ends of the target are compared with what was written.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// How long the others wait for a broker that doesn't answer.
const LOOK_FOR: Duration = Duration::from_secs(5);
/// How often changed offset maps are stored: after a crash this much is read again, not copied.
const STORE_EVERY: Duration = Duration::from_secs(5);
/// So many records of maps go into one write.
const RECORDS_AT_ONCE: usize = 500;

/// How often the target's log starts are asked for, and how soon at first.
const LOG_STARTS_EVERY: Duration = Duration::from_secs(30);
/// See [`LOG_STARTS_EVERY`].
const LOG_STARTS_FIRST: Duration = Duration::from_secs(1);
/// Of so many partitions about, beside those that it isn't known of: half a minute's share of what rest may cost.
const LOG_STARTS_AT_ONCE: usize = 500;

/// How often it is stored how far the source was copied; a partition's new epoch, with the maps. What the
/// source loses and overwrites within this time, while Twinlog is down, isn't found.
const SEEN_EVERY: Duration = Duration::from_secs(30);

/// So many partitions' log ends are asked for at a time, about: at rest, little may go over the line. Of many partitions
/// others have their turn the next time.
const COMPARED: usize = 500;

/// Compares quiet partitions' log ends with our own count. Busy ones are checked by every answer.
pub async fn watch_log_ends(flow: Arc<Flow>, cancel: CancellationToken) {
    let mut in_turn = InTurn::default();
    while cancel
        .run_until_cancelled(tokio::time::sleep(COMPARE_EVERY))
        .await
        .is_some()
    {
        in_turn.next(flow.open.len(), COMPARED);
        let quiet = quiet_in_turn(&flow, in_turn);
        let names: Vec<TopicPartition> = quiet
            .iter()
            .map(|(partition, _)| partition.target.clone())
            .collect();
        if names.is_empty() {
            continue;
        }
        let compared =
            wire::list_offsets_within(&flow.target, &names, OffsetSpec::Latest, LOOK_FOR);
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
            // A stranger, a second Twinlog, or a target that lost what it had acknowledged: the
            // opening tells them apart by the counts that the brokers keep.
            partition.fail(Trouble::LogEndDiffers {
                expected: now,
                found: end,
            });
        }
    }
}

/// The quiet partitions of the topics whose turn it is, and how far each is written: of thousands nobody looks at the others.
fn quiet_in_turn(flow: &Flow, in_turn: InTurn) -> Vec<(Arc<Partition>, i64)> {
    let topics = flow.topics.iter();
    let topics: Vec<Arc<TopicContext>> = topics
        .filter(|topic| in_turn.has(topic.key()))
        .map(|topic| topic.value().clone())
        .collect();
    let mut quiet = Vec::new();
    for topic in topics {
        let count = i32::try_from(topic.record.origins.len()).unwrap_or(i32::MAX);
        for number in 0..count {
            let open = flow.open.get(&(topic.source_topic.clone(), number));
            let Some(partition) = open.map(|open| open.value().clone()) else {
                continue;
            };
            if is_quiet(&partition) {
                let position = partition.progress.target_position.load(Ordering::Relaxed);
                quiet.push((partition, position));
            }
        }
    }
    quiet
}

/// Learns where the target's logs begin, so that no group is sent before it, and forgets in the
/// maps what both logs have forgotten.
pub async fn watch_log_starts(flow: Arc<Flow>, cancel: CancellationToken) {
    let mut pause = LOG_STARTS_FIRST;
    let mut in_turn = InTurn::default();
    while cancel
        .run_until_cancelled(tokio::time::sleep(pause))
        .await
        .is_some()
    {
        pause = LOG_STARTS_EVERY;
        let mut open = open_partitions(&flow);
        if open.is_empty() {
            pause = LOG_STARTS_FIRST;
            continue;
        }
        in_turn.next(open.len(), LOG_STARTS_AT_ONCE);
        open.retain(|one| {
            let is_unknown = one.progress.target_log_start.load(Ordering::Relaxed) < 0;
            is_unknown || in_turn.has(&one.target.topic)
        });
        let names: Vec<TopicPartition> = open.iter().map(|one| one.target.clone()).collect();
        let asked = wire::list_offsets_within(&flow.target, &names, OffsetSpec::Earliest, LOOK_FOR);
        let Some(mut starts) = cancel.run_until_cancelled(asked).await else {
            return;
        };
        for partition in open {
            let Some(Ok(start)) = starts.remove(&partition.target) else {
                continue;
            };
            let progress = &partition.progress;
            progress.target_log_start.store(start, Ordering::Relaxed);
            let source_start = progress.source_log_start.load(Ordering::Relaxed);
            partition.trim_map(SourceOffset(source_start), TargetOffset(start));
        }
    }
}

fn is_quiet(partition: &Partition) -> bool {
    !partition.is_closed() && partition.unanswered() == 0 && !partition.has_work()
}

/// Where a map begins and ends. Whatever changes in a map moves one of these.
type Bounds = (SourceOffset, TargetOffset, SourceOffset, TargetOffset);

/// What the state topic holds of the partitions' progress, as far as this process stored it.
#[derive(Default)]
pub struct Stored {
    maps: HashMap<TopicPartition, Bounds>,
    seen: HashMap<String, SeenRecord>,
    /// Whether something couldn't be stored.
    has_failed: bool,
}

/// Stores changed offset maps, and less often what was seen of the source, until cancelled.
pub async fn keep_progress(flow: Arc<Flow>, cancel: CancellationToken) {
    let mut stored = Stored::default();
    let mut seen_at = Instant::now();
    // At the last look, and at the last that looked at all.
    let (mut changes, mut all_changes) = (None, None);
    show_drill(&flow);
    while cancel
        .run_until_cancelled(tokio::time::sleep(STORE_EVERY))
        .await
        .is_some()
    {
        show_drill(&flow);
        missed::settle(&flow).await;
        let is_due = seen_at.elapsed() >= SEEN_EVERY;
        // First: what changes behind this is stored the next time.
        let before = changes.replace(flow.budget.changes());
        let has_failed = std::mem::take(&mut stored.has_failed);
        let is_same = changes == before && (!is_due || changes == all_changes);
        if is_same && !has_failed {
            continue;
        }
        store_maps(&flow, &mut stored).await;
        let which = if is_due { Seen::All } else { Seen::NewEpochs };
        store_seen(&flow, &mut stored, which).await;
        if is_due {
            (seen_at, all_changes) = (Instant::now(), changes);
        }
    }
}

/// What of the source's progress is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Only where another epoch has begun: it tells a leader of yesterday from a source that lost records.
    NewEpochs,
    All,
}

/// Shows how the last rehearsal of a failover ended. Others write that; the claim's look has read it.
fn show_drill(flow: &Flow) {
    let record = flow
        .store
        .get::<DrillRecord>(&keys::drill(&flow.config.name));
    // What a newer Twinlog wrote isn't shown.
    let result = record.ok().flatten().map(|record| record.result);
    flow.progress.set_drill(result);
}

/// Stores all that changed, when the flow ends in order.
pub async fn store_progress(flow: &Flow) {
    let mut stored = Stored::default();
    store_maps(flow, &mut stored).await;
    store_seen(flow, &mut stored, Seen::All).await;
}

/// Many maps in one write: over a distance each write is a round trip.
async fn store_maps(flow: &Flow, stored: &mut Stored) {
    let mut unsaved = Unsaved::default();
    for partition in open_partitions(flow) {
        let source = &partition.source;
        let Some(bounds) = partition.look_into_map(bounds_of) else {
            continue;
        };
        if stored.maps.get(source) == Some(&bounds) {
            continue;
        }
        let keys = flow.map_keys(&source.topic, source.partition);
        let look = |map: &OffsetMap| (bounds_of(map), maps::changes(&*flow.store, &keys, map));
        let Some((bounds, changes)) = partition.look_into_map(look) else {
            continue;
        };
        match changes {
            Ok(changes) => {
                unsaved.records.extend(changes);
                unsaved.maps.push((source.clone(), bounds));
            }
            Err(error) => {
                stored.has_failed = true;
                tracing::warn!(
                    partition = %source,
                    %error,
                    "the offset map could not be stored"
                );
            }
        }
        if unsaved.records.len() >= RECORDS_AT_ONCE {
            unsaved.save(flow, stored).await;
        }
    }
    unsaved.save(flow, stored).await;
}

/// Maps that are about to be stored.
#[derive(Default)]
struct Unsaved {
    records: Vec<StateRecord>,
    maps: Vec<(TopicPartition, Bounds)>,
}

impl Unsaved {
    async fn save(&mut self, flow: &Flow, stored: &mut Stored) {
        let (records, maps) = (
            std::mem::take(&mut self.records),
            std::mem::take(&mut self.maps),
        );
        if records.is_empty() {
            stored.maps.extend(maps);
            return;
        }
        match flow.store.write_all(records).await {
            Ok(()) => stored.maps.extend(maps),
            Err(error) => {
                stored.has_failed = true;
                tracing::warn!(
                    partitions = maps.len(),
                    %error,
                    "offset maps could not be stored"
                );
            }
        }
    }
}

fn bounds_of(map: &OffsetMap) -> Bounds {
    (
        map.source_start(),
        map.target_start(),
        map.source_end(),
        map.target_end(),
    )
}

async fn store_seen(flow: &Flow, stored: &mut Stored, which: Seen) {
    let mut topics: HashMap<String, Vec<Arc<Partition>>> = HashMap::new();
    for partition in open_partitions(flow) {
        topics
            .entry(partition.source.topic.clone())
            .or_default()
            .push(partition);
    }
    for (topic, partitions) in topics {
        let key = flow.seen_key(&topic);
        let before = match stored.seen.get(&topic) {
            Some(seen) => seen.clone(),
            None => flow.store.get(&key).ok().flatten().unwrap_or_default(),
        };
        let seen = with_progress(&before, &partitions);
        if seen == before || (which == Seen::NewEpochs && seen.epochs == before.epochs) {
            continue;
        }
        match flow.store.put(&key, &seen).await {
            Ok(()) => {
                stored.seen.insert(topic, seen);
            }
            Err(error) => {
                stored.has_failed = true;
                tracing::debug!(topic, %error, "progress could not be stored");
            }
        }
    }
}

fn with_progress(before: &SeenRecord, partitions: &[Arc<Partition>]) -> SeenRecord {
    let mut seen = SeenRecord {
        v: 1,
        ..before.clone()
    };
    for partition in partitions {
        let Ok(index) = usize::try_from(partition.source.partition) else {
            continue;
        };
        // Without a batch fetched since the opening, what is stored still holds.
        let copied = partition.progress.source_position.load(Ordering::Relaxed);
        let Some(known) = partition.epochs.before(copied) else {
            continue;
        };
        if seen.epochs.len() <= index {
            seen.epochs.resize(index + 1, -1);
            seen.positions.resize(index + 1, 0);
        }
        seen.epochs[index] = known.epoch;
        seen.positions[index] = known.position;
    }
    seen
}

fn open_partitions(flow: &Flow) -> Vec<Arc<Partition>> {
    flow.open
        .iter()
        .map(|entry| entry.value().clone())
        .collect()
}
