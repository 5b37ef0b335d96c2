//! Moving a log's start.

use kafka_protocol::messages::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};

use super::by_leader::{Answers, ask_leader};
use super::partition::{TopicPartition, by_topic};
use crate::wire::{Cluster, WireError};

/// Removes everything before an offset (-1: before the high watermark) and returns the new start of
/// the log. Doing it twice does no harm.
pub async fn delete_records(
    cluster: &Cluster,
    partition: &TopicPartition,
    before: i64,
) -> Result<i64, WireError> {
    let timeout_ms =
        i32::try_from(cluster.config().request_timeout.as_millis()).unwrap_or(i32::MAX);
    ask_leader(
        cluster,
        partition,
        2,
        |asked| {
            let topics = by_topic(
                asked,
                |a| a.partition,
                |a| {
                    DeleteRecordsPartition::default()
                        .with_partition_index(a.partition.partition)
                        .with_offset(before)
                },
            );
            DeleteRecordsRequest::default()
                .with_timeout_ms(timeout_ms)
                .with_topics(
                    topics
                        .into_iter()
                        .map(|(name, partitions)| {
                            DeleteRecordsTopic::default()
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
                        Ok(p.low_watermark)
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
