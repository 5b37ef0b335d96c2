//! Where a partition begins, ends, or reaches a time.

use std::collections::HashMap;
use std::time::Duration;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest};

use super::by_leader::{Answers, ask_apart, ask_leaders};
use super::partition::{TopicPartition, by_topic};
use crate::wire::{Cluster, WireError};

/// Which offset to look up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetSpec {
    /// The log's start.
    Earliest,
    /// Where the leader's own data begin: what is below is in remote storage (KIP-405). Brokers that speak version 8.
    EarliestLocal,
    /// The high watermark: where a `read_uncommitted` reader ends.
    Latest,
    /// The last stable offset: where a `read_committed` reader ends.
    LatestStable,
    /// The record with the highest timestamp; -1 for an empty log. Kafka 3.0 and later.
    MaxTimestamp,
    /// The first record at or after this time (ms since 1970); -1 when there is none.
    Timestamp(i64),
}

impl OffsetSpec {
    /// The negative numbers are from `ListOffsetsRequest.java`.
    pub fn timestamp(self) -> i64 {
        match self {
            Self::Latest | Self::LatestStable => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::EarliestLocal => -4,
            Self::Timestamp(ms) => ms,
        }
    }
}

const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;
const VERSION_MAX: i16 = 9;

/// Looks up one offset in each partition, where one broker must not hold up the partitions of the
/// others: each is asked apart and may take `patience`. Partitions without a leader aren't asked for.
pub async fn list_offsets_within(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
    patience: Duration,
) -> HashMap<TopicPartition, Result<i64, WireError>> {
    ask_apart::<ListOffsetsRequest, _, _>(
        cluster,
        partitions,
        patience,
        move |cluster, asked| async move { list_offsets(&cluster, &asked, spec).await },
    )
    .await
}

/// Looks up one offset in each partition.
pub async fn list_offsets(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
) -> HashMap<TopicPartition, Result<i64, WireError>> {
    let isolation = if spec == OffsetSpec::LatestStable {
        READ_COMMITTED
    } else {
        READ_UNCOMMITTED
    };
    ask_leaders(
        cluster,
        partitions,
        VERSION_MAX,
        |asked| {
            let topics = by_topic(
                asked,
                |a| a.partition,
                |a| {
                    ListOffsetsPartition::default()
                        .with_partition_index(a.partition.partition)
                        .with_current_leader_epoch(a.leader_epoch)
                        .with_timestamp(spec.timestamp())
                },
            );
            ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_isolation_level(isolation)
                .with_topics(
                    topics
                        .into_iter()
                        .map(|(name, partitions)| {
                            ListOffsetsTopic::default()
                                .with_name(name)
                                .with_partitions(partitions)
                        })
                        .collect(),
                )
        },
        |response| -> Answers<i64> {
            let mut answers = Vec::new();
            for topic in response.topics {
                for p in topic.partitions {
                    let key = TopicPartition::new(topic.name.to_string(), p.partition_index);
                    let outcome = if p.error_code == 0 {
                        Ok(p.offset)
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
