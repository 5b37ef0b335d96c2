//! Groups between real clusters: the record that each reads next is the same on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::groups::{commit, committed, next_values};
use crate::support::{
    Background, Codec, Dice, Isolation, KafkaVersion, Load, Transactions, Twinlog, admin,
    await_same, create_topic, delete_records, end_offset, eventually, read_all, two_clusters,
};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode;

const DEADLINE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;
const GROUPS: i64 = 20;
/// Each of them is written twice.
const KEYS: u64 = 2_000;
const TOPICS: [&str; 4] = ["plain", "transactions", "compacted", "shifted"];

fn write(bootstrap: &str) {
    create_topic(bootstrap, "plain", PARTITIONS, &[]);
    Load::new("plain", 4_000)
        .codec(Codec::Lz4)
        .produce(bootstrap);
    create_topic(bootstrap, "transactions", PARTITIONS, &[]);
    Transactions::new(Load::new("transactions", 10), 200).produce(bootstrap);
    let compacted = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "500"),
    ];
    create_topic(bootstrap, "compacted", PARTITIONS, &compacted);
    Load::new("compacted", 4_000).keys(KEYS).produce(bootstrap);
    await_cleaned(bootstrap);
    create_topic(bootstrap, "shifted", PARTITIONS, &[]);
    Load::new("shifted", 2_000).produce(bootstrap);
    for partition in 0..PARTITIONS {
        delete_records(bootstrap, "shifted", partition, 100 + i64::from(partition));
    }
}

/// Waits until each key has one record. What a cleaner has still to take would be gone on one side and be the next record
/// on the other.
fn await_cleaned(bootstrap: &str) {
    const FIRST: u64 = 10_000;
    let mut next = FIRST;
    eventually(DEADLINE, "each key has one record", || {
        // A segment rolls when something is appended to it.
        for partition in 0..PARTITIONS {
            let load = Load::new("compacted", 1).first(next).keys(1_000_000);
            load.partition(partition).produce(bootstrap);
            next += 1;
        }
        let left = read_all(bootstrap, "compacted", Isolation::ReadCommitted).len() as u64;
        match left == KEYS + next - FIRST {
            true => Ok(()),
            false => Err((left, next)),
        }
    });
}

/// The sum of each group's positions.
type Sums = BTreeMap<String, i64>;

/// Commits a random position for every group, topic and partition.
fn scatter(bootstrap: &str, dice: &mut Dice) -> Sums {
    let mut sums = Sums::new();
    for topic in TOPICS {
        let ends: Vec<i64> = (0..PARTITIONS)
            .map(|partition| end_offset(bootstrap, topic, partition))
            .collect();
        let first = if topic == "shifted" { 110 } else { 0 };
        for group in 0..GROUPS {
            let positions: Vec<(&str, i32, i64)> = (0..PARTITIONS)
                .zip(&ends)
                .map(|(partition, end)| (topic, partition, dice.number(first, *end)))
                .collect();
            let group = format!("group-{group}");
            commit(bootstrap, &group, &positions);
            let sum: i64 = positions.iter().map(|(_, _, offset)| offset).sum();
            *sums.entry(group).or_insert(0) += sum;
        }
    }
    sums
}

type Next = BTreeMap<(i64, &'static str), BTreeMap<i32, Option<Vec<u8>>>>;

/// Most of it is waiting for answers, so several groups are asked at a time.
fn read_next(bootstrap: &str) -> Next {
    let read = |group: i64| {
        let name = format!("group-{group}");
        let next = TOPICS.map(|topic| next_values(bootstrap, &name, topic, PARTITIONS));
        TOPICS.map(|topic| (group, topic)).into_iter().zip(next)
    };
    let groups: Vec<i64> = (0..GROUPS).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = groups
            .chunks(4)
            .map(|groups| scope.spawn(move || groups.iter().copied().flat_map(read).collect()))
            .collect();
        let read = threads.into_iter().map(|thread| {
            let next: Vec<_> = thread.join().expect("a reader ends");
            next
        });
        read.flatten().collect()
    })
}

/// Waits until these positions were seen on the source and are on the target.
fn await_followed(twinlog: &Twinlog, sums: &Sums) {
    eventually(DEADLINE, "every group is followed", || {
        let report = twinlog.groups();
        let groups = report["groups"].as_array().cloned().unwrap_or_default();
        let settled = groups.len() >= GROUPS as usize
            && groups.iter().all(|group| {
                let name = group["group"].as_str().unwrap_or_default();
                group["state"] == "followed"
                    && group["source_position"].as_i64() == sums.get(name).copied()
                    && group["reread_records"] == 0
                    && group["unplaced_partitions"] == 0
            });
        if settled {
            Ok(())
        } else {
            Err(format!("{report:#}"))
        }
    });
}

/// The experiment: groups at random places, Twinlog killed meanwhile, the source gone.
fn every_group_goes_on_at_the_very_next_record(mode: &str) {
    let mut dice = Dice::new(&format!("groups {mode}"));
    let (mut source, target) = two_clusters(KafkaVersion::V4_3);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    write(&from);
    let sums = scatter(&from, &mut dice);
    let mut twinlog = Twinlog::start(&Twinlog::config(&from, &to, &format!("offsets: {mode}")));
    await_followed(&twinlog, &sums);

    // Moved forward and back while Twinlog is down, and on after its crash.
    twinlog.kill9();
    scatter(&from, &mut dice);
    Load::new("plain", 400).first(4_000).produce(&from);
    twinlog.launch();
    crate::support::await_caught_up(&twinlog, DEADLINE);
    let sums = scatter(&from, &mut dice);
    let expected = read_next(&from);
    await_followed(&twinlog, &sums);
    source.stop(1);

    let found = read_next(&to);
    let mut wrong = Vec::new();
    for (at, expected) in &expected {
        for (partition, value) in expected {
            if found[at].get(partition) != Some(value) {
                let text = |value: Option<&Option<Vec<u8>>>| {
                    value.map(|v| v.as_ref().map(|v| v.escape_ascii().to_string()))
                };
                wrong.push(format!(
                    "{at:?}-{partition}: {:?} instead of {:?}",
                    text(found[at].get(partition)),
                    text(Some(value))
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} positions wrong:\n{}",
        wrong.len(),
        expected.len() * PARTITIONS as usize,
        wrong.join("\n")
    );
}

#[test]
fn every_group_goes_on_at_the_very_next_record_identical() {
    every_group_goes_on_at_the_very_next_record("identical");
}

#[test]
fn every_group_goes_on_at_the_very_next_record_mapped() {
    every_group_goes_on_at_the_very_next_record("mapped");
}

/// What one consumer did until it was stopped.
struct Worked {
    /// Every record that it processed, in order: partition, offset, value.
    processed: Vec<(i32, i64, Vec<u8>)>,
    /// How many of them it had not committed when it stopped.
    uncommitted: usize,
}

/// A member of the group that commits now and then, until it is told to stop or, with `to_end`,
/// until it has read everything.
fn work(
    bootstrap: String,
    topic: &'static str,
    stop: Arc<AtomicBool>,
    to_end: bool,
) -> JoinHandle<Worked> {
    let consumer: BaseConsumer = admin::client(&bootstrap)
        .set("group.id", topic)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .create()
        .expect("valid settings");
    consumer.subscribe(&[topic]).expect("a topic");
    std::thread::spawn(move || {
        let mut worked = Worked {
            processed: Vec::new(),
            uncommitted: 0,
        };
        let mut ended = BTreeSet::new();
        while !stop.load(Ordering::Relaxed) && (!to_end || ended.len() < PARTITIONS as usize) {
            match consumer.poll(Duration::from_millis(50)) {
                None => {}
                Some(Ok(message)) => {
                    let value = message.payload().unwrap_or_default().to_vec();
                    let record = (message.partition(), message.offset(), value);
                    worked.processed.push(record);
                    worked.uncommitted += 1;
                    if worked.uncommitted == 37 {
                        eventually(DEADLINE, "the group's coordinator answers", || {
                            consumer.commit_consumer_state(CommitMode::Sync)
                        });
                        worked.uncommitted = 0;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                // It mends that by itself.
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
                ))) => {}
                Some(Err(error)) => panic!("{topic}: {error}"),
            }
        }
        worked
    })
}

/// Consumers work and commit all the time; at some moment everybody is moved to the standby.
#[test]
fn a_moving_group_skips_nothing_and_reads_again_only_what_it_had_not_committed() {
    const TOPIC: &str = "moving";
    let mut dice = Dice::new(TOPIC);
    let (mut source, target) = two_clusters(KafkaVersion::V4_3);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, PARTITIONS, &[]);
    let starts: Vec<(&str, i32, i64)> = (0..PARTITIONS).map(|p| (TOPIC, p, 0)).collect();
    commit(&from, TOPIC, &starts);
    let mut load = Background::new();
    load.plain(&from, TOPIC, 100);
    let _twinlog = Twinlog::between(&from, &to);
    let stop = Arc::new(AtomicBool::new(false));
    let working = work(from.clone(), TOPIC, stop.clone(), false);
    eventually(DEADLINE, "it has begun", || {
        let found = committed(&from, TOPIC, TOPIC, PARTITIONS);
        match found.iter().flatten().sum::<i64>() {
            0..200 => Err(found),
            _ => Ok(()),
        }
    });
    dice.wait(0, 6_000);

    stop.store(true, Ordering::Relaxed);
    let before = working.join().expect("the consumer worked");
    load.stop();
    // Not by Twinlog's word: what was written last may be news to it.
    let written = await_same(&from, &to, TOPIC, DEADLINE);
    let at_source = committed(&from, TOPIC, TOPIC, PARTITIONS);
    eventually(DEADLINE, "the last commit arrived", || {
        let found = committed(&to, TOPIC, TOPIC, PARTITIONS);
        if found == at_source {
            Ok(())
        } else {
            Err(found)
        }
    });
    source.stop(1);

    let stop = Arc::new(AtomicBool::new(false));
    let after = work(to, TOPIC, stop, true).join().expect("it goes on");
    let all: BTreeSet<(i32, i64)> = written.iter().map(|r| (r.partition, r.offset)).collect();
    let seen = |worked: &Worked| -> BTreeSet<(i32, i64)> {
        worked.processed.iter().map(|(p, o, _)| (*p, *o)).collect()
    };
    let (first, second) = (seen(&before), seen(&after));
    let skipped: Vec<_> = all
        .difference(&first)
        .filter(|at| !second.contains(at))
        .collect();
    assert!(skipped.is_empty(), "{} skipped: {skipped:?}", skipped.len());
    assert_eq!(first.intersection(&second).count(), before.uncommitted);
    let values: BTreeMap<(i32, i64), &[u8]> = written
        .iter()
        .map(|r| {
            (
                (r.partition, r.offset),
                r.value.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    for (partition, offset, value) in &after.processed {
        assert_eq!(values[&(*partition, *offset)], value.as_slice());
    }
}
