//! What was last seen of the source, kept on the target: all that tells, once the source is gone,
//! how much may be missing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::shared::Flow;
use crate::state::{EndsRecord, ObservedRecord, keys};
use crate::telemetry::progress::{
    FlowProgress, FlowState, PartitionProgress, PartitionState, now_ms,
};
use crate::wire::{self, OffsetSpec, TopicPartition};

/// How often ends are looked at; written only where they changed.
const EVERY: Duration = Duration::from_secs(2);
/// The first look: before it nothing is known.
const FIRST: Duration = Duration::from_secs(1);
/// How often it is written that the source was seen, while nothing moves.
const SEEN_EVERY: Duration = Duration::from_secs(10);
/// How often the ends of partitions are asked for that nobody fetches.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Of a rate that falls, this much stays from one look to the next: producers pause.
const RATE_KEPT: f64 = 0.7;
/// A rate below this is none.
const RATE_MIN: f64 = 0.5;

/// What the last look saw of a topic.
#[derive(Default)]
struct Last {
    at: Option<Instant>,
    ends: Vec<i64>,
    rates: Vec<f64>,
    written: Option<EndsRecord>,
}

/// Writes the source's ends until cancelled, and asks for those that nobody fetches.
pub async fn keep_ends(flow: Arc<Flow>, cancel: CancellationToken) {
    tokio::join!(keep(&flow, &cancel), ask_for_others(&flow, &cancel));
}

async fn keep(flow: &Flow, cancel: &CancellationToken) {
    let mut topics: HashMap<Arc<str>, Last> = HashMap::new();
    let mut written_at: Option<Instant> = None;
    let mut was_running = false;
    let mut pause = FIRST;
    while cancel
        .run_until_cancelled(tokio::time::sleep(pause))
        .await
        .is_some()
    {
        pause = EVERY;
        let is_running = flow.progress.state() == FlowState::Running;
        // Once more when the source is gone: what the copy saw of it until its last moment.
        let is_last = was_running && !is_running;
        was_running = is_running;
        if !is_running && !is_last {
            continue;
        }
        let Some(at_ms) = seen_ms(&flow.progress) else {
            continue;
        };
        let changed = look(flow, &mut topics, is_last);
        let is_due = written_at.is_none_or(|at| at.elapsed() >= SEEN_EVERY);
        if changed.is_empty() && !is_last && !is_due {
            continue;
        }
        let key = keys::observed(&flow.config.name);
        let written = match flow.store.put_all(&changed).await {
            Ok(()) => flow.store.put(&key, &ObservedRecord { v: 1, at_ms }).await,
            error => error,
        };
        match written {
            Ok(()) => written_at = Some(Instant::now()),
            Err(error) => tracing::debug!(%error, "the source's ends could not be stored"),
        }
    }
}

/// When all that is known of the source's ends was seen at least; `None` if it never was. Not the
/// present: a source that hangs isn't seen. Stopped partitions don't count: nobody fails over with
/// them.
fn seen_ms(progress: &FlowProgress) -> Option<i64> {
    let at_ms = progress.source_seen_ms.load(Ordering::Relaxed);
    let at_ms = (at_ms >= 0).then_some(at_ms)?;
    let ends = progress.partitions.iter().filter_map(|entry| {
        let of_one = entry.value();
        let is_known = of_one.source_high_watermark.load(Ordering::Relaxed) >= 0;
        let is_stopped = matches!(of_one.state(), (PartitionState::Stopped { .. }, _));
        let seen_ms = of_one.end_seen_ms(Some(at_ms));
        seen_ms.filter(|_| is_known && !is_stopped)
    });
    Some(ends.fold(at_ms, i64::min))
}

/// Nobody fetches a partition that is stopped, or that has no room for what would come. Its log
/// grows on the source all the same.
async fn ask_for_others(flow: &Flow, cancel: &CancellationToken) {
    while cancel
        .run_until_cancelled(tokio::time::sleep(ASK_EVERY))
        .await
        .is_some()
    {
        if flow.progress.state() != FlowState::Running {
            continue;
        }
        let others: HashMap<TopicPartition, Arc<PartitionProgress>> = flow
            .progress
            .partitions
            .iter()
            .filter(|entry| !entry.value().is_fetched())
            .map(|entry| {
                let (topic, partition) = entry.key();
                let at = TopicPartition::new(topic.to_string(), *partition);
                (at, entry.value().clone())
            })
            .collect();
        if others.is_empty() {
            continue;
        }
        let names: Vec<TopicPartition> = others.keys().cloned().collect();
        let asked_ms = now_ms();
        let asked = wire::list_offsets(&flow.source, &names, OffsetSpec::Latest);
        let Some(ends) = cancel.run_until_cancelled(asked).await else {
            return;
        };
        // Without a fetch nothing else says that the source is there.
        let is_all = others.len() == flow.progress.partitions.len();
        if is_all && ends.values().any(Result::is_ok) {
            flow.progress.note_source_seen(asked_ms);
        }
        for (at, end) in ends {
            if let (Ok(end), Some(progress)) = (end, others.get(&at)) {
                progress.note_source_end(end, asked_ms);
            }
        }
    }
}

fn look(
    flow: &Flow,
    topics: &mut HashMap<Arc<str>, Last>,
    is_last: bool,
) -> Vec<(String, EndsRecord)> {
    let mut now: HashMap<Arc<str>, EndsRecord> = HashMap::new();
    let mut sizes: HashMap<Arc<str>, (u64, u64)> = HashMap::new();
    for entry in &flow.progress.partitions {
        let (topic, partition) = entry.key();
        let progress = entry.value();
        let Ok(index) = usize::try_from(*partition) else {
            continue;
        };
        let record = now.entry(topic.clone()).or_default();
        if record.ends.len() <= index {
            record.ends.resize(index + 1, -1);
            // Until two looks tell better, what the data path has measured.
            record.per_second.resize(index + 1, 0);
        }
        record.per_second[index] = progress.rates().growth_per_second.max(0.0).ceil() as u64;
        record.ends[index] = progress.source_high_watermark.load(Ordering::Relaxed);
        if let (PartitionState::Stopped { reason, .. }, _) = progress.state() {
            record.stopped.insert(*partition, reason.to_owned());
        }
        let size = sizes.entry(topic.clone()).or_default();
        size.0 += progress.bytes.load(Ordering::Relaxed);
        size.1 += progress.records.load(Ordering::Relaxed);
    }
    topics.retain(|topic, _| now.contains_key(topic));
    let at = Instant::now();
    let mut changed = Vec::new();
    for (topic, mut record) in now {
        let key = keys::ends(&flow.config.name, &topic);
        let last = topics.entry(topic.clone()).or_insert_with(|| Last {
            written: flow.store.get(&key).ok().flatten(),
            ..Last::default()
        });
        // What was written by the process before stands until this one has seen better.
        if let Some(written) = &last.written {
            keep_known(&mut record, written);
        }
        last.rates = match last.at {
            None => record.per_second.iter().map(|rate| *rate as f64).collect(),
            // The source died somewhen since the last look: nothing slowed down before.
            Some(_) if is_last && last.rates.len() == record.ends.len() => last.rates.clone(),
            Some(then) => {
                let seconds = (at - then).as_secs_f64();
                rates(&last.ends, &last.rates, &record.ends, seconds)
            }
        };
        last.ends.clone_from(&record.ends);
        last.at = Some(at);
        record.v = 1;
        record.at_ms = now_ms();
        record.per_second = last.rates.iter().map(|rate| rate.ceil() as u64).collect();
        publish(flow, &topic, &record.per_second);
        if let Some((bytes, records)) = sizes.get(&topic)
            && *records > 0
        {
            record.record_bytes = bytes / records;
        }
        if last.written.as_ref().is_none_or(|it| differs(it, &record)) {
            last.written = Some(record.clone());
            changed.push((key, record));
        }
    }
    changed
}

/// Shows the rates to those who look at the running flow.
fn publish(flow: &Flow, topic: &Arc<str>, per_second: &[u64]) {
    for (number, rate) in (0..).zip(per_second) {
        if let Some(progress) = flow.progress.partitions.get(&(topic.clone(), number)) {
            progress.source_per_second.store(*rate, Ordering::Relaxed);
        }
    }
}

/// Ends that aren't known yet, just after a start, don't cover those that were.
fn keep_known(record: &mut EndsRecord, written: &EndsRecord) {
    for (end, known) in record.ends.iter_mut().zip(&written.ends) {
        if *end < 0 {
            *end = *known;
        }
    }
    if record.record_bytes == 0 {
        record.record_bytes = written.record_bytes;
    }
}

/// Records per second of each partition. A rate rises at once and falls slowly.
fn rates(before: &[i64], rates: &[f64], now: &[i64], seconds: f64) -> Vec<f64> {
    now.iter()
        .enumerate()
        .map(|(index, end)| {
            let kept = rates.get(index).map_or(0.0, |rate| rate * RATE_KEPT);
            let rate = match before.get(index) {
                Some(before) if *before >= 0 && seconds > 0.0 => {
                    (end - before).max(0) as f64 / seconds
                }
                _ => 0.0,
            };
            let rate = rate.max(kept);
            if rate < RATE_MIN { 0.0 } else { rate }
        })
        .collect()
}

/// Whether anything but the time and the mean size is another.
fn differs(before: &EndsRecord, now: &EndsRecord) -> bool {
    let parts = |it: &EndsRecord| -> (Vec<i64>, Vec<u64>, BTreeMap<i32, String>) {
        (it.ends.clone(), it.per_second.clone(), it.stopped.clone())
    };
    parts(before) != parts(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_rises_at_once_and_falls_to_nothing() {
        assert_eq!(rates(&[], &[], &[5], 2.0), [0.0], "a new partition");
        let mut rate = rates(&[100], &[0.0], &[300], 2.0);
        assert_eq!(rate, [100.0]);
        let mut looks = 0;
        while rate != [0.0] {
            rate = rates(&[300], &rate, &[300], 2.0);
            looks += 1;
            assert!(looks < 30, "a quiet topic must become silent: {rate:?}");
        }
        assert!(looks > 3, "a pause of a producer isn't its end");
        assert_eq!(rates(&[-1], &[0.0], &[300], 2.0), [0.0], "unknown");
        assert_eq!(rates(&[9], &[0.0], &[3], 2.0), [0.0], "cut");
    }

    #[test]
    fn what_is_stored_is_as_old_as_the_oldest_end() {
        let flow = FlowProgress::new("dr", "primary", "standby");
        assert_eq!(seen_ms(&flow), None, "it never was");
        flow.note_source_seen(9_000);
        let topic: Arc<str> = "orders".into();
        for number in 0..4 {
            let partition = flow.partition(&topic, number);
            partition.set_state(PartitionState::Copying);
            partition.note_source_end(5, 1_000);
            partition.set_fetched(true, 1_000);
        }
        assert_eq!(seen_ms(&flow), Some(9_000), "every answer tells all ends");
        flow.partition(&topic, 1).set_fetched(false, 7_000);
        assert_eq!(seen_ms(&flow), Some(7_000), "it has no room");
        flow.partition(&topic, 2).set_fetched(false, 3_000);
        flow.partition(&topic, 2)
            .set_state(PartitionState::Stopped {
                reason: "gap",
                detail: String::new(),
            });
        assert_eq!(seen_ms(&flow), Some(7_000), "a stopped one doesn't count");
    }

    #[test]
    fn what_is_not_known_yet_covers_nothing_that_was() {
        let written = EndsRecord {
            ends: vec![7, 8],
            record_bytes: 10,
            ..EndsRecord::default()
        };
        let mut record = EndsRecord {
            ends: vec![-1, 9, -1],
            ..EndsRecord::default()
        };
        keep_known(&mut record, &written);
        assert_eq!((record.ends, record.record_bytes), (vec![7, 9, -1], 10));
    }

    #[test]
    fn what_stands_still_is_not_written_again() {
        let before = EndsRecord {
            v: 1,
            at_ms: 1,
            ends: vec![7],
            per_second: vec![0],
            record_bytes: 10,
            ..EndsRecord::default()
        };
        let later = EndsRecord {
            at_ms: 2,
            record_bytes: 11,
            ..before.clone()
        };
        assert!(!differs(&before, &later));
        let moved = EndsRecord {
            ends: vec![8],
            ..later
        };
        assert!(differs(&before, &moved));
    }
}
