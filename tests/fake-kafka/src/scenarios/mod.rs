//! What a cluster does, as its clients see it. Each scenario drives a cluster only by its wire protocol, and asserts what it saw; it holds
//! on the fake and on a real broker. Whoever adds a rule to the fake adds a scenario that shows that Kafka has it.

mod accounts;
mod aging;
mod coordinated;
mod epochs;
mod fetching;
mod groups;
mod markers;
mod offsets;
mod producing;
mod rights;
mod sequences;
mod told;
mod topics;
mod transactions;

pub use aging::{CHECK_INTERVAL_MS, EXPIRATION_MS};

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, CreateTopicsRequest, FetchRequest, InitProducerIdRequest,
    ListOffsetsRequest, ProduceRequest, ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Request, StrBytes};
use uuid::Uuid;

use crate::batch::{Header, Record, produced};
use crate::client::Client;

/// A scenario's name, and what it does.
pub type Scenario = (&'static str, fn(&mut Stage));

/// All of them.
pub const ALL: &[Scenario] = &[
    ("sequences follow one another", sequences::follow),
    (
        "a batch sent twice is answered with its first offset",
        sequences::duplicates,
    ),
    ("a new epoch begins at zero", sequences::epochs),
    ("a broken batch is refused", producing::broken),
    (
        "a batch that breaks the topic's rules is refused",
        producing::against_rules,
    ),
    ("holes in a batch", producing::holes),
    ("the broker's time", producing::append_time),
    ("the topic's codec", producing::codec),
    ("acks", producing::acks),
    (
        "markers without a transaction",
        markers::without_a_transaction,
    ),
    ("markers fence", markers::fence),
    (
        "a marker for a partition that isn't there",
        markers::unknown_partitions,
    ),
    (
        "markers behind batches that want no answer",
        markers::behind_unanswered_batches,
    ),
    ("the ends of a log", fetching::ends),
    ("offsets by time", fetching::by_time),
    ("the size of an answer", fetching::sizes),
    ("fetch sessions", fetching::sessions),
    ("a fetch waits for bytes", fetching::waits),
    ("leader epochs", epochs::known_and_unknown),
    ("topics come and go", topics::come_and_go),
    ("topics that can't be", topics::refused),
    ("topics grow", topics::grow),
    ("configs of a topic", topics::configs),
    (
        "a transaction is hidden until it ends",
        transactions::hidden_until_the_end,
    ),
    ("members of a group", groups::members),
    ("who may join a group", groups::who_may_join),
    ("a group rebalances", groups::rebalances),
    ("static members", groups::static_members),
    ("groups are listed and described", groups::listed),
    ("offsets committed from outside", offsets::from_outside),
    ("offsets in old versions", offsets::in_old_versions),
    ("offsets are taken back", offsets::taken_back),
    ("offsets in the log", offsets::in_the_log),
    ("offsets go with their topic", offsets::go_with_their_topic),
    ("transactional producers", coordinated::producers),
    ("transactions end", coordinated::ends),
    (
        "an epoch per transaction",
        coordinated::an_epoch_per_transaction,
    ),
    ("offsets in transactions", coordinated::offsets),
    ("client quotas", accounts::quotas),
    ("SCRAM users", accounts::users),
    ("changes are told", told::changes),
];

/// Those that want an authorizer that lets everybody do what no ACL is about.
pub const WITH_AUTHORIZER: &[Scenario] = &[
    ("ACLs come and go", rights::acls_come_and_go),
    ("changes of ACLs are told", told::acls),
    (
        "a topic that may not be seen",
        rights::a_topic_that_may_not_be_seen,
    ),
    (
        "a group that may not be seen",
        rights::a_group_that_may_not_be_seen,
    ),
];

/// Runs all of them on one broker, and says how each went; `prefix` begins every name that they make up.
///
/// # Panics
/// When one fails, after all were tried.
pub fn run_all(bootstrap: &str, prefix: &str) {
    run(ALL, bootstrap, prefix);
}

/// Runs some of them, as [`run_all`] does all.
///
/// # Panics
/// When one fails, after all were tried.
pub fn run(scenarios: &[Scenario], bootstrap: &str, prefix: &str) {
    let mut failed = Vec::new();
    for (name, scenario) in scenarios {
        let outcome = std::panic::catch_unwind(|| {
            let mut stage = Stage::on(bootstrap, prefix, name);
            scenario(&mut stage);
        });
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "these don't hold: {failed:?}");
}

/// Plays what needs brokers that forget producers soon ([`EXPIRATION_MS`], [`CHECK_INTERVAL_MS`]) and clean eagerly
/// (`log.cleaner.backoff.ms`). `clean` is called when a topic should be cleaned below offset 8; real brokers do so by themselves.
pub fn run_aging(bootstrap: &str, prefix: &str, clean: &mut dyn FnMut(&str)) {
    let mut stage = Stage::on(bootstrap, prefix, "producers are forgotten");
    aging::producers_are_forgotten(&mut stage);
    let mut stage = Stage::on(bootstrap, prefix, "keys are cleaned");
    aging::keys_are_cleaned(&mut stage, clean);
}

/// The broker that a scenario plays on.
pub struct Stage {
    address: String,
    client: Client,
    prefix: String,
}

/// Versions that scenarios speak; the newest before topics are named by id.
const PRODUCE: i16 = 11;
const FETCH: i16 = 12;

impl Stage {
    fn on(bootstrap: &str, prefix: &str, name: &str) -> Self {
        let address = bootstrap.split(',').next().expect("an address").to_owned();
        let client = Client::connect(&address).expect("a broker listens");
        Self {
            address,
            client,
            prefix: format!("{prefix}{}", name.replace([' ', '\''], "-")),
        }
    }

    /// Another connection.
    fn another(&self) -> Client {
        Client::connect(&self.address).expect("a broker listens")
    }

    fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.client
            .call(request, version)
            .unwrap_or_else(|e| panic!("API {} version {version}: {e}", R::KEY))
    }

    /// Whether the broker speaks this version of the API.
    fn speaks<R: Request>(&mut self, version: i16) -> bool {
        let answer = self.call(&ApiVersionsRequest::default(), 2);
        let mut apis = answer.api_keys.iter();
        apis.any(|api| api.api_key == R::KEY && api.max_version >= version)
    }

    /// A name that no other scenario uses.
    fn name(&self, of: &str) -> String {
        format!("{}-{of}", self.prefix)
    }

    /// Makes a topic, and waits until the broker leads it.
    fn topic(&mut self, of: &str, partitions: i32, configs: &[(&str, &str)]) -> String {
        let name = self.name(of);
        let answer = self.call(&create(&[new_topic(&name, partitions, configs)]), 7);
        assert_eq!(answer.topics[0].error_code, 0, "{:?}", answer.topics[0]);
        for partition in 0..partitions {
            self.until(|stage| stage.list(&name, partition, -2).error_code == 0);
        }
        name
    }

    /// Tries again until it holds, for a minute.
    fn until(&mut self, mut holds: impl FnMut(&mut Self) -> bool) {
        let started = std::time::Instant::now();
        while !holds(self) {
            assert!(started.elapsed().as_secs() < 60, "it never holds");
            std::thread::yield_now();
        }
    }

    /// A producer id that was never used.
    fn producer(&mut self) -> i64 {
        // A broker that has just started has no ids to give yet.
        let mut given = None;
        self.until(|stage| {
            let answer = stage.call(&init_producer(None), 4);
            given = (answer.error_code == 0).then_some(answer.producer_id.0);
            given.is_some()
        });
        given.expect("just seen")
    }

    fn produce(&mut self, topic: &str, batch: Bytes) -> PartitionProduceResponse {
        self.produce_to(topic, 0, batch)
    }

    fn produce_to(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Bytes,
    ) -> PartitionProduceResponse {
        let mut answer = self.call(&produce(topic, partition, -1, Some(batch)), PRODUCE);
        answer.responses[0].partition_responses.remove(0)
    }

    /// Produces what must be taken; gives its first offset.
    fn write(&mut self, topic: &str, batch: Bytes) -> i64 {
        let answer = self.produce(topic, batch);
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer.base_offset
    }

    fn fetch(&mut self, topic: &str, wanted: Want) -> PartitionData {
        let mut answer = self.call(&fetch(topic, &[wanted]), FETCH);
        assert_eq!(answer.error_code, 0);
        answer.responses[0].partitions.remove(0)
    }

    /// The batches from an offset on.
    fn read(&mut self, topic: &str, offset: i64) -> Vec<(Header, Bytes)> {
        let answer = self.fetch(topic, Want::from(offset));
        assert_eq!(answer.error_code, 0, "{answer:?}");
        batches(&answer)
    }

    /// ListOffsets: -1 latest, -2 earliest, -3 the largest timestamp.
    fn list(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> ListOffsetsPartitionResponse {
        let mut answer = self.call(&list(topic, partition, timestamp, -1, 0), 7);
        answer.topics[0].partitions.remove(0)
    }
}

fn init_producer(transactional_id: Option<&str>) -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}

fn create(topics: &[CreatableTopic]) -> CreateTopicsRequest {
    CreateTopicsRequest::default()
        .with_topics(topics.to_vec())
        .with_timeout_ms(10_000)
}

fn new_topic(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.collect())
}

fn produce(topic: &str, partition: i32, acks: i16, records: Option<Bytes>) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(records);
    let topic = TopicProduceData::default()
        .with_name(TopicName(text(topic)))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic])
}

/// What to fetch of one partition.
#[derive(Debug, Clone, Copy)]
struct Want {
    partition: i32,
    offset: i64,
    max_bytes: i32,
    leader_epoch: i32,
    last_fetched_epoch: i32,
}

impl Want {
    fn from(offset: i64) -> Self {
        Self {
            partition: 0,
            offset,
            max_bytes: 1 << 20,
            leader_epoch: -1,
            last_fetched_epoch: -1,
        }
    }
}

fn fetch(topic: &str, wanted: &[Want]) -> FetchRequest {
    let partitions = wanted.iter().map(|want| {
        FetchPartition::default()
            .with_partition(want.partition)
            .with_fetch_offset(want.offset)
            .with_partition_max_bytes(want.max_bytes)
            .with_current_leader_epoch(want.leader_epoch)
            .with_last_fetched_epoch(want.last_fetched_epoch)
    });
    let topic = FetchTopic::default()
        .with_topic(TopicName(text(topic)))
        .with_topic_id(Uuid::nil())
        .with_partitions(partitions.collect());
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

fn list(
    topic: &str,
    partition: i32,
    timestamp: i64,
    leader_epoch: i32,
    isolation: i8,
) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_timestamp(timestamp)
        .with_current_leader_epoch(leader_epoch);
    let topic = ListOffsetsTopic::default()
        .with_name(TopicName(text(topic)))
        .with_partitions(vec![partition]);
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation)
        .with_topics(vec![topic])
}

fn batches(answer: &PartitionData) -> Vec<(Header, Bytes)> {
    let records = answer.records.clone().unwrap_or_default();
    crate::batch::split(&records)
        .into_iter()
        .map(|batch| (Header::read(&batch).expect("a whole batch"), batch))
        .collect()
}

/// Records of a producer, one minute old.
#[derive(Debug, Clone)]
struct Batch {
    header: Header,
    records: Vec<Record>,
}

impl Batch {
    fn of(count: usize) -> Self {
        let records = vec![Record::new(Some(b"key"), Some(b"value")); count];
        let (header, _) = produced(&records, now_ms() - 60_000);
        Self { header, records }
    }

    fn by(mut self, producer_id: i64, epoch: i16, sequence: i32) -> Self {
        self.header.producer_id = producer_id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = sequence;
        self
    }

    fn at(mut self, timestamp: i64) -> Self {
        self.header.base_timestamp = timestamp;
        self.header.max_timestamp = timestamp;
        self
    }

    /// Changes the header just before it is sealed.
    fn with(mut self, change: impl FnOnce(&mut Header)) -> Self {
        change(&mut self.header);
        self
    }

    fn bytes(&self) -> Bytes {
        let (_, records) = produced(&self.records, 0);
        let codec = crate::codec::Codec::from_number(self.header.codec()).expect("a codec");
        self.header.seal(&codec.compress(&records))
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since.as_millis()).expect("fits")
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cleaner::Cleaning;
    use crate::cluster::Cluster;
    use crate::state::Options;
    use crate::tcp::Server;

    #[test]
    fn all_of_them_hold_on_the_fake() {
        let cluster = Cluster::new(Options::default());
        let server = Server::start(&cluster);
        run_all(&server.bootstrap(), "");
    }

    #[test]
    fn producers_and_keys_age_on_the_fake() {
        let cluster = Cluster::new(Options {
            producer_expiration_ms: EXPIRATION_MS,
            producer_check_interval_ms: Some(CHECK_INTERVAL_MS),
            ..Options::default()
        });
        let server = Server::start(&cluster);
        let cleaning = Cleaning {
            drops_tombstones: true,
            below: 8,
        };
        run_aging(&server.bootstrap(), "", &mut |topic| {
            cluster.control(|state| state.compact(topic, 0, cleaning));
        });
    }

    #[test]
    fn those_about_rights_hold_on_the_fake() {
        let cluster = Cluster::new(Options::default());
        cluster.control(|state| {
            state.acls.is_on = true;
            state.acls.allow_if_no_acl_found = true;
        });
        let server = Server::start(&cluster);
        run(WITH_AUTHORIZER, &server.bootstrap(), "");
    }
}
