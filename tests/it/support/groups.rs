//! Consumer groups: committing for them and reading where they go on, with librdkafka.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::admin::client;
use super::wait::{Stopwatch, eventually};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// A client of a group that isn't a member of it.
pub fn group_client(bootstrap: &str, group: &str) -> BaseConsumer {
    client(bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .create()
        .expect("valid settings")
}

/// Commits positions: topic, partition, offset.
pub fn commit(bootstrap: &str, group: &str, positions: &[(&str, i32, i64)]) {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in positions {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .expect("a valid offset");
    }
    let client = group_client(bootstrap, group);
    // A coordinator that was only just found may not have loaded its groups yet.
    eventually(ANSWER, &format!("group {group} commits"), || {
        client.commit(&list, CommitMode::Sync)
    });
}

/// Commits a position of a group, on a topic of the group's name, with what the group writes beside it.
pub fn commit_with(bootstrap: &str, group: &str, partition: i32, offset: i64, metadata: &str) {
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(group, partition);
    element
        .set_offset(Offset::Offset(offset))
        .expect("a valid offset");
    element.set_metadata(metadata);
    let client = group_client(bootstrap, group);
    // See `commit`.
    eventually(ANSWER, &format!("group {group} commits"), || {
        client.commit(&list, CommitMode::Sync)
    });
}

/// A group's position on each partition of a topic; `None` where it has none.
pub fn committed(bootstrap: &str, group: &str, topic: &str, partitions: i32) -> Vec<Option<i64>> {
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, partition);
    }
    let client = group_client(bootstrap, group);
    let found = eventually(ANSWER, &format!("positions of {group}"), || {
        client.committed_offsets(list.clone(), ANSWER)
    });
    (0..partitions)
        .map(|partition| {
            let element = found.find_partition(topic, partition)?;
            match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            }
        })
        .collect()
}

/// Asks for a group, with which a cluster makes its log of groups, as it has it that was used before.
pub fn has_had_groups(bootstrap: &str) {
    committed(bootstrap, "nobody", "nothing", 1);
}

/// What a consumer of the group reads next on each partition where it has a position: the offset
/// and the value, or `None` at the end of the log.
///
/// # Panics
/// When a position is outside of the log, or nothing arrives.
pub fn next_records(
    bootstrap: &str,
    group: &str,
    topic: &str,
    partitions: i32,
) -> BTreeMap<i32, Option<(i64, Vec<u8>)>> {
    let consumer = group_client(bootstrap, group);
    let positions = committed(bootstrap, group, topic, partitions);
    let mut list = TopicPartitionList::new();
    for (partition, position) in (0..).zip(positions) {
        if let Some(position) = position {
            list.add_partition_offset(topic, partition, Offset::Offset(position))
                .expect("a valid offset");
        }
    }
    let wanted = list.count();
    consumer.assign(&list).expect("partitions that exist");
    let mut next = BTreeMap::new();
    let watch = Stopwatch::start();
    while next.len() < wanted {
        assert!(
            watch.counted() < ANSWER,
            "group {group} reads on on {} of {wanted} partitions of {topic}",
            next.len()
        );
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                let value = message.payload().unwrap_or_default().to_vec();
                next.entry(message.partition())
                    .or_insert(Some((message.offset(), value)));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                next.entry(partition).or_insert(None);
            }
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
            ))) => {}
            Some(Err(error)) => panic!("group {group} reads on: {error}"),
        }
    }
    next
}

/// What groups read next by value alone, to be compared between clusters.
pub fn next_values(
    bootstrap: &str,
    group: &str,
    topic: &str,
    partitions: i32,
) -> BTreeMap<i32, Option<Vec<u8>>> {
    next_records(bootstrap, group, topic, partitions)
        .into_iter()
        .map(|(partition, next)| (partition, next.map(|(_, value)| value)))
        .collect()
}
