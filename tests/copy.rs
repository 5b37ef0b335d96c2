//! Copying between two real clusters: every kind of record arrives once, at the same offset.

mod support;

use std::time::Duration;

use support::{
    Codec, HeaderStyle, Isolation, KafkaVersion, Load, Transactions, Twinlog, add_partitions,
    assert_same, await_same, create_topic, delete_records, java_produce, java_read, pair, read_all,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// One Twinlog between a pair of clusters, and topics of every kind.
fn everything_is_copied(version: KafkaVersion) {
    let (source, target) = pair(version);
    let (source, target) = (source.bootstrap(), target.bootstrap());

    create_topic(&source, "codecs", 3, &[]);
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
                .produce(&source);
        }
    }
    create_topic(&source, "transactions", 2, &[]);
    Transactions::new(Load::new("transactions", 10), 40).produce(&source);
    java_produce(
        version,
        &source,
        "transactions",
        &[
            "count=100",
            "first=1000",
            "transaction=10",
            "abort_every=3",
            "headers=true",
        ],
    );
    create_topic(
        &source,
        "append-time",
        1,
        &[("message.timestamp.type", "LogAppendTime")],
    );
    Load::new("append-time", 300)
        .codec(Codec::Zstd)
        .produce(&source);
    create_topic(&source, "shifted", 1, &[]);
    Load::new("shifted", 500).produce(&source);
    delete_records(&source, "shifted", 0, 321);
    create_topic(&source, "large", 1, &[("max.message.bytes", "6000000")]);
    Load::new("large", 3)
        .value_bytes(5_900_000)
        .with("message.max.bytes", 6_000_000)
        .produce(&source);

    let twinlog = Twinlog::between(&source, &target);
    for topic in ["codecs", "transactions", "append-time", "shifted", "large"] {
        await_same(&source, &target, topic, DEADLINE);
    }
    let by_java = java_read(version, &target, "transactions", Isolation::ReadUncommitted);
    assert_same(
        &read_all(&source, "transactions", Isolation::ReadCommitted),
        &by_java,
    );

    // A topic and partitions that come later, written at once.
    create_topic(&source, "later", 1, &[]);
    Load::new("later", 100).produce(&source);
    await_same(&source, &target, "later", DEADLINE);
    add_partitions(&source, "later", 3);
    Load::new("later", 300).first(100).produce(&source);
    await_same(&source, &target, "later", DEADLINE);

    let status = twinlog.wait_until(DEADLINE, "everything is caught up", |status| {
        status["flows"][0]["totals"]["lag_records"] == 0
    });
    assert_eq!(status["flows"][0]["state"], "running", "{status:#}");
}

#[test]
fn everything_is_copied_on_4_3() {
    everything_is_copied(KafkaVersion::V4_3);
}

#[test]
fn everything_is_copied_on_3_9() {
    everything_is_copied(KafkaVersion::V3_9);
}
