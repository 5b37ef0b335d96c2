//! Fills the target's logs with invisible markers past everything that the old primary can have.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::bar;
use super::markers::{self, Lacking};
use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::cutover::loss::Bound;
use crate::cutover::padding;
use crate::cutover::pairs::{Offsets, Pair, ends, on_target};
use crate::flow::fillers::Fillers;
use crate::flow::position::{self, Producers};
use crate::flow::{claim, restrain};
use crate::state::{ForkRecord, StepState, keys};
use crate::wire::{self, Filler, OffsetSpec, ProducerState, TopicPartition};

/// Without progress for this long it is given up.
const STANDS_STILL: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(100);
const TOLD_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let scene = &it.scene;
    scene.store.refresh().await?;
    let pairs = scene.pairs();
    let mut forks = restrain::forks(&scene.store, &scene.flow.name, &it.journal.record.topics)?;
    let bounds = bounds(it);
    let margin = it.options.padding;
    let goals: HashMap<TopicPartition, i64> = pairs
        .iter()
        .filter(|pair| !pair.mapped)
        .filter_map(|pair| {
            let number = usize::try_from(pair.source.partition).ok()?;
            let fork = forks.get(&pair.source.topic)?.partitions.get(number)?;
            let bound = bounds.get(&pair.source).copied().flatten();
            let goal = padding::padded_end(fork.target_end, bound, margin);
            Some((pair.target.clone(), goal))
        })
        .collect();
    let mapped = pairs.iter().filter(|pair| pair.mapped).count();
    let may_fill = wire::probe_marker_right(&scene.target).await?;
    if !may_fill {
        let problem = "offsets could not be padded: grant CLUSTER_ACTION on the cluster";
        it.journal.note("padding_problem", &problem);
        return Ok(problem.to_owned());
    }
    if mapped > 0 {
        let problem =
            format!("{mapped} mapped partition(s) have no padding: the map tells them apart");
        it.journal.note("padding_problem", &problem);
    }
    let open = bar::owner(it, &pairs).await?;
    if open > 0 {
        let problem = format!(
            "{open} partition(s) still take what the frozen Twinlog may send: end that process before clients write"
        );
        it.journal.note("padding_problem", &problem);
    }
    let written = fill(it, &goals).await?;
    let reached = ends(&scene.target, &on_target(&pairs), OffsetSpec::Latest).await?;
    note_padding(scene, &pairs, &reached, &mut forks).await?;
    it.journal.note("padding", &padding::cost(written));
    Ok(format!(
        "{written} offset(s) on {} partition(s)",
        goals.len()
    ))
}

/// The bounds that were found, as far as the journal has them.
fn bounds(it: &Cutover) -> HashMap<TopicPartition, Option<Bound>> {
    let bounds: Vec<(String, i32, Option<u64>)> = it.journal.fact("bounds").unwrap_or_default();
    bounds
        .into_iter()
        .map(|(topic, partition, records)| {
            let bound = records.map(|seen| Bound { seen, unseen: 0 });
            (TopicPartition::new(topic, partition), bound)
        })
        .collect()
}

/// Writes markers until every log reaches its goal; how many.
async fn fill(it: &Cutover, goals: &HashMap<TopicPartition, i64>) -> Result<u64, CutoverError> {
    let scene = &it.scene;
    let flow = scene.flow_record()?;
    // The stop has taken the claim: behind its epoch the fillers of an owner who was frozen are refused.
    let claim = claim::current(&scene.store, &scene.flow.name)?;
    let fillers = Fillers::known(&scene.store, &scene.flow.name)?;
    let generation = claim.map_or(0, |claim| claim.generation);
    let filler = Barring {
        producers: fillers.producers(flow.data_producer_id, flow.filler_producer_id),
        epoch: fillers.barring_epoch(generation),
    };
    let partitions: Vec<TopicPartition> = goals.keys().cloned().collect();
    let mut written = 0;
    let mut best = i64::MAX;
    let mut moved_at = Instant::now();
    let mut told_at = Instant::now();
    loop {
        // The ends first: a marker that lands in between is then one too many, never one missing.
        let now = ends(&scene.target, &partitions, OffsetSpec::Latest).await?;
        let left: i64 = goals.iter().map(|(at, goal)| left(&now, at, *goal)).sum();
        if left == 0 {
            return Ok(written);
        }
        if left < best {
            (best, moved_at) = (left, Instant::now());
        } else if moved_at.elapsed() >= STANDS_STILL {
            return Err(CutoverError::failed(format!(
                "{left} offset(s) of padding can't be written"
            ))
            .with_hint("see whether the standby's partitions have enough in-sync replicas"));
        } else {
            tokio::time::sleep(AGAIN).await;
        }
        if told_at.elapsed() >= TOLD_EVERY {
            told_at = Instant::now();
            (it.tell)(&format!("padding: {left} offset(s) left"));
        }
        it.still_ours().await?;
        written += round(scene, filler, &now, goals).await?;
    }
}

fn left(now: &Offsets, at: &TopicPartition, goal: i64) -> i64 {
    (goal - now.get(at).copied().unwrap_or(goal)).max(0)
}

/// One round over all partitions; how many markers were sent and taken.
async fn round(
    scene: &Scene,
    filler: Barring,
    now: &Offsets,
    goals: &HashMap<TopicPartition, i64>,
) -> Result<u64, CutoverError> {
    let target = &scene.target;
    let open: Vec<TopicPartition> = goals
        .iter()
        .filter(|(at, goal)| left(now, at, **goal) > 0)
        .map(|(at, _)| at.clone())
        .collect();
    let states = wire::describe_producers(target, &open).await;
    let metadata = target.cached();
    let mut by_leader: BTreeMap<i32, Vec<Lacking>> = BTreeMap::new();
    for at in open {
        let Some((leader, _)) = metadata.leader(&at.topic, at.partition) else {
            continue;
        };
        let newest = match states.get(&at) {
            Some(Ok(states)) => next(states, filler),
            _ => continue,
        };
        let count = left(now, &at, goals[&at]);
        by_leader
            .entry(leader)
            .or_default()
            .push((at, newest, count));
    }
    markers::write(target, by_leader).await
}

/// The flow's fillers, with an epoch that no owner before had.
#[derive(Clone, Copy)]
struct Barring {
    producers: Producers,
    epoch: i16,
}

/// The next filler of a partition whose leader knows these producers.
fn next(states: &[ProducerState], filler: Barring) -> Filler {
    let newest = position::newest_filler(states, filler.producers);
    let known = position::filler_epoch(states, filler.producers);
    Filler {
        producer_id: filler.producers.filler_id,
        producer_epoch: known.max(filler.epoch),
        coordinator_epoch_first: newest.unwrap_or(0).wrapping_add(1),
    }
}

async fn note_padding(
    scene: &Scene,
    pairs: &[Pair],
    reached: &Offsets,
    forks: &mut BTreeMap<String, ForkRecord>,
) -> Result<(), CutoverError> {
    for pair in pairs.iter().filter(|pair| !pair.mapped) {
        let number = usize::try_from(pair.source.partition).unwrap_or(usize::MAX);
        let fork = forks
            .get_mut(&pair.source.topic)
            .and_then(|fork| fork.partitions.get_mut(number));
        if let (Some(fork), Some(end)) = (fork, reached.get(&pair.target)) {
            fork.padded_end = *end;
        }
    }
    let records: Vec<(String, ForkRecord)> = forks
        .iter()
        .map(|(topic, fork)| (keys::fork(&scene.flow.name, topic), fork.clone()))
        .collect();
    Ok(scene.store.put_all(&records).await?)
}

/// What was padded stays padded: the copy could not go on at the same offsets.
pub(super) fn undo(it: &Cutover) -> Result<String, CutoverError> {
    let steps = &it.journal.record.steps;
    let step = steps
        .iter()
        .find(|step| step.step == super::Step::Pad.name());
    match step {
        Some(step) if step.state == StepState::Pending => Ok(String::new()),
        Some(_) if bar::is_needed(it) => Ok(
            "the frozen Twinlog stays barred: its copies can't be continued, only made anew"
                .to_owned(),
        ),
        Some(_) if it.options.padding > 0 => Ok("what was padded stays".to_owned()),
        _ => Ok(String::new()),
    }
}
