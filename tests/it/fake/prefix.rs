//! Logs that start high are reached whatever the topic's codec and limits are.

use std::time::Duration;

use crate::support::flow::{await_position, block_on, flow_config, wire_cluster};
use crate::support::{
    Load, Twinlog, await_same, create_topic, delete_records, end_offset, fake_pair,
};
use twinlog::batch::{self, Codec, Stamp};
use twinlog::wire::{self, TopicPartition};

const DEADLINE: Duration = Duration::from_secs(60);
/// More than one of the largest burned batches.
const START: i64 = 1_100_000;
/// Records of one batch of the source's: few enough for every topic here.
const BATCH: i32 = 50_000;
const TAIL: u64 = 20;

/// Topics by name, each with the config that refused a batch of a million records.
const TOPICS: [(&str, &str, &str); 5] = [
    ("high-lz4", "compression.type", "lz4"),
    ("high-gzip", "compression.type", "gzip"),
    ("high-snappy", "compression.type", "snappy"),
    ("high-uncompressed", "compression.type", "uncompressed"),
    ("high-limit", "max.message.bytes", "65536"),
];

#[test]
fn a_high_log_start_is_reached_within_the_topic_s_limits() {
    let (source, target) = fake_pair();
    high_starts_are_reached(&source.bootstrap(), &target.bootstrap());
}

pub(crate) fn high_starts_are_reached(source: &str, target: &str) {
    for (topic, key, value) in TOPICS {
        create_topic(source, topic, 1, &[(key, value)]);
        append_empty(source, topic);
        delete_records(source, topic, 0, START);
        Load::new(topic, TAIL).produce(source);
    }
    let twinlog = Twinlog::start(&flow_config("high", "high-.*", source, target, ""));
    for (topic, ..) in TOPICS {
        let end = end_offset(source, topic, 0);
        await_position(&twinlog, topic, 0, end);
        assert_eq!(end_offset(target, topic, 0), end, "{topic}");
        await_same(source, target, topic, DEADLINE);
    }
}

fn append_empty(bootstrap: &str, topic: &str) {
    let (cluster, place) = (wire_cluster(bootstrap), TopicPartition::new(topic, 0));
    block_on(async {
        for _ in 0..START / i64::from(BATCH) {
            let now = 1_700_000_000_000;
            let batch = batch::empty_records_batch(Codec::Zstd, BATCH, now, Stamp::NONE);
            let appended = wire::produce_one(&cluster, &place, batch, -1).await;
            appended.expect("the batch is appended");
        }
    });
}
