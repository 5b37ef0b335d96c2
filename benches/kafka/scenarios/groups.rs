//! Consumer groups: how exact their positions are on the target, how soon, and how many.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use twinlog::groups::{GroupRecord, parse_record};
use twinlog::wire::{self, Cluster, GroupOffset, TopicPartition};

use crate::brokers;
use crate::contestant::{Contestant, Running};
use crate::load::Load;
use crate::options::Options;
use crate::report::{Bar, Metric, Number, Numbers, Outcome};
use crate::scenarios::{PREFIX, await_topic};
use crate::support::flow::wire_cluster;
use crate::support::{admin, create_topic};
use crate::usage;
use crate::watch::Watch;

const GROUPS: usize = 20;
const PARTITIONS: i32 = 4;
const RECORDS: u64 = 100_000;
/// How long positions may take to be on the target.
const SETTLE: Duration = Duration::from_secs(120);
/// Between two rounds of commits.
const ROUND: Duration = Duration::from_millis(100);
/// The coordinators' log.
const OFFSETS_TOPIC: &str = "__consumer_offsets";

const MANY_GROUPS: usize = 2_000;
const MANY_PARTITIONS: i32 = 50;

const METRICS: [Metric; 9] = [
    Metric {
        key: "exact_positions",
        title: "positions exact, of 80",
        bar: Bar::AtLeast(80.0),
    },
    Metric {
        key: "reread_records",
        title: "records that would be read again",
        bar: Bar::AtMost(0.0),
    },
    Metric {
        key: "skipped_records",
        title: "records that would be skipped",
        bar: Bar::AtMost(0.0),
    },
    Metric {
        key: "delay_p50_ms",
        title: "commit on source to commit on target, p50, ms",
        bar: Bar::None,
    },
    Metric {
        key: "delay_p99_ms",
        title: "commit on source to commit on target, p99, ms",
        bar: Bar::AtMost(1_000.0),
    },
    Metric {
        key: "new_group_delay_p99_ms",
        title: "the same for a new group's first commit, p99, ms",
        bar: Bar::AtMost(1_000.0),
    },
    Metric {
        key: "many_first_pass_seconds",
        title: "2,000 groups x 50 partitions: start to all positions, s",
        bar: Bar::AtMost(30.0),
    },
    Metric {
        key: "many_idle_cores",
        title: "2,000 groups at rest, cores",
        bar: Bar::None,
    },
    Metric {
        key: "many_memory_mb",
        title: "2,000 groups, peak memory, MB",
        bar: Bar::None,
    },
];

/// Runs it. A plain copy loop has no groups.
pub fn run(options: &Options) -> Outcome {
    let seconds = if options.quick { 10 } else { 30 };
    let contestants = options.contestants.iter().copied();
    let numbers = contestants
        .filter(|contestant| *contestant != Contestant::Librdkafka)
        .map(|contestant| {
            let mut numbers = positions(contestant, seconds);
            if contestant == Contestant::Twinlog {
                numbers.extend(many());
            }
            (contestant, numbers)
        })
        .collect();
    Outcome {
        scenario: "groups",
        description: format!(
            "{GROUPS} groups at random places of {PARTITIONS} partitions, then {GROUPS} groups \
             committing every {} ms and a new group every second, for {seconds} s; MirrorMaker 2 \
             looks for groups and positions every 5 s instead of 600 and 60",
            ROUND.as_millis()
        ),
        metrics: &METRICS,
        numbers,
    }
}

fn positions(contestant: Contestant, seconds: u64) -> Numbers {
    let (source, target) = (brokers::start("source"), brokers::start("target"));
    let topic = format!("{PREFIX}groups");
    create_topic(&source.bootstrap(), &topic, PARTITIONS, &[]);
    Load {
        topic: &topic,
        partitions: PARTITIONS,
        records: RECORDS,
        value_bytes: 100,
        json: false,
        settings: &[],
    }
    .produce(&source.bootstrap());
    let on_source = wire_cluster(&source.bootstrap());
    let on_target = wire_cluster(&target.bootstrap());
    let per_partition = i64::try_from(RECORDS).expect("small") / i64::from(PARTITIONS);
    let mut dice = StdRng::seed_from_u64(80);
    let wanted: Positions = (0..GROUPS)
        .map(|group| {
            let offsets = (0..PARTITIONS).map(|partition| {
                let offset = dice.random_range(1..per_partition);
                (TopicPartition::new(topic.as_str(), partition), offset)
            });
            (format!("{PREFIX}random-{group}"), offsets.collect())
        })
        .collect();
    commit(&on_source, &wanted);
    let running = contestant.start_with_groups(&source.bootstrap(), &target.bootstrap(), PREFIX);
    let mut watch = Watch::new(
        &target.bootstrap(),
        &topic,
        vec![per_partition; PARTITIONS as usize],
    );
    await_topic(&watch, &running);
    while !watch.is_complete() {
        watch.look();
        std::thread::sleep(Duration::from_millis(50));
    }
    let found = await_positions(&on_target, &wanted, contestant);
    let mut numbers = judge(&wanted, &found);
    eprintln!("   {}: {numbers:?}", contestant.title());
    numbers.extend(delays(
        contestant,
        (&source.bootstrap(), &target.bootstrap()),
        &on_source,
        &topic,
        seconds,
    ));
    drop(running);
    numbers
}

/// Runs calls of our wire client to their end. One runtime for all: a connection lives and dies with
/// the runtime that opened it.
fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts")
    });
    runtime.block_on(future)
}

type Positions = BTreeMap<String, BTreeMap<TopicPartition, i64>>;

fn commit(cluster: &Cluster, positions: &Positions) {
    let commits: HashMap<String, BTreeMap<TopicPartition, GroupOffset>> = positions
        .iter()
        .map(|(group, offsets)| {
            let offsets = offsets.iter().map(|(at, offset)| {
                let committed = GroupOffset {
                    offset: *offset,
                    leader_epoch: -1,
                    metadata: String::new(),
                };
                (at.clone(), committed)
            });
            (group.clone(), offsets.collect())
        })
        .collect();
    let results = block_on(wire::commit_group_offsets(cluster, &commits));
    for (at, result) in results.values().flatten() {
        assert!(result.is_ok(), "{at}: {result:?}");
    }
}

fn fetch(cluster: &Cluster, groups: impl Iterator<Item = String>) -> Positions {
    let groups: Vec<String> = groups.collect();
    block_on(wire::fetch_group_offsets(cluster, &groups))
        .into_iter()
        .filter_map(|(group, offsets)| {
            let offsets = offsets.ok()?.into_iter();
            let offsets = offsets.map(|(at, committed)| (at, committed.offset));
            Some((group, offsets.collect()))
        })
        .collect()
}

/// What the target has once all positions are exact, or when nothing is waited for any more.
fn await_positions(target: &Cluster, wanted: &Positions, contestant: Contestant) -> Positions {
    let deadline = Instant::now() + SETTLE;
    // MirrorMaker 2 never becomes exact; it is given three of its intervals after the last group
    // showed up.
    let mut rounds_after_all = 0;
    loop {
        let found = fetch(target, wanted.keys().cloned());
        if found == *wanted || Instant::now() > deadline {
            return found;
        }
        let complete = wanted.keys().all(|group| {
            let offsets = found.get(group).map_or(0, BTreeMap::len);
            offsets == PARTITIONS as usize
        });
        if complete && contestant == Contestant::MirrorMaker2 {
            rounds_after_all += 1;
            if rounds_after_all > 15 {
                return found;
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn judge(wanted: &Positions, found: &Positions) -> Numbers {
    let (mut exact, mut reread, mut skipped) = (0_i64, 0_i64, 0_i64);
    for (group, offsets) in wanted {
        for (at, offset) in offsets {
            let there = found.get(group).and_then(|offsets| offsets.get(at));
            // Without a position the group would begin at the start. The records of this topic
            // have the same offsets on both sides, whoever copies them.
            let there = there.copied().unwrap_or(0);
            exact += i64::from(there == *offset);
            reread += (offset - there).max(0);
            skipped += (there - offset).max(0);
        }
    }
    Numbers::from([
        ("exact_positions", Number::Is(exact as f64)),
        ("reread_records", Number::Is(reread as f64)),
        ("skipped_records", Number::Is(skipped as f64)),
    ])
}

/// Commits for some time, then compares the commit times in both coordinators' logs.
fn delays(
    contestant: Contestant,
    (source, target): (&str, &str),
    on_source: &Cluster,
    topic: &str,
    seconds: u64,
) -> Numbers {
    let rounds = seconds * 10;
    let started = Instant::now();
    for round in 1..=rounds {
        let offset = i64::try_from(round).expect("small");
        let mut positions: Positions = (0..GROUPS)
            .map(|group| {
                let at = TopicPartition::new(topic, (group % PARTITIONS as usize) as i32);
                let name = format!("{PREFIX}moving-{group}");
                (name, BTreeMap::from([(at, offset)]))
            })
            .collect();
        if round % 10 == 0 {
            let at = TopicPartition::new(topic, 0);
            let name = format!("{PREFIX}new-{round}");
            positions.insert(name, BTreeMap::from([(at, offset)]));
        }
        commit(on_source, &positions);
        let due = started + ROUND * u32::try_from(round).expect("small");
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    // What is on its way arrives; what doesn't within two intervals of MirrorMaker 2 counts as
    // that late.
    let wait = if contestant == Contestant::MirrorMaker2 {
        15
    } else {
        3
    };
    std::thread::sleep(Duration::from_secs(wait));
    let (from, to) = (commit_log(source), commit_log(target));
    let mut moving = Vec::new();
    let mut new = Vec::new();
    for ((group, at), commits) in &from {
        let delays = if group.contains("moving-") {
            &mut moving
        } else if group.contains("new-") {
            &mut new
        } else {
            continue;
        };
        let empty = Vec::new();
        let there = to.get(&(group.clone(), at.clone())).unwrap_or(&empty);
        for (offset, committed_at_ms) in commits {
            let arrived = there
                .iter()
                .find(|(found, at_ms)| found >= offset && at_ms >= committed_at_ms);
            delays
                .push(arrived.map_or(f64::INFINITY, |(_, at_ms)| (at_ms - committed_at_ms) as f64));
        }
    }
    moving.sort_by(f64::total_cmp);
    new.sort_by(f64::total_cmp);
    let percentile = |delays: &[f64], share: f64| {
        let index = (delays.len() as f64 * share) as usize;
        match delays.get(index.min(delays.len().saturating_sub(1))) {
            Some(delay) if delay.is_finite() => Number::Is(*delay),
            _ => Number::MoreThan(wait as f64 * 1e3),
        }
    };
    let numbers = Numbers::from([
        ("delay_p50_ms", percentile(&moving, 0.5)),
        ("delay_p99_ms", percentile(&moving, 0.99)),
        ("new_group_delay_p99_ms", percentile(&new, 0.99)),
    ]);
    eprintln!("   {}: {numbers:?}", contestant.title());
    numbers
}

/// Every commit in a cluster's `__consumer_offsets`: offset and the coordinator's time, in order.
fn commit_log(bootstrap: &str) -> HashMap<(String, TopicPartition), Vec<(i64, i64)>> {
    let consumer: BaseConsumer = admin::client(bootstrap)
        .set("group.id", "bench-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("valid settings");
    let partitions = admin::partition_count(bootstrap, OFFSETS_TOPIC);
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(OFFSETS_TOPIC, partition, Offset::Beginning)
            .expect("a valid offset");
    }
    consumer.assign(&list).expect("partitions that exist");
    let mut commits: HashMap<(String, TopicPartition), Vec<(i64, i64)>> = HashMap::new();
    let mut ended = 0;
    while ended < partitions {
        match consumer.poll(Duration::from_secs(10)) {
            Some(Ok(message)) => {
                let Ok(GroupRecord::Offset {
                    group,
                    topic,
                    partition,
                    commit: Some(commit),
                }) = parse_record(message.key().unwrap_or_default(), message.payload())
                else {
                    continue;
                };
                let key = (group, TopicPartition::new(topic, partition));
                let commit = (commit.offset, commit.committed_at_ms);
                commits.entry(key).or_default().push(commit);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            other => panic!(
                "reading {OFFSETS_TOPIC}: {:?}",
                other.map(|m| m.map(|_| ()))
            ),
        }
    }
    commits
}

/// Many groups: the first pass, and what they cost at rest.
fn many() -> Numbers {
    let (source, target) = (brokers::start("source"), brokers::start("target"));
    let topic = format!("{PREFIX}many");
    create_topic(&source.bootstrap(), &topic, MANY_PARTITIONS, &[]);
    Load {
        topic: &topic,
        partitions: MANY_PARTITIONS,
        records: 50_000,
        value_bytes: 100,
        json: false,
        settings: &[],
    }
    .produce(&source.bootstrap());
    let on_source = wire_cluster(&source.bootstrap());
    let wanted: Positions = (0..MANY_GROUPS)
        .map(|group| {
            let offsets = (0..MANY_PARTITIONS).map(|partition| {
                let at = TopicPartition::new(topic.as_str(), partition);
                (at, i64::try_from(group % 900).expect("small") + 1)
            });
            (format!("{PREFIX}many-{group}"), offsets.collect())
        })
        .collect();
    commit(&on_source, &wanted);
    let started = Instant::now();
    let running =
        Contestant::Twinlog.start_with_groups(&source.bootstrap(), &target.bootstrap(), PREFIX);
    let first_pass = await_all_followed(&running, started);
    let on_target = wire_cluster(&target.bootstrap());
    let found = fetch(&on_target, wanted.keys().cloned());
    assert!(found == wanted, "positions differ after the first pass");
    let before = usage::of(running.id());
    std::thread::sleep(Duration::from_secs(15));
    let after = usage::of(running.id());
    let seconds = (after.at - before.at).as_secs_f64();
    let cores = (after.cpu_seconds - before.cpu_seconds) / seconds;
    eprintln!(
        "   Twinlog: {MANY_GROUPS} groups in {first_pass:.1} s, {cores:.4} cores at rest, {:.0} MB",
        after.memory_peak_mb
    );
    Numbers::from([
        ("many_first_pass_seconds", Number::Is(first_pass)),
        ("many_idle_cores", Number::Is(cores)),
        ("many_memory_mb", Number::Is(after.memory_peak_mb)),
    ])
}

fn await_all_followed(running: &Running, started: Instant) -> f64 {
    let Running::Twinlog(twinlog) = running else {
        return f64::NAN;
    };
    loop {
        let report = twinlog.groups();
        let groups = report["groups"].as_array().map_or(&[][..], Vec::as_slice);
        let followed = groups
            .iter()
            .filter(|group| group["state"] == "followed" && group["unplaced_partitions"] == 0)
            .count();
        if followed == MANY_GROUPS {
            return started.elapsed().as_secs_f64();
        }
        assert!(
            started.elapsed() < SETTLE,
            "{followed} of {MANY_GROUPS} groups are followed:\n{}",
            running.log_tail()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
