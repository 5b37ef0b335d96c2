//! Transactions as their coordinator sees them (`TransactionCoordinator`), and offsets in them.

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::describe_transactions_response::TransactionState;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest,
    FindCoordinatorRequest, GroupId, InitProducerIdRequest, ListTransactionsRequest, ProducerId,
    TopicName, TransactionalId, TxnOffsetCommitRequest,
};

use super::offsets::Commit;
use super::{Batch, Stage, produce, text};

/// From these versions on clients have an epoch per transaction (KIP-890).
const BUMPING_END: i16 = 5;
const ADDING_PRODUCE: i16 = 12;
const ADDING_COMMIT: i16 = 5;
const TRANSACTIONAL: i16 = 0x10;

const UNKNOWN_PARTITION: i16 = 3;
const UNKNOWN_MEMBER: i16 = 25;
const TOPIC_DENIED: i16 = 29;
const INVALID_REQUEST: i16 = 42;
const OLD_EPOCH: i16 = 47;
const INVALID_STATE: i16 = 48;
const WRONG_PRODUCER: i16 = 49;
const INVALID_TIMEOUT: i16 = 50;
const CONCURRENT: i16 = 51;
const NOT_ATTEMPTED: i16 = 55;
const FENCED: i16 = 90;
const ID_NOT_FOUND: i16 = 105;
const ABORTABLE: i16 = 120;

/// A transactional producer, in the old way, in which a client says every step.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    id: String,
    producer_id: i64,
    epoch: i16,
}

fn end_transaction(producer: &Producer, commit: bool) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(TransactionalId(text(&producer.id)))
        .with_producer_id(ProducerId(producer.producer_id))
        .with_producer_epoch(producer.epoch)
        .with_committed(commit)
}

fn txn_commit(
    producer: &Producer,
    group: &str,
    topic: &str,
    commit: &Commit,
) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(commit.offset)
        .with_committed_metadata(Some(text(&commit.metadata)));
    let topic = TxnOffsetCommitRequestTopic::default()
        .with_name(TopicName(text(topic)))
        .with_partitions(vec![partition]);
    TxnOffsetCommitRequest::default()
        .with_transactional_id(TransactionalId(text(&producer.id)))
        .with_producer_id(ProducerId(producer.producer_id))
        .with_producer_epoch(producer.epoch)
        .with_group_id(GroupId(text(group)))
        .with_generation_id(commit.generation)
        .with_member_id(text(&commit.member))
        .with_topics(vec![topic])
}

impl Stage {
    /// A transactional id whose coordinator is known to this broker.
    fn transactional_id(&mut self, of: &str) -> String {
        let id = self.name(of);
        let find = FindCoordinatorRequest::default()
            .with_key_type(1)
            .with_coordinator_keys(vec![text(&id)]);
        self.until(|stage| stage.call(&find, 4).coordinators[0].error_code == 0);
        id
    }

    fn init(&mut self, id: &str, as_before: Option<&Producer>) -> Result<Producer, i16> {
        let (producer_id, epoch) = as_before.map_or((-1, -1), |it| (it.producer_id, it.epoch));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text(id))))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch);
        let answer = self.call(&request, 4);
        match answer.error_code {
            0 => Ok(Producer {
                id: id.to_owned(),
                producer_id: answer.producer_id.0,
                epoch: answer.producer_epoch,
            }),
            code => {
                assert_eq!((answer.producer_id.0, answer.producer_epoch), (-1, -1));
                Err(code)
            }
        }
    }

    /// Tries again while something else is going on.
    fn init_in_time(&mut self, id: &str) -> Producer {
        let mut producer = None;
        self.until(|stage| {
            producer = stage.init(id, None).ok();
            producer.is_some()
        });
        producer.expect("just seen")
    }

    fn add(&mut self, producer: &Producer, partitions: &[(&str, i32)]) -> Vec<i16> {
        let topics = partitions.iter().map(|(topic, partition)| {
            AddPartitionsToTxnTopic::default()
                .with_name(TopicName(text(topic)))
                .with_partitions(vec![*partition])
        });
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(&producer.id)))
            .with_v3_and_below_producer_id(ProducerId(producer.producer_id))
            .with_v3_and_below_producer_epoch(producer.epoch)
            .with_v3_and_below_topics(topics.collect());
        let answer = self.call(&request, 3);
        // In any order.
        let code = |(topic, _): &(&str, i32)| {
            let mut results = answer.results_by_topic_v3_and_below.iter();
            let result = results.find(|result| result.name.as_str() == *topic);
            result.expect("answered").results_by_partition[0].partition_error_code
        };
        partitions.iter().map(code).collect()
    }

    /// Adds, again while the transaction before is being ended.
    fn add_in_time(&mut self, producer: &Producer, topic: &str) {
        self.until(|stage| match stage.add(producer, &[(topic, 0)])[0] {
            0 => true,
            code => {
                assert_eq!(code, CONCURRENT);
                false
            }
        });
    }

    fn end_of_transaction(&mut self, producer: &Producer, commit: bool) -> i16 {
        let request = end_transaction(producer, commit);
        self.call(&request, 3).error_code
    }

    fn transaction(&mut self, id: &str) -> TransactionState {
        let request = DescribeTransactionsRequest::default()
            .with_transactional_ids(vec![TransactionalId(text(id))]);
        self.call(&request, 0).transaction_states.remove(0)
    }

    fn is_in_state(&mut self, id: &str, state: &str) -> bool {
        self.transaction(id).transaction_state.as_str() == state
    }

    fn add_offsets(&mut self, producer: &Producer, group: &str) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(TransactionalId(text(&producer.id)))
            .with_producer_id(ProducerId(producer.producer_id))
            .with_producer_epoch(producer.epoch)
            .with_group_id(GroupId(text(group)));
        self.call(&request, 3).error_code
    }

    fn commit_in(&mut self, producer: &Producer, group: &str, topic: &str, commit: &Commit) -> i16 {
        let request = txn_commit(producer, group, topic, commit);
        let answer = self.call(&request, 4);
        answer.topics[0].partitions[0].error_code
    }
}

pub(super) fn producers(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let id = stage.transactional_id("id");
    assert_eq!(stage.transaction(&id).error_code, ID_NOT_FOUND);
    let request = |id: &str, timeout_ms| {
        InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text(id))))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    let mut code = |id: &str, timeout_ms| stage.call(&request(id, timeout_ms), 4).error_code;
    assert_eq!(code("", 60_000), INVALID_REQUEST);
    assert_eq!(code(&id, i32::MAX), INVALID_TIMEOUT);
    assert_eq!(code(&id, 0), INVALID_TIMEOUT);

    let first = stage.init_in_time(&id);
    assert_eq!(first.epoch, 0);
    let second = stage.init(&id, None).expect("another start");
    assert_eq!((second.producer_id, second.epoch), (first.producer_id, 1));
    assert_eq!(stage.add(&first, &[(&topic, 0)]), [FENCED]);
    let other = Producer {
        producer_id: first.producer_id + 1_000_000,
        ..second.clone()
    };
    assert_eq!(stage.add(&other, &[(&topic, 0)]), [WRONG_PRODUCER]);
    // One that goes on after an error says who it was, and may say so twice.
    let third = stage.init(&id, Some(&second)).expect("it goes on");
    assert_eq!((third.producer_id, third.epoch), (first.producer_id, 2));
    assert_eq!(stage.init(&id, Some(&second)), Ok(third.clone()), "again");
    assert_eq!(stage.init(&id, Some(&first)), Err(FENCED));
    assert_eq!(stage.init(&id, Some(&other)), Err(FENCED));

    // What is open is aborted by the next start.
    stage.add_in_time(&third, &topic);
    assert_eq!(stage.init(&id, None), Err(CONCURRENT));
    let fourth = stage.init_in_time(&id);
    assert_eq!(fourth.epoch, 4, "the epoch in between was nobody's");
    assert_eq!(stage.end_of_transaction(&third, true), FENCED);
}

pub(super) fn an_epoch_per_transaction(stage: &mut Stage) {
    if !stage.speaks::<EndTxnRequest>(BUMPING_END) {
        return;
    }
    let topic = stage.topic("a", 1, &[]);
    let group = stage.group("g");
    let id = stage.transactional_id("id");
    let mut producer = stage.init_in_time(&id);
    for commit in [true, false] {
        // The broker puts into the transaction what is written in it.
        let batch = Batch::of(1)
            .by(producer.producer_id, producer.epoch, 0)
            .with(|header| header.attributes |= TRANSACTIONAL);
        let write = produce(&topic, 0, -1, Some(batch.bytes()))
            .with_transactional_id(Some(TransactionalId(text(&id))));
        stage.until(|stage| {
            let answer = stage.call(&write, ADDING_PRODUCE);
            answer.responses[0].partition_responses[0].error_code == 0
        });
        let offset = txn_commit(&producer, &group, &topic, &Commit::of(7));
        let answer = stage.call(&offset, ADDING_COMMIT);
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        assert_eq!(stage.transaction(&id).topics.len(), 2);
        let end = end_transaction(&producer, commit);
        let answer = stage.call(&end, BUMPING_END);
        assert_eq!(answer.error_code, 0);
        let next = Producer {
            id: id.clone(),
            producer_id: answer.producer_id.0,
            epoch: answer.producer_epoch,
        };
        assert_eq!(next.producer_id, producer.producer_id);
        assert_eq!(next.epoch, producer.epoch + 1);
        let state = if commit {
            "CompleteCommit"
        } else {
            "CompleteAbort"
        };
        stage.until(|stage| stage.is_in_state(&id, state));
        let again = stage.call(&end, BUMPING_END);
        assert_eq!((again.error_code, again.producer_epoch), (0, next.epoch));
        let (header, _) = *stage.read(&topic, 0).last().expect("a marker");
        assert!(header.is_control());
        assert_eq!(
            header.producer_epoch, next.epoch,
            "the marker's is the next one"
        );
        let late = stage.call(&write, ADDING_PRODUCE);
        let late = late.responses[0].partition_responses[0].error_code;
        assert!([OLD_EPOCH, FENCED].contains(&late), "{late}");
        producer = next;
    }
    assert_eq!(stage.committed(&group, &topic).committed_offset, 7);
}

pub(super) fn ends(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let id = stage.transactional_id("id");
    let producer = stage.init_in_time(&id);
    assert!(stage.is_in_state(&id, "Empty"));
    assert_eq!(stage.end_of_transaction(&producer, true), INVALID_STATE);
    let nowhere = stage.name("nowhere");
    assert_eq!(
        stage.add(&producer, &[(&topic, 0), (&nowhere, 0)]),
        [NOT_ATTEMPTED, UNKNOWN_PARTITION]
    );
    assert_eq!(
        stage.add(&producer, &[("__consumer_offsets", 0)]),
        [TOPIC_DENIED],
        "not by a client"
    );
    assert!(stage.is_in_state(&id, "Empty"));
    for (commit, state) in [(true, "CompleteCommit"), (false, "CompleteAbort")] {
        stage.add_in_time(&producer, &topic);
        let open = stage.transaction(&id);
        assert_eq!(open.transaction_state.as_str(), "Ongoing");
        assert_eq!(open.producer_id.0, producer.producer_id);
        assert_eq!(open.producer_epoch, producer.epoch);
        assert_eq!(open.transaction_timeout_ms, 60_000);
        assert!(open.transaction_start_time_ms > 0);
        assert_eq!(open.topics.len(), 1);
        assert_eq!(open.topics[0].topic.as_str(), topic);
        assert_eq!(stage.end_of_transaction(&producer, commit), 0);
        stage.until(|stage| stage.is_in_state(&id, state));
        assert!(stage.transaction(&id).topics.is_empty());
        assert_eq!(stage.end_of_transaction(&producer, commit), 0, "again");
        assert_eq!(stage.end_of_transaction(&producer, !commit), INVALID_STATE);
    }
    let listed = |stage: &mut Stage, states: &[&str]| {
        let states = states.iter().map(|state| text(state)).collect();
        let request = ListTransactionsRequest::default().with_state_filters(states);
        let answer = stage.call(&request, 0);
        let mut found = answer.transaction_states.into_iter();
        let found = found.find(|listed| listed.transactional_id.as_str() == id);
        (found, answer.unknown_state_filters)
    };
    let (found, unknown) = listed(stage, &[]);
    let found = found.expect("listed");
    assert_eq!(found.transaction_state.as_str(), "CompleteAbort");
    assert_eq!(found.producer_id.0, producer.producer_id);
    assert!(unknown.is_empty());
    assert!(listed(stage, &["CompleteAbort"]).0.is_some());
    let (found, unknown) = listed(stage, &["Ongoing", "Odd"]);
    assert!(found.is_none());
    assert_eq!(unknown, [text("Odd")]);
}

pub(super) fn offsets(stage: &mut Stage) {
    let topic = stage.topic("a", 1, &[]);
    let group = stage.group("g");
    let id = stage.transactional_id("id");
    let producer = stage.init_in_time(&id);
    let five = Commit::of(5);
    assert_eq!(
        stage.commit_in(&producer, &group, &topic, &five),
        ABORTABLE,
        "not in the transaction"
    );
    assert_eq!(stage.commit(&group, &topic, &Commit::of(1)), 0);
    for (offset, commit, expected) in [(5, true, 5), (9, false, 5)] {
        let partition = stage.offsets_partition(&group);
        let from = stage.offsets_end(partition);
        stage.until(|stage| stage.add_offsets(&producer, &group) == 0);
        let nowhere = stage.name("nowhere");
        assert_eq!(
            stage.commit_in(&producer, &group, &nowhere, &five),
            UNKNOWN_PARTITION
        );
        let by_member = Commit {
            member: "m".to_owned(),
            generation: 3,
            ..Commit::of(7)
        };
        assert_eq!(
            stage.commit_in(&producer, &group, &topic, &by_member),
            UNKNOWN_MEMBER
        );
        let before = stage.committed(&group, &topic).committed_offset;
        assert!(!stage.is_unstable(&group, &topic));
        let code = stage.commit_in(&producer, &group, &topic, &Commit::of(offset));
        assert_eq!(code, 0);
        assert!(stage.is_unstable(&group, &topic));
        let pending = stage.committed(&group, &topic).committed_offset;
        assert_eq!(pending, before, "not before its end");
        assert_eq!(stage.end_of_transaction(&producer, commit), 0);
        stage.until(|stage| !stage.is_unstable(&group, &topic));
        let now = stage.committed(&group, &topic).committed_offset;
        assert_eq!(now, expected);
        stage.transactional_offsets_are(&group, from, offset, commit);
    }
    // A commit from outside that comes later stays.
    stage.until(|stage| stage.add_offsets(&producer, &group) == 0);
    assert_eq!(
        stage.commit_in(&producer, &group, &topic, &Commit::of(20)),
        0
    );
    assert_eq!(stage.commit(&group, &topic, &Commit::of(3)), 0);
    assert_eq!(stage.end_of_transaction(&producer, true), 0);
    stage.until(|stage| !stage.is_unstable(&group, &topic));
    assert_eq!(stage.committed(&group, &topic).committed_offset, 3);
}
