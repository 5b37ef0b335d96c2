//! A transaction as its readers see it (`UnifiedLog.fetchLastStableOffset`, `TransactionIndex`).

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest,
    ProducerId, TopicName, TransactionalId,
};

use super::{Batch, FETCH, PRODUCE, Stage, Want, fetch, init_producer, list, produce, text};
use crate::batch::Header;

const TRANSACTIONAL: i16 = 0x10;
const NOT_ALLOWED_WITHOUT_ID: i16 = 53;
const INVALID_STATE: i16 = 48;
const ABORTABLE: i16 = 120;
const COMMITTED: i8 = 1;

/// A transactional producer, in the old way, in which a client says every step (transactions v1).
struct Writer {
    id: TransactionalId,
    producer: i64,
    epoch: i16,
    sequence: i32,
}

impl Stage {
    fn writer(&mut self) -> Writer {
        let id = self.name("id");
        let find = FindCoordinatorRequest::default()
            .with_key_type(1)
            .with_coordinator_keys(vec![text(&id)]);
        self.until(|stage| stage.call(&find, 4).coordinators[0].error_code == 0);
        let request: InitProducerIdRequest = init_producer(Some(&id));
        self.until(|stage| stage.call(&request, 4).error_code == 0);
        let answer = self.call(&request, 4);
        Writer {
            id: TransactionalId(text(&id)),
            producer: answer.producer_id.0,
            epoch: answer.producer_epoch,
            sequence: 0,
        }
    }

    fn begin(&mut self, writer: &Writer, topic: &str) {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![0]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(writer.id.clone())
            .with_v3_and_below_producer_id(ProducerId(writer.producer))
            .with_v3_and_below_producer_epoch(writer.epoch)
            .with_v3_and_below_topics(vec![topic]);
        self.until(|stage| {
            let answer = stage.call(&request, 3);
            answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
                == 0
        });
    }

    fn write_in(&mut self, writer: &mut Writer, topic: &str, count: usize) -> i16 {
        let batch = Batch::of(count)
            .by(writer.producer, writer.epoch, writer.sequence)
            .with(|h: &mut Header| h.attributes |= TRANSACTIONAL);
        let request = produce(topic, 0, -1, Some(batch.bytes()))
            .with_transactional_id(Some(writer.id.clone()));
        let mut answer = self.call(&request, PRODUCE);
        let code = answer.responses[0].partition_responses.remove(0).error_code;
        if code == 0 {
            writer.sequence += i32::try_from(count).expect("few");
        }
        code
    }

    fn finish(&mut self, writer: &Writer, commit: bool) {
        let request = EndTxnRequest::default()
            .with_transactional_id(writer.id.clone())
            .with_producer_id(ProducerId(writer.producer))
            .with_producer_epoch(writer.epoch)
            .with_committed(commit);
        assert_eq!(self.call(&request, 3).error_code, 0);
    }

    /// The last stable offset.
    fn stable(&mut self, topic: &str) -> i64 {
        let mut answer = self.call(&list(topic, 0, -1, -1, COMMITTED), 7);
        answer.topics[0].partitions.remove(0).offset
    }
}

pub(super) fn hidden_until_the_end(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let mut writer = stage.writer();
    stage.write(&topic, Batch::of(1).bytes());
    // Without having said so, no batch of a transaction is taken.
    assert_eq!(stage.write_in(&mut writer, &topic, 2), ABORTABLE);
    let nameless = Batch::of(1)
        .by(writer.producer, writer.epoch, 0)
        .with(|h| h.attributes |= TRANSACTIONAL)
        .bytes();
    assert_eq!(
        stage.produce(&topic, nameless).error_code,
        NOT_ALLOWED_WITHOUT_ID
    );
    stage.begin(&writer, &topic);
    assert_eq!(stage.write_in(&mut writer, &topic, 2), 0);
    stage.write(&topic, Batch::of(1).bytes());
    assert_eq!(
        (stage.stable(&topic), stage.list(&topic, 0, -1).offset),
        (1, 4)
    );
    let plain = Batch::of(1).by(writer.producer, writer.epoch, 2).bytes();
    assert_eq!(stage.produce(&topic, plain).error_code, INVALID_STATE);
    stage.finish(&writer, false);
    stage.until(|stage| stage.stable(&topic) == 5);
    stage.begin(&writer, &topic);
    assert_eq!(stage.write_in(&mut writer, &topic, 2), 0);
    stage.finish(&writer, true);
    stage.until(|stage| stage.stable(&topic) == 8);

    let committed = |stage: &mut Stage, from| {
        let request = fetch(&topic, &[Want::from(from)]).with_isolation_level(COMMITTED);
        let mut answer = stage.call(&request, FETCH);
        answer.responses[0].partitions.remove(0)
    };
    let answer = committed(stage, 0);
    assert_eq!(answer.last_stable_offset, 8);
    let aborted = answer.aborted_transactions.expect("a list");
    let aborted: Vec<(i64, i64)> = aborted
        .iter()
        .map(|a| (a.producer_id.0, a.first_offset))
        .collect();
    assert_eq!(aborted, [(writer.producer, 1)]);
    let answer = committed(stage, 5);
    assert_eq!(answer.aborted_transactions.map(|list| list.len()), Some(0));
    let everything = stage.fetch(&topic, Want::from(0));
    assert!(
        everything
            .aborted_transactions
            .is_none_or(|list| list.is_empty())
    );
}
