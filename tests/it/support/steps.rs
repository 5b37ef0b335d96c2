//! Many short transactions in a moment: a client that has a coordinator waits for it some tens of milliseconds each time.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{ProduceRequest, ProducerId, TopicName, WriteTxnMarkersRequest};
use kafka_protocol::protocol::{Encodable, StrBytes};
use twinlog::batch::{Stamp, encode_simple};
use twinlog::wire::{Role, WireError};

use super::flow::wire_cluster;

/// Steps on the way at a time.
const UNDER_WAY: usize = 200;
const PRODUCE_VERSION: i16 = 9;
/// Nobody else's.
const PRODUCER: i64 = 7_000_000;

/// Writes a batch of `records` and a marker behind it, `count` times, to each of the first `partitions` of a
/// topic: what transactions leave, without a coordinator. All leaders must be one broker.
///
/// # Panics
/// When the broker refuses something.
pub fn plant(bootstrap: &str, topic: &str, partitions: i32, count: u64, records: u64) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let all = write(bootstrap, topic, partitions, count, records);
    runtime.block_on(all).expect("the broker takes steps");
}

async fn write(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    count: u64,
    records: u64,
) -> Result<(), WireError> {
    let cluster = wire_cluster(bootstrap);
    let metadata = cluster.metadata(Some(&[topic.to_owned()])).await?;
    let leader = metadata.leader(topic, 0).map(|(broker, _)| broker);
    let leader = leader.expect("the partition has a leader");
    let connection = cluster.connection(leader, Role::Produce(0)).await?;
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let mut under_way = std::collections::VecDeque::new();
    for step in 0..count {
        let batch = batch(step, records);
        let produce = ProduceRequest::default().with_topic_data(vec![
            TopicProduceData::default()
                .with_name(name.clone())
                .with_partition_data(
                    (0..partitions)
                        .map(|index| {
                            PartitionProduceData::default()
                                .with_index(index)
                                .with_records(Some(batch.clone()))
                        })
                        .collect(),
                ),
        ]);
        let mut body = BytesMut::new();
        produce
            .encode(&mut body, PRODUCE_VERSION)
            .expect("our own request");
        connection.start_unanswered::<ProduceRequest>(PRODUCE_VERSION, vec![body.freeze()])?;
        let marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(PRODUCER))
            .with_transaction_result(true)
            .with_topics(vec![
                WritableTxnMarkerTopic::default()
                    .with_name(name.clone())
                    .with_partition_indexes((0..partitions).collect()),
            ]);
        let marker = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
        under_way.push_back(connection.start(&marker, 1)?);
        if under_way.len() >= UNDER_WAY
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.await?;
        }
    }
    for rest in under_way {
        rest.await?;
    }
    Ok(())
}

/// Of records as small as an application's.
fn batch(step: u64, records: u64) -> Bytes {
    let texts: Vec<(String, String)> = (0..records)
        .map(|record| (format!("key-{}", step * records + record), "v".repeat(100)))
        .collect();
    let pairs: Vec<_> = texts
        .iter()
        .map(|(key, value)| (Some(key.as_bytes()), Some(value.as_bytes())))
        .collect();
    let stamp = Stamp {
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let now_ms = i64::try_from(now.as_millis()).expect("fits");
    encode_simple(&pairs, now_ms, stamp)
}
