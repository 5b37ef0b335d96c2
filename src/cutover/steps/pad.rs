//! Fills the target's logs with invisible markers past everything that the old primary can have.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::bar;
use super::behind::{self, Padded};
use super::markers::{self, Lacking};
use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::cutover::journal::fact;
use crate::cutover::padding::{self, OFFSETS_MAX, PaddingCost, Reach, SECONDS_MAX};
use crate::cutover::pairs::{Offsets, Pair, topics_of};
use crate::flow::fillers::Fillers;
use crate::flow::position::{self, Producers};
use crate::flow::{claim, restrain};
use crate::state::{CutoverRecord, ForkRecord, StepState, keys};
use crate::wire::{self, Filler, OffsetSpec, ProducerState, TopicPartition};

/// Without progress for this long it is given up.
const STANDS_STILL: Duration = Duration::from_secs(15);
/// How long the others wait for a broker that doesn't say where its logs end.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// And for one that doesn't tell of its producers, and so much longer for each partition.
const PATIENCE: Duration = Duration::from_secs(8);
const PER_PARTITION: Duration = Duration::from_millis(2);
/// More partitions are counted, not named.
const NAMED_MAX: usize = 5;
const AGAIN: Duration = Duration::from_millis(100);
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// In the journal: how long it has been written so far.
const SPENT_MS: &str = "padding_ms";

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    let scene = &it.scene;
    scene.store.refresh().await?;
    let pairs = scene.pairs();
    let mut forks = restrain::forks(&scene.store, &scene.flow.name, &it.journal.record.topics)?;
    let Goals { ends: goals, short } = goals(it, &pairs, &forks);
    let mapped = pairs.iter().filter(|pair| pair.mapped).count();
    let mut problems = Vec::new();
    let may_fill = wire::probe_marker_right(&scene.target).await?;
    if !may_fill {
        let problem = "offsets could not be padded: grant CLUSTER_ACTION on the cluster";
        it.journal.note("padding_problem", &problem);
        return Ok(problem.to_owned());
    }
    if mapped > 0 {
        let problem = "mapped partition(s) have no padding: the map tells them apart";
        problems.push(format!("{mapped} {problem}"));
    }
    let open = bar::owner(it, &pairs).await?;
    if open > 0 {
        problems.push(format!(
            "{open} partition(s) still take what the frozen Twinlog may send: end that process before clients write"
        ));
    }
    let began = Instant::now();
    // What a run before this one, that was killed, has needed counts as well.
    let before_ms: u64 = it.journal.fact(SPENT_MS).unwrap_or(0);
    let filled = fill(it, &goals, began, before_ms).await?;
    let scene = &it.scene;
    let seconds = (before_ms + millis(began)).div_ceil(1_000);
    let lacking = filled.lacking();
    note_padding(scene, &pairs, &filled.ends, &mut forks).await?;
    let written = padding_of(&pairs, &forks);
    it.still_ours().await?;
    let behind = behind::bring(scene, &padded(&pairs, &forks, &lacking)).await;
    if !lacking.is_empty() {
        problems.push(in_words(&lacking));
    }
    if !short.is_empty() {
        problems.push(short_in_words(&short));
    }
    if !problems.is_empty() {
        it.journal.note("padding_problem", &problems.join("; "));
    }
    if let Some(line) = behind.in_words() {
        it.journal.note("behind_padding", &line);
    }
    let cost = PaddingCost {
        short_partitions: u64::try_from(short.len()).unwrap_or(u64::MAX),
        ..PaddingCost::of(written, seconds)
    };
    it.journal.note("padding", &cost);
    Ok(format!(
        "{written} offset(s) on {} partition(s)",
        goals.len() - lacking.len()
    ))
}

/// The offsets of all padding, whoever wrote it. Not what was asked for: an answer may be a refusal.
fn padding_of(pairs: &[Pair], forks: &BTreeMap<String, ForkRecord>) -> u64 {
    let of_each = pairs.iter().filter(|pair| !pair.mapped).filter_map(|pair| {
        let number = usize::try_from(pair.source.partition).ok()?;
        let fork = forks.get(&pair.source.topic)?.partitions.get(number)?;
        u64::try_from(fork.padded_end - fork.target_end).ok()
    });
    of_each.sum()
}

/// The logs that were padded as far as they have to be.
fn padded(
    pairs: &[Pair],
    forks: &BTreeMap<String, ForkRecord>,
    lacking: &[String],
) -> HashMap<TopicPartition, Padded> {
    let padded = pairs.iter().filter(|pair| !pair.mapped).filter_map(|pair| {
        let number = usize::try_from(pair.source.partition).ok()?;
        let fork = forks.get(&pair.source.topic)?.partitions.get(number)?;
        let (fork, end) = (fork.target_end, fork.padded_end);
        Some((pair.target.clone(), Padded { fork, end }))
    });
    let lacking: HashSet<&String> = lacking.iter().collect();
    padded
        .filter(|(at, _)| !lacking.contains(&at.to_string()))
        .collect()
}

/// How far the old primary may have gone, by source partition, as the bound has noted it. A plan that an older version
/// began has the records that may be missing in its stead.
fn reaches(record: &CutoverRecord) -> HashMap<TopicPartition, Reach> {
    let reaches = fact::<Vec<(String, i32, Reach)>>(record, "reaches");
    let reaches = reaches.unwrap_or_else(|| {
        let bounds = fact::<Vec<(String, i32, Option<u64>)>>(record, "bounds").unwrap_or_default();
        let bounds = bounds.into_iter();
        bounds
            .map(|(topic, partition, records)| (topic, partition, Reach::of_records(records)))
            .collect()
    });
    let reaches = reaches.into_iter();
    reaches
        .map(|(topic, partition, reach)| (TopicPartition::new(topic, partition), reach))
        .collect()
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Where logs have to end.
struct Goals {
    ends: HashMap<TopicPartition, i64>,
    /// Those that would need more.
    short: Vec<String>,
}

/// Where each log has to end, by the bounds that were found. What the journal has nothing of is unknown.
fn goals(it: &Cutover, pairs: &[Pair], forks: &BTreeMap<String, ForkRecord>) -> Goals {
    let found = reaches(&it.journal.record);
    let (padded, reaches): (Vec<(&Pair, i64)>, Vec<Reach>) = pairs
        .iter()
        .filter(|pair| !pair.mapped)
        .filter_map(|pair| {
            let number = usize::try_from(pair.source.partition).ok()?;
            let fork = forks.get(&pair.source.topic)?.partitions.get(number)?;
            let reach = found.get(&pair.source).copied().unwrap_or(Reach::UNKNOWN);
            Some(((pair, fork.target_end), reach))
        })
        .unzip();
    let passed = padding::passed(&reaches, it.options.padding);
    let short = passed
        .short
        .iter()
        .map(|place| padded[*place].0.target.to_string());
    let short = short.collect();
    let goals = padded.into_iter().zip(passed.offsets);
    let ends = goals
        .map(|((pair, fork), offsets)| (pair.target.clone(), padding::padded_end(fork, offsets)))
        .collect();
    Goals { ends, short }
}

/// What was filled, and where nobody could.
#[derive(Default)]
struct Filled {
    /// Where the logs ended when that was asked last.
    ends: Offsets,
    /// Without an answer from their leader.
    silent: Vec<TopicPartition>,
    /// Short of their goals, with a leader that takes no more.
    short: Vec<TopicPartition>,
}

impl Filled {
    fn lacking(&self) -> Vec<String> {
        let lacking = self.silent.iter().chain(&self.short);
        let mut names: Vec<String> = lacking.map(ToString::to_string).collect();
        names.sort();
        names
    }
}

/// The partitions that stay without padding.
fn in_words(lacking: &[String]) -> String {
    format!(
        "{} partition(s) couldn't be padded, for their brokers don't answer, take nothing or needed more than \
         {SECONDS_MAX} s: {}. What is stranded of them on the old primary may have the same offsets as new records",
        lacking.len(),
        named(lacking)
    )
}

/// Those that get less than they may need.
fn short_in_words(short: &[String]) -> String {
    format!(
        "{} partition(s) were padded less than may be needed, as no more than {OFFSETS_MAX} offsets are passed in all: {}. \
         What is stranded of them on the old primary may have the same offsets as new records",
        short.len(),
        named(short)
    )
}

fn named(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(NAMED_MAX).map(String::as_str).collect();
    match names.len().saturating_sub(NAMED_MAX) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Writes markers until every log reaches its goal. A broker that goes away holds up nobody else's: its partitions
/// are asked for again when the others are done, and left out if it doesn't come back.
///
/// # Errors
/// When this plan is somebody else's by now, or its state can't be read.
async fn fill(
    it: &mut Cutover,
    goals: &HashMap<TopicPartition, i64>,
    began: Instant,
    before_ms: u64,
) -> Result<Filled, CutoverError> {
    let deadline = began + Duration::from_secs(SECONDS_MAX);
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
    let mut filled = Filled::default();
    let mut open: Vec<TopicPartition> = goals.keys().cloned().collect();
    let mut best = i64::MAX;
    let mut moved_at = Instant::now();
    let mut told_at = Instant::now();
    loop {
        let scene = &it.scene;
        let patience = scene.target.or_longer(ANSWERS_WITHIN);
        if open.is_empty() {
            if filled.silent.is_empty() || moved_at.elapsed() >= STANDS_STILL {
                return Ok(filled);
            }
            tokio::time::sleep(AGAIN).await;
            // They may have new leaders. If nobody answers, the next round says so.
            let topics = topics_of(&filled.silent);
            let described = scene.target.metadata(Some(&topics));
            let _ = tokio::time::timeout(patience, described).await;
            open = std::mem::take(&mut filled.silent);
            best = i64::MAX;
        }
        // The ends first: a marker that lands in between is then one too many, never one missing.
        let latest = OffsetSpec::Latest;
        let answers = wire::list_offsets_within(&scene.target, &open, latest, patience).await;
        let mut now = Offsets::new();
        for (at, answer) in answers {
            match answer {
                Ok(end) => drop(now.insert(at, end)),
                Err(_) => filled.silent.push(at),
            }
        }
        filled
            .ends
            .extend(now.iter().map(|(at, end)| (at.clone(), *end)));
        open = now.keys().cloned().collect();
        open.retain(|at| left(&now, at, goals[at]) > 0);
        let left: i64 = open.iter().map(|at| left(&now, at, goals[at])).sum();
        if left == 0 {
            continue;
        }
        if left < best {
            (best, moved_at) = (left, Instant::now());
        } else if moved_at.elapsed() >= STANDS_STILL {
            filled.short = open;
            return Ok(filled);
        } else {
            tokio::time::sleep(AGAIN).await;
        }
        if Instant::now() >= deadline {
            filled.short = open;
            return Ok(filled);
        }
        if told_at.elapsed() >= TOLD_EVERY {
            told_at = Instant::now();
            (it.tell)(&format!("padding: {left} offset(s) left"));
            it.journal.note(SPENT_MS, &(before_ms + millis(began)));
            it.journal.save().await?;
        }
        it.still_ours().await?;
        let round = round(&it.scene, filler, &now, goals, &open);
        // Where the time is over the ends are asked for once more: what was taken counts.
        if let Ok(done) = timeout_at(deadline, round).await {
            done?;
        }
    }
}

fn left(now: &Offsets, at: &TopicPartition, goal: i64) -> i64 {
    (goal - now.get(at).copied().unwrap_or(goal)).max(0)
}

/// How long the others wait for a broker that doesn't tell of its producers: many partitions are asked about in many
/// questions, one after the other.
fn producers_patience(partitions: usize) -> Duration {
    let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
    PATIENCE.saturating_add(PER_PARTITION.saturating_mul(partitions))
}

/// One round over all partitions.
async fn round(
    scene: &Scene,
    filler: Barring,
    now: &Offsets,
    goals: &HashMap<TopicPartition, i64>,
    open: &[TopicPartition],
) -> Result<(), CutoverError> {
    let target = &scene.target;
    let is_ours =
        move |_: &TopicPartition, it: &ProducerState| filler.producers.is_ours(it.producer_id);
    let told = wire::describe_producers(target, open, is_ours);
    let patience = producers_patience(open.len());
    let states = tokio::time::timeout(patience, told)
        .await
        .unwrap_or_default();
    let metadata = target.cached();
    let mut by_leader: BTreeMap<i32, Vec<Lacking>> = BTreeMap::new();
    for at in open {
        let Some((leader, _)) = metadata.leader(&at.topic, at.partition) else {
            continue;
        };
        let newest = match states.get(at) {
            Some(Ok(states)) => next(states, filler),
            _ => continue,
        };
        let count = left(now, at, goals[at]);
        by_leader
            .entry(leader)
            .or_default()
            .push((at.clone(), newest, count));
    }
    for work in by_leader.values_mut() {
        // The hungry ones first: who waits for the last of them waits for nobody else.
        work.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{CutoverKind, CutoverState, Operator, TopicSet};

    fn noted(facts: serde_json::Value) -> HashMap<TopicPartition, Reach> {
        let record = CutoverRecord {
            v: 1,
            plan: uuid::Uuid::nil(),
            kind: CutoverKind::Unplanned,
            state: CutoverState::Open,
            topics: TopicSet::All,
            operator: Operator::default(),
            began_ms: 0,
            role_before: None,
            fence: String::new(),
            padding: 1_000,
            accept_loss: None,
            steps: Vec::new(),
            facts: serde_json::from_value(facts).expect("facts"),
        };
        reaches(&record)
    }

    #[test]
    fn a_plan_of_an_older_version_is_padded_by_the_bounds_that_it_has() {
        let older =
            serde_json::json!({"bounds": [["t", 0, 5_000_000], ["t", 1, 0], ["t", 2, null]]});
        let found = noted(older);
        let reach = |number| found[&TopicPartition::new("t", number)];
        let wide = padding::offsets(&[reach(0), reach(1), reach(2)], 1_000);
        assert_eq!(
            wide,
            [10_001_000, 1_000, 10_000],
            "nobody noted for how long it had rested"
        );
        let both = noted(serde_json::json!({
            "bounds": [["t", 0, 5_000_000]],
            "reaches": [["t", 0, {"seen": 1, "unseen": 2, "is_quiet": false}]],
        }));
        let reach = both[&TopicPartition::new("t", 0)];
        assert_eq!(padding::offsets(&[reach], 1_000), [1_005]);
    }
}
