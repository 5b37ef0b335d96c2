//! Round after round: load and actions, all healed, the copy caught up, the judge.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::judge::{Fault, View, judge, judge_group};
use super::ledger::Ledger;
use super::load::{Load, group_of};
use super::schedule::Schedule;
use super::stage::Stage;
use super::topics::{MAPPED, TOPICS, Topic};
use super::watch::Watch;
use crate::support::admin::watermarks;
use crate::support::groups::{commit, committed};
use crate::support::mapped::translate;
use crate::support::{Isolation, Seen, end_offset, eventually, read_all};

/// Actions of a round.
const STEPS: usize = 12;
/// How long the load runs alone when there are no actions at all.
const QUIET: Duration = Duration::from_secs(20);
/// How long the copy may take to catch up once all is healed: it waits for requests of 30 s, and the
/// machine is busy with seven processes.
const CATCHES_UP: Duration = Duration::from_secs(150);
/// How many faults a failure shows.
const FAULTS_SHOWN: usize = 12;
/// Offsets of which `twinlog translate` is asked in a round.
const TRANSLATED: usize = 3;

/// What the environment says: `scripts/chaos` sets it.
#[derive(Debug)]
struct Settings {
    seed: u64,
    time: Duration,
    only: Vec<String>,
    is_quiet: bool,
}

impl Settings {
    fn from_environment() -> Self {
        let told = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name: &str| {
            told(name).map(|text| {
                let number = text.parse::<u64>();
                number.unwrap_or_else(|error| panic!("{name}={text}: {error}"))
            })
        };
        let only = told("TWINLOG_CHAOS_ONLY").unwrap_or_default();
        let is_quiet = only == "nothing";
        let only = only.split(',').filter(|kind| !kind.is_empty() && !is_quiet);
        Self {
            seed: number("TWINLOG_CHAOS_SEED").unwrap_or_else(|| rand::random_range(1..1_000_000)),
            time: Duration::from_secs(60 * number("TWINLOG_CHAOS_MINUTES").unwrap_or(10)),
            only: only.map(str::to_owned).collect(),
            is_quiet,
        }
    }
}

#[test]
fn the_copy_is_right_whatever_happens() {
    let settings = Settings::from_environment();
    println!("scripts/chaos --seed {}", settings.seed);
    let mut stage = Stage::start(settings.seed);
    let ledger = Arc::new(Ledger::default());
    let mut schedule = Schedule::new(settings.seed, settings.only.clone());
    let (started, mut rounds) = (Instant::now(), 0);
    // The topics of the copy are there before anything is done to them.
    let load = Load::start(&stage.source(), settings.seed, 0, &ledger);
    stage.pass(Duration::from_secs(5));
    load.stop();
    judge_all(&mut stage, &ledger, settings.seed);
    while started.elapsed() < settings.time {
        rounds += 1;
        let load = Load::start(&stage.source(), settings.seed, rounds, &ledger);
        let watch = Watch::start(&stage.target(), &ledger);
        if settings.is_quiet {
            stage.pass(QUIET);
        } else {
            for step in schedule.by_ref().take(STEPS) {
                stage.pass(Duration::from_millis(step.pause_ms));
                stage.act(step.action);
            }
        }
        stage.heal();
        watch.stop();
        load.stop();
        judge_all(&mut stage, &ledger, settings.seed.wrapping_add(1));
    }
    let summary = format!(
        "seed {}: {:.1} minutes, {rounds} rounds, {} actions ({}), {} records: 0 lost, 0 doubled, 0 out of order",
        settings.seed,
        started.elapsed().as_secs_f64() / 60.0,
        stage.journal.actions(),
        stage.journal.counts(),
        ledger.records(),
    );
    stage.journal.say(&summary);
}

/// Waits until the copy has caught up, and judges everything. Nobody writes meanwhile.
///
/// # Panics
/// When something is wrong.
fn judge_all(stage: &mut Stage, ledger: &Ledger, seed: u64) {
    let began = Instant::now();
    let positions: Vec<_> = TOPICS
        .map(|topic| commit_at_the_end(stage, ledger, &topic))
        .into();
    await_caught_up(stage);
    let caught_up = began.elapsed();
    let mut faults: Vec<String> = ledger.failures();
    let mut dice = StdRng::seed_from_u64(seed);
    for (topic, positions) in TOPICS.iter().zip(&positions) {
        let read = Read::both(stage, topic);
        let unseen = ledger.learn(topic.name, &read.source);
        if !topic.promise.is_compacted && !topic.promise.is_shortened {
            let lost = |id: &String| format!("{id} was acknowledged and isn't on the source");
            faults.extend(unseen.iter().map(lost));
        }
        faults.extend(read.judge(ledger, topic).iter().map(Fault::to_string));
        faults.extend(await_groups(stage, &read, ledger, topic, positions));
        if topic.name == MAPPED && faults.is_empty() {
            faults.extend(translated(stage, &read, &mut dice));
        }
    }
    for log in stage.twinlog_logs() {
        let panics = log.lines().filter(|line| line.contains("panicked at"));
        faults.extend(panics.map(str::to_owned));
    }
    let verdict = format!(
        "{} records, caught up after {:.1} s, judged after {:.1} s: {} faults",
        ledger.records(),
        caught_up.as_secs_f64(),
        began.elapsed().as_secs_f64(),
        faults.len()
    );
    stage.journal.say(&verdict);
    if !faults.is_empty() {
        println!("{:#}", stage.twinlog().status());
        if let Ok((_, groups)) = stage.twinlog().get("/api/v1/groups") {
            println!("{groups}");
        }
        let shown = faults.iter().take(FAULTS_SHOWN).cloned();
        let shown: Vec<String> = shown.collect();
        panic!(
            "{} faults, the first are\n{}",
            faults.len(),
            shown.join("\n")
        );
    }
}

/// Commits a position of the topic's group on each partition; returns them.
fn commit_at_the_end(stage: &Stage, ledger: &Ledger, topic: &Topic) -> Vec<i64> {
    let ends = (0..topic.partitions).map(|partition| ledger.end(topic.name, partition));
    let ends: Vec<i64> = ends.collect();
    let positions: Vec<(&str, i32, i64)> = (0..)
        .zip(&ends)
        .map(|(partition, end)| (topic.name, partition, *end))
        .collect();
    commit(&stage.source(), &group_of(topic.name), &positions);
    ends
}

/// Waits until Twinlog says that all is copied, and then until the logs say so.
fn await_caught_up(stage: &Stage) {
    eventually(CATCHES_UP, "everything is copied", || {
        let (_, body) = stage.twinlog().get("/api/v1/status").map_err(behind)?;
        let status: Value = serde_json::from_str(&body).map_err(behind)?;
        let flows = status["flows"].as_array();
        match flows.is_some_and(|flows| flows.len() == 2 && flows.iter().all(is_caught_up)) {
            true => Ok(()),
            false => Err(held_up(&status)),
        }
    });
    let (source, target) = (stage.source(), stage.target());
    let identical = TOPICS.iter().filter(|topic| topic.promise.has_same_offsets);
    for topic in identical {
        for partition in 0..topic.partitions {
            let end = end_offset(&source, topic.name, partition);
            let what = format!("{}-{partition} ends at {end}", topic.name);
            eventually(CATCHES_UP, &what, || {
                match end_offset(&target, topic.name, partition) {
                    found if found == end => Ok(()),
                    found => Err(found),
                }
            });
        }
    }
}

fn behind(error: impl std::fmt::Display) -> Vec<String> {
    vec![error.to_string()]
}

/// What isn't copied to its end, and why.
fn held_up(status: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    for flow in list(&status["flows"]) {
        lines.push(format!(
            "{}: {} {}",
            flow["name"], flow["state"], flow["totals"]
        ));
        for topic in list(&flow["topics"]) {
            let partitions = list(&topic["partitions"]).into_iter();
            let behind = partitions.filter(|it| it["state"] != "copying" || it["lag_records"] != 0);
            lines.extend(behind.map(|partition| format!("{}: {partition}", topic["name"])));
        }
    }
    lines
}

fn is_caught_up(flow: &Value) -> bool {
    flow["state"] == "running"
        && flow["totals"]["lag_records"] == 0
        && flow["totals"]["lag_unknown_partitions"] == 0
        && flow["totals"]["copying"] == flow["totals"]["partitions"]
        && flow["totals"]["partitions"].as_u64() > Some(0)
}

/// A topic as librdkafka reads it on both clusters.
struct Read {
    source: Vec<Seen>,
    target: Vec<Seen>,
    /// The same for who reads committed.
    target_committed: usize,
    source_starts: Vec<i64>,
    target_starts: Vec<i64>,
}

impl Read {
    fn both(stage: &Stage, topic: &Topic) -> Self {
        let (source, target) = (stage.source(), stage.target());
        let starts = |bootstrap: &str| {
            let start = |partition| watermarks(bootstrap, topic.name, partition).0;
            (0..topic.partitions).map(start).collect()
        };
        // What is deleted meanwhile is behind the start that is asked for afterwards.
        let read = |bootstrap: &str, isolation| read_all(bootstrap, topic.name, isolation);
        Self {
            source: read(&source, Isolation::ReadCommitted),
            target_committed: read(&target, Isolation::ReadCommitted).len(),
            target: read(&target, Isolation::ReadUncommitted),
            source_starts: starts(&source),
            target_starts: starts(&target),
        }
    }

    fn judge(&self, ledger: &Ledger, topic: &Topic) -> Vec<Fault> {
        let judge_one =
            |partition| self.with_view(ledger, topic, partition, |view| judge(view, topic.promise));
        let mut faults: Vec<Fault> = (0..topic.partitions).flat_map(judge_one).collect();
        let changes = topic.promise.is_compacted || topic.promise.is_shortened;
        if !changes && self.target_committed != self.target.len() {
            let text = format!(
                "{} records for who reads committed, {} for others",
                self.target_committed,
                self.target.len()
            );
            faults.push(Fault {
                place: (topic.name.to_owned(), -1),
                offset: -1,
                kind: super::judge::Kind::Unexpected,
                text,
            });
        }
        faults
    }

    fn with_view<T>(
        &self,
        ledger: &Ledger,
        topic: &Topic,
        partition: i32,
        look: impl FnOnce(&View<'_>) -> T,
    ) -> T {
        let index = usize::try_from(partition).expect("small");
        let (source, target) = (of(&self.source, partition), of(&self.target, partition));
        look(&View {
            topic: topic.name,
            partition,
            expected: &ledger.partition(topic.name, partition),
            source_start: self.source_starts[index],
            source: &source,
            target_start: self.target_starts[index],
            target: &target,
        })
    }
}

/// The records of a partition.
fn of(records: &[Seen], partition: i32) -> Vec<&Seen> {
    let found = records.iter();
    found
        .filter(|record| record.partition == partition)
        .collect()
}

/// Waits until the topic's group goes on at the same records; what is wrong in the end.
fn await_groups(
    stage: &Stage,
    read: &Read,
    ledger: &Ledger,
    topic: &Topic,
    positions: &[i64],
) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = committed(
            &stage.target(),
            &group_of(topic.name),
            topic.name,
            topic.partitions,
        );
        let judge_one = |partition: i32| {
            let index = usize::try_from(partition).expect("small");
            read.with_view(ledger, topic, partition, |view| {
                judge_group(view, topic.promise, positions[index], found[index])
            })
        };
        let faults: Vec<Fault> = (0..topic.partitions).flat_map(judge_one).collect();
        if faults.is_empty() || Instant::now() > deadline {
            return faults.iter().map(Fault::to_string).collect();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Asks `twinlog translate` where some records are, and where they came from.
fn translated(stage: &Stage, read: &Read, dice: &mut StdRng) -> Vec<String> {
    let mut faults = Vec::new();
    for _ in 0..TRANSLATED.min(read.source.len()) {
        // The same sequence, as was judged.
        let index = dice.random_range(0..read.source.len());
        let (record, copy) = (&read.source[index], &read.target[index]);
        let flow = ["--flow", MAPPED];
        let there = translate(
            stage.twinlog(),
            MAPPED,
            record.partition,
            record.offset,
            &flow,
        );
        let back = ["--flow", MAPPED, "--reverse"];
        let back = translate(stage.twinlog(), MAPPED, copy.partition, copy.offset, &back);
        if there["offset"] != copy.offset || back["offset"] != record.offset {
            faults.push(format!("{record:?} is {copy:?}, but {there} and {back}"));
        }
    }
    faults
}
