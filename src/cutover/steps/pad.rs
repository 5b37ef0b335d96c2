//! Fills the target's logs with invisible markers past everything that the old primary can have.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kafka_protocol::messages::WriteTxnMarkersRequest;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::cutover::loss::Bound;
use crate::cutover::padding;
use crate::cutover::pairs::{Offsets, Pair, ends, on_target};
use crate::flow::{claim, restrain};
use crate::state::{FlowRecord, ForkRecord, StepState, keys};
use crate::wire::{
    self, Cluster, Filler, OffsetSpec, ProducerState, Role, TopicPartition, WireError,
};

/// Markers in one request.
const AT_ONCE: usize = 2_000;
/// Requests on their way to one broker; it works on one at a time.
const IN_FLIGHT: usize = 4;
/// Connections to one broker, which works on one request of each at a time. Nothing else waits
/// behind markers there.
const LANES: u16 = 2;
/// The first of them.
const LANE_FIRST: u16 = 64;
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
    let key = keys::flow(&scene.flow.name);
    let flow: FlowRecord = scene
        .store
        .get(&key)?
        .ok_or_else(|| CutoverError::failed(format!("{key} is missing")))?;
    // The stop has taken the claim: behind its epoch the fillers of an owner who was frozen are refused.
    let claim = claim::current(&scene.store, &scene.flow.name)?;
    let filler = Filler {
        producer_id: flow.filler_producer_id,
        producer_epoch: claim::filler_epoch(claim.map_or(0, |claim| claim.generation)),
        coordinator_epoch_first: 0,
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
        written += round(scene, filler, &now, goals).await?;
    }
}

fn left(now: &Offsets, at: &TopicPartition, goal: i64) -> i64 {
    (goal - now.get(at).copied().unwrap_or(goal)).max(0)
}

/// One round over all partitions; how many markers were sent and taken.
async fn round(
    scene: &Scene,
    filler: Filler,
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
    let mut tasks = JoinSet::new();
    for (leader, work) in by_leader {
        // A partition has one lane: its markers keep their order.
        for (lane, work) in (LANE_FIRST..).zip(shares(work)) {
            let target = target.clone();
            tasks.spawn(async move { on_one_lane(&target, leader, lane, work).await });
        }
    }
    let mut written = 0;
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(Ok(count)) => written += count,
            // The next round asks where the logs end and goes on.
            Ok(Err(error)) => tracing::debug!(%error, "padding"),
            Err(error) => return Err(CutoverError::failed(format!("a defect: {error}"))),
        }
    }
    Ok(written)
}

/// A partition, its next filler, and how many it lacks.
type Lacking = (TopicPartition, Filler, i64);

/// The next filler of a partition whose leader knows these producers.
fn next(states: &[ProducerState], filler: Filler) -> Filler {
    let newest = states
        .iter()
        .find(|it| it.producer_id == filler.producer_id);
    let epoch = newest.and_then(|it| i16::try_from(it.producer_epoch).ok());
    Filler {
        producer_epoch: epoch.unwrap_or(0).max(filler.producer_epoch),
        coordinator_epoch_first: newest.map_or(0, |it| it.coordinator_epoch).wrapping_add(1),
        ..filler
    }
}

fn shares(work: Vec<Lacking>) -> Vec<Vec<Lacking>> {
    let mut shares = vec![Vec::new(); usize::from(LANES)];
    for (index, lacking) in work.into_iter().enumerate() {
        shares[index % usize::from(LANES)].push(lacking);
    }
    shares.retain(|share| !share.is_empty());
    shares
}

async fn on_one_lane(
    target: &Cluster,
    leader: i32,
    lane: u16,
    work: Vec<Lacking>,
) -> Result<u64, WireError> {
    let connection = target.connection(leader, Role::Produce(lane)).await?;
    let mut on_the_way = std::collections::VecDeque::new();
    let mut markers = Vec::new();
    let mut written = 0;
    let send = |markers: &mut Vec<_>| {
        let request = WriteTxnMarkersRequest::default().with_markers(std::mem::take(markers));
        let count = request.markers.len() as u64;
        connection
            .start(&request, 1)
            .map(|pending| (count, pending))
    };
    for (at, mut filler, count) in work {
        let mut left = u32::try_from(count).unwrap_or(u32::MAX);
        while left > 0 {
            let room = u32::try_from(AT_ONCE - markers.len()).unwrap_or(1);
            let some = left.min(room);
            let request = wire::write_markers_request(&at.topic, at.partition, filler, some);
            markers.extend(request.markers);
            let number = filler.coordinator_epoch_first;
            filler.coordinator_epoch_first = number.wrapping_add(some.cast_signed());
            left -= some;
            if markers.len() >= AT_ONCE {
                on_the_way.push_back(send(&mut markers)?);
            }
            if on_the_way.len() >= IN_FLIGHT
                && let Some((count, pending)) = on_the_way.pop_front()
            {
                pending.await?;
                written += count;
            }
        }
    }
    if !markers.is_empty() {
        on_the_way.push_back(send(&mut markers)?);
    }
    for (count, pending) in on_the_way {
        pending.await?;
        written += count;
    }
    Ok(written)
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
        Some(step) if step.state != StepState::Pending && it.options.padding > 0 => {
            Ok("what was padded stays".to_owned())
        }
        _ => Ok(String::new()),
    }
}
