//! What was last seen of the source, kept on the target: all that tells, once the source is gone,
//! how much may be missing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::missed::Before;
use super::shared::Flow;
use crate::state::{EndsRecord, ObservedRecord, keys};
use crate::telemetry::progress::{
    FlowProgress, FlowState, PartitionProgress, PartitionState, is_set_back, now_ms,
};
use crate::telemetry::up_to_date::Standing;
use crate::wire::{self, OffsetSpec, TopicPartition};

/// How often ends are looked at; written only where they changed.
const EVERY: Duration = Duration::from_secs(2);
/// The first looks: before the first nothing is known, before the second no rate.
const FIRST: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(750)];
/// How often it is written that the source was seen, while nothing moves.
const SEEN_EVERY: Duration = Duration::from_secs(10);
/// How often the ends of partitions are asked for that nobody fetches.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How long the others wait for a broker that doesn't answer.
const LOOK_FOR: Duration = Duration::from_secs(5);
/// Of a rate that falls, this much stays from one look to the next: producers pause.
const RATE_KEPT: f64 = 0.7;
/// A rate below this is none.
const RATE_MIN: f64 = 0.5;
/// A rate isn't measured over less.
const MEASURED_SECONDS_MIN: f64 = 0.5;

/// What the looks before saw of a topic.
#[derive(Default)]
struct Last {
    partitions: Vec<Growth>,
    written: Option<EndsRecord>,
    /// Whether it surely is.
    is_stored: bool,
}

/// How fast a partition of the source grows.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Growth {
    /// Where it ended; -1 while unknown.
    end: i64,
    /// When it was seen to end there, milliseconds since the epoch. Not when we looked: what a source
    /// that hangs, or a process without a processor, doesn't show isn't rest.
    seen_ms: i64,
    /// Records per second; `None` until it was seen twice.
    per_second: Option<f64>,
}

/// Writes the source's ends until cancelled, and asks for those that nobody fetches.
pub async fn keep_ends(flow: Arc<Flow>, cancel: CancellationToken) {
    tokio::join!(keep(&flow, &cancel), ask_for_others(&flow, &cancel));
}

async fn keep(flow: &Flow, cancel: &CancellationToken) {
    let mut topics: HashMap<Arc<str>, Last> = HashMap::new();
    let mut written_at: Option<Instant> = None;
    let mut was_running = false;
    let mut pauses = FIRST.into_iter();
    let mut pause = pauses.next().unwrap_or(EVERY);
    while cancel
        .run_until_cancelled(tokio::time::sleep(pause))
        .await
        .is_some()
    {
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
        pause = pauses.next().unwrap_or(EVERY);
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
            Err(error) => {
                // What is stored isn't what was seen: it must not count as unchanged.
                for last in topics.values_mut() {
                    last.is_stored = false;
                }
                tracing::debug!(%error, "the source's ends could not be stored");
            }
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
        let asked = wire::list_offsets_within(&flow.source, &names, OffsetSpec::Latest, LOOK_FOR);
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

/// What one look sees of a topic.
#[derive(Default)]
struct Look {
    /// By partition: where it ends, and when that was seen. `None` for one that isn't copied (yet).
    partitions: Vec<Option<Growth>>,
    stopped: BTreeMap<i32, String>,
    behind: BTreeMap<i32, i64>,
    bytes: u64,
    records: u64,
}

fn look(
    flow: &Flow,
    topics: &mut HashMap<Arc<str>, Last>,
    is_last: bool,
) -> Vec<(String, EndsRecord)> {
    let looks = look_at_all(&flow.progress, &flow.before);
    topics.retain(|topic, _| looks.contains_key(topic));
    let mut changed = Vec::new();
    for (topic, look) in looks {
        let key = keys::ends(&flow.config.name, &topic);
        let last = topics.entry(topic.clone()).or_insert_with(|| Last {
            written: flow.store.get(&key).ok().flatten(),
            is_stored: true,
            ..Last::default()
        });
        last.partitions = (0..)
            .zip(&look.partitions)
            .map(|(number, now)| {
                let before = last.partitions.get(number).copied();
                let before = before.or_else(|| known(last.written.as_ref(), number));
                grown(before, *now, is_last)
            })
            .collect();
        publish(flow, &topic, &last.partitions);
        let mut record = record(&last.partitions, look);
        // What was written by the process before stands until this one has seen better.
        if let Some(written) = &last.written {
            keep_known(&mut record, written);
        }
        let is_new = last.written.as_ref().is_none_or(|it| differs(it, &record));
        if is_new || !last.is_stored {
            last.is_stored = true;
            last.written = Some(record.clone());
            changed.push((key, record));
        }
    }
    changed
}

fn look_at_all(progress: &FlowProgress, before: &Before) -> HashMap<Arc<str>, Look> {
    let source_seen_ms = progress.source_seen_ms.load(Ordering::Relaxed);
    let mut looks: HashMap<Arc<str>, Look> = HashMap::new();
    for entry in &progress.partitions {
        let (topic, partition) = entry.key();
        let progress = entry.value();
        let Ok(index) = usize::try_from(*partition) else {
            continue;
        };
        let look = looks.entry(topic.clone()).or_default();
        if look.partitions.len() <= index {
            look.partitions.resize(index + 1, None);
        }
        let seen_ms = progress.end_seen_ms(Some(source_seen_ms));
        let measured = progress.rates().growth_per_second;
        look.partitions[index] = Some(Growth {
            end: progress.source_high_watermark.load(Ordering::Relaxed),
            seen_ms: seen_ms.unwrap_or(source_seen_ms),
            // Until two looks tell better, what the data path has measured.
            per_second: (measured > 0.0).then_some(measured),
        });
        let is_stopped = match progress.state() {
            (PartitionState::Stopped { reason, .. }, _) => {
                look.stopped.insert(*partition, reason.to_owned());
                true
            }
            _ => false,
        };
        let since_ms = match progress.observe_end(seen_ms.unwrap_or(source_seen_ms)) {
            Standing::AtEnd if !is_stopped => None,
            Standing::AtEnd => Some(seen_ms),
            Standing::BehindSince(since_ms) => Some(since_ms),
            Standing::Unopened => Some(before.carried_ms(topic, *partition)),
        };
        if let Some(since_ms) = since_ms {
            look.behind.insert(*partition, since_ms.unwrap_or(-1));
        }
        look.bytes += progress.bytes.load(Ordering::Relaxed);
        look.records += progress.records.load(Ordering::Relaxed);
    }
    looks
}

/// What the process before knew of a partition: its rate counts until there is a better one.
fn known(written: Option<&EndsRecord>, number: usize) -> Option<Growth> {
    let per_second = *written?.per_second.get(number)?;
    Some(Growth {
        end: -1,
        seen_ms: -1,
        per_second: Some(per_second as f64),
    })
}

/// A topic's record.
fn record(partitions: &[Growth], look: Look) -> EndsRecord {
    EndsRecord {
        v: 1,
        at_ms: now_ms(),
        ends: partitions.iter().map(|it| it.end).collect(),
        per_second: partitions.iter().map(Growth::written).collect(),
        record_bytes: look.bytes.checked_div(look.records).unwrap_or(0),
        stopped: look.stopped,
        behind: look.behind,
    }
}

/// Shows the rates to those who look at the running flow.
fn publish(flow: &Flow, topic: &Arc<str>, partitions: &[Growth]) {
    for (number, growth) in (0..).zip(partitions) {
        if let Some(progress) = flow.progress.partitions.get(&(topic.clone(), number)) {
            let per_second = growth.per_second.unwrap_or(0.0).ceil() as u64;
            let shown = &progress.source_per_second;
            shown.store(per_second, Ordering::Relaxed);
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

impl Growth {
    /// Nothing was seen of it.
    const UNKNOWN: Self = Self {
        end: -1,
        seen_ms: -1,
        per_second: None,
    };

    /// The rate as it is stored. That nobody writes to a log with records is known only once it was
    /// seen twice.
    fn written(&self) -> u64 {
        let unmeasured = if self.end > 0 { 1.0 } else { 0.0 };
        self.per_second.unwrap_or(unmeasured).ceil() as u64
    }
}

/// How a partition grows, by what was seen of it before and what is seen now. A rate rises at once
/// and falls slowly. At the last look the source is gone: nothing slowed down before, and what came
/// since the look before counts, however short that was.
fn grown(before: Option<Growth>, now: Option<Growth>, is_last: bool) -> Growth {
    let Some(now) = now else {
        return before.unwrap_or(Growth::UNKNOWN);
    };
    let Some(before) = before else {
        return now;
    };
    if before.end < 0 || now.end < 0 {
        let known = before.per_second.into_iter().chain(now.per_second);
        return Growth {
            per_second: known.reduce(f64::max),
            ..now
        };
    }
    if is_set_back(before.seen_ms, now.seen_ms) {
        // Nobody knows how long it took: measured anew from here.
        return Growth {
            per_second: before.per_second,
            ..now
        };
    }
    let seconds = (now.seen_ms - before.seen_ms) as f64 / 1_000.0;
    if seconds < MEASURED_SECONDS_MIN && !is_last {
        return before;
    }
    let rate = (now.end - before.end).max(0) as f64 / seconds.max(MEASURED_SECONDS_MIN);
    let kept = match is_last {
        true => before.per_second,
        false => before.per_second.map(|rate| rate * RATE_KEPT),
    };
    let rate = rate.max(kept.unwrap_or(0.0));
    Growth {
        per_second: Some(if rate < RATE_MIN { 0.0 } else { rate }),
        ..now
    }
}

/// Whether anything but the times and the mean size is another.
fn differs(before: &EndsRecord, now: &EndsRecord) -> bool {
    before.ends != now.ends
        || before.per_second != now.per_second
        || before.stopped != now.stopped
        || !before.behind.keys().eq(now.behind.keys())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(end: i64, seen_ms: i64, per_second: Option<f64>) -> Growth {
        Growth {
            end,
            seen_ms,
            per_second,
        }
    }

    fn next(before: Growth, end: i64, seen_ms: i64) -> Growth {
        grown(Some(before), Some(seen(end, seen_ms, None)), false)
    }

    #[test]
    fn a_rate_rises_at_once_and_falls_to_nothing() {
        let first = grown(None, Some(seen(5, 0, None)), false);
        assert_eq!(first, seen(5, 0, None), "a new partition");
        let mut rate = next(seen(100, 0, Some(0.0)), 300, 2_000);
        assert_eq!(rate, seen(300, 2_000, Some(100.0)));
        let mut looks = 0;
        while rate.per_second != Some(0.0) {
            rate = next(rate, 300, rate.seen_ms + 2_000);
            looks += 1;
            assert!(looks < 30, "a quiet topic must become silent: {rate:?}");
        }
        assert!(looks > 3, "a pause of a producer isn't its end");
        let found = next(seen(-1, -1, None), 300, 2_000);
        assert_eq!(found, seen(300, 2_000, None), "unknown before");
        let cut = next(seen(9, 0, Some(0.0)), 3, 2_000);
        assert_eq!(cut, seen(3, 2_000, Some(0.0)));
    }

    #[test]
    fn what_is_not_seen_is_no_rest() {
        // Nothing was seen of the source between two looks, as it hung or as little may be copied.
        let before = seen(1_000, 4_000, Some(50.0));
        assert_eq!(next(before, 1_000, 4_000), before);
        // What came meanwhile came in all of that time, not since the last look.
        let after = next(before, 2_000, 14_000);
        assert_eq!(after.per_second, Some(100.0));
    }

    #[test]
    fn a_clock_that_is_set_back_begins_a_new_measurement() {
        let before = seen(1_000, 3_600_000, Some(50.0));
        let back = next(before, 1_200, 60_000);
        assert_eq!(back, seen(1_200, 60_000, Some(50.0)), "time isn't known");
        assert_eq!(next(back, 1_400, 62_000).per_second, Some(100.0));

        let flow = FlowProgress::new("dr", "primary", "standby");
        flow.note_source_seen(3_600_000);
        flow.note_source_seen(3_590_000);
        let late_answer = flow.source_seen_ms.load(Ordering::Relaxed);
        assert_eq!(late_answer, 3_600_000, "an answer that was slow");
        flow.note_source_seen(60_000);
        assert_eq!(seen_ms(&flow), Some(60_000), "the clock was set back");
    }

    #[test]
    fn what_came_before_the_source_was_lost_counts() {
        let quiet = seen(0, 1_000, Some(0.0));
        let last = |end, seen_ms| grown(Some(quiet), Some(seen(end, seen_ms, None)), true);
        assert_eq!(last(100, 2_000).per_second, Some(100.0));
        assert_eq!(last(100, 1_010).per_second, Some(200.0));
        assert_eq!(last(0, 1_010).per_second, Some(0.0));
        let busy = seen(0, 1_000, Some(80.0));
        let last = grown(Some(busy), Some(seen(10, 2_000, None)), true);
        assert_eq!(last.per_second, Some(80.0), "nothing slowed down before");
    }

    #[test]
    fn a_log_that_was_seen_once_is_not_called_quiet() {
        assert_eq!(seen(100, 1_000, None).written(), 1);
        assert_eq!(seen(100, 1_000, Some(0.0)).written(), 0);
        assert_eq!(seen(0, 1_000, None).written(), 0, "there is nothing yet");
    }

    #[test]
    fn a_process_goes_on_at_the_rate_that_the_one_before_has_seen() {
        let written = EndsRecord {
            ends: vec![500],
            per_second: vec![70],
            ..EndsRecord::default()
        };
        let before = known(Some(&written), 0);
        let first = grown(before, Some(seen(800, 9_000, None)), false);
        assert_eq!(first, seen(800, 9_000, Some(70.0)));
        assert_eq!(known(Some(&written), 1), None);
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
