//! Ends of transactions that a client writes by itself (`KafkaApis.handleWriteTxnMarkersRequest`, `ProducerAppendInfo.appendEndTxnMarker`).

use std::time::Duration;

use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::ProducerState;
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{
    DescribeProducersRequest, ProducerId, TopicName, WriteTxnMarkersRequest,
};

use super::{Batch, PRODUCE, Stage, produce, text};
use crate::batch::Marker;

const UNKNOWN_PARTITION: i16 = 3;
const OUT_OF_ORDER: i16 = 45;
const OLD_EPOCH: i16 = 47;
const COORDINATOR_FENCED: i16 = 52;

#[derive(Clone, Copy)]
struct End {
    producer: i64,
    epoch: i16,
    coordinator_epoch: i32,
}

fn marker(end: End, topic: &str, partition: i32) -> WritableTxnMarker {
    let topic = WritableTxnMarkerTopic::default()
        .with_name(TopicName(text(topic)))
        .with_partition_indexes(vec![partition]);
    WritableTxnMarker::default()
        .with_producer_id(ProducerId(end.producer))
        .with_producer_epoch(end.epoch)
        .with_coordinator_epoch(end.coordinator_epoch)
        .with_transaction_result(true)
        .with_topics(vec![topic])
}

impl Stage {
    fn end(&mut self, end: End, topic: &str) -> i16 {
        let request = WriteTxnMarkersRequest::default().with_markers(vec![marker(end, topic, 0)]);
        let answer = self.call(&request, 1);
        assert_eq!(answer.markers[0].producer_id.0, end.producer);
        answer.markers[0].topics[0].partitions[0].error_code
    }

    fn known_producer(&mut self, topic: &str, id: i64) -> Option<ProducerState> {
        let topic = TopicRequest::default()
            .with_name(TopicName(text(topic)))
            .with_partition_indexes(vec![0]);
        let request = DescribeProducersRequest::default().with_topics(vec![topic]);
        let mut answer = self.call(&request, 0);
        let partition = answer.topics[0].partitions.remove(0);
        assert_eq!(partition.error_code, 0);
        let mut producers = partition.active_producers.into_iter();
        producers.find(|producer| producer.producer_id.0 == id)
    }
}

pub(super) fn without_a_transaction(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let end = End {
        producer: stage.producer(),
        epoch: 0,
        coordinator_epoch: 7,
    };
    // Each one is appended and takes an offset; the same one twice, too.
    assert_eq!(stage.end(end, &topic), 0);
    assert_eq!(stage.end(end, &topic), 0);
    let three = vec![marker(end, &topic, 0); 3];
    let answer = stage.call(&WriteTxnMarkersRequest::default().with_markers(three), 1);
    assert_eq!(answer.markers.len(), 1, "one result per producer");
    assert_eq!(stage.list(&topic, 0, -1).offset, 5);
    let batches = stage.read(&topic, 0);
    assert_eq!(batches.len(), 5);
    let (header, bytes) = &batches[0];
    assert!(header.is_control() && header.is_transactional());
    assert_eq!(header.base_sequence, -1);
    let read = Marker::read(bytes).expect("a marker");
    assert_eq!((read.commit, read.coordinator_epoch), (true, 7));
    let known = stage.known_producer(&topic, end.producer).expect("known");
    assert_eq!((known.last_sequence, known.coordinator_epoch), (-1, 7));
    assert_eq!(known.current_txn_start_offset, -1);
}

pub(super) fn fence(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let end = End {
        producer: stage.producer(),
        epoch: 3,
        coordinator_epoch: 7,
    };
    stage.write(&topic, Batch::of(2).by(end.producer, 3, 10).bytes());
    assert_eq!(stage.end(end, &topic), 0);
    // A marker of the same epoch leaves the sequences alone.
    assert_eq!(
        stage
            .known_producer(&topic, end.producer)
            .expect("known")
            .last_sequence,
        11
    );
    stage.write(&topic, Batch::of(1).by(end.producer, 3, 12).bytes());
    let old = End { epoch: 2, ..end };
    assert_eq!(stage.end(old, &topic), OLD_EPOCH);
    let zombie = End {
        coordinator_epoch: 6,
        ..end
    };
    assert_eq!(stage.end(zombie, &topic), COORDINATOR_FENCED);
    // One of a newer epoch fences the writer, and its successor begins at zero.
    let newer = End { epoch: 4, ..end };
    assert_eq!(stage.end(newer, &topic), 0);
    let answer = stage.produce(&topic, Batch::of(1).by(end.producer, 3, 13).bytes());
    assert_eq!(answer.error_code, OLD_EPOCH);
    let answer = stage.produce(&topic, Batch::of(1).by(end.producer, 4, 13).bytes());
    assert_eq!(answer.error_code, OUT_OF_ORDER);
    stage.write(&topic, Batch::of(1).by(end.producer, 4, 0).bytes());
    assert_eq!(stage.list(&topic, 0, -1).offset, 6);
}

pub(super) fn unknown_partitions(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let end = End {
        producer: stage.producer(),
        epoch: 0,
        coordinator_epoch: 0,
    };
    let nowhere = stage.name("nowhere");
    assert_eq!(stage.end(end, &nowhere), UNKNOWN_PARTITION, "alone");
    let markers = vec![marker(end, &nowhere, 0), marker(end, &topic, 0)];
    let answer = stage.call(&WriteTxnMarkersRequest::default().with_markers(markers), 1);
    let mut codes: Vec<i16> = answer.markers[0]
        .topics
        .iter()
        .map(|topic| topic.partitions[0].error_code)
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, UNKNOWN_PARTITION], "first");
    // Behind one that was appended at once, it is nobody's turn to answer.
    let markers = vec![marker(end, &topic, 0), marker(end, &nowhere, 0)];
    let request = WriteTxnMarkersRequest::default().with_markers(markers);
    let mut client = stage.another();
    client.patience(Duration::from_secs(2)).expect("a socket");
    let error = client.call(&request, 1).expect_err("no answer");
    assert!(
        matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        ),
        "{error}"
    );
    assert_eq!(stage.list(&topic, 0, -1).offset, 2, "both were appended");
}

/// One connection is an order. And a batch with acks 0 that is refused closes it: nothing behind it is worked on.
pub(super) fn behind_unanswered_batches(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let (writer, ender) = (stage.producer(), stage.producer());
    let batch = |sequence: i32| {
        let batch = Batch::of(1).by(writer, 0, sequence).bytes();
        produce(&topic, 0, 0, Some(batch))
    };
    let end = |number: i32| {
        let end = End {
            producer: ender,
            epoch: 0,
            coordinator_epoch: number,
        };
        WriteTxnMarkersRequest::default().with_markers(vec![marker(end, &topic, 0)])
    };
    let mut client = stage.another();
    for number in 0..20 {
        client.send(&batch(number), PRODUCE).expect("sent");
        client.send(&end(number), 1).expect("sent");
    }
    for _ in 0..20 {
        let answer = client
            .receive::<WriteTxnMarkersRequest>(1)
            .expect("answered");
        assert_eq!(answer.markers[0].topics[0].partitions[0].error_code, 0);
    }
    let is_control: Vec<bool> = stage
        .read(&topic, 0)
        .iter()
        .map(|it| it.0.is_control())
        .collect();
    assert_eq!(is_control, [false, true].repeat(20));
    for wrong in [25, 30, 35] {
        let mut client = stage.another();
        client.send(&batch(wrong), PRODUCE).expect("sent");
        for number in 20..30 {
            // The broker may have hung up by now.
            let _ = client.send(&end(number), 1);
            let _ = client.send(&batch(number), PRODUCE);
        }
        client
            .receive::<WriteTxnMarkersRequest>(1)
            .expect_err("the connection is closed");
        assert_eq!(stage.list(&topic, 0, -1).offset, 40, "nothing was appended");
    }
}
