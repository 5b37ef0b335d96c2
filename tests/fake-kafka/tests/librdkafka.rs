//! librdkafka, which shares no line with the fake, as the judge of groups and transactions.

#![allow(clippy::expect_used, reason = "tests")]

use std::time::{Duration, Instant};

use fake_kafka::acls::{Acl, Operation, ResourceType};
use fake_kafka::groups::classic::State as GroupState;
use fake_kafka::groups::coordinator::partition_for;
use fake_kafka::tcp::Server;
use fake_kafka::topics::NewTopic;
use fake_kafka::users::Login;
use fake_kafka::{Cluster, Options, groups};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

const DEADLINE: Duration = Duration::from_secs(60);

struct Stage {
    cluster: Cluster,
    server: Server,
}

impl Stage {
    /// A cluster with the topic `t`.
    fn new(brokers: i32, partitions: i32) -> Self {
        let cluster = Cluster::new(Options {
            brokers,
            ..Options::default()
        });
        let server = Server::start(&cluster);
        let new = NewTopic {
            partitions,
            replication: i16::try_from(brokers).expect("few"),
            ..NewTopic::default()
        };
        cluster.control(|state| state.create_topic("t", &new).expect("a topic"));
        Self { cluster, server }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.server.bootstrap());
        config
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        self.client()
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", "45000")
            .set("heartbeat.interval.ms", "200")
            .set("isolation.level", "read_committed")
            .set("partition.assignment.strategy", "range")
            .create()
            .expect("a consumer")
    }

    fn produce(&self, values: impl IntoIterator<Item = String>) {
        let producer: BaseProducer = self.client().create().expect("a producer");
        send(&producer, values);
        producer.flush(DEADLINE).expect("produced");
    }

    fn transactional(&self, id: &str) -> BaseProducer {
        let producer: BaseProducer = self
            .client()
            .set("transactional.id", id)
            .create()
            .expect("a producer");
        producer.init_transactions(DEADLINE).expect("it begins");
        producer
    }

    fn committed(&self, group: &str, partition: i32) -> Option<i64> {
        self.cluster.control(|state| {
            let found = state.committed_offset(group, "t", partition);
            found.map(|value| value.offset)
        })
    }
}

fn send(producer: &BaseProducer, values: impl IntoIterator<Item = String>) {
    for value in values {
        let record: BaseRecord<'_, String, String> =
            BaseRecord::to("t").payload(&value).key(&value);
        producer.send(record).map_err(|(e, _)| e).expect("queued");
    }
}

/// Polls until so many records have come.
fn values(consumer: &BaseConsumer, count: usize) -> Vec<String> {
    let until = Instant::now() + DEADLINE;
    let mut values = Vec::new();
    while values.len() < count {
        assert!(Instant::now() < until, "only {values:?}");
        if let Some(message) = consumer.poll(Duration::from_millis(50)) {
            let message = match message {
                // A broker that went down is looked for elsewhere.
                Err(error) if is_passing(&error) => continue,
                message => message.expect("a record"),
            };
            let payload = message.payload().expect("a value");
            values.push(String::from_utf8(payload.to_vec()).expect("text"));
        }
    }
    values.sort();
    values
}

fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
    )
}

/// Polls all consumers until the condition holds.
fn until(consumers: &[&BaseConsumer], holds: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "it never came to that");
        for consumer in consumers {
            if let Some(message) = consumer.poll(Duration::from_millis(10)) {
                message.expect("a record");
            }
        }
    }
}

fn assigned(consumer: &BaseConsumer) -> usize {
    consumer.assignment().expect("an assignment").count()
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("{n:03}")).collect()
}

#[test]
fn a_group_reads_commits_and_goes_on_where_it_was() {
    let stage = Stage::new(1, 1);
    stage.produce(numbered(0..10));
    let consumer = stage.consumer("g");
    consumer.subscribe(&["t"]).expect("subscribed");
    assert_eq!(values(&consumer, 10), numbered(0..10));
    consumer
        .commit_consumer_state(CommitMode::Sync)
        .expect("committed");
    assert_eq!(stage.committed("g", 0), Some(10));
    drop(consumer);
    let state = stage.cluster.control(|state| state.group_state("g"));
    assert_eq!(state, Some(GroupState::Empty), "it left");

    stage.produce(numbered(10..15));
    let consumer = stage.consumer("g");
    consumer.subscribe(&["t"]).expect("subscribed");
    assert_eq!(values(&consumer, 5), numbered(10..15));
}

#[test]
fn two_members_share_the_partitions_and_one_takes_over_from_the_other() {
    let stage = Stage::new(3, 4);
    let first = stage.consumer("g");
    first.subscribe(&["t"]).expect("subscribed");
    until(&[&first], || assigned(&first) == 4);
    let second = stage.consumer("g");
    second.subscribe(&["t"]).expect("subscribed");
    until(&[&first, &second], || {
        assigned(&first) == 2 && assigned(&second) == 2
    });
    drop(second);
    until(&[&first], || assigned(&first) == 4);
}

#[test]
fn a_commit_from_outside_is_refused_while_there_are_members() {
    let stage = Stage::new(1, 1);
    let outside = stage.consumer("g");
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset("t", 0, Offset::Offset(3))
        .expect("an offset");
    outside
        .commit(&offsets, CommitMode::Sync)
        .expect("nobody is in the group");
    assert_eq!(stage.committed("g", 0), Some(3));

    let member = stage.consumer("g");
    member.subscribe(&["t"]).expect("subscribed");
    until(&[&member], || assigned(&member) == 1);
    let refused = outside.commit(&offsets, CommitMode::Sync);
    let code = refused.expect_err("refused").rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::UnknownMemberId));
}

#[test]
fn a_coordinator_that_is_elected_knows_what_the_log_says() {
    let stage = Stage::new(3, 1);
    stage.produce(numbered(0..5));
    let consumer = stage.consumer("g");
    consumer.subscribe(&["t"]).expect("subscribed");
    assert_eq!(values(&consumer, 5), numbered(0..5));
    consumer
        .commit_consumer_state(CommitMode::Sync)
        .expect("committed");
    let coordinator = stage.cluster.look(|state| {
        let partitions = &state.topics[groups::TOPIC].partitions;
        let count = i32::try_from(partitions.len()).expect("few");
        partitions[&partition_for("g", count)].leader
    });
    let coordinator = coordinator.expect("a leader");
    stage
        .cluster
        .control(|state| state.stop_broker(coordinator));
    assert_eq!(stage.committed("g", 0), Some(5));
    stage.produce(numbered(5..8));
    assert_eq!(values(&consumer, 3), numbered(5..8), "it is still a member");
    consumer
        .commit_consumer_state(CommitMode::Sync)
        .expect("committed");
    assert_eq!(stage.committed("g", 0), Some(8));
}

#[test]
fn committed_transactions_are_read_and_aborted_ones_are_not() {
    let stage = Stage::new(3, 2);
    let producer = stage.transactional("tx");
    for (values, commit) in [
        (numbered(0..5), true),
        (numbered(5..10), false),
        (numbered(10..15), true),
    ] {
        producer.begin_transaction().expect("begun");
        send(&producer, values);
        producer.flush(DEADLINE).expect("produced");
        match commit {
            true => producer.commit_transaction(DEADLINE).expect("committed"),
            false => producer.abort_transaction(DEADLINE).expect("aborted"),
        }
    }
    let consumer = stage.consumer("g");
    consumer.subscribe(&["t"]).expect("subscribed");
    let expected = [numbered(0..5), numbered(10..15)].concat();
    assert_eq!(values(&consumer, 10), expected);
    assert!(consumer.poll(Duration::from_millis(300)).is_none());
}

#[test]
fn offsets_are_committed_with_the_transaction() {
    let stage = Stage::new(1, 1);
    stage.produce(numbered(0..10));
    let consumer = stage.consumer("g");
    consumer.subscribe(&["t"]).expect("subscribed");
    assert_eq!(values(&consumer, 10).len(), 10);
    let producer = stage.transactional("tx");
    for (offset, commit, expected) in [(4, true, Some(4)), (8, false, Some(4))] {
        producer.begin_transaction().expect("begun");
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset("t", 0, Offset::Offset(offset))
            .expect("an offset");
        let group = consumer.group_metadata().expect("a member");
        producer
            .send_offsets_to_transaction(&offsets, &group, DEADLINE)
            .expect("sent");
        let before = stage.committed("g", 0);
        assert!(before.is_none() || before == Some(4), "not before its end");
        match commit {
            true => producer.commit_transaction(DEADLINE).expect("committed"),
            false => producer.abort_transaction(DEADLINE).expect("aborted"),
        }
        assert_eq!(stage.committed("g", 0), expected);
    }
}

#[test]
fn a_second_producer_of_the_id_aborts_what_the_first_has_open_and_fences_it() {
    let stage = Stage::new(1, 1);
    let first = stage.transactional("tx");
    first.begin_transaction().expect("begun");
    send(&first, numbered(0..3));
    first.flush(DEADLINE).expect("produced");
    let second = stage.transactional("tx");
    second.begin_transaction().expect("begun");
    send(&second, numbered(3..6));
    second.commit_transaction(DEADLINE).expect("committed");
    let fenced = first.commit_transaction(DEADLINE);
    assert!(fenced.is_err(), "{fenced:?}");

    let consumer = stage.consumer("g");
    consumer.subscribe(&["t"]).expect("subscribed");
    assert_eq!(values(&consumer, 3), numbered(3..6));
}

#[test]
fn an_open_transaction_holds_readers_back_until_it_times_out() {
    let stage = Stage::new(1, 1);
    let producer = stage.transactional("tx");
    producer.begin_transaction().expect("begun");
    send(&producer, numbered(0..3));
    producer.flush(DEADLINE).expect("produced");
    stage.produce(numbered(3..6));
    let consumer = stage.consumer("g");
    consumer.subscribe(&["t"]).expect("subscribed");
    until(&[&consumer], || assigned(&consumer) == 1);
    assert!(consumer.poll(Duration::from_millis(300)).is_none());
    let was_open = stage
        .cluster
        .control(|state| state.time_out_transaction("tx"));
    assert!(was_open);
    assert_eq!(values(&consumer, 3), numbered(3..6));
}

#[test]
fn users_log_in_and_are_bound_by_acls() {
    let stage = Stage::new(1, 1);
    stage.cluster.control(|state| {
        state.users.login = Login::Required;
        state.users.add("alice", "secret");
        state.acls.is_on = true;
        let alice = |operation, kind, name| Acl::allow("User:alice", operation, kind, name);
        state.acls.all.extend([
            alice(Operation::Write, ResourceType::Topic, "t"),
            alice(Operation::Read, ResourceType::Group, "g"),
        ]);
    });
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let mut config = stage.client();
        config
            .set("security.protocol", "SASL_PLAINTEXT")
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", "alice")
            .set("sasl.password", "secret");
        let producer: BaseProducer = config.create().expect("a producer");
        send(&producer, numbered(0..2));
        producer.flush(DEADLINE).expect("produced");
        let consumer: BaseConsumer = config
            .clone()
            .set("group.id", "g")
            .create()
            .expect("a consumer");
        consumer.subscribe(&["t"]).expect("subscribed");
        // She may write, and so see it, but not read.
        let refused = error_of(&consumer);
        assert_eq!(refused, RDKafkaErrorCode::TopicAuthorizationFailed);
        let stranger: BaseConsumer = config
            .set("sasl.password", "wrong")
            .create()
            .expect("a consumer");
        let refused = stranger.fetch_metadata(None, Duration::from_millis(500));
        assert!(refused.is_err(), "{mechanism}");
    }
    let produced = stage.cluster.look(|state| {
        let partition = &state.topics["t"].partitions[&0];
        partition.leader_log().map(|log| log.end_offset())
    });
    assert_eq!(produced, Some(6));
}

/// Polls until something goes wrong.
fn error_of(consumer: &BaseConsumer) -> RDKafkaErrorCode {
    let until = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < until, "nothing goes wrong");
        if let Some(Err(error)) = consumer.poll(Duration::from_millis(50)) {
            return error.rdkafka_error_code().expect("a code");
        }
    }
}
