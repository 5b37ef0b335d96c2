//! The clients of `scripts/quickstart`: a small shop that writes and reads, and a comparison.
//!
//! ```text
//! quickstart_load ready BOOTSTRAP              waits until the cluster answers
//! quickstart_load load BOOTSTRAP               topics, data and consumer groups
//! quickstart_load live BOOTSTRAP STOP_FILE     goes on writing until that file exists
//! quickstart_load compare SOURCE TARGET        record by record, offsets included
//! quickstart_load groups SOURCE TARGET         what each group reads next on either side
//! quickstart_load courier FOLDER               a producer and a consumer that move with the primary
//! ```
//!
//! All of it is librdkafka: nothing here shares a line with Twinlog's own Kafka code.

// The modules are those of the integration tests, and only a part of each is used here.
#![allow(dead_code, missing_docs)]

#[path = "../../tests/it/support/admin.rs"]
mod admin;
#[path = "../../tests/it/support/compare.rs"]
mod compare;
#[path = "../../tests/it/support/groups.rs"]
mod groups;
#[path = "../../tests/it/support/logins.rs"]
mod logins;
#[path = "../../tests/it/support/produce.rs"]
mod produce;
#[path = "../../tests/it/support/read.rs"]
mod read;
#[path = "../../tests/it/support/wait.rs"]
mod wait;

mod courier;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

use compare::{first_compacted_difference, first_difference};
use produce::{Codec, HeaderStyle, Load, Transactions};
use read::{Isolation, Seen, read_all};

/// How long the standby may take to have everything once nobody writes any more.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(120);

/// One topic of the shop.
struct Topic {
    name: &'static str,
    partitions: i32,
    configs: &'static [(&'static str, &'static str)],
    note: &'static str,
}

const TOPICS: [Topic; 6] = [
    Topic {
        name: "orders",
        partitions: 6,
        configs: &[],
        note: "1 KB, lz4, headers",
    },
    Topic {
        name: "clicks",
        partitions: 4,
        configs: &[],
        note: "100 B, snappy",
    },
    Topic {
        name: "payments",
        partitions: 3,
        configs: &[],
        note: "transactions, zstd, 30 % aborted",
    },
    Topic {
        name: "customers",
        partitions: 2,
        configs: &[
            ("cleanup.policy", "compact"),
            ("segment.ms", "2000"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ],
        note: "compacted, gzip, tombstones",
    },
    Topic {
        name: "audit",
        partitions: 1,
        configs: &[("message.timestamp.type", "LogAppendTime")],
        note: "uncompressed, LogAppendTime",
    },
    Topic {
        name: courier::TOPIC,
        partitions: 4,
        configs: &[],
        note: "for the failover",
    },
];

/// Groups, their topics, and how many records each has read.
const GROUPS: [(&str, &str, usize); 3] = [
    ("billing", "orders", 25_000),
    ("dashboard", "clicks", 90_000),
    ("ledger", "payments", 2_000),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["ready", bootstrap] => ready(bootstrap),
        ["load", bootstrap] => load(bootstrap),
        ["live", bootstrap, stop_file] => live(bootstrap, Path::new(stop_file)),
        ["compare", source, target] => return compare_all(source, target),
        ["groups", source, target] => return compare_groups(source, target),
        ["courier", folder] => return courier::run(Path::new(folder)),
        _ => {
            eprintln!(
                "usage: quickstart_load ready|load BOOTSTRAP | live BOOTSTRAP STOP_FILE | \
                 compare|groups SOURCE TARGET | courier FOLDER"
            );
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn ready(bootstrap: &str) {
    let consumer: BaseConsumer = admin::client(bootstrap).create().expect("valid settings");
    wait::eventually(Duration::from_secs(60), "the cluster answers", || {
        consumer
            .fetch_metadata(None, Duration::from_secs(1))
            .map(drop)
            .map_err(|error| error.to_string())
    });
}

/// Creates the topics, fills them, and lets three consumer groups read a part.
fn load(bootstrap: &str) {
    for topic in &TOPICS {
        admin::create_topic(bootstrap, topic.name, topic.partitions, topic.configs);
    }
    Load::new("orders", 60_000)
        .codec(Codec::Lz4)
        .headers(HeaderStyle::Plain)
        .value_bytes(1024)
        .produce(bootstrap);
    Load::new("clicks", 200_000)
        .codec(Codec::Snappy)
        .value_bytes(100)
        .keys(0)
        .produce(bootstrap);
    Transactions::new(
        Load::new("payments", 40)
            .codec(Codec::Zstd)
            .value_bytes(300)
            .headers(HeaderStyle::Every),
        150,
    )
    .produce(bootstrap);
    Load::new("customers", 30_000)
        .codec(Codec::Gzip)
        .keys(500)
        .tombstone_every(97)
        .value_bytes(200)
        .produce(bootstrap);
    Load::new("audit", 5_000)
        .value_bytes(250)
        .produce(bootstrap);
    for topic in &TOPICS {
        println!(
            "  {:<10} {} partitions: {}",
            topic.name, topic.partitions, topic.note
        );
    }
    for (group, topic, records) in GROUPS {
        consume(bootstrap, group, topic, records, true);
        println!("  group {group} has read {records} records of {topic}");
    }
}

/// Reads some records as a member of a group, commits if wanted, and leaves.
fn consume(bootstrap: &str, group: &str, topic: &str, records: usize, commits: bool) {
    let consumer: BaseConsumer = admin::client(bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .create()
        .expect("valid settings");
    consumer.subscribe(&[topic]).expect("a valid topic name");
    let started = Instant::now();
    let mut seen = 0;
    while seen < records {
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(_)) => seen += 1,
            Some(Err(error)) => eprintln!("{group}: {error}, trying again"),
            None => {}
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "group {group} has read only {seen} of {records} records of {topic}"
        );
    }
    if commits {
        consumer
            .commit_consumer_state(CommitMode::Sync)
            .expect("the group's commit is accepted");
    }
}

/// Goes on writing a few hundred records a second, some in transactions.
fn live(bootstrap: &str, stop_file: &Path) {
    let mut first = 1_000_000;
    while !stop_file.exists() {
        Load::new("orders", 100)
            .first(first)
            .codec(Codec::Lz4)
            .headers(HeaderStyle::Plain)
            .value_bytes(1024)
            .produce(bootstrap);
        Transactions::new(Load::new("payments", 10).first(first).codec(Codec::Zstd), 3)
            .produce(bootstrap);
        Load::new("customers", 20)
            .first(first)
            .codec(Codec::Gzip)
            .keys(500)
            .produce(bootstrap);
        first += 100;
        // This is the pace of the load, not a wait for something.
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Compares all topics, giving the standby time to catch up; prints an account.
fn compare_all(source: &str, target: &str) -> ExitCode {
    println!(
        "  {:<10} {:>8} {:>17}  result",
        "topic", "records", "offsets"
    );
    let mut failed = false;
    for topic in &TOPICS {
        let started = Instant::now();
        let (records, difference) = loop {
            let (records, difference) = compare_one(source, target, topic);
            if difference.is_none() || started.elapsed() > CATCH_UP_DEADLINE {
                break (records, difference);
            }
            std::thread::sleep(Duration::from_millis(500));
        };
        let last = records
            .iter()
            .map(|record| record.offset)
            .max()
            .unwrap_or(-1);
        let result = if difference.is_none() {
            "same, offsets included"
        } else {
            "DIFFERENT"
        };
        let range = format!("0..{last}");
        println!(
            "  {:<10} {:>8} {range:>17}  {result}",
            topic.name,
            records.len()
        );
        if let Some(difference) = difference {
            println!("{difference}");
            failed = true;
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn compare_one(source: &str, target: &str, topic: &Topic) -> (Vec<Seen>, Option<String>) {
    let on_source = read_all(source, topic.name, Isolation::ReadCommitted);
    if admin::partition_count(target, topic.name) < topic.partitions {
        return (on_source, Some("  the topic is not on the standby".into()));
    }
    let on_target = read_all(target, topic.name, Isolation::ReadCommitted);
    let compacted = topic.configs.contains(&("cleanup.policy", "compact"));
    let difference = if compacted {
        first_compacted_difference(&on_source, &on_target)
    } else {
        first_difference(&on_source, &on_target)
    };
    (on_source, difference)
}

/// Lets every group read on for one record per partition, on both clusters.
fn compare_groups(source: &str, target: &str) -> ExitCode {
    println!(
        "  {:<10} {:<12} {:>10} {:>10}  the next record",
        "group", "partition", "primary", "standby"
    );
    let mut failed = false;
    for (group, topic, _) in GROUPS {
        let partitions = admin::partition_count(source, topic);
        let on_source = groups::next_records(source, group, topic, partitions);
        let on_target = groups::next_records(target, group, topic, partitions);
        for (partition, next) in &on_source {
            let there = on_target.get(partition);
            let same = there == Some(next);
            failed |= !same;
            let offset = |next: Option<&Option<(i64, Vec<u8>)>>| match next {
                Some(Some((offset, _))) => offset.to_string(),
                Some(None) => "end".to_owned(),
                None => "nowhere".to_owned(),
            };
            let name = next.as_ref().map_or_else(String::new, |(_, value)| {
                let name = value.split(|byte| *byte == b' ').next();
                String::from_utf8_lossy(name.unwrap_or_default()).into_owned()
            });
            println!(
                "  {group:<10} {:<12} {:>10} {:>10}  {name} {}",
                format!("{topic}-{partition}"),
                offset(Some(next)),
                offset(there),
                if same { "on both" } else { "DIFFERENT" },
            );
        }
    }
    if failed {
        return ExitCode::FAILURE;
    }
    let (group, topic, _) = GROUPS[0];
    // Without a commit: the position there goes on following.
    consume(target, group, topic, 100, false);
    println!("  a consumer of {group} on the standby has read the next 100 records of {topic}");
    ExitCode::SUCCESS
}
