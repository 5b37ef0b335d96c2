//! Everything that a cluster knows.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use crate::acls::Acls;
use crate::faults::Faults;

/// How a cluster is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its id.
    pub cluster_id: String,
    /// Brokers are numbered from 1.
    pub brokers: i32,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `num.partitions`.
    pub default_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication: i16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster_id: "fake-cluster".to_owned(),
            brokers: 1,
            auto_create_topics: false,
            default_partitions: 1,
            default_replication: 1,
        }
    }
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
#[derive(Debug)]
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

/// One partition, its copies and who leads them.
#[derive(Debug)]
pub struct Partition {
    /// Nobody while the partition is offline.
    pub leader: Option<i32>,
    /// Grows with every election.
    pub leader_epoch: i32,
    /// In order of preference.
    pub replicas: Vec<i32>,
    /// The in-sync ones.
    pub in_sync: BTreeSet<i32>,
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
    /// Who may do what.
    pub acls: Acls,
    /// What goes wrong on order.
    pub faults: Faults,
    changes: u64,
    ids: u64,
    timers: BTreeMap<(i64, u64), Timer>,
}

impl State {
    /// A cluster without topics.
    pub fn new(options: Options) -> Self {
        let brokers = (1..=options.brokers)
            .map(|id| (id, Broker::new(id)))
            .collect();
        Self {
            cluster_id: options.cluster_id.clone(),
            options,
            now_ms: 0,
            brokers,
            topics: BTreeMap::new(),
            acls: Acls::default(),
            faults: Faults::default(),
            changes: 0,
            ids: 0,
            timers: BTreeMap::new(),
        }
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

    /// An id for a topic or a member, in the form of a random one.
    pub fn next_uuid(&mut self) -> Uuid {
        let number = self.next_id();
        Uuid::from_u64_pair(0x7f4a_7c15_9e37_4000, 0x8000_0000_0000_0000 | number)
    }

    /// Whom clients take for the controller: with KRaft, any broker that lives.
    pub fn controller(&self) -> i32 {
        let alive = self.brokers.keys().find(|id| self.is_alive(**id));
        alive.copied().unwrap_or(-1)
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

    /// The name of the topic with this id.
    pub fn topic_name(&self, id: Uuid) -> Option<&str> {
        self.topics
            .iter()
            .find(|(_, topic)| topic.id == id)
            .map(|(name, _)| name.as_str())
    }

    /// A partition, or the error that a broker answers when it doesn't know it.
    pub fn partition(&self, topic: &str, partition: i32) -> Result<&Partition, ResponseError> {
        self.topics
            .get(topic)
            .and_then(|t| t.partitions.get(&partition))
            .ok_or(ResponseError::UnknownTopicOrPartition)
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
