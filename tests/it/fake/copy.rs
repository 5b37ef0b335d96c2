//! Copying: every kind of record arrives once, at the same offset.

use std::time::Duration;

use crate::support::admin::partition_count;
use crate::support::fake::options;
use crate::support::wait::eventually_after;
use crate::support::{
    Codec, FakeCluster, HeaderStyle, Isolation, KafkaVersion, Load, Transactions, Twinlog,
    add_partitions, assert_same, await_same, create_topic, delete_records, end_offset, fake_pair,
    java_produce, java_read, read_all,
};
use fake_kafka::state::Options;

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";

/// Two brokers, so that leaders have to be found.
fn two_brokers(cluster_id: &str) -> FakeCluster {
    FakeCluster::start(Options {
        brokers: 2,
        ..options(cluster_id)
    })
}

#[test]
fn librdkafka_writes_and_reads() {
    let cluster = two_brokers("source");
    let bootstrap = cluster.bootstrap();
    create_topic(&bootstrap, TOPIC, 3, &[]);
    for (codec, first) in Codec::ALL.into_iter().zip((0..).step_by(200)) {
        Load::new(TOPIC, 200)
            .first(first)
            .headers(HeaderStyle::Every)
            .with("compression.codec", codec.name())
            .produce(&bootstrap);
    }
    let seen = read_all(&bootstrap, TOPIC, Isolation::ReadCommitted);
    assert_eq!(seen.len(), 1_000);
}

#[test]
fn twinlog_copies_from_one_fake_to_another() {
    let (source, target) = (two_brokers("source"), two_brokers("target"));
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 3, &[]);
    Load::new(TOPIC, 500).partition(0).produce(&from);
    delete_records(&from, TOPIC, 0, 123);
    Load::new(TOPIC, 1_000)
        .headers(HeaderStyle::Every)
        .produce(&from);
    let _twinlog = Twinlog::between(&from, &to);
    let seen = await_same(&from, &to, TOPIC, DEADLINE);
    assert_eq!(seen.len(), 1_500 - 123);
    Load::new(TOPIC, 300).first(2_000).produce(&from);
    await_same(&from, &to, TOPIC, DEADLINE);
}

#[test]
fn everything_is_copied_between_fakes() {
    let (source, target) = fake_pair();
    everything_is_copied(&source.bootstrap(), &target.bootstrap(), None);
}

/// One Twinlog between a pair of clusters, and topics of every kind.
///
/// With the version of Kafka's own client, it writes and reads too: that one is slow to start.
pub(crate) fn everything_is_copied(source: &str, target: &str, java: Option<KafkaVersion>) {
    create_topic(source, "codecs", 3, &[]);
    for (codec, first) in Codec::ALL.into_iter().zip((0..).step_by(400)) {
        // One record a batch and a hundred a batch: passed, merged, and both in turn.
        for (first, batch) in [(first, "1"), (first + 200, "100")] {
            Load::new("codecs", 200)
                .first(first)
                .codec(codec)
                .headers(HeaderStyle::Every)
                .tombstone_every(7)
                .value_bytes(300)
                .timestamps_from(1_700_000_000_000)
                .with("batch.num.messages", batch)
                .produce(source);
        }
    }
    create_topic(source, "transactions", 2, &[]);
    Transactions::new(Load::new("transactions", 10), 40).produce(source);
    if let Some(version) = java {
        java_produce(
            version,
            source,
            "transactions",
            &[
                "count=100",
                "first=1000",
                "transaction=10",
                "abort_every=3",
                "headers=true",
            ],
        );
    }
    create_topic(
        source,
        "append-time",
        1,
        &[("message.timestamp.type", "LogAppendTime")],
    );
    Load::new("append-time", 300)
        .codec(Codec::Zstd)
        .produce(source);
    create_topic(source, "shifted", 1, &[]);
    Load::new("shifted", 500).produce(source);
    delete_records(source, "shifted", 0, 321);
    create_topic(source, "large", 1, &[("max.message.bytes", "6000000")]);
    Load::new("large", 3)
        .value_bytes(5_900_000)
        .with("message.max.bytes", 6_000_000)
        .produce(source);

    let mut twinlog = Twinlog::between(source, target);
    for topic in ["codecs", "transactions", "append-time", "shifted", "large"] {
        await_same(source, target, topic, DEADLINE);
    }
    if let Some(version) = java {
        let by_java = java_read(version, target, "transactions", Isolation::ReadUncommitted);
        assert_same(
            &read_all(source, "transactions", Isolation::ReadCommitted),
            &by_java,
        );
    }

    // A topic and partitions that come later, written at once.
    create_topic(source, "later", 1, &[]);
    Load::new("later", 100).produce(source);
    await_same(source, target, "later", DEADLINE);
    add_partitions(source, "later", 3);
    Load::new("later", 300).first(100).produce(source);
    await_same(source, target, "later", DEADLINE);
    new_ones_are_copied_at_once(source, target);

    twinlog.wait_until(DEADLINE, "everything is caught up", |status| {
        let flow = &status["flows"][0];
        flow["totals"]["lag_records"] == 0 && flow["state"] == "running"
    });
    assert!(twinlog.terminate().success());
    twinlog.assert_quiet(&[]);
}

/// Topics and partitions are being copied within 2 s of their creation. The best of three counts,
/// since this machine may be busy with something else.
fn new_ones_are_copied_at_once(source: &str, target: &str) {
    let topics = (1..=3).map(|number| {
        let topic = format!("prompt-{number}");
        let create = || create_topic(source, &topic, 1, &[]);
        first_arrival(source, target, &topic, 0, create)
    });
    assert_prompt("a topic", topics);
    create_topic(source, "growing", 1, &[]);
    let partitions = (1..=3).map(|number| {
        let total = usize::try_from(number + 1).expect("small");
        let create = || add_partitions(source, "growing", total);
        first_arrival(source, target, "growing", number, create)
    });
    assert_prompt("a partition", partitions);
}

/// The time from the creation to the first record's arrival on the target.
fn first_arrival(
    source: &str,
    target: &str,
    topic: &str,
    partition: i32,
    create: impl FnOnce(),
) -> Duration {
    create();
    Load::new(topic, 1).partition(partition).produce(source);
    let what = format!("{topic}-{partition} has its first record");
    let arrived = eventually_after(DEADLINE, &what, || {
        match partition_count(target, topic) > partition && end_offset(target, topic, partition) > 0
        {
            true => Ok(()),
            false => Err(()),
        }
    });
    arrived.1
}

fn assert_prompt(what: &str, arrivals: impl Iterator<Item = Duration>) {
    let mut seen = Vec::new();
    for arrival in arrivals {
        seen.push(arrival);
        if arrival <= Duration::from_secs(2) {
            println!("{what} is copied after {seen:?}");
            return;
        }
    }
    panic!("{what} is copied only after {seen:?}");
}
