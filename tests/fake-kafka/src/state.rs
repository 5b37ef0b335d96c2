//! Everything that a cluster knows.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use crate::acls::Acls;
use crate::api::Session;
use crate::faults::Faults;
use crate::groups::Groups;
use crate::metadata_log::MetadataLog;
use crate::partition::Partition;
use crate::quotas::{Quotas, rates::Rates};
use crate::topics::NewTopic;
use crate::transactions::Transactions;
use crate::users::Users;
use crate::world::clock::next_random;

/// How a cluster is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its id.
    /// Empty: it tells none, as some services do.
    pub cluster_id: String,
    /// Brokers are numbered from 1.
    pub brokers: i32,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `num.partitions`.
    pub default_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication: i16,
    /// Finalized features and their levels.
    pub features: BTreeMap<String, i16>,
    /// More of the brokers' `server.properties`, such as `log.retention.ms` and the like.
    pub broker_configs: BTreeMap<String, String>,
    /// `create.topic.policy.class.name`: what is said against a topic of this name.
    pub creation_policy: Option<CreationPolicy>,
    /// `alter.config.policy.class.name`: what is said against these settings of a topic of this name.
    pub alter_policy: Option<AlterPolicy>,
    /// `max.connections.per.ip`: one more is closed as soon as it is accepted (`ConnectionQuotas.inc`). Behind sockets only,
    /// where everybody has the same address.
    pub connections_max: Option<usize>,
    /// The acceptor's pause behind each connection, as with `max.connection.creation.rate`. Behind sockets only.
    pub connection_pause_ms: u64,
    /// `producer.id.expiration.ms`.
    pub producer_expiration_ms: i64,
    /// `producer.id.expiration.check.interval.ms`: how often producers are looked through. `None`: only when a test says so.
    pub producer_check_interval_ms: Option<i64>,
    /// As brokers before 3.7: `min.insync.replicas` may be above a partition's replicas, which takes no write then
    /// (KAFKA-15583), and Fetch ends at 15.
    pub before_3_7: bool,
    /// As with ZooKeeper before `inter.broker.protocol.version` 2.8: topics have no ids (`Uuid.ZERO_UUID`).
    pub without_topic_ids: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster_id: "fake-cluster".to_owned(),
            brokers: 1,
            auto_create_topics: false,
            default_partitions: 1,
            default_replication: 1,
            features: features_of_4_3(),
            broker_configs: BTreeMap::new(),
            creation_policy: None,
            alter_policy: None,
            connections_max: None,
            connection_pause_ms: 0,
            producer_expiration_ms: 86_400_000,
            producer_check_interval_ms: Some(600_000),
            before_3_7: false,
            without_topic_ids: false,
        }
    }
}

/// What a cluster's owner has against a new topic, in words for people.
pub type CreationPolicy = fn(&str, &NewTopic) -> Option<String>;

/// See [`Options::alter_policy`].
pub type AlterPolicy = fn(&str, &BTreeMap<String, String>) -> Option<String>;

/// What a new cluster of Kafka 4.3 has finalized, as far as the fake has it.
fn features_of_4_3() -> BTreeMap<String, i16> {
    let features = [
        ("group.version", 1),
        ("metadata.version", 30),
        ("transaction.version", 2),
    ];
    features
        .map(|(name, level)| (name.to_owned(), level))
        .into()
}

/// What a broker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It answers.
    Up,
    /// It accepts bytes and answers nothing.
    Frozen,
    /// It is gone: connections are closed, new ones refused.
    Stopped,
}

/// One broker.
#[derive(Debug, Clone)]
pub struct Broker {
    /// Where clients are told to connect.
    pub host: String,
    /// Where clients are told to connect.
    pub port: u16,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Whether it answers.
    pub condition: Condition,
    /// How far its clock is from the driver's.
    pub skew_ms: i64,
}

/// One topic.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Another one after each creation.
    pub id: Uuid,
    /// What was set on it; the rest are defaults.
    pub configs: BTreeMap<String, String>,
    /// By number.
    pub partitions: BTreeMap<i32, Partition>,
    /// `__consumer_offsets` and the like.
    pub internal: bool,
}

type Timer = Box<dyn FnOnce(&mut State) + Send>;

/// The state of a cluster.
pub struct State {
    /// How it was made.
    pub options: Options,
    /// The time that the driver gave last, in milliseconds since 1970.
    pub now_ms: i64,
    /// Clients learn it from metadata.
    pub cluster_id: String,
    /// By id.
    pub brokers: BTreeMap<i32, Broker>,
    /// By name.
    pub topics: BTreeMap<String, Topic>,
    /// What brokers that are cut off from the others take for the topics.
    pub(crate) islands: BTreeMap<i32, BTreeMap<String, Topic>>,
    /// Topics that a broker hasn't heard of yet.
    pub(crate) unheard: BTreeMap<i32, BTreeSet<String>>,
    /// Dynamic configs of brokers, by id; those of all brokers under an empty name.
    pub broker_configs: BTreeMap<String, BTreeMap<String, String>>,
    /// Fetch sessions, by broker and id.
    pub(crate) fetch_sessions: BTreeMap<(i32, i32), Session>,
    /// Grows when another cluster takes the place of this one; connections of the one before are cut.
    pub(crate) generation: u64,
    /// Who may do what.
    pub acls: Acls,
    /// Consumer groups and their coordinators.
    pub groups: Groups,
    /// Transactions and their coordinators.
    pub transactions: Transactions,
    /// Client quotas.
    pub quotas: Quotas,
    /// What they are measured by.
    pub(crate) rates: Rates,
    /// Connections that nothing is read from, and until when (`SocketServer`, KIP-219).
    pub(crate) muted: BTreeMap<u64, i64>,
    /// Who can log in, and who has.
    pub users: Users,
    /// What goes wrong on order.
    pub faults: Faults,
    pub(crate) metadata_log: MetadataLog,
    /// Draws whom the next answer calls the controller.
    controllers: u64,
    changes: u64,
    ids: u64,
    producer_ids: i64,
    timers: BTreeMap<(i64, u64), Timer>,
}

impl State {
    /// A cluster without topics.
    pub fn new(options: Options) -> Self {
        let brokers = (1..=options.brokers)
            .map(|id| (id, Broker::new(id)))
            .collect();
        let check_interval_ms = options.producer_check_interval_ms;
        let mut state = Self {
            cluster_id: options.cluster_id.clone(),
            options,
            now_ms: 0,
            brokers,
            topics: BTreeMap::new(),
            islands: BTreeMap::new(),
            unheard: BTreeMap::new(),
            broker_configs: BTreeMap::new(),
            fetch_sessions: BTreeMap::new(),
            generation: 0,
            acls: Acls::default(),
            groups: Groups::default(),
            transactions: Transactions::default(),
            quotas: Quotas::default(),
            rates: Rates::default(),
            muted: BTreeMap::new(),
            users: Users::default(),
            faults: Faults::default(),
            metadata_log: MetadataLog::default(),
            controllers: 0,
            changes: 0,
            ids: 0,
            producer_ids: 0,
            timers: BTreeMap::new(),
        };
        state.at(0, move |state| {
            if let Some(interval_ms) = check_interval_ms {
                state.expire_producers_every(interval_ms);
            }
        });
        state
    }

    /// Does something as this broker sees the cluster.
    pub(crate) fn as_seen_by<T>(&mut self, broker: i32, act: impl FnOnce(&mut Self) -> T) -> T {
        if let Some(names) = self.unheard.get(&broker) {
            let hidden: Vec<(String, Topic)> = names
                .clone()
                .into_iter()
                .filter_map(|name| self.topics.remove_entry(&name))
                .collect();
            let done = act(self);
            self.topics.extend(hidden);
            return done;
        }
        // It hasn't heard of who else was cut off, either.
        let mut islands = std::mem::take(&mut self.islands);
        let Some(island) = islands.get_mut(&broker) else {
            self.islands = islands;
            return act(self);
        };
        std::mem::swap(&mut self.topics, island);
        let done = act(self);
        std::mem::swap(&mut self.topics, island);
        self.islands = islands;
        done
    }

    /// Notes that somebody who waits may have to look again.
    pub fn changed(&mut self) {
        self.changes += 1;
    }

    /// How often something changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A number never given before: ids are counted, not drawn, so that a run can be repeated.
    pub fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// A producer id; counted apart, as `ProducerIdManager` does.
    pub fn next_producer_id(&mut self) -> i64 {
        self.producer_ids += 1;
        self.producer_ids - 1
    }

    /// An id for a topic or a member, in the form of a random one.
    pub fn next_uuid(&mut self) -> Uuid {
        let number = self.next_id();
        Uuid::from_u64_pair(0x7f4a_7c15_9e37_4000, 0x8000_0000_0000_0000 | number)
    }

    /// Whom clients take for the controller: with KRaft, any broker that lives.
    pub fn controller(&mut self) -> i32 {
        let alive = self.brokers.keys().filter(|id| self.is_alive(**id));
        let alive: Vec<i32> = alive.copied().collect();
        // `KRaftMetadataCache.getRandomAliveBrokerId`: each answer names another one.
        let drawn = next_random(&mut self.controllers) as usize;
        let at = drawn.checked_rem(alive.len());
        at.map_or(-1, |at| alive[at])
    }

    /// What a broker's clock says.
    pub fn clock_ms(&self, broker: i32) -> i64 {
        self.now_ms + self.brokers.get(&broker).map_or(0, |b| b.skew_ms)
    }

    /// Calls `act` when the time has come.
    pub fn at(&mut self, time_ms: i64, act: impl FnOnce(&mut Self) + Send + 'static) {
        let id = self.next_id();
        self.timers.insert((time_ms, id), Box::new(act));
    }

    /// When the next timer is due.
    pub fn next_timer_ms(&self) -> Option<i64> {
        self.timers.keys().next().map(|(time_ms, _)| *time_ms)
    }

    /// Moves the time forward; timers that are due are called in order, each at its own time.
    pub fn advance_to(&mut self, now_ms: i64) {
        // The clock's first reading is when the cluster came up.
        if self.now_ms == 0 {
            self.now_ms = now_ms;
        }
        while let Some(entry) = self.timers.first_entry() {
            let due_ms = entry.key().0;
            if due_ms > now_ms {
                break;
            }
            let act = entry.remove();
            self.now_ms = self.now_ms.max(due_ms);
            act(self);
            self.changed();
        }
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Whether a broker is running; a frozen one is.
    pub fn is_alive(&self, broker: i32) -> bool {
        self.condition(broker) != Condition::Stopped
    }

    /// What a broker is doing.
    pub fn condition(&self, broker: i32) -> Condition {
        self.brokers
            .get(&broker)
            .map_or(Condition::Stopped, |b| b.condition)
    }

    /// The id that brokers tell of a topic.
    pub fn told_id(&self, topic: &Topic) -> Uuid {
        match self.options.without_topic_ids {
            true => Uuid::nil(),
            false => topic.id,
        }
    }

    /// The name of the topic with this id.
    pub fn topic_name(&self, id: Uuid) -> Option<&str> {
        self.topics
            .iter()
            .find(|(_, topic)| topic.id == id && !self.options.without_topic_ids)
            .map(|(name, _)| name.as_str())
    }

    /// A partition, if it exists.
    pub fn partition(&self, topic: &str, partition: i32) -> Option<&Partition> {
        self.topics.get(topic)?.partitions.get(&partition)
    }

    /// A partition, if it exists.
    pub fn partition_mut(&mut self, topic: &str, partition: i32) -> Option<&mut Partition> {
        self.topics.get_mut(topic)?.partitions.get_mut(&partition)
    }

    /// A partition at a broker that leads it and has the client's epoch, or what the broker answers
    /// (`ReplicaManager.getPartitionOrError`, `Partition.checkCurrentLeaderEpoch`). An epoch of -1 is not compared.
    pub fn led(
        &self,
        broker: i32,
        topic: &str,
        partition: i32,
        epoch: i32,
    ) -> Result<&Partition, ResponseError> {
        let found = self.hosted(broker, topic, partition)?;
        found.check_epoch(epoch)?;
        if found.leader != Some(broker) {
            return Err(ResponseError::NotLeaderOrFollower);
        }
        Ok(found)
    }

    /// A partition at a broker that has a copy of it, or what the broker answers (`ReplicaManager.getPartitionOrError`).
    pub fn hosted(
        &self,
        broker: i32,
        topic: &str,
        partition: i32,
    ) -> Result<&Partition, ResponseError> {
        let found = self
            .partition(topic, partition)
            .ok_or(ResponseError::UnknownTopicOrPartition)?;
        if found.logs.contains_key(&broker) {
            Ok(found)
        } else {
            Err(ResponseError::NotLeaderOrFollower)
        }
    }
}

impl Broker {
    fn new(id: i32) -> Self {
        Self {
            host: format!("broker-{id}.fake"),
            port: 9092,
            rack: None,
            condition: Condition::Up,
            skew_ms: 0,
        }
    }
}
