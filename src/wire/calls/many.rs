//! A fetch of many partitions from one broker that waits for news.

use std::collections::HashMap;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};

use super::one::{FETCH_VERSION_MAX, FetchOne};
use super::partition::{TopicPartition, by_topic};
use crate::wire::{Cluster, ErrorContext, Role, WireError};

/// What one partition may bring.
const PARTITION_BYTES: i32 = 1024 * 1024;

/// A partition to read: from which offset, and its leader's epoch.
pub type FetchFrom = (TopicPartition, i64, i32);

/// Reads partitions of one leader, transactions open or not. The broker answers as soon as there
/// is anything, or after `wait`. Asks once: leaders that moved are an error of their partition.
///
/// # Errors
/// When the broker didn't answer.
pub async fn fetch_many(
    cluster: &Cluster,
    broker: i32,
    asked: &[FetchFrom],
    wait: Duration,
    bytes_max: i32,
) -> Result<HashMap<TopicPartition, Result<FetchOne, WireError>>, WireError> {
    let topics = by_topic(
        asked,
        |(partition, _, _)| partition,
        |(partition, offset, leader_epoch)| {
            FetchPartition::default()
                .with_partition(partition.partition)
                .with_current_leader_epoch(*leader_epoch)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(PARTITION_BYTES)
        },
    );
    let topics = topics.into_iter().map(|(name, partitions)| {
        FetchTopic::default()
            .with_topic(name)
            .with_partitions(partitions)
    });
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(1)
        .with_max_bytes(bytes_max)
        .with_isolation_level(0)
        // No session: session id 0, final epoch.
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(topics.collect());
    let connection = cluster.connection(broker, Role::Tail).await?;
    let response = connection.call(request, FETCH_VERSION_MAX).await?;
    let error = |subject: Option<String>, code: i16| {
        let context = ErrorContext {
            broker: Some(broker),
            api: Some("Fetch"),
            subject,
            ..ErrorContext::cluster(cluster.name())
        };
        let code = ResponseError::try_from_code(code).unwrap_or(ResponseError::UnknownServerError);
        WireError::server(context, code, None)
    };
    if response.error_code != 0 {
        return Err(error(None, response.error_code));
    }
    let mut answers = HashMap::new();
    for topic in response.responses {
        for data in topic.partitions {
            let key = TopicPartition::new(topic.topic.to_string(), data.partition_index);
            let outcome =
                FetchOne::outcome(data).map_err(|(code, _)| error(Some(key.to_string()), code));
            answers.insert(key, outcome);
        }
    }
    Ok(answers)
}
