//! Keeps a Twinlog that was frozen from appending what it still has in hand.
//!
//! It may have fetched, and not yet sent, what its source has lost since. Its sequences would still be
//! the next ones, and it appends faster than it can see that it has lost its claim. A marker of its own
//! data producer with the next epoch makes the partition refuse its batches
//! (`ProducerAppendInfo.checkProducerEpoch`), whenever they come.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::markers::{self, Lacking};
use crate::cutover::context::Cutover;
use crate::cutover::error::CutoverError;
use crate::cutover::pairs::{Pair, topics_of};
use crate::wire::{self, Cluster, Filler, ProducerState, TopicPartition, WireError};

/// What is still open then is named, and the failover goes on.
const PATIENCE: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(100);
/// The epoch of a data producer that copies.
const COPYING_EPOCH: i32 = 0;

/// A partition of the target, and the data producer that copies into it.
type Copied = (TopicPartition, i64);

/// Whether somebody may wake up: he who copied gave no sign.
pub(super) fn is_needed(it: &Cutover) -> bool {
    it.journal.fact("owner_was_silent").unwrap_or(false)
}

/// Bars the owner from all partitions; how many still take what he sends. The partitions of each leader
/// are barred apart: one that hangs leaves only its own open.
///
/// # Errors
/// When the state can't be read.
pub(super) async fn owner(it: &Cutover, pairs: &[Pair]) -> Result<usize, CutoverError> {
    if !is_needed(it) {
        return Ok(0);
    }
    let target = &it.scene.target;
    let flow = it.scene.flow_record()?;
    let metadata = target.cached();
    let mut by_leader: HashMap<Option<i32>, Vec<Copied>> = HashMap::new();
    for pair in pairs {
        let continued = pair.continued.as_ref();
        let id = continued.map_or(flow.data_producer_id, |it| it.data_producer_id);
        let leader = metadata.leader(&pair.target.topic, pair.target.partition);
        by_leader
            .entry(leader.map(|(broker, _)| broker))
            .or_default()
            .push((pair.target.clone(), id));
    }
    let deadline = Instant::now() + PATIENCE;
    let mut tasks = JoinSet::new();
    for copies in by_leader.into_values() {
        let target = target.clone();
        tasks.spawn(async move { bar(&target, copies, deadline).await });
    }
    let mut open = 0;
    while let Some(done) = tasks.join_next().await {
        let left = done.map_err(|error| CutoverError::failed(format!("a defect: {error}")))?;
        open += left?;
    }
    Ok(open)
}

/// Bars these until they are barred, or until the deadline; how many aren't.
async fn bar(
    target: &Cluster,
    mut open: Vec<Copied>,
    deadline: Instant,
) -> Result<usize, CutoverError> {
    let barring = async {
        loop {
            let asked: Vec<TopicPartition> = open.iter().map(|(at, _)| at.clone()).collect();
            let ids: HashMap<TopicPartition, i64> = open.iter().cloned().collect();
            let is_ours =
                move |at: &TopicPartition, it: &ProducerState| ids.get(at) == Some(&it.producer_id);
            let states = wire::describe_producers(target, &asked, is_ours).await;
            open.retain(|(at, id)| !is_barred(*id, states.get(at)));
            if open.is_empty() {
                return Ok(());
            }
            markers::write(target, lacking(target, &open, &states)).await?;
            tokio::time::sleep(AGAIN).await;
            // A leader that has moved is found by the next round.
            let _ = target.metadata(Some(&topics_of(&asked))).await;
        }
    };
    match timeout_at(deadline, barring).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) | Err(_) => Ok(open.len()),
    }
}

type Told = Result<Vec<ProducerState>, WireError>;

fn is_barred(producer_id: i64, told: Option<&Told>) -> bool {
    let known = told.and_then(|told| known(producer_id, told.as_ref().ok()?));
    known.is_some_and(|it| it.producer_epoch > COPYING_EPOCH)
}

fn known(producer_id: i64, states: &[ProducerState]) -> Option<&ProducerState> {
    states.iter().find(|it| it.producer_id == producer_id)
}

/// The markers that are missing, by leader; none where nobody told of the producers.
fn lacking(
    target: &Cluster,
    open: &[Copied],
    states: &HashMap<TopicPartition, Told>,
) -> BTreeMap<i32, Vec<Lacking>> {
    let metadata = target.cached();
    let mut by_leader: BTreeMap<i32, Vec<Lacking>> = BTreeMap::new();
    for (at, producer_id) in open {
        let (Some(Ok(states)), Some((leader, _))) =
            (states.get(at), metadata.leader(&at.topic, at.partition))
        else {
            continue;
        };
        let newest = known(*producer_id, states).map_or(0, |it| it.coordinator_epoch.max(0));
        let marker = Filler {
            producer_id: *producer_id,
            producer_epoch: 1,
            coordinator_epoch_first: newest,
        };
        by_leader
            .entry(leader)
            .or_default()
            .push((at.clone(), marker, 1));
    }
    by_leader
}
