//! Where a leader's epoch ended: how truncation is found.

use std::collections::HashMap;
use std::time::Duration;

use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, OffsetForLeaderEpochRequest};

use super::by_leader::{Answers, ask_apart, ask_leaders};
use super::partition::{TopicPartition, by_topic};
use crate::wire::{Cluster, WireError};

const VERSION_MAX: i16 = 4;

/// For each partition, the largest epoch that is not above the one asked for, and the offset at
/// which it ended (the log's end if it is the current one). Both are -1 when the broker doesn't know
/// an epoch that old.
pub async fn offset_for_leader_epoch(
    cluster: &Cluster,
    asked: &[(TopicPartition, i32)],
) -> HashMap<TopicPartition, Result<(i32, i64), WireError>> {
    let epochs: HashMap<&TopicPartition, i32> = asked.iter().map(|(p, e)| (p, *e)).collect();
    let partitions: Vec<TopicPartition> = asked.iter().map(|(p, _)| p.clone()).collect();
    ask_leaders(
        cluster,
        &partitions,
        VERSION_MAX,
        |asked| {
            let topics = by_topic(
                asked,
                |a| a.partition,
                |a| {
                    OffsetForLeaderPartition::default()
                        .with_partition(a.partition.partition)
                        .with_current_leader_epoch(a.leader_epoch)
                        .with_leader_epoch(epochs.get(a.partition).copied().unwrap_or(-1))
                },
            );
            OffsetForLeaderEpochRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(
                    topics
                        .into_iter()
                        .map(|(topic, partitions)| {
                            OffsetForLeaderTopic::default()
                                .with_topic(topic)
                                .with_partitions(partitions)
                        })
                        .collect(),
                )
        },
        |response| -> Answers<(i32, i64)> {
            let mut answers = Vec::new();
            for topic in response.topics {
                for p in topic.partitions {
                    let key = TopicPartition::new(topic.topic.to_string(), p.partition);
                    let outcome = if p.error_code == 0 {
                        Ok((p.leader_epoch, p.end_offset))
                    } else {
                        Err((p.error_code, None))
                    };
                    answers.push((key, outcome));
                }
            }
            answers
        },
    )
    .await
}

/// The same where one leader must not hold up the partitions of the others: each may take `patience`.
pub async fn offset_for_leader_epoch_within(
    cluster: &Cluster,
    asked: &[(TopicPartition, i32)],
    patience: Duration,
) -> HashMap<TopicPartition, Result<(i32, i64), WireError>> {
    let epochs: HashMap<&TopicPartition, i32> = asked.iter().map(|(p, e)| (p, *e)).collect();
    let partitions: Vec<TopicPartition> = asked.iter().map(|(p, _)| p.clone()).collect();
    let with_epochs = |partitions: Vec<TopicPartition>| -> Vec<(TopicPartition, i32)> {
        let with_epoch = |it: TopicPartition| {
            let epoch = epochs.get(&it).copied().unwrap_or(-1);
            (it, epoch)
        };
        partitions.into_iter().map(with_epoch).collect()
    };
    ask_apart::<OffsetForLeaderEpochRequest, _, _>(cluster, &partitions, patience, |cluster, of| {
        let asked = with_epochs(of);
        async move { offset_for_leader_epoch(&cluster, &asked).await }
    })
    .await
}
