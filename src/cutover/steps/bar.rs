//! Keeps a Twinlog that was frozen from appending what it still has in hand.
//!
//! It may have fetched, and not yet sent, what its source has lost since. Its sequences would still be
//! the next ones, and it appends faster than it can see that it has lost its claim. A marker of its own
//! data producer with the next epoch makes the partition refuse its batches
//! (`ProducerAppendInfo.checkProducerEpoch`), whenever they come.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::markers::{self, Lacking};
use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::cutover::pairs::{Pair, on_target};
use crate::state::{FlowRecord, keys};
use crate::wire::{self, Filler, ProducerState, TopicPartition};

/// What is still open then is named, and the failover goes on.
const PATIENCE: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(100);
/// The epoch of a data producer that copies.
const COPYING_EPOCH: i32 = 0;

/// Whether somebody may wake up: he who copied gave no sign.
pub(super) fn is_needed(it: &Cutover) -> bool {
    it.journal.fact("owner_was_silent").unwrap_or(false)
}

/// Bars the owner from all partitions; how many still take what he sends.
///
/// # Errors
/// When the state can't be read.
pub(super) async fn owner(it: &Cutover, pairs: &[Pair]) -> Result<usize, CutoverError> {
    if !is_needed(it) {
        return Ok(0);
    }
    let scene = &it.scene;
    let key = keys::flow(&scene.flow.name);
    let flow: FlowRecord = scene
        .store
        .get(&key)?
        .ok_or_else(|| CutoverError::failed(format!("{key} is missing")))?;
    let copies: HashMap<TopicPartition, i64> = pairs
        .iter()
        .map(|pair| {
            let continued = pair.continued.as_ref();
            let id = continued.map_or(flow.data_producer_id, |it| it.data_producer_id);
            (pair.target.clone(), id)
        })
        .collect();
    let mut open = on_target(pairs);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let states = wire::describe_producers(&scene.target, &open).await;
        let mut by_leader: BTreeMap<i32, Vec<Lacking>> = BTreeMap::new();
        let metadata = scene.target.cached();
        open.retain(|at| {
            let Some(marker) = marker(copies[at], states.get(at)) else {
                return false;
            };
            if let (Some(marker), Some((leader, _))) =
                (marker, metadata.leader(&at.topic, at.partition))
            {
                by_leader
                    .entry(leader)
                    .or_default()
                    .push((at.clone(), marker, 1));
            }
            true
        });
        if open.is_empty() || Instant::now() >= deadline {
            return Ok(open.len());
        }
        markers::write(&scene.target, by_leader).await?;
        tokio::time::sleep(AGAIN).await;
        let _ = scene.target.metadata(None).await;
    }
}

/// The marker that bars a data producer: `None` if it is barred, `Some(None)` if nobody answered.
#[allow(clippy::option_option, reason = "done, unknown, or to be done")]
fn marker<E>(
    producer_id: i64,
    states: Option<&Result<Vec<ProducerState>, E>>,
) -> Option<Option<Filler>> {
    let Some(Ok(states)) = states else {
        return Some(None);
    };
    let known = states.iter().find(|it| it.producer_id == producer_id);
    if known.is_some_and(|it| it.producer_epoch > COPYING_EPOCH) {
        return None;
    }
    Some(Some(Filler {
        producer_id,
        producer_epoch: 1,
        coordinator_epoch_first: known.map_or(0, |it| it.coordinator_epoch.max(0)),
    }))
}
