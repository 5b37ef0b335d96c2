//! Transaction end markers of a producer that never opened a transaction: each takes one offset
//! that no consumer ever sees.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{ProducerId, WriteTxnMarkersRequest};

use super::partition::topic_name;
use super::retry::{BUDGET, ask_anyone};
use crate::wire::{Cluster, ErrorContext, TopicPartition, WireError};

/// Who writes markers. The id must never produce records: a partition then remembers no sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filler {
    /// A producer id of its own.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Coordinator epoch of the first marker; each further one has the next. A partition refuses an
    /// epoch below the last one (`ProducerAppendInfo.checkCoordinatorEpoch`), the same is fine.
    pub coordinator_epoch_first: i32,
}

/// A request that appends markers to partitions, in order, one offset each: so many to each, from its filler on.
/// Send it to the partitions' leader at version 1.
///
/// The broker doesn't recognise a repeated marker: after a lost answer, read the log's end before
/// writing again.
pub fn write_markers_request(parts: &[(TopicPartition, Filler, u32)]) -> WriteTxnMarkersRequest {
    let markers = parts.iter().flat_map(|(at, filler, count)| {
        let topics = vec![
            WritableTxnMarkerTopic::default()
                .with_name(topic_name(&at.topic))
                .with_partition_indexes(vec![at.partition]),
        ];
        (0..*count).map(move |n| {
            // Wrapping: epochs that ran out are refused by the broker, not by a panic here.
            let epoch = filler.coordinator_epoch_first.wrapping_add(n.cast_signed());
            WritableTxnMarker::default()
                .with_producer_id(ProducerId(filler.producer_id))
                .with_producer_epoch(filler.producer_epoch)
                // An abort: it ends nothing, since no transaction is open.
                .with_transaction_result(false)
                .with_topics(topics.clone())
                .with_coordinator_epoch(epoch)
        })
    });
    WriteTxnMarkersRequest::default().with_markers(markers.collect())
}

/// A topic that can't exist, because its name isn't a legal one.
const NO_TOPIC: &str = "twinlog marker probe";

/// Whether we may write markers: asks a broker to write one to a partition that can't exist. The
/// broker checks the right first (`KafkaApis.handleWriteTxnMarkersRequest`) and answers either that
/// or UNKNOWN_TOPIC_OR_PARTITION. A request without markers would not do: errors are given per
/// partition (`WriteTxnMarkersRequest.getErrorResponse`), so the refusal of an empty one is empty.
pub async fn probe_marker_right(cluster: &Cluster) -> Result<bool, WireError> {
    let filler = Filler {
        producer_id: 0,
        producer_epoch: 0,
        coordinator_epoch_first: 0,
    };
    ask_anyone(cluster, BUDGET, |connection| async move {
        let nowhere = [(TopicPartition::new(NO_TOPIC, 0), filler, 1)];
        let request = write_markers_request(&nowhere);
        let response = connection.call(request, 1).await?;
        let code = response
            .markers
            .into_iter()
            .flat_map(|marker| marker.topics)
            .flat_map(|topic| topic.partitions)
            .map(|partition| ResponseError::try_from_code(partition.error_code))
            .next()
            .flatten();
        match code {
            Some(ResponseError::UnknownTopicOrPartition) => Ok(true),
            Some(ResponseError::ClusterAuthorizationFailed) => Ok(false),
            other => {
                let context = ErrorContext {
                    broker: Some(connection.broker()),
                    address: Some(connection.address().to_owned()),
                    api: Some("WriteTxnMarkers"),
                    ..ErrorContext::cluster(cluster.name())
                };
                let code = other.unwrap_or(ResponseError::UnknownServerError);
                Err(WireError::server(context, code, None))
            }
        }
    })
    .await
}
