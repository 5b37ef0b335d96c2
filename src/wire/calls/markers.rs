//! Transaction end markers of a producer that never opened a transaction: each takes one offset
//! that no consumer ever sees.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{ProducerId, WriteTxnMarkersRequest};

use super::partition::topic_name;
use super::retry::{BUDGET, ask_anyone};
use crate::wire::{Cluster, WireError};

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

/// A request that appends `count` markers to one partition, in order, one offset each. Send it to
/// the partition's leader at version 1.
///
/// The broker doesn't recognise a repeated marker: after a lost answer, read the log's end before
/// writing again.
pub fn write_markers_request(
    topic: &str,
    partition: i32,
    filler: Filler,
    count: u32,
) -> WriteTxnMarkersRequest {
    let topics = vec![
        WritableTxnMarkerTopic::default()
            .with_name(topic_name(topic))
            .with_partition_indexes(vec![partition]),
    ];
    let markers = (0..count)
        .map(|n| {
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
        .collect();
    WriteTxnMarkersRequest::default().with_markers(markers)
}

/// Whether we may write markers: asks a broker to write none. The broker checks the right first
/// (`KafkaApis.handleWriteTxnMarkersRequest`) and then has nothing to do.
pub async fn probe_marker_right(cluster: &Cluster) -> Result<bool, WireError> {
    let outcome = ask_anyone(cluster, BUDGET, |connection| async move {
        connection.call(WriteTxnMarkersRequest::default(), 1).await
    })
    .await;
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if error.server_code() == Some(ResponseError::ClusterAuthorizationFailed) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
