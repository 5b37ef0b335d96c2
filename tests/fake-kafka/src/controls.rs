//! What a test may do to a cluster, beyond what clients may.

use std::collections::BTreeSet;

use kafka_protocol::messages::ApiKey;

use crate::api::Subject;
use crate::cluster::Cluster;
use crate::faults::{Action, Fault, FaultId};
use crate::partition::Partition;
use crate::state::{Condition, State};

impl Cluster {
    /// From now on, requests that `fault` is for are treated so.
    pub fn fault(&self, fault: Fault, action: Action) -> FaultId {
        self.control(|state| state.faults.add(fault, action))
    }

    /// How often a fault was met.
    pub fn fired(&self, id: FaultId) -> u64 {
        self.look(|state| state.faults.fired(id))
    }

    /// Takes a fault back.
    pub fn clear(&self, id: FaultId) {
        self.control(|state| state.faults.clear(id));
    }
}

impl State {
    /// Brokers that fetch from leaders and are fetched from.
    fn working(&self) -> BTreeSet<i32> {
        let all = self.brokers.iter();
        all.filter(|(_, broker)| broker.condition == Condition::Up)
            .map(|(&id, _)| id)
            .collect()
    }

    /// Followers of one partition copy what they can.
    pub fn replicate(&mut self, topic: &str, partition: i32) {
        let working = self.working();
        if let Some(partition) = self.partition_mut(topic, partition) {
            replicate(partition, &working);
        }
    }

    /// Followers of all partitions copy what they can.
    pub fn replicate_all(&mut self) {
        let working = self.working();
        for partition in self.partitions_mut() {
            replicate(partition, &working);
        }
        self.changed();
    }

    fn partitions_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.topics
            .values_mut()
            .flat_map(|topic| topic.partitions.values_mut())
    }

    /// A partition that must be there.
    fn existing(&mut self, topic: &str, partition: i32) -> &mut Partition {
        self.partition_mut(topic, partition)
            .unwrap_or_else(|| panic!("no partition {topic}-{partition}"))
    }

    /// A broker goes down: others lead what it led, where one is in sync.
    pub fn stop_broker(&mut self, id: i32) {
        self.set_condition(id, Condition::Stopped);
        self.fetch_sessions.retain(|(broker, _), _| *broker != id);
        self.leave_in_sync_sets(id);
        self.elect_where_needed();
        self.replicate_all();
    }

    /// A broker comes up again and follows, or leads what nobody else can.
    pub fn start_broker(&mut self, id: i32) {
        self.set_condition(id, Condition::Up);
        let (now_ms, expiration_ms) = (self.clock_ms(id), self.options.producer_expiration_ms);
        for partition in self.partitions_mut() {
            if let Some(log) = partition.logs.get_mut(&id) {
                // `ProducerStateManager.loadFromSnapshot` leaves out those that expired meanwhile.
                log.expire_producers(now_ms, expiration_ms);
            }
        }
        self.elect_where_needed();
        self.replicate_all();
    }

    /// A broker hangs: it accepts bytes, answers nothing, fetches nothing. Nobody has noticed so far.
    pub fn freeze_broker(&mut self, id: i32) {
        self.set_condition(id, Condition::Frozen);
    }

    /// A broker goes on.
    pub fn thaw_broker(&mut self, id: i32) {
        self.set_condition(id, Condition::Up);
        self.replicate_all();
    }

    /// The controller has missed a frozen broker's heartbeats: others lead what it led.
    pub fn fence_broker(&mut self, id: i32) {
        self.leave_in_sync_sets(id);
        for partition in self.partitions_mut() {
            if partition.leader == Some(id) && !partition.in_sync.contains(&id) {
                partition.leader = None;
            }
        }
        self.elect_where_needed();
        self.replicate_all();
    }

    fn set_condition(&mut self, id: i32, condition: Condition) {
        self.brokers
            .get_mut(&id)
            .unwrap_or_else(|| panic!("no broker {id}"))
            .condition = condition;
        self.changed();
    }

    fn leave_in_sync_sets(&mut self, id: i32) {
        for partition in self.partitions_mut() {
            // `PartitionChangeBuilder`: the last one stays, so that only it may lead again.
            if partition.in_sync.len() > 1 {
                partition.in_sync.remove(&id);
            }
        }
    }

    /// The controller gives partitions whose leader is gone to the first in-sync replica that lives, or to nobody.
    pub fn elect_where_needed(&mut self) {
        let alive: BTreeSet<i32> = self.working();
        let up = |id: &i32| alive.contains(id);
        let stopped: BTreeSet<i32> = self
            .brokers
            .keys()
            .copied()
            .filter(|&id| !self.is_alive(id))
            .collect();
        for partition in self.partitions_mut() {
            if partition.leader.is_some_and(|id| !stopped.contains(&id)) {
                continue;
            }
            let next = partition
                .replicas
                .iter()
                .find(|id| up(id) && partition.in_sync.contains(id));
            match next.copied() {
                Some(next) => partition.lead(next),
                None => partition.go_offline(),
            }
        }
        self.changed();
    }

    /// Another in-sync replica leads from now on.
    pub fn move_leader(&mut self, topic: &str, partition: i32, to: i32) {
        let found = self.existing(topic, partition);
        assert!(
            found.in_sync.contains(&to),
            "broker {to} isn't in sync in {topic}-{partition}"
        );
        found.lead(to);
        self.replicate(topic, partition);
        self.changed();
    }

    /// A replica leads from now on, in sync or not: what only others have is lost.
    pub fn elect_unclean(&mut self, topic: &str, partition: i32, to: i32) {
        let found = self.existing(topic, partition);
        assert!(
            found.logs.contains_key(&to),
            "broker {to} has no copy of {topic}-{partition}"
        );
        if !found.in_sync.contains(&to) {
            found.in_sync = BTreeSet::from([to]);
        }
        found.lead(to);
        self.replicate(topic, partition);
        self.changed();
    }

    /// A follower stops fetching. It stays in sync until [`Self::shrink_in_sync`].
    pub fn lag(&mut self, topic: &str, partition: i32, follower: i32) {
        self.existing(topic, partition).lagging.insert(follower);
        self.changed();
    }

    /// A follower fetches again.
    pub fn catch_up(&mut self, topic: &str, partition: i32, follower: i32) {
        self.existing(topic, partition).lagging.remove(&follower);
        self.replicate(topic, partition);
        self.changed();
    }

    /// The leader puts lagging followers out of the in-sync set (`Partition.maybeShrinkIsr`).
    pub fn shrink_in_sync(&mut self, topic: &str, partition: i32) {
        let found = self.existing(topic, partition);
        let lagging = found.lagging.clone();
        let leader = found.leader;
        found
            .in_sync
            .retain(|id| Some(*id) == leader || !lagging.contains(id));
        self.replicate(topic, partition);
        self.changed();
    }

    /// The log loses its end, everywhere, as after an unclean election of a replica that ended there.
    pub fn truncate(&mut self, topic: &str, partition: i32, offset: i64) {
        let found = self.existing(topic, partition);
        for log in found.logs.values_mut() {
            log.truncate(offset);
        }
        if let Some(leader) = found.leader {
            found.lead(leader);
        }
        self.replicate(topic, partition);
        self.changed();
    }

    /// Retention: the log begins here now, everywhere.
    pub fn raise_log_start(&mut self, topic: &str, partition: i32, offset: i64) {
        for log in self.existing(topic, partition).logs.values_mut() {
            log.raise_start(offset);
        }
        self.changed();
    }

    /// A partition forgets a producer; says whether it knew it.
    pub fn forget_producer(&mut self, topic: &str, partition: i32, producer_id: i64) -> bool {
        let mut knew = false;
        for log in self.existing(topic, partition).logs.values_mut() {
            knew |= log.forget_producer(producer_id);
        }
        self.changed();
        knew
    }

    /// All brokers forget producers whose last record is old (`PeriodicProducerExpirationCheck`); says how many entries went.
    pub fn expire_producers(&mut self) -> usize {
        let expiration_ms = self.options.producer_expiration_ms;
        let clocks: Vec<(i32, i64)> = self
            .brokers
            .keys()
            .map(|&id| (id, self.clock_ms(id)))
            .collect();
        let mut gone = 0;
        for partition in self.partitions_mut() {
            for (id, now_ms) in &clocks {
                if let Some(log) = partition.logs.get_mut(id) {
                    gone += log.expire_producers(*now_ms, expiration_ms);
                }
            }
        }
        self.changed();
        gone
    }

    pub(crate) fn expire_producers_every(&mut self, interval_ms: i64) {
        let next_ms = self.now_ms + interval_ms;
        self.at(next_ms, move |state| {
            state.expire_producers();
            state.expire_producers_every(interval_ms);
        });
    }

    /// The topic goes and comes again at once, empty, with another id.
    pub fn recreate_topic(&mut self, name: &str) {
        let topic = self
            .topics
            .remove(name)
            .unwrap_or_else(|| panic!("no topic {name}"));
        let replicas = topic.partitions.values().map(|p| p.replicas.clone());
        let new = crate::topics::NewTopic {
            assignments: (0..).zip(replicas).collect(),
            configs: topic.configs.clone(),
            ..Default::default()
        };
        self.create_topic(name, &new)
            .unwrap_or_else(|(_, why)| panic!("{name} can't come again: {why}"));
    }

    /// Another cluster answers at these addresses from now on: empty, with another id. Connections are cut.
    pub fn replace_cluster(&mut self, cluster_id: &str) {
        self.cluster_id = cluster_id.to_owned();
        self.topics.clear();
        self.broker_configs.clear();
        self.fetch_sessions.clear();
        self.generation += 1;
        self.changed();
    }
}

fn replicate(partition: &mut Partition, working: &BTreeSet<i32>) {
    // A leader that hangs serves nobody.
    if partition.leader.is_some_and(|id| working.contains(&id)) {
        partition.replicate(working);
    }
}

/// For faults on one API and topic, which most tests want.
impl Fault {
    /// Requests of one API about one topic.
    pub fn on_topic(key: ApiKey, topic: &str) -> Self {
        Self::on(key).about(Subject::Topic(topic.to_owned()))
    }
}
