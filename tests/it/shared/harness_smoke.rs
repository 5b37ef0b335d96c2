//! The harness itself: both Kafka versions start, and both judges see what was written.

use crate::support::{
    Codec, HeaderStyle, Isolation, KafkaVersion, Load, Transactions, assert_same, create_topic,
    digest, java_produce, java_read, pair, read_all,
};

/// What every version must show: all codecs, all kinds of headers, tombstones and aborted
/// transactions read the same through both clients.
fn both_readers_agree(version: KafkaVersion) {
    let (source, target) = pair(version);
    assert_ne!(source.bootstrap(), target.bootstrap());
    let bootstrap = source.bootstrap();

    create_topic(&bootstrap, "codecs", 3, &[]);
    for (codec, first) in Codec::ALL.into_iter().zip((0..).step_by(40)) {
        Load::new("codecs", 40)
            .first(first)
            .codec(codec)
            .headers(HeaderStyle::Every)
            .tombstone_every(7)
            .timestamps_from(1_700_000_000_000)
            .produce(&bootstrap);
    }
    let seen = read_all(&bootstrap, "codecs", Isolation::ReadCommitted);
    assert_eq!(seen.len(), 200);
    let by_java = java_read(version, &bootstrap, "codecs", Isolation::ReadCommitted);
    assert_same(&seen, &by_java);
    assert_eq!(digest(&seen), digest(&by_java));

    create_topic(&bootstrap, "transactions", 1, &[]);
    let committed = Transactions::new(Load::new("transactions", 10), 10).produce(&bootstrap);
    assert_eq!(committed, 70);
    java_produce(
        version,
        &bootstrap,
        "transactions",
        &[
            "count=20",
            "first=100",
            "transaction=10",
            "abort_every=2",
            "headers=true",
        ],
    );
    let seen = read_all(&bootstrap, "transactions", Isolation::ReadCommitted);
    assert_eq!(seen.len(), 80);
    let by_java = java_read(
        version,
        &bootstrap,
        "transactions",
        Isolation::ReadCommitted,
    );
    assert_same(&seen, &by_java);
    let all = read_all(&bootstrap, "transactions", Isolation::ReadUncommitted);
    assert_eq!(all.len(), 120);
}

#[test]
fn both_readers_agree_on_kafka_4_3() {
    both_readers_agree(KafkaVersion::V4_3);
}

#[test]
fn both_readers_agree_on_kafka_3_9() {
    both_readers_agree(KafkaVersion::V3_9);
}
