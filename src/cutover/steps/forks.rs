//! Records where the two logs of each partition part, and in a planned failover proves that they
//! don't: nothing is lost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::batch;
use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::cutover::hidden::log_ends;
use crate::cutover::loss;
use crate::cutover::pairs::{Offsets, Pair, copied_end, ends, on_source, on_target};
use crate::state::{CutoverKind, EndsRecord, Fork, ForkRecord, SeenRecord, keys};
use crate::tasks::brought;
use crate::wire::{self, Cluster, OffsetSpec, TopicPartition};

/// How long the last batches are looked for.
const BATCHES_FOR: Duration = Duration::from_secs(3);
const FETCH_WAIT: Duration = Duration::from_millis(100);
const FETCH_BYTES: i32 = 32 * 1024 * 1024;
/// Partitions in one fetch.
const FETCH_AT_ONCE: usize = 200;

pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    // What the copying process wrote last was read with its end.
    let scene = &it.scene;
    let plan = it.journal.record.plan;
    let pairs = scene.pairs();
    let targets = on_target(&pairs);
    let target_ends = ends(&scene.target, &targets, OffsetSpec::Latest).await?;
    // What a replica that lags hides is copied, too.
    let target_ends = log_ends(&scene.target, target_ends).await?;
    let maps = scene.maps(&pairs)?;
    let kind = it.journal.record.kind;
    let proven = async {
        match kind.loses_nothing() {
            true => {
                refuse_late_topics(it).await?;
                prove_nothing_lost(it, &pairs, &target_ends).await
            }
            false => Ok(()),
        }
    };
    let batches = async { Ok(last_batches(&scene.target, &target_ends).await) };
    let ((), batches) = tokio::try_join!(proven, batches)?;
    let mut records: BTreeMap<String, ForkRecord> = BTreeMap::new();
    let mut already = 0;
    for pair in &pairs {
        let target_end = target_ends.get(&pair.target).copied().unwrap_or(0);
        let key = keys::fork(&scene.flow.name, &pair.source.topic);
        // What this plan has recorded stays: padding and clients may have moved the log since.
        let known: Option<ForkRecord> = scene.store.get(&key)?;
        if known.is_some_and(|known| known.plan == plan) {
            already += 1;
            continue;
        }
        let source_end = copied_end(pair, target_end, &maps);
        let (source_epoch, source_epoch_to) = source_epoch(scene, pair, kind, source_end);
        let fork = Fork {
            source_end,
            source_epoch,
            source_epoch_to,
            target_end,
            padded_end: target_end,
            observed_end: observed_end(scene, pair)?,
            last_batch: batches.get(&pair.target).copied(),
        };
        let record = records
            .entry(pair.source.topic.clone())
            .or_insert_with(|| ForkRecord {
                v: 1,
                plan,
                target_topic: pair.target.topic.clone(),
                mapped: false,
                partitions: Vec::new(),
            });
        record.mapped |= pair.mapped;
        record.partitions.push(fork);
    }
    let records: Vec<(String, ForkRecord)> = records
        .into_iter()
        .map(|(topic, record)| (keys::fork(&scene.flow.name, &topic), record))
        .collect();
    scene.store.put_all(&records).await?;
    Ok(format!("{} partition(s)", pairs.len().max(already)))
}

/// A topic that came after the fence was made is neither fenced nor copied, and nobody would copy it
/// later: then the other cluster is the primary.
async fn refuse_late_topics(it: &Cutover) -> Result<(), CutoverError> {
    let scene = &it.scene;
    scene.source.metadata(None).await?;
    let late = it.without_copy();
    let Some(first) = late.first() else {
        return Ok(());
    };
    Err(CutoverError::refused(format!(
        "{} topic(s) of {} were made or grew while this went on and aren't copied, such as {first}",
        late.len(),
        scene.source.name()
    ))
    .with_hint("run `--abort`, and begin again"))
}

/// Compares both clusters' ends once more.
async fn prove_nothing_lost(
    it: &Cutover,
    pairs: &[Pair],
    target_ends: &Offsets,
) -> Result<(), CutoverError> {
    let scene = &it.scene;
    let proven = it.proven_ends()?;
    let now = ends(&scene.source, &on_source(pairs), OffsetSpec::Latest).await?;
    let maps = scene.maps(pairs)?;
    let mut missing = 0;
    let mut named = Vec::new();
    for pair in pairs {
        let wanted = now.get(&pair.source).copied().unwrap_or(0);
        let end = target_ends.get(&pair.target).copied().unwrap_or(0);
        let copied = copied_end(pair, end, &maps);
        let same = proven.get(&pair.source) == Some(&wanted);
        if wanted > copied || !same {
            missing += (wanted - copied).max(0);
            named.push(pair.source.to_string());
        }
    }
    if named.is_empty() {
        return Ok(());
    }
    named.truncate(5);
    Err(CutoverError::refused(format!(
        "after the proof somebody wrote to the source: {missing} offset(s) aren't on the target \
         ({})",
        named.join(", ")
    ))
    .with_hint(
        "those writers aren't bound by ACLs (super users?): run `--abort`, stop them, begin again",
    ))
}

/// An epoch of the source, and up to where no record is of a later one. While the source is there its
/// leader's stands for all of the log; else what the copy had seen last.
fn source_epoch(scene: &Scene, pair: &Pair, kind: CutoverKind, source_end: i64) -> (i32, i64) {
    const UNKNOWN: (i32, i64) = (-1, -1);
    let at = &pair.source;
    if kind.loses_nothing() {
        let leader = scene.source.cached().leader(&at.topic, at.partition);
        return leader.map_or(UNKNOWN, |(_, epoch)| (epoch, source_end));
    }
    let key = keys::seen(&scene.flow.name, &at.topic);
    let seen: Option<SeenRecord> = scene.store.get(&key).ok().flatten();
    let index = usize::try_from(at.partition).ok();
    seen.zip(index)
        .and_then(|(seen, index)| Some((*seen.epochs.get(index)?, *seen.positions.get(index)?)))
        .unwrap_or(UNKNOWN)
}

fn observed_end(scene: &Scene, pair: &Pair) -> Result<i64, CutoverError> {
    let key = keys::ends(&scene.flow.name, &pair.source.topic);
    let record: Option<EndsRecord> = scene.store.get(&key)?;
    Ok(loss::observed_end(record.as_ref(), pair.source.partition).unwrap_or(-1))
}

/// Base offset and CRC of the batch at each log's end; what can't be had is left out.
async fn last_batches(target: &Cluster, ends: &Offsets) -> HashMap<TopicPartition, (i64, u32)> {
    let mut found = HashMap::new();
    let mut open: HashSet<&TopicPartition> = ends
        .iter()
        .filter(|(_, end)| **end > 0)
        .map(|(at, _)| at)
        .collect();
    let deadline = Instant::now() + BATCHES_FOR;
    while !open.is_empty() && Instant::now() < deadline {
        let metadata = target.cached();
        let mut by_leader: BTreeMap<i32, Vec<wire::FetchFrom>> = BTreeMap::new();
        for at in &open {
            if let Some((leader, epoch)) = metadata.leader(&at.topic, at.partition) {
                let from = ((*at).clone(), ends[*at] - 1, epoch);
                by_leader.entry(leader).or_default().push(from);
            }
        }
        let before = open.len();
        let mut asking = JoinSet::new();
        for (leader, asked) in by_leader {
            let target = target.clone();
            asking.spawn(async move { batches_at(&target, leader, &asked).await });
        }
        while let Some(answered) = asking.join_next().await {
            for (at, batch) in brought(answered) {
                open.remove(&at);
                found.insert(at, batch);
            }
        }
        if open.len() == before {
            break;
        }
    }
    found
}

/// The same of one leader's logs.
async fn batches_at(
    target: &Cluster,
    leader: i32,
    asked: &[wire::FetchFrom],
) -> HashMap<TopicPartition, (i64, u32)> {
    let mut found = HashMap::new();
    for chunk in asked.chunks(FETCH_AT_ONCE) {
        let answers = wire::fetch_many(target, leader, chunk, FETCH_WAIT, FETCH_BYTES).await;
        for (at, answer) in answers.unwrap_or_default() {
            let batch = answer.ok().and_then(|it| batch::split(it.records).next());
            if let Some(Ok(batch)) = batch {
                found.insert(at, (batch.header.base_offset, batch.header.crc));
            }
        }
    }
    found
}

pub(super) async fn undo(it: &mut Cutover) -> Result<String, CutoverError> {
    let scene = &it.scene;
    let plan = it.journal.record.plan;
    let mut gone = Vec::new();
    for topic in &scene.topics {
        let key = keys::fork(&scene.flow.name, &topic.name);
        let known: Option<ForkRecord> = scene.store.get(&key)?;
        if known.is_some_and(|known| known.plan == plan) {
            gone.push((key, None));
        }
    }
    let count = gone.len();
    scene.store.write_all(gone).await?;
    Ok(format!("the forks of {count} topic(s) are forgotten"))
}
