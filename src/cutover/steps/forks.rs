//! Records where the two logs of each partition part, and in a planned failover proves that they
//! don't: nothing is lost.

use std::collections::BTreeMap;

use super::Step;
use crate::cutover::context::{Cutover, Scene};
use crate::cutover::error::CutoverError;
use crate::cutover::hidden::{hidden, log_ends};
use crate::cutover::loss;
use crate::cutover::pairs::{
    Offsets, Pair, copied_end, ends, leaders, on_source, on_target, one_of_each_leader,
};
use crate::state::{CutoverKind, EndsRecord, Fork, ForkRecord, SeenRecord, StateStore, keys};
use crate::wire::{OffsetSpec, TopicPartition};

/// The forks are written with the note that this step is begun.
pub(super) async fn apply(it: &mut Cutover) -> Result<String, CutoverError> {
    // What the copying process wrote last was read with its end.
    let scene = &it.scene;
    let plan = it.journal.record.plan;
    let pairs = scene.pairs();
    let targets = on_target(&pairs);
    let kind = it.journal.record.kind;
    let on_target = true_ends(it, &pairs, &targets);
    let on_source = async {
        match kind.loses_nothing() {
            true => {
                let asked = on_source(&pairs);
                let ends = ends(&scene.source, &asked, OffsetSpec::Latest);
                let described = async { Ok::<_, CutoverError>(scene.source.metadata(None).await?) };
                let (_, ends) = tokio::try_join!(described, ends)?;
                refuse_late_topics(it)?;
                Ok::<_, CutoverError>(Some(ends))
            }
            false => Ok(None),
        }
    };
    let (target_ends, source_ends) = tokio::try_join!(on_target, on_source)?;
    let maps = scene.maps(&pairs)?;
    if let Some(now) = source_ends {
        prove_nothing_lost(it, &pairs, &now, &target_ends)?;
    }
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
    let flow = &scene.flow.name;
    let records = records.into_iter();
    let records = records
        .map(|(topic, record)| StateStore::record(keys::fork(flow, &topic), &record))
        .collect::<Result<_, _>>()?;
    it.journal.begin_ahead_of(Step::Forks);
    it.journal.write_with(records).await?;
    Ok(format!("{} partition(s)", pairs.len().max(already)))
}

/// Where the copies end. What a replica that lags hides is copied, too.
///
/// Clients wait, and the target may be far away: where it is known already where the copies should end, what lies there
/// is asked for with the ends. Where they are others, or leaders have moved, it is asked for again behind them.
async fn true_ends(
    it: &Cutover,
    pairs: &[Pair],
    targets: &[TopicPartition],
) -> Result<Offsets, CutoverError> {
    let target = &it.scene.target;
    let wanted = wanted_ends(it, pairs)?;
    let led = leaders(target, targets);
    let (seen, behind) = tokio::join!(
        ends(target, targets, OffsetSpec::Latest),
        hidden(target, &wanted),
    );
    let seen = seen?;
    let ends_there = behind.is_ok_and(|behind| behind.is_empty());
    if ends_there && seen == wanted && leaders(target, targets) == led {
        return Ok(wanted);
    }
    log_ends(target, seen).await
}

/// Where the copies should end by what was proven of the source; empty where nothing was.
fn wanted_ends(it: &Cutover, pairs: &[Pair]) -> Result<Offsets, CutoverError> {
    if !it.journal.record.kind.loses_nothing() {
        return Ok(Offsets::new());
    }
    let proven = it.proven_ends()?;
    let maps = it.scene.maps(pairs)?;
    let end = |pair: &Pair| {
        let end = match maps.get(&pair.source) {
            Some(map) => map.target_end().0,
            None => *proven.get(&pair.source)?,
        };
        Some((pair.target.clone(), end))
    };
    Ok(pairs.iter().filter_map(end).collect())
}

/// Asks what this step asks of the target, for the connections alone.
pub(super) async fn connect(it: &Cutover) {
    let target = &it.scene.target;
    let partitions = one_of_each_leader(target, on_target(&it.scene.pairs()));
    if let Ok(seen) = ends(target, &partitions, OffsetSpec::Latest).await {
        let _ = log_ends(target, seen).await;
    }
}

/// A topic that came after the fence was made is neither fenced nor copied, and nobody would copy it
/// later: then the other cluster is the primary. The source was described just now.
pub(super) fn refuse_late_topics(it: &Cutover) -> Result<(), CutoverError> {
    let late = it.without_copy();
    let Some(first) = late.first() else {
        return Ok(());
    };
    Err(CutoverError::refused(format!(
        "{} topic(s) of {} were made or grew while this went on and aren't copied, such as {first}",
        late.len(),
        it.scene.source.name()
    ))
    .with_hint(
        "run `--abort`, and begin again; if clients write to the standby already, leave these topics to the source \
         (`topics.exclude`) and run this again",
    ))
}

/// Compares both clusters' ends once more.
fn prove_nothing_lost(
    it: &Cutover,
    pairs: &[Pair],
    now: &Offsets,
    target_ends: &Offsets,
) -> Result<(), CutoverError> {
    let scene = &it.scene;
    let proven = it.proven_ends()?;
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
    match named.is_empty() {
        true => Ok(()),
        false => Err(written_behind(missing, named)),
    }
}

/// Partitions of the source have records that came after the proof.
pub(super) fn written_behind(missing: i64, mut named: Vec<String>) -> CutoverError {
    named.truncate(5);
    CutoverError::refused(format!(
        "after the proof somebody wrote to the source: {missing} offset(s) aren't on the target \
         ({})",
        named.join(", ")
    ))
    .with_hint(
        "those writers aren't bound by ACLs (super users?): run `--abort`, stop them, begin again",
    )
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
