//! What was last seen of the source, kept on the target: all that tells, once the source is gone,
//! how much may be missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::confirmed::{Asking, Confirmed};
use super::deleted;
use super::habit::{Habit, QUIET_AFTER_MS};
use super::shared::Flow;
use crate::state::{EndsRecord, ObservedRecord, StateError, keys};
use crate::telemetry::progress::{
    FlowProgress, FlowState, PartitionKey, PartitionProgress, PartitionState, is_set_back, now_ms,
};
use crate::telemetry::readiness::InTheWay;
use crate::telemetry::up_to_date::Standing;
use crate::wire::{self, Metadata, OffsetSpec, TopicPartition};

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
/// How often it is said which partitions stand in the way of a failover.
const SAID_AGAIN_MS: i64 = 10_000;
/// A rate isn't measured over less.
const MEASURED_SECONDS_MIN: f64 = 0.5;

/// What the looks before saw of a topic.
#[derive(Default)]
struct Last {
    partitions: Vec<Growth>,
    written: Option<EndsRecord>,
    /// Whether it surely is.
    is_stored: bool,
    /// Whether any partition is on its way somewhere: what is said of such a one goes by time, too.
    is_under_way: bool,
}

/// One look at a partition of the source.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Look {
    /// Where it ended; -1 while unknown.
    end: i64,
    /// When the source was asked for that, milliseconds since the epoch. Not when we looked: what a source
    /// that hangs, or a process without a processor, doesn't show isn't rest. -1 while unknown.
    asked_ms: i64,
    /// When we had it: it can't have ended there later.
    had_ms: i64,
    /// Until when this was its end by the word of the cluster, not by that of one broker alone, milliseconds since the
    /// epoch; -1 while unknown. Never behind `asked_ms`.
    sure_ms: i64,
}

/// How fast a partition of the source grows.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Growth {
    /// The newest look.
    seen: Look,
    /// Where it ended, and when at the latest, when a measurement began.
    from: Option<(i64, i64)>,
    /// Records per second; `None` until it was measured. Nothing was seen to come that was faster.
    per_second: Option<f64>,
    /// When it grew last, or was seen first, milliseconds since the epoch; -1 while unknown.
    quiet_since_ms: i64,
    /// Whether it was seen to grow.
    has_grown: bool,
    habit: Habit,
}

/// Writes the source's ends until cancelled, and asks for those that nobody fetches.
pub async fn keep_ends(flow: Arc<Flow>, cancel: CancellationToken) {
    tokio::join!(keep(&flow, &cancel), ask_for_others(&flow, &cancel));
}

async fn keep(flow: &Flow, cancel: &CancellationToken) {
    let mut topics: HashMap<Arc<str>, Last> = HashMap::new();
    let mut asking = Asking::behind(heard_before(flow));
    let mut still = Still::default();
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
        // Nobody else writes these: what an earlier look has written is all there is.
        deleted::forget_what_came_late(flow).await;
        if !is_last {
            // Who is gone confirms nobody: the last look doesn't wait for that.
            let asked = cancel.run_until_cancelled(asking.ask(&flow.source));
            if asked.await.is_none() {
                return;
            }
        }
        if source_seen_ms(&flow.progress).is_none() {
            continue;
        }
        pause = pauses.next().unwrap_or(EVERY);
        let is_due = written_at.is_none_or(|at| at.elapsed() >= SEEN_EVERY);
        // First: what changes behind this is seen the next time.
        let count = flow.progress.changes.count();
        if still.holds(count) && !is_due && !is_last {
            still.until_ms = now_ms();
            continue;
        }
        let (changed, at_ms) = look(flow, &mut topics, asking.confirmed(), (is_last, &still));
        still = Still::after(&topics, count, changed.is_empty());
        // As long as nobody but a broker that may be cut off has said where some of them end, no time is stored that they
        // were seen at. What is seen is worth more without one than nothing is; with the time of a process before, more
        // may have come since than there was time for.
        let at_ms = at_ms.filter(|at_ms| *at_ms >= 0);
        let is_due = at_ms.is_some() && is_due;
        if changed.is_empty() && !is_last && !is_due {
            continue;
        }
        let written = match flow.store.put_all(&changed).await {
            Ok(()) => store_time(flow, at_ms, asking.confirmed()).await,
            error => error,
        };
        match written {
            Ok(()) if at_ms.is_some() => written_at = Some(Instant::now()),
            Ok(()) => {}
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

/// Where all stands still a look tells nothing new but when it was: then each of thousands is looked at only where that is
/// to be written.
#[derive(Default)]
struct Still {
    /// What had changed before the last look, if it found nothing that goes on by itself, such as a rate that falls.
    count: Option<u64>,
    /// Until when nothing has changed since; -1 where that isn't known.
    until_ms: i64,
}

impl Still {
    fn after(topics: &HashMap<Arc<str>, Last>, count: u64, is_same: bool) -> Self {
        let is_still = is_same && topics.values().all(Last::is_still);
        Self {
            count: is_still.then_some(count),
            until_ms: -1,
        }
    }

    fn holds(&self, count: u64) -> bool {
        self.count == Some(count)
    }
}

impl Last {
    /// Whether another look writes the same if nothing changes.
    fn is_still(&self) -> bool {
        self.is_stored && !self.is_under_way && self.partitions.iter().all(Growth::is_still)
    }
}

/// The brokers that answered the process before, also where it ended within this one's time.
fn heard_before(flow: &Flow) -> BTreeSet<i32> {
    let key = keys::observed(&flow.config.name);
    let record: Option<ObservedRecord> = flow.store.get(&key).ok().flatten();
    record.unwrap_or_default().heard
}

async fn store_time(
    flow: &Flow,
    at_ms: Option<i64>,
    confirmed: &Confirmed,
) -> Result<(), StateError> {
    let Some(at_ms) = at_ms else {
        return Ok(());
    };
    let key = keys::observed(&flow.config.name);
    let record = ObservedRecord {
        v: 1,
        at_ms,
        heard: confirmed.heard().clone(),
    };
    flow.store.put(&key, &record).await
}

/// When the source was seen last; `None` if it never was.
fn source_seen_ms(progress: &FlowProgress) -> Option<i64> {
    let at_ms = progress.source_seen_ms.load(Ordering::Relaxed);
    (at_ms >= 0).then_some(at_ms)
}

/// When all that is known of a topic's ends was seen at least, by the cluster's word. Not the present: a source that
/// hangs isn't seen, and what a broker says that is cut off from it isn't its word. Stopped partitions don't count:
/// nobody fails over with them.
fn oldest_ms(partitions: &[Growth], look: &TopicLook) -> Option<i64> {
    let all = (0..).zip(partitions).zip(&look.partitions);
    all.filter(|((number, growth), now)| {
        let is_seen = now.is_some_and(|now| now.asked_ms >= 0) && growth.seen.end >= 0;
        is_seen && !look.stopped.contains_key(number)
    })
    .map(|((_, growth), _)| growth.seen.sure_ms)
    .min()
}

/// Nobody fetches a partition that is stopped, or that has no room for what would come, and where little
/// may be copied in a second nobody fetches any for a while. Its log grows on the source all the same.
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
            .filter(|entry| is_unseen(entry.value()))
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

/// Whether nobody else asks for its end, or not often enough.
fn is_unseen(progress: &PartitionProgress) -> bool {
    let long_ago_ms = now_ms() - i64::try_from(ASK_EVERY.as_millis()).unwrap_or(i64::MAX);
    let is_recent = |seen_ms| seen_ms >= long_ago_ms;
    !progress.is_fetched() || !progress.end_seen_ms().is_some_and(is_recent)
}

/// What one look sees of a topic.
#[derive(Default)]
struct TopicLook {
    /// By partition: where it ends, and when that was seen. `None` for one that isn't copied (yet).
    partitions: Vec<Option<Look>>,
    /// By partition, as `partitions`: where its rate is shown.
    shown: Vec<Option<Arc<PartitionProgress>>>,
    stopped: BTreeMap<i32, String>,
    retrying: BTreeMap<i32, String>,
    no_progress: BTreeSet<i32>,
    behind: BTreeMap<i32, i64>,
    delete_retention_ms: Option<i64>,
    /// Some partitions haven't said that.
    is_retention_unsure: bool,
    is_under_way: bool,
    bytes: u64,
    records: u64,
}

/// The records that changed, and when all that is known was seen at least.
fn look(
    flow: &Flow,
    topics: &mut HashMap<Arc<str>, Last>,
    confirmed: &Confirmed,
    (is_last, still): (bool, &Still),
) -> (Vec<(String, EndsRecord)>, Option<i64>) {
    // The time first: what is seen is then of that time, or newer.
    let mut oldest = source_seen_ms(&flow.progress);
    let looks = look_at_all(flow, confirmed);
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
                let before = before.map(|it| it.still_until(still.until_ms));
                let before = before.or_else(|| known(last.written.as_ref(), number, *now));
                grown(before, *now, is_last)
            })
            .collect();
        publish(&look.shown, &last.partitions);
        oldest = match (oldest, oldest_ms(&last.partitions, &look)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        last.is_under_way = look.is_under_way;
        let is_retention_unsure = look.is_retention_unsure;
        let mut record = record(&last.partitions, look);
        // What was written by the process before stands until this one has seen better.
        if let Some(written) = &last.written {
            if is_retention_unsure {
                let known = [record.delete_retention_ms, written.delete_retention_ms];
                record.delete_retention_ms = known.into_iter().flatten().min();
            }
            let unsure = unsure(&last.partitions);
            keep_known(&mut record, written, (&unsure, flow.before.seen_ms()));
        }
        let is_new = last.written.as_ref().is_none_or(|it| differs(it, &record));
        if is_new || !last.is_stored {
            last.is_stored = true;
            last.written = Some(record.clone());
            changed.push((key, record));
        }
    }
    (changed, oldest)
}

/// Until when the leader that a partition is fetched from was its leader by the word of others; `None` if nobody has said
/// so, or if another one leads by now.
fn sure_ms(
    flow: &Flow,
    (known, confirmed): (&Metadata, &Confirmed),
    at: &PartitionKey,
) -> Option<i64> {
    let (leader, epoch) = known.leader(&at.0, at.1)?;
    let sure_ms = confirmed.at_ms(leader)?;
    // Also where the same one leads again: what was asked for in an older epoch is of then.
    let open = flow.open.get(at);
    let is_elsewhere = open.is_some_and(|it| it.epochs.is_led_elsewhere(epoch));
    Some(sure_ms).filter(|_| !is_elsewhere)
}

fn look_at_all(flow: &Flow, confirmed: &Confirmed) -> HashMap<Arc<str>, TopicLook> {
    let (before, known) = (&flow.before, flow.source.cached());
    let mut looks: HashMap<Arc<str>, TopicLook> = HashMap::new();
    for entry in &flow.progress.partitions {
        let (topic, partition) = entry.key();
        let progress = entry.value();
        let Ok(index) = usize::try_from(*partition) else {
            continue;
        };
        let look = looks.entry(topic.clone()).or_default();
        if look.partitions.len() <= index {
            look.partitions.resize(index + 1, None);
            look.shown.resize(index + 1, None);
        }
        look.shown[index] = Some(progress.clone());
        // The time first: the end is then of that time, or newer.
        let seen_ms = progress.end_seen_ms();
        let asked_ms = seen_ms.unwrap_or(-1);
        let sure_ms = sure_ms(flow, (&known, confirmed), entry.key());
        look.partitions[index] = Some(Look {
            asked_ms,
            end: progress.source_high_watermark.load(Ordering::Relaxed),
            had_ms: now_ms(),
            sure_ms: sure_ms.map_or(-1, |sure_ms| sure_ms.min(asked_ms)),
        });
        let is_stopped = match progress.state() {
            (PartitionState::Stopped { reason, .. }, _) => {
                look.stopped.insert(*partition, reason.to_owned());
                true
            }
            _ => false,
        };
        look.is_under_way |= !is_stopped && !progress.is_caught_up();
        match progress.in_the_way(now_ms()) {
            Some((InTheWay::Retrying, reason)) => {
                look.retrying.insert(*partition, reason.to_owned());
            }
            Some((InTheWay::Stands, _)) => {
                look.no_progress.insert(*partition);
            }
            None => {}
        }
        let since_ms = match progress.observe_end(seen_ms.unwrap_or(-1)) {
            Standing::AtEnd if !is_stopped => None,
            Standing::AtEnd => Some(seen_ms),
            Standing::BehindSince(since_ms) => Some(since_ms),
            Standing::Unopened => Some(before.carried_ms(topic, *partition)),
        };
        if let Some(since_ms) = since_ms {
            look.behind.insert(*partition, since_ms.unwrap_or(-1));
        }
        match progress.least_delete_retention_ms() {
            Some(ms) => {
                let least = look.delete_retention_ms.get_or_insert(ms);
                *least = ms.min(*least);
            }
            None => look.is_retention_unsure = true,
        }
        look.bytes += progress.bytes.load(Ordering::Relaxed);
        look.records += progress.records.load(Ordering::Relaxed);
    }
    looks
}

/// What the process before knew of a partition: its rate counts until there is a better one. Where nobody
/// wrote then and somebody has since, it isn't known.
fn known(written: Option<&EndsRecord>, number: usize, now: Option<Look>) -> Option<Growth> {
    let written = written?;
    let end = *written.ends.get(number)?;
    let has_grown = now.is_some_and(|now| now.end != end);
    let is_measured = i32::try_from(number).is_ok_and(|it| !written.unmeasured.contains(&it));
    let rate = *written.per_second.get(number)? as f64;
    let since_ms = written.quiet_since_ms.get(number).copied().unwrap_or(-1);
    Some(Growth {
        seen: Look::UNKNOWN,
        from: None,
        per_second: (is_measured && !(has_grown && rate == 0.0)).then_some(rate),
        quiet_since_ms: if has_grown { -1 } else { since_ms },
        has_grown: false,
        habit: Habit::known(at_once(written, number)),
    })
}

fn at_once(written: &EndsRecord, number: usize) -> u64 {
    let number = i32::try_from(number).ok();
    number
        .and_then(|it| written.at_once.get(&it).copied())
        .unwrap_or(0)
}

/// What is known of each partition, where it is anything.
fn some(partitions: &[Growth], of: impl Fn(&Growth) -> u64) -> BTreeMap<i32, u64> {
    let all = (0..).zip(partitions).map(|(number, it)| (number, of(it)));
    all.filter(|(_, count)| *count > 0).collect()
}

/// A topic's record.
fn record(partitions: &[Growth], look: TopicLook) -> EndsRecord {
    EndsRecord {
        v: 1,
        at_ms: now_ms(),
        ends: partitions.iter().map(|it| it.seen.end).collect(),
        per_second: partitions.iter().map(Growth::written).collect(),
        unmeasured: (0..)
            .zip(partitions)
            .filter(|(_, it)| it.per_second.is_none() || it.seen.end < 0)
            .map(|(number, _)| number)
            .collect::<BTreeSet<i32>>(),
        at_once: some(partitions, |it| it.habit.at_once().unsigned_abs()),
        per_hour: some(partitions, |it| it.habit.per_hour(it.quiet_since_ms)),
        carried_ms: BTreeMap::new(),
        quiet_since_ms: partitions.iter().map(|it| it.quiet_since_ms).collect(),
        record_bytes: look.bytes.checked_div(look.records).unwrap_or(0),
        stopped: look.stopped,
        retrying: look.retrying,
        no_progress: look.no_progress,
        behind: look.behind,
        delete_retention_ms: look.delete_retention_ms,
    }
}

/// Shows the rates to those who look at the running flow.
fn publish(shown: &[Option<Arc<PartitionProgress>>], partitions: &[Growth]) {
    for (progress, growth) in shown.iter().zip(partitions) {
        if let Some(progress) = progress {
            let per_second = growth.per_second.map_or(-1, |it| it.ceil() as i64);
            let shown = &progress.source_per_second;
            shown.store(per_second, Ordering::Relaxed);
            let (at_once, per_hour) = &progress.source_habit;
            at_once.store(growth.habit.at_once(), Ordering::Relaxed);
            let hourly = growth.habit.per_hour(growth.quiet_since_ms);
            let hourly = i64::try_from(hourly).unwrap_or(i64::MAX);
            per_hour.store(hourly, Ordering::Relaxed);
        }
    }
}

/// Partitions of which nobody but a broker that may be cut off has said where they end.
fn unsure(partitions: &[Growth]) -> BTreeSet<i32> {
    let all = (0..).zip(partitions);
    all.filter(|(_, it)| it.seen.end >= 0 && it.seen.sure_ms < 0)
        .map(|(number, _)| number)
        .collect()
}

/// Ends that aren't known yet, after a start, don't cover those that were: they stay with their rates and the time
/// when they were seen, which for those of the process before is `before_ms`. Nobody has measured these since: with
/// the time of what is seen now they would bound nothing. An end that nobody is sure of covers no higher one.
fn keep_known(
    record: &mut EndsRecord,
    written: &EndsRecord,
    (unsure, before_ms): (&BTreeSet<i32>, Option<i64>),
) {
    for (number, (end, known)) in (0..).zip(record.ends.iter_mut().zip(&written.ends)) {
        let is_newer = *end >= 0 && (*end >= *known || !unsure.contains(&number));
        if is_newer || *known < 0 {
            continue;
        }
        record.unmeasured.insert(number);
        *end = *known;
        let seen_ms = written.carried_ms.get(&number).copied();
        let seen_ms = seen_ms.or(before_ms).unwrap_or(-1);
        record.carried_ms.insert(number, seen_ms);
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let rates = record.per_second.get_mut(index);
        if let (Some(rate), Some(known)) = (rates, written.per_second.get(index)) {
            *rate = (*rate).max(*known);
        }
        for (of, known) in [
            (&mut record.at_once, &written.at_once),
            (&mut record.per_hour, &written.per_hour),
        ] {
            if let Some(known) = known.get(&number) {
                of.insert(number, *known);
            }
        }
    }
    if record.record_bytes == 0 {
        record.record_bytes = written.record_bytes;
    }
}

impl Look {
    /// Nothing was seen of it.
    const UNKNOWN: Self = Self {
        end: -1,
        asked_ms: -1,
        had_ms: -1,
        sure_ms: -1,
    };

    /// What grows is seen: a leader that is cut off from its cluster commits nothing. What stands still does so as far as
    /// the cluster's word goes.
    fn believed(self, before: &Growth) -> Self {
        let grows = before.seen.end >= 0 && self.end > before.seen.end;
        let sure_ms = match grows {
            true => self.asked_ms,
            false => self.sure_ms.max(before.seen.sure_ms).min(self.asked_ms),
        };
        Self {
            asked_ms: sure_ms,
            sure_ms,
            ..self
        }
    }
}

impl Growth {
    /// Nothing was seen of it.
    const UNKNOWN: Self = Self {
        seen: Look::UNKNOWN,
        from: None,
        per_second: None,
        quiet_since_ms: -1,
        has_grown: false,
        habit: Habit::NONE,
    };

    /// From this look on.
    fn begin(before: &Self, now: Look) -> Self {
        let is_seen = now.end >= 0;
        let since_ms = match before.quiet_since_ms {
            -1 if is_seen => now.asked_ms,
            known_ms => known_ms,
        };
        Self {
            seen: now,
            from: is_seen.then_some((now.end, now.had_ms)),
            per_second: before.per_second,
            quiet_since_ms: since_ms,
            has_grown: before.has_grown,
            habit: before.habit,
        }
    }

    /// Whether it is the same at the next look, but for the time, if nothing comes.
    fn is_still(&self) -> bool {
        self.seen.end < 0
            || (self.from.is_some()
                && self.seen.sure_ms >= 0
                && self.per_second == Some(0.0)
                && self.habit == Habit::NONE)
    }

    /// Nothing came until then, although nobody looked: what came since came later.
    fn still_until(self, until_ms: i64) -> Self {
        let from = self.from.map(|(end, had_ms)| (end, had_ms.max(until_ms)));
        Self { from, ..self }
    }

    /// Nothing has come for so long that nobody counts as writing.
    fn is_quiet(&self, now_ms: i64) -> bool {
        let after_ms = self.habit.quiet_after_ms();
        !self.has_grown || now_ms - self.quiet_since_ms >= after_ms
    }

    /// The rate as it is stored, where it is known.
    fn written(&self) -> u64 {
        self.per_second.unwrap_or(0.0).ceil() as u64
    }
}

/// How a partition grows, by what was seen of it before and what is seen now. A rate rises at once
/// and falls slowly. At the last look the source is gone: nothing slowed down before, and what came
/// since the look before counts, however short that was.
fn grown(before: Option<Growth>, now: Option<Look>, is_last: bool) -> Growth {
    let before = before.unwrap_or(Growth::UNKNOWN);
    let Some(now) = now else {
        return before;
    };
    let now = now.believed(&before);
    let Some((end, had_ms)) = before.from.filter(|_| now.end >= 0) else {
        return Growth::begin(&before, now);
    };
    if is_set_back(before.seen.asked_ms, now.asked_ms) {
        // Nobody knows how long it took: measured anew from here.
        return Growth::begin(&before, now);
    }
    let grown = seen_to_grow(before, now);
    // What came, came between an answer that we had and the next question, or in less.
    let seconds = (now.asked_ms - had_ms) as f64 / 1_000.0;
    // At the last look what came counts. That nothing came in a moment says nothing, and unknown isn't zero.
    let tells_something = is_last && now.end > end;
    if seconds < MEASURED_SECONDS_MIN && !tells_something {
        return grown;
    }
    let measured = (now.end - end).max(0) as f64 / seconds.max(MEASURED_SECONDS_MIN);
    let known = before.per_second.unwrap_or(0.0);
    // What came faster may have begun in between: the mean of both rates is what was measured.
    let risen = measured + (measured - known).max(0.0);
    let kept = if is_last { known } else { known * RATE_KEPT };
    let rate = risen.max(kept);
    let is_resting = !grown.has_grown || now.asked_ms - grown.quiet_since_ms >= QUIET_AFTER_MS;
    Growth {
        from: Some((now.end, now.had_ms)),
        per_second: Some(match rate {
            _ if rate >= RATE_MIN => rate,
            _ if is_resting => 0.0,
            _ => RATE_MIN,
        }),
        habit: match grown.is_quiet(now.asked_ms) {
            true => Habit::NONE,
            false => grown.habit,
        },
        ..grown
    }
}

/// What the newest look shows, but for the rate.
fn seen_to_grow(before: Growth, now: Look) -> Growth {
    let came = now.end - before.seen.end;
    if came <= 0 {
        let mut habit = before.habit;
        if now.asked_ms > before.seen.asked_ms {
            habit.came = 0;
        }
        return Growth {
            seen: now,
            habit,
            ..before
        };
    }
    let pause_ms = match before.has_grown {
        true => now.had_ms - before.quiet_since_ms,
        false => 0,
    };
    Growth {
        seen: now,
        quiet_since_ms: now.had_ms,
        has_grown: true,
        habit: before.habit.noted(came, pause_ms, now.had_ms),
        ..before
    }
}

/// What stands in the way of a failover counts as long as it is said: whoever said it may be gone.
fn is_to_say_again(before: &EndsRecord, now: &EndsRecord) -> bool {
    let is_in_the_way = !now.retrying.is_empty() || !now.no_progress.is_empty();
    is_in_the_way && now.at_ms.saturating_sub(before.at_ms) >= SAID_AGAIN_MS
}

/// Whether anything but the times and the mean size is another.
fn differs(before: &EndsRecord, now: &EndsRecord) -> bool {
    before.ends != now.ends
        || before.per_second != now.per_second
        || before.unmeasured != now.unmeasured
        || before.at_once != now.at_once
        || before.per_hour != now.per_hour
        || before.carried_ms != now.carried_ms
        || before.stopped != now.stopped
        || before.retrying != now.retrying
        || before.no_progress != now.no_progress
        || before.delete_retention_ms != now.delete_retention_ms
        || is_to_say_again(before, now)
        || !before.behind.keys().eq(now.behind.keys())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::failover::{self, Seen, bound};
    use crate::telemetry::progress::Teller;

    fn at(end: i64, ms: i64) -> Look {
        Look {
            end,
            asked_ms: ms,
            had_ms: ms,
            sure_ms: ms,
        }
    }

    fn seen(end: i64, ms: i64, per_second: Option<f64>) -> Growth {
        Growth {
            seen: at(end, ms),
            from: Some((end, ms)),
            per_second,
            quiet_since_ms: ms,
            has_grown: false,
            habit: Habit::NONE,
        }
    }

    fn next(before: Growth, end: i64, ms: i64) -> Growth {
        grown(Some(before), Some(at(end, ms)), false)
    }

    #[test]
    fn a_rate_rises_at_once_and_falls_to_nothing() {
        let first = grown(None, Some(at(5, 0)), false);
        assert_eq!(first, seen(5, 0, None), "a new partition");
        let mut rate = next(seen(100, 0, Some(100.0)), 300, 2_000);
        assert_eq!((rate.seen, rate.per_second), (at(300, 2_000), Some(100.0)));
        let mut looks = 0;
        while rate.per_second != Some(0.0) {
            rate = next(rate, 300, rate.seen.asked_ms + 2_000);
            looks += 1;
            assert!(looks < 30, "a quiet topic must become silent: {rate:?}");
        }
        assert!(looks > 3, "a pause of a producer isn't its end");
        let unknown = next(Growth::UNKNOWN, 300, 2_000);
        assert_eq!(unknown, seen(300, 2_000, None), "unknown before");
        let cut = next(seen(9, 0, Some(0.0)), 3, 2_000);
        assert_eq!(cut.per_second, Some(0.0));
    }

    #[test]
    fn what_comes_behind_a_rest_came_since_it_was_over() {
        let rests = seen(100, 0, Some(0.0));
        assert!(rests.is_still());
        // It wasn't looked at for eight seconds, in which nothing had changed.
        let burst = next(rests.still_until(8_000), 1_100, 10_000);
        assert_eq!(burst.per_second, Some(1_000.0), "in two seconds");
        assert!(!burst.is_still());
        assert!(!seen(100, 0, None).is_still(), "it isn't measured");
    }

    #[test]
    fn a_rate_that_rises_may_have_risen_in_between() {
        let jumped = next(seen(100, 0, Some(10.0)), 310, 2_000);
        assert_eq!(jumped.per_second, Some(200.0), "10 for a second, then 200");
        let stays = next(jumped, 710, 4_000);
        assert_eq!(stays.per_second, Some(200.0));
    }

    #[test]
    fn a_slow_producer_is_not_taken_for_none() {
        // A record every seven seconds.
        let mut rate = next(seen(9, -2_000, None), 10, 0);
        for look in 1..60 {
            rate = next(rate, 10 + look * 2 / 7, look * 2_000);
            let per_second = rate.per_second.expect("it was seen twice");
            assert!(per_second >= 0.5, "{look}: {rate:?}");
        }
        let empty = next(seen(0, 0, None), 0, 2_000);
        assert_eq!(empty.per_second, Some(0.0), "there is nothing yet");
    }

    #[test]
    fn what_is_not_seen_is_no_rest() {
        // Nothing was seen of the source between two looks, as it hung or as little may be copied.
        let before = seen(1_000, 4_000, Some(50.0));
        assert_eq!(next(before, 1_000, 4_000), before);
        // What came meanwhile came in all of that time, not since the last look.
        let after = next(seen(1_000, 4_000, Some(100.0)), 2_000, 14_000);
        assert_eq!(after.per_second, Some(100.0));
    }

    #[test]
    fn the_newest_end_counts_also_where_it_came_too_soon_for_a_rate() {
        let before = seen(1_000, 4_000, Some(50.0));
        let soon = next(before, 1_400, 4_300);
        assert_eq!((soon.seen.end, soon.per_second), (1_400, Some(50.0)));
        let later = next(soon, 1_400, 6_000);
        assert_eq!(later.per_second, Some(350.0), "400 in two seconds at least");
    }

    #[test]
    fn an_answer_that_lay_here_makes_no_rate_smaller() {
        // Asked at 0, had at 5,000: what it says may be as new as that.
        let late = Look {
            end: 1_000,
            asked_ms: 0,
            had_ms: 5_000,
            sure_ms: 0,
        };
        let first = grown(None, Some(late), false);
        let soon = grown(Some(first), Some(at(1_100, 5_100)), false);
        assert_eq!(soon.per_second, None, "100 in 5 s, or in 0.1 s?");
        let then = grown(Some(soon), Some(at(2_000, 6_000)), false);
        assert_eq!(then.per_second, Some(2_000.0));
    }

    #[test]
    fn a_clock_that_is_set_back_begins_a_new_measurement() {
        let before = seen(1_000, 3_600_000, Some(100.0));
        let back = next(before, 1_200, 60_000);
        assert_eq!(back.seen, at(1_200, 60_000));
        assert_eq!(back.per_second, Some(100.0), "time isn't known");
        assert_eq!(next(back, 1_400, 62_000).per_second, Some(100.0));

        let flow = FlowProgress::new("dr", "primary", "standby");
        flow.note_source_seen(3_600_000);
        flow.note_source_seen(3_590_000);
        let late_answer = flow.source_seen_ms.load(Ordering::Relaxed);
        assert_eq!(late_answer, 3_600_000, "an answer that was slow");
        flow.note_source_seen(60_000);
        let set_back = source_seen_ms(&flow);
        assert_eq!(set_back, Some(60_000), "the clock was set back");
    }

    #[test]
    fn what_came_before_the_source_was_lost_counts() {
        let quiet = seen(0, 1_000, Some(0.0));
        let last = |end, ms| grown(Some(quiet), Some(at(end, ms)), true);
        assert_eq!(last(100, 2_000).per_second, Some(200.0));
        assert_eq!(last(100, 1_010).per_second, Some(400.0));
        assert_eq!(last(0, 1_010).per_second, Some(0.0));
        let unmeasured = seen(0, 1_000, None);
        let last = |end, ms| grown(Some(unmeasured), Some(at(end, ms)), true);
        assert_eq!(last(0, 1_010).per_second, None, "in a moment");
        assert_eq!(last(0, 2_000).per_second, Some(0.0));
        assert_eq!(last(100, 1_010).per_second, Some(400.0));
        let busy = seen(0, 1_000, Some(80.0));
        let last = grown(Some(busy), Some(at(10, 2_000)), true);
        assert_eq!(last.per_second, Some(80.0), "nothing slowed down before");
    }

    #[test]
    fn a_process_goes_on_at_the_rate_that_the_one_before_has_seen() {
        let written = EndsRecord {
            ends: vec![500, 500, 500],
            per_second: vec![70, 0, 0],
            unmeasured: [2].into(),
            quiet_since_ms: vec![1, 2, 3],
            ..EndsRecord::default()
        };
        let first = |number, end| {
            let now = Some(at(end, 9_000));
            grown(known(Some(&written), number, now), now, false)
        };
        assert_eq!(first(0, 800), seen(800, 9_000, Some(70.0)));
        let still_quiet = first(1, 500);
        assert_eq!(still_quiet.per_second, Some(0.0));
        assert_eq!(still_quiet.quiet_since_ms, 2);
        let no_more = "nobody wrote then, and somebody has since";
        assert_eq!(first(1, 501), seen(501, 9_000, None), "{no_more}");
        assert_eq!(first(2, 500).per_second, None);
        assert_eq!(first(3, 0), seen(0, 9_000, None));
    }

    /// How it is told to who bounds a loss.
    fn told(growth: &Growth) -> failover::Habit {
        failover::Habit {
            at_once: growth.habit.at_once().unsigned_abs(),
            per_hour: growth.habit.per_hour(growth.quiet_since_ms),
        }
    }

    #[test]
    fn what_comes_at_once_is_known_until_it_is_over() {
        let mut growth = seen(0, 0, Some(0.0));
        // 1,000 records every minute.
        for look in 1..=75 {
            growth = next(growth, (look / 30) * 1_000, look * 2_000);
        }
        assert_eq!(told(&growth).at_once, 1_000);
        let per_minute = told(&growth).per_hour / 60;
        assert!((1_000..=2_000).contains(&per_minute), "{per_minute}");
        let rate = growth.per_second.expect("it is measured");
        assert!(rate < 10.0, "a rate has nearly forgotten them: {rate}");
        for look in 76..=160 {
            growth = next(growth, 2_000, look * 2_000);
        }
        assert_eq!(told(&growth), failover::Habit::default(), "it is over");
    }

    #[test]
    fn a_leader_that_nobody_confirms_is_not_seen_to_rest() {
        let before = seen(1_000, 4_000, Some(100.0));
        let alone = |end, ms| Look {
            sure_ms: 4_000,
            ..at(end, ms)
        };
        let mut growth = before;
        for look in 1..10 {
            let now = alone(1_000, 4_000 + look * 2_000);
            growth = grown(Some(growth), Some(now), false);
        }
        assert_eq!(
            (growth.per_second, growth.seen.sure_ms),
            (Some(100.0), 4_000)
        );
        // It commits something: others follow it.
        let more = grown(Some(growth), Some(alone(1_200, 24_000)), false);
        assert_eq!((more.seen.end, more.seen.sure_ms), (1_200, 24_000));
    }

    /// A look at a log that ends there at a time. The broker answers somewhere in between.
    fn looked(end: impl Fn(i64) -> i64, asked_ms: i64, took_ms: i64) -> Look {
        Look {
            end: end(asked_ms + took_ms / 2),
            asked_ms,
            had_ms: asked_ms + took_ms,
            sure_ms: asked_ms,
        }
    }

    /// A partition to which somebody writes all the time, and a batch within a second now and then.
    struct Batches {
        per_second: i64,
        batch: i64,
        every_ms: i64,
    }

    impl Batches {
        fn end(&self, ms: i64) -> i64 {
            let (whole, within) = (ms / self.every_ms, (ms % self.every_ms).min(1_000));
            self.per_second * ms / 1_000 + whole * self.batch + self.batch * within / 1_000
        }

        /// What the looks until then have left.
        fn told(&self, until_ms: i64, delays_ms: &[(i64, i64)]) -> Growth {
            let mut growth = None;
            let mut ms = 0;
            let mut delays = delays_ms.iter().cycle();
            while ms < until_ms {
                let (late_ms, took_ms) = delays.next().expect("there are delays");
                let asked_ms = ms + late_ms;
                let now = looked(|ms| self.end(ms), asked_ms, *took_ms);
                growth = Some(grown(growth, Some(now), false));
                ms += 2_000 + late_ms;
            }
            growth.expect("there are looks")
        }
    }

    proptest! {
        /// Who writes in batches has lost no more than the bound says, whenever the source died.
        #[test]
        fn the_next_batch_is_in_the_bound(
            (per_second, every_ms) in prop_oneof![
                (Just(0_i64), 4_000..200_000_i64),
                (1..500_i64, 4_000..50_000_i64),
            ],
            batch in 1..50_000_i64,
            more_ms in 0..200_000_i64,
            delays_ms in prop::collection::vec((0..1_000_i64, 0..1_000_i64), 1..20),
            lost_ms in 0..600_000_i64,
        ) {
            let batches = Batches { per_second, batch, every_ms };
            let growth = batches.told(3 * every_ms + 60_000 + more_ms, &delays_ms);
            let now_ms = growth.seen.had_ms + lost_ms;
            let seen = Seen {
                copied: growth.seen.end,
                observed: Some(growth.seen.end),
                per_second: growth.per_second.map(|_| growth.written()),
                habit: told(&growth),
            };
            let bound = bound(seen, now_ms - growth.seen.asked_ms);
            let missing = batches.end(now_ms) - growth.seen.end;
            let most = i64::try_from(bound.records()).expect("small");
            prop_assert!(bound.unseen.is_some());
            prop_assert!(most + 2 >= missing, "{growth:?} {bound:?} {missing}");
        }
    }

    /// What one process sees of a partition that grows by `before` and, from `jump_ms` on, by `after` records a
    /// second, until all of the source's side is lost.
    struct Story {
        before: i64,
        after: i64,
        jump_ms: i64,
        /// How late the looks are, each, and how long each answer took.
        delays_ms: Vec<(i64, i64)>,
    }

    impl Story {
        fn end(&self, ms: i64) -> i64 {
            let (slow, fast) = (ms.min(self.jump_ms), (ms - self.jump_ms).max(0));
            10 + (self.before * slow + self.after * fast) / 1_000
        }

        /// What the last look left, and the looks' last time.
        fn told(&self) -> (Growth, i64) {
            let mut growth = None;
            let mut ms = 0;
            for (late_ms, took_ms) in &self.delays_ms {
                let asked_ms = ms + late_ms;
                let now = looked(|ms| self.end(ms), asked_ms, *took_ms);
                growth = Some(grown(growth, Some(now), false));
                ms = (asked_ms + took_ms).max(ms + 2_000);
            }
            (growth.expect("there are looks"), ms)
        }
    }

    proptest! {
        /// Whatever the delays: as long as nothing grew faster after the last looks than before them, no more is
        /// missing than the bound says.
        #[test]
        fn a_bound_is_a_bound(
            before in 0..5_000_i64,
            after in 0..5_000_i64,
            jump_ms in 0..60_000_i64,
            delays_ms in prop::collection::vec((0..4_000_i64, 0..6_000_i64), 3..20),
            lost_ms in 0..100_000_i64,
        ) {
            let mut story = Story { before, after, jump_ms, delays_ms };
            let looks_ms = story.told().1;
            // The last two whole looks were of the newest rate.
            let two_looks_ms = 2 * (4_000 + 6_000 + 2_000);
            story.jump_ms = story.jump_ms.min(looks_ms - two_looks_ms).max(0);
            let (growth, last_ms) = story.told();
            let now_ms = last_ms + lost_ms;
            let seen = Seen {
                copied: growth.seen.end,
                observed: Some(growth.seen.end),
                per_second: growth.per_second.map(|_| growth.written()),
                habit: told(&growth),
            };
            let bound = bound(seen, now_ms - growth.seen.asked_ms);
            let missing = story.end(now_ms) - growth.seen.end;
            if bound.unseen.is_some() {
                prop_assert!(i64::try_from(bound.records()).expect("small") >= missing, "{growth:?} {bound:?} {missing}");
            } else {
                prop_assert_eq!(growth.per_second, None);
            }
        }
    }

    #[test]
    fn what_is_stored_is_as_old_as_the_oldest_end() {
        let look = |number: usize, end, sure_ms| {
            let now = Look {
                sure_ms,
                ..at(end, 9_000)
            };
            (number, grown(None, Some(now), false))
        };
        let all = [
            look(0, 5, 9_000),
            look(1, 5, 8_000),
            look(2, -1, -1),
            look(3, 5, 1_000),
        ];
        let growths: Vec<Growth> = all.into_iter().map(|(_, it)| it).collect();
        let mut looks = TopicLook {
            partitions: vec![Some(at(5, 9_000)); 4],
            ..TopicLook::default()
        };
        assert_eq!(oldest_ms(&growths, &looks), Some(1_000));
        looks.stopped.insert(3, "gap".to_owned());
        assert_eq!(
            oldest_ms(&growths, &looks),
            Some(8_000),
            "a stopped one doesn't count"
        );
        looks.partitions[1] = None;
        assert_eq!(
            oldest_ms(&growths, &looks),
            Some(9_000),
            "it isn't copied yet"
        );
    }

    #[test]
    fn every_answer_of_a_session_tells_all_its_ends() {
        let flow = FlowProgress::new("dr", "primary", "standby");
        let partition = flow.partition(&"orders".into(), 0);
        let teller = Arc::new(Teller::default());
        partition.note_source_end(5, 1_000);
        partition.listen(&teller);
        assert_eq!(
            partition.end_seen_ms(),
            Some(1_000),
            "nothing was answered yet"
        );
        teller.answered(9_000);
        assert_eq!(partition.end_seen_ms(), Some(9_000));
        partition.stop_listening(&teller);
        teller.answered(11_000);
        assert_eq!(partition.end_seen_ms(), Some(9_000), "it has no room");
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
        keep_known(&mut record, &written, (&BTreeSet::new(), None));
        assert_eq!((record.ends, record.record_bytes), (vec![7, 9, -1], 10));
    }

    #[test]
    fn what_may_be_of_a_broker_that_is_cut_off_covers_nothing_that_was_higher() {
        let written = EndsRecord {
            ends: vec![500, 500, 500],
            per_second: vec![70, 70, 70],
            ..EndsRecord::default()
        };
        let unconfirmed = |end| Look {
            sure_ms: -1,
            ..at(end, 9_000)
        };
        let looks = [unconfirmed(450), unconfirmed(600), at(450, 9_000)];
        let partitions: Vec<Growth> = (0..)
            .zip(looks)
            .map(|(number, now)| {
                let before = known(Some(&written), number, Some(now));
                grown(before, Some(now), false)
            })
            .collect();
        let unsure = unsure(&partitions);
        assert_eq!(unsure, [0, 1].into());
        let mut record = record(&partitions, TopicLook::default());
        keep_known(&mut record, &written, (&unsure, Some(4_000)));
        assert_eq!(
            record.ends,
            [500, 600, 450],
            "a log that was cut, if the cluster says so"
        );
        assert_eq!(record.unmeasured, [0].into());
        assert_eq!(record.carried_ms, [(0, 4_000)].into());
    }

    /// What a process stores as long as it has seen nothing of a topic's partitions.
    fn unseen_since(written: &EndsRecord, before_ms: Option<i64>) -> EndsRecord {
        let partitions: Vec<Growth> = (0..written.ends.len())
            .map(|number| {
                let now = Some(Look::UNKNOWN);
                grown(known(Some(written), number, now), now, false)
            })
            .collect();
        let mut record = record(&partitions, TopicLook::default());
        keep_known(&mut record, written, (&BTreeSet::new(), before_ms));
        record
    }

    #[test]
    fn what_the_process_before_saw_last_is_as_old_as_it_was_and_measured_by_nobody() {
        let written = EndsRecord {
            ends: vec![500, 600, -1],
            per_second: vec![70, 0, 0],
            unmeasured: [2].into(),
            quiet_since_ms: vec![1, 2, -1],
            ..EndsRecord::default()
        };
        let first = unseen_since(&written, Some(9_000));
        assert_eq!(first.ends, [500, 600, -1]);
        assert_eq!(first.unmeasured, [0, 1, 2].into());
        assert_eq!(first.per_second, [70, 0, 0]);
        assert_eq!(first.carried_ms, [(0, 9_000), (1, 9_000)].into());
        let second = unseen_since(&first, Some(3_600_000));
        assert!(!differs(&first, &second), "{second:?}");
        let unknown = unseen_since(&written, None);
        assert_eq!(unknown.carried_ms, [(0, -1), (1, -1)].into());
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
