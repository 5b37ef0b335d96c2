//! Single produces and fetches, for small things like our own state. Bulk traffic pipelines on
//! [`Connection`](crate::wire::Connection) itself.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{BrokerId, FetchRequest, ProduceRequest};

use super::by_leader::{Answers, ask_leader};
use super::partition::{TopicPartition, topic_name};
use super::retry::{BUDGET, retry, surely_not_done};
use crate::wire::versions::api_name;
use crate::wire::{Cluster, ErrorContext, ResponseError, Role, WireError};

/// The last version that names topics instead of using their ids.
const PRODUCE_VERSION_MAX: i16 = 12;
/// As above.
pub(super) const FETCH_VERSION_MAX: i16 = 12;
const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;

/// Appends one batch and returns the offset of its first record. `acks` is -1 (all in-sync
/// replicas) or 1.
///
/// It is sent again only when the broker surely didn't append it. After a transport error the batch
/// may or may not be in the log.
///
/// # Errors
/// `acks` 0 is refused with INVALID_REQUIRED_ACKS without sending anything, since it has no answer.
pub async fn produce_one(
    cluster: &Cluster,
    partition: &TopicPartition,
    batch: Bytes,
    acks: i16,
) -> Result<i64, WireError> {
    if acks == 0 {
        return Err(server(
            cluster,
            partition,
            ResponseError::InvalidRequiredAcks,
            None,
        ));
    }
    let mut retry = retry(BUDGET);
    loop {
        let (error, again) = match leader(cluster, partition).await {
            // Nothing was sent yet.
            Err(error) => {
                let again = error.is_retriable();
                (error, again)
            }
            Ok(leader) => match produce_to(cluster, partition, leader, &batch, acks).await {
                Ok(offset) => return Ok(offset),
                Err(error) => {
                    let again = surely_not_done(&error)
                        || error.server_code() == Some(ResponseError::UnknownTopicOrPartition);
                    (error, again)
                }
            },
        };
        if !again || !retry.pause().await {
            return Err(error);
        }
        // If nobody answers, the next round says so.
        let _ = cluster
            .metadata(Some(std::slice::from_ref(&partition.topic)))
            .await;
    }
}

async fn leader(cluster: &Cluster, partition: &TopicPartition) -> Result<i32, WireError> {
    if let Some((leader, _)) = cluster
        .cached()
        .leader(&partition.topic, partition.partition)
    {
        return Ok(leader);
    }
    let metadata = cluster
        .metadata(Some(std::slice::from_ref(&partition.topic)))
        .await?;
    match metadata.leader(&partition.topic, partition.partition) {
        Some((leader, _)) => Ok(leader),
        None => {
            let topic_error = metadata.error_of(&partition.topic);
            let code = topic_error.unwrap_or(ResponseError::LeaderNotAvailable);
            Err(server(cluster, partition, code, None))
        }
    }
}

async fn produce_to(
    cluster: &Cluster,
    partition: &TopicPartition,
    leader: i32,
    batch: &Bytes,
    acks: i16,
) -> Result<i64, WireError> {
    let timeout_ms =
        i32::try_from(cluster.config().request_timeout.as_millis()).unwrap_or(i32::MAX);
    let request = ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(acks)
        .with_timeout_ms(timeout_ms)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(topic_name(&partition.topic))
                .with_partition_data(vec![
                    PartitionProduceData::default()
                        .with_index(partition.partition)
                        .with_records(Some(batch.clone())),
                ]),
        ]);
    let connection = cluster.connection(leader, Role::Admin).await?;
    let response = connection.call(request, PRODUCE_VERSION_MAX).await?;
    let answer = response
        .responses
        .into_iter()
        .filter(|topic| topic.name.as_str() == partition.topic)
        .flat_map(|topic| topic.partition_responses)
        .find(|p| p.index == partition.partition);
    let Some(answer) = answer else {
        return Err(server(
            cluster,
            partition,
            ResponseError::UnknownServerError,
            Some("the answer doesn't mention the partition".to_owned()),
        ));
    };
    match ResponseError::try_from_code(answer.error_code) {
        None => Ok(answer.base_offset),
        Some(code) => {
            let message = answer.error_message.map(|m| m.to_string());
            Err(server(cluster, partition, code, message))
        }
    }
}

fn server(
    cluster: &Cluster,
    partition: &TopicPartition,
    code: ResponseError,
    message: Option<String>,
) -> WireError {
    let context = ErrorContext {
        api: Some(api_name::<ProduceRequest>()),
        subject: Some(partition.to_string()),
        ..ErrorContext::cluster(cluster.name())
    };
    WireError::server(context, code, message)
}

/// What one fetch brought.
#[derive(Clone, Debug)]
pub struct FetchOne {
    /// Record batches as they are in the log: the first may begin before the offset asked for, the
    /// last may be cut off.
    pub records: Bytes,
    /// Where readers end for now.
    pub high_watermark: i64,
    /// Where the log begins.
    pub log_start: i64,
    /// Aborted transactions whose records are in it: producer id and first offset. Only told where
    /// it was asked for, see [`fetch_committed`].
    pub aborted: Vec<(i64, i64)>,
}

impl FetchOne {
    pub(super) fn outcome(data: PartitionData) -> Result<Self, (i16, Option<String>)> {
        if data.error_code != 0 {
            return Err((data.error_code, None));
        }
        let aborted = data.aborted_transactions.unwrap_or_default();
        Ok(Self {
            records: data.records.unwrap_or_default(),
            high_watermark: data.high_watermark,
            log_start: data.log_start_offset,
            aborted: aborted
                .into_iter()
                .map(|it| (it.producer_id.0, it.first_offset))
                .collect(),
        })
    }
}

/// Reads what is there at `offset`, without waiting for more, transactions open or not.
///
/// # Errors
/// OFFSET_OUT_OF_RANGE when the offset is outside of the log.
pub async fn fetch_one(
    cluster: &Cluster,
    partition: &TopicPartition,
    offset: i64,
    max_bytes: i32,
) -> Result<FetchOne, WireError> {
    fetch(cluster, partition, offset, max_bytes, READ_UNCOMMITTED).await
}

/// As [`fetch_one`], up to the last stable offset, and with the list of aborted transactions.
///
/// # Errors
/// As [`fetch_one`].
pub async fn fetch_committed(
    cluster: &Cluster,
    partition: &TopicPartition,
    offset: i64,
    max_bytes: i32,
) -> Result<FetchOne, WireError> {
    fetch(cluster, partition, offset, max_bytes, READ_COMMITTED).await
}

async fn fetch(
    cluster: &Cluster,
    partition: &TopicPartition,
    offset: i64,
    max_bytes: i32,
    isolation: i8,
) -> Result<FetchOne, WireError> {
    ask_leader(
        cluster,
        partition,
        FETCH_VERSION_MAX,
        |asked| {
            let partitions = asked
                .iter()
                .map(|a| {
                    FetchPartition::default()
                        .with_partition(a.partition.partition)
                        .with_current_leader_epoch(a.leader_epoch)
                        .with_fetch_offset(offset)
                        .with_partition_max_bytes(max_bytes)
                })
                .collect();
            FetchRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_max_wait_ms(0)
                .with_min_bytes(0)
                .with_max_bytes(max_bytes)
                .with_isolation_level(isolation)
                // No session: session id 0, final epoch.
                .with_session_id(0)
                .with_session_epoch(-1)
                .with_topics(vec![
                    FetchTopic::default()
                        .with_topic(topic_name(&partition.topic))
                        .with_partitions(partitions),
                ])
        },
        |response| -> Answers<FetchOne> {
            if response.error_code != 0 {
                return vec![(partition.clone(), Err((response.error_code, None)))];
            }
            // Over quota the answer is an empty one (`FetchContext.getThrottledResponse`); the
            // connection is quiet for as long as it says.
            if response.throttle_time_ms > 0 && response.responses.is_empty() {
                let code = ResponseError::ThrottlingQuotaExceeded.code();
                let message = format!(
                    "a quota (consumer_byte_rate or request_percentage) holds reads back for {} ms",
                    response.throttle_time_ms
                );
                return vec![(partition.clone(), Err((code, Some(message))))];
            }
            let mut answers = Vec::new();
            for topic in response.responses {
                for p in topic.partitions {
                    let key = TopicPartition::new(topic.topic.to_string(), p.partition_index);
                    answers.push((key, FetchOne::outcome(p)));
                }
            }
            answers
        },
    )
    .await
}
