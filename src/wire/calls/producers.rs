//! Producer ids: getting one, and what partitions remember of them.

use std::collections::HashMap;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::{DescribeProducersRequest, InitProducerIdRequest};

use super::by_leader::{Answers, ask_leaders};
use super::partition::{TopicPartition, by_topic};
use super::retry::ask_anyone;
use crate::wire::{Cluster, ErrorContext, WireError};

/// Just after a broker starts it has no block of producer ids yet and answers retriable errors.
const INIT_BUDGET: Duration = Duration::from_secs(10);

/// A new producer id and its epoch, without a transactional id.
pub async fn init_producer_id(cluster: &Cluster) -> Result<(i64, i16), WireError> {
    ask_anyone(cluster, INIT_BUDGET, |connection| async move {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            // Unused without transactions, but the broker's schema wants a value.
            .with_transaction_timeout_ms(60_000);
        let response = connection.call(request, 4).await?;
        match ResponseError::try_from_code(response.error_code) {
            None => Ok((response.producer_id.0, response.producer_epoch)),
            Some(code) => {
                let context = ErrorContext {
                    broker: Some(connection.broker()),
                    api: Some("InitProducerId"),
                    ..ErrorContext::cluster(cluster.name())
                };
                Err(WireError::server(context, code, None))
            }
        }
    })
    .await
}

/// What a partition's leader remembers of a producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerState {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i32,
    /// Sequence of the last record of its last batch; -1 if only markers were written.
    pub last_sequence: i32,
    /// Timestamp of its last batch, ms since 1970; -1 if unknown.
    pub last_timestamp_ms: i64,
    /// Epoch of the last marker's coordinator; -1 if there was none.
    pub coordinator_epoch: i32,
    /// Where its open transaction began; -1 if there is none.
    pub current_txn_start_offset: i64,
}

/// The producers that each partition remembers. Producers are forgotten some time after their last
/// write (`producer.id.expiration.ms`, a day by default).
pub async fn describe_producers(
    cluster: &Cluster,
    partitions: &[TopicPartition],
) -> HashMap<TopicPartition, Result<Vec<ProducerState>, WireError>> {
    ask_leaders(
        cluster,
        partitions,
        0,
        |asked| {
            let topics = by_topic(asked, |a| a.partition, |a| a.partition.partition);
            DescribeProducersRequest::default().with_topics(
                topics
                    .into_iter()
                    .map(|(name, indexes)| {
                        TopicRequest::default()
                            .with_name(name)
                            .with_partition_indexes(indexes)
                    })
                    .collect(),
            )
        },
        |response| -> Answers<Vec<ProducerState>> {
            let mut answers = Vec::new();
            for topic in response.topics {
                for p in topic.partitions {
                    let key = TopicPartition::new(topic.name.to_string(), p.partition_index);
                    let outcome = if p.error_code == 0 {
                        Ok(p.active_producers
                            .into_iter()
                            .map(|producer| ProducerState {
                                producer_id: producer.producer_id.0,
                                producer_epoch: producer.producer_epoch,
                                last_sequence: producer.last_sequence,
                                last_timestamp_ms: producer.last_timestamp,
                                coordinator_epoch: producer.coordinator_epoch,
                                current_txn_start_offset: producer.current_txn_start_offset,
                            })
                            .collect())
                    } else {
                        Err((p.error_code, p.error_message.map(|m| m.to_string())))
                    };
                    answers.push((key, outcome));
                }
            }
            answers
        },
    )
    .await
}
