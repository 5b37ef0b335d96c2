//! What a test may do to a cluster, beyond what clients may.

use std::collections::BTreeSet;

use kafka_protocol::messages::ApiKey;

use crate::api::Subject;
use crate::cleaner::{Cleaning, clean};
use crate::cluster::Cluster;
use crate::faults::{Action, Fault, FaultId};
use crate::partition::{Partition, Remote};
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

    /// A broker dies, and nobody has noticed so far: see [`Self::fence_broker`].
    pub fn crash_broker(&mut self, id: i32) {
        self.set_condition(id, Condition::Stopped);
        self.fetch_sessions.retain(|(broker, _), _| *broker != id);
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
        self.elect_where_needed();
        self.replicate_all();
    }

    /// The controller has missed a frozen broker's heartbeats: others lead what it led, or nobody.
    pub fn fence_broker(&mut self, id: i32) {
        self.leave_in_sync_sets(id);
        self.elect_but(&BTreeSet::from([id]));
        self.replicate_all();
    }

    /// A broker is cut off from the others and not from clients: it goes on as the leader that it was, with what it
    /// has, while the others elect.
    pub fn isolate_broker(&mut self, id: i32) {
        let mut island = self.topics.clone();
        let partitions = island
            .values_mut()
            .flat_map(|topic| topic.partitions.values_mut());
        for partition in partitions {
            let others = partition.replicas.iter().filter(|it| **it != id);
            partition.lagging.extend(others.copied());
        }
        self.islands.insert(id, island);
        for partition in self.partitions_mut() {
            partition.lagging.insert(id);
        }
        self.fence_broker(id);
    }

    /// A broker that is cut off hasn't heard of a topic yet that the others have.
    pub fn hide_on_island(&mut self, id: i32, topic: &str) {
        if let Some(island) = self.islands.get_mut(&id) {
            island.remove(topic);
        }
    }

    /// It is connected to the others again, and follows who leads by now.
    pub fn rejoin_broker(&mut self, id: i32) {
        self.islands.remove(&id);
        for partition in self.partitions_mut() {
            partition.lagging.remove(&id);
        }
        self.elect_where_needed();
        self.replicate_all();
    }

    /// The records below an offset are in remote storage, which takes so long for each read.
    pub fn tier(&mut self, topic: &str, partition: i32, remote: Remote) {
        self.existing(topic, partition).remote = Some(remote);
        self.changed();
    }

    /// A broker gets the controller's log late: it hasn't heard of this topic, which may not be there yet.
    pub fn hears_late(&mut self, broker: i32, topic: &str) {
        self.unheard
            .entry(broker)
            .or_default()
            .insert(topic.to_owned());
        self.changed();
    }

    /// It has heard of all that there is.
    pub fn has_heard(&mut self, broker: i32) {
        self.unheard.remove(&broker);
        self.changed();
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
        self.elect_but(&BTreeSet::new());
    }

    fn elect_but(&mut self, fenced: &BTreeSet<i32>) {
        let all = self.brokers.keys().copied();
        let gone: BTreeSet<i32> = all
            .filter(|id| fenced.contains(id) || !self.is_alive(*id))
            .collect();
        let able = self.working();
        for partition in self.partitions_mut() {
            if partition.leader.is_some_and(|id| !gone.contains(&id)) {
                continue;
            }
            let fits = |id: &&i32| {
                able.contains(id) && !gone.contains(id) && partition.in_sync.contains(id)
            };
            match partition.replicas.iter().find(fits).copied() {
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

    /// The cleaner goes over a partition, everywhere. A partition that isn't compacted is cleaned, too.
    pub fn compact(&mut self, topic: &str, partition: i32, cleaning: Cleaning) {
        for log in self.existing(topic, partition).logs.values_mut() {
            let cleaned = clean(log, cleaning);
            log.replace_batches(cleaned);
        }
        self.changed();
    }

    /// Retention as brokers apply it to old segments (`retention.ms`): batches below `below` whose records are all too old go.
    /// (The fake has no segments; `below` is where the one that is written to begins.) Says where the log begins then.
    pub fn apply_retention(&mut self, topic: &str, partition: i32, below: i64) -> Option<i64> {
        let leader = self.existing(topic, partition).leader?;
        let retention_ms: i64 = self
            .topic_value(topic, leader, "retention.ms")
            .parse()
            .ok()?;
        let oldest_ms = self.clock_ms(leader) - retention_ms;
        let log = self.existing(topic, partition).leader_log()?;
        let high_watermark = log.high_watermark();
        let gone = log
            .batches()
            .take_while(|stored| {
                let header = &stored.header;
                retention_ms >= 0
                    && header.max_timestamp < oldest_ms
                    && header.last_offset() < below.min(high_watermark)
            })
            .last()
            .map(|stored| stored.header.last_offset() + 1);
        let start = gone.unwrap_or(log.start_offset());
        self.raise_log_start(topic, partition, start);
        Some(start)
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
        self.forget_offsets_of_topic(name);
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
        self.forget_groups();
        self.transactions.forget();
        self.acls.all.clear();
        self.quotas.clear();
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    use kafka_protocol::messages::fetch_response::PartitionData;
    use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::produce_response::PartitionProduceResponse;
    use kafka_protocol::messages::{
        BrokerId, FetchRequest, MetadataRequest, ProduceRequest, ProduceResponse, TopicName,
    };
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::batch::{Record, produced};
    use crate::client::Direct;
    use crate::state::Options;
    use crate::topics::NewTopic;

    const TOPIC: &str = "t";
    const NOT_LEADER: i16 = 6;
    const TIMED_OUT: i16 = 7;
    const NOT_ENOUGH_REPLICAS: i16 = 19;
    const FENCED_EPOCH: i16 = 74;

    /// Three brokers, and a partition led by the first, on the first two.
    fn cluster(configs: &[(&str, &str)]) -> Cluster {
        let cluster = Cluster::new(Options {
            brokers: 3,
            ..Options::default()
        });
        let configs = configs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let new = NewTopic {
            assignments: [(0, vec![1, 2])].into(),
            configs: configs.collect(),
            ..NewTopic::default()
        };
        cluster
            .control(|state| state.create_topic(TOPIC, &new))
            .expect("made");
        cluster
    }

    fn batch(value: &[u8]) -> Bytes {
        let (header, records) = produced(&[Record::new(Some(b"k"), Some(value))], 1_000_000);
        header.seal(&records)
    }

    fn produce(batch: Bytes) -> ProduceRequest {
        let data = PartitionProduceData::default().with_records(Some(batch));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partition_data(vec![data]);
        ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(500)
            .with_topic_data(vec![topic])
    }

    fn only(mut answer: ProduceResponse) -> PartitionProduceResponse {
        answer.responses[0].partition_responses.remove(0)
    }

    fn fetch(client: &mut Direct, offset: i64, epoch: i32) -> PartitionData {
        let partition = FetchPartition::default()
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20)
            .with_current_leader_epoch(epoch);
        let topic = FetchTopic::default()
            .with_topic(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_bytes(1 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        // Version 10: only leaders answer.
        let mut answer = client.call(&request, 10);
        answer.responses[0].partitions.remove(0)
    }

    fn described(client: &mut Direct) -> MetadataResponsePartition {
        let request = MetadataRequest::default().with_topics(None);
        let mut answer = client.call(&request, 12);
        answer.topics[0].partitions.remove(0)
    }

    #[test]
    fn acks_of_all_wait_for_a_lagging_follower_and_time_out() {
        let cluster = cluster(&[]);
        let mut client = Direct::connect(&cluster, 1);
        cluster.control(|state| state.lag(TOPIC, 0, 2));
        assert!(client.try_call(&produce(batch(b"a")), 9).is_none());
        cluster.control(|state| state.catch_up(TOPIC, 0, 2));
        let answer = client.answer::<ProduceRequest>(9).expect("replicated");
        assert_eq!(
            (only(answer.clone()).error_code, only(answer).base_offset),
            (0, 0)
        );

        cluster.control(|state| state.lag(TOPIC, 0, 2));
        assert!(client.try_call(&produce(batch(b"b")), 9).is_none());
        client.now_ms += 500;
        let answer = only(
            client
                .answer::<ProduceRequest>(9)
                .expect("the time is over"),
        );
        assert_eq!((answer.error_code, answer.base_offset), (TIMED_OUT, 1));
        assert_eq!(
            fetch(&mut client, 0, -1).high_watermark,
            1,
            "not seen by readers"
        );
        cluster.control(|state| state.shrink_in_sync(TOPIC, 0));
        assert_eq!(fetch(&mut client, 0, -1).high_watermark, 2, "but there");
    }

    #[test]
    fn too_few_replicas_take_nothing() {
        let cluster = cluster(&[("min.insync.replicas", "2")]);
        let mut client = Direct::connect(&cluster, 1);
        assert_eq!(only(client.call(&produce(batch(b"a")), 9)).error_code, 0);
        cluster.control(|state| state.stop_broker(2));
        let answer = only(client.call(&produce(batch(b"b")), 9));
        assert_eq!(answer.error_code, NOT_ENOUGH_REPLICAS);
        cluster.control(|state| state.start_broker(2));
        assert_eq!(only(client.call(&produce(batch(b"b")), 9)).base_offset, 1);
    }

    #[test]
    fn a_leader_that_stops_is_followed_by_an_in_sync_replica() {
        let cluster = cluster(&[]);
        let mut first = Direct::connect(&cluster, 1);
        let mut second = Direct::connect(&cluster, 2);
        let mut third = Direct::connect(&cluster, 3);
        first.call(&produce(batch(b"a")), 9);
        assert_eq!(
            only(second.call(&produce(batch(b"b")), 9)).error_code,
            NOT_LEADER
        );
        assert_eq!(
            only(third.call(&produce(batch(b"b")), 9)).error_code,
            NOT_LEADER
        );
        cluster.control(|state| state.stop_broker(1));
        assert!(first.is_closed());
        let partition = described(&mut third);
        assert_eq!((partition.leader_id.0, partition.leader_epoch), (2, 1));
        assert_eq!(only(second.call(&produce(batch(b"b")), 9)).base_offset, 1);
        assert_eq!(fetch(&mut second, 0, 0).error_code, FENCED_EPOCH);
        // Then nobody is left, and the one that was last may come back alone.
        cluster.control(|state| state.stop_broker(2));
        assert_eq!(described(&mut third).leader_id.0, -1);
        cluster.control(|state| state.start_broker(1));
        assert_eq!(described(&mut third).leader_id.0, -1, "not in sync");
        cluster.control(|state| state.start_broker(2));
        assert_eq!(described(&mut third).leader_id.0, 2);
        let ends = cluster.look(|state| {
            let logs = state.partition(TOPIC, 0).expect("there").logs.values();
            logs.map(|log| log.end_offset()).collect::<Vec<_>>()
        });
        assert_eq!(ends, [2, 2]);
    }

    #[test]
    fn an_unclean_election_loses_what_only_the_leader_had() {
        let cluster = cluster(&[]);
        let mut first = Direct::connect(&cluster, 1);
        first.call(&produce(batch(b"a")), 9);
        cluster.control(|state| {
            state.lag(TOPIC, 0, 2);
            state.shrink_in_sync(TOPIC, 0);
        });
        assert_eq!(only(first.call(&produce(batch(b"b")), 9)).base_offset, 1);
        cluster.control(|state| state.elect_unclean(TOPIC, 0, 2));
        let mut second = Direct::connect(&cluster, 2);
        assert_eq!(fetch(&mut second, 1, -1).high_watermark, 1);
        assert_eq!(only(second.call(&produce(batch(b"c")), 9)).base_offset, 1);
    }

    #[test]
    fn a_frozen_broker_answers_when_it_thaws_and_is_fenced_meanwhile() {
        let cluster = cluster(&[]);
        let mut first = Direct::connect(&cluster, 1);
        cluster.control(|state| state.freeze_broker(1));
        assert!(first.try_call(&produce(batch(b"a")), 9).is_none());
        cluster.control(|state| state.fence_broker(1));
        let mut second = Direct::connect(&cluster, 2);
        assert_eq!(only(second.call(&produce(batch(b"b")), 9)).base_offset, 0);
        cluster.control(|state| state.thaw_broker(1));
        let answer = only(first.answer::<ProduceRequest>(9).expect("awake"));
        assert_eq!(answer.error_code, NOT_LEADER);
    }

    #[test]
    fn producers_are_forgotten_by_the_time_of_their_records() {
        let cluster = cluster(&[("message.timestamp.before.max.ms", "9223372036854775807")]);
        let mut client = Direct::connect(&cluster, 1);
        client.now_ms = 200 * 86_400_000;
        let day_ms = 86_400_000;
        for (id, age_ms) in [(7, 2 * day_ms), (8, day_ms / 2)] {
            let timestamp = client.now_ms - age_ms;
            let (mut header, records) = produced(&[Record::new(None, None)], timestamp);
            header.producer_id = id;
            header.producer_epoch = 0;
            header.base_sequence = 5;
            let answer = client.call(&produce(header.seal(&records)), 9);
            assert_eq!(only(answer).error_code, 0);
        }
        let known = |cluster: &Cluster| {
            cluster.look(|state| {
                let log = state.partition(TOPIC, 0).and_then(|p| p.leader_log());
                log.expect("a log")
                    .producers()
                    .keys()
                    .copied()
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(known(&cluster), [7, 8]);
        // The check runs every ten minutes, by the broker's clock.
        client.now_ms += 600_000;
        fetch(&mut client, 0, -1);
        assert_eq!(known(&cluster), [8], "although both were written just now");
        assert!(cluster.control(|state| state.forget_producer(TOPIC, 0, 8)));
        assert_eq!(known(&cluster), Vec::<i64>::new());
    }

    #[test]
    fn a_compacted_log_keeps_offsets_and_the_last_record_of_every_key() {
        let cluster = cluster(&[]);
        let mut client = Direct::connect(&cluster, 1);
        for value in [&b"a"[..], b"b", b"c"] {
            client.call(&produce(batch(value)), 9);
        }
        let cleaning = Cleaning {
            drops_tombstones: false,
            below: i64::MAX,
        };
        cluster.control(|state| state.compact(TOPIC, 0, cleaning));
        let log = cluster.look(|state| state.partition(TOPIC, 0).expect("there").logs[&2].clone());
        let offsets: Vec<i64> = log
            .batches()
            .map(|stored| stored.header.base_offset)
            .collect();
        assert_eq!(offsets, [2]);
        assert_eq!((log.start_offset(), log.end_offset()), (0, 3));
        let answer = fetch(&mut client, 0, -1);
        assert_eq!(answer.error_code, 0, "holes are no error");
        assert_eq!(only(client.call(&produce(batch(b"d")), 9)).base_offset, 3);
    }

    #[test]
    fn the_last_batch_of_a_producer_stays_empty() {
        let cluster = cluster(&[]);
        let mut client = Direct::connect(&cluster, 1);
        let (mut header, records) = produced(&[Record::new(Some(b"k"), Some(b"v"))], 1_000_000);
        header.producer_id = 3;
        header.producer_epoch = 0;
        header.base_sequence = 0;
        client.call(&produce(header.seal(&records)), 9);
        client.call(&produce(batch(b"newer")), 9);
        let cleaning = Cleaning {
            drops_tombstones: false,
            below: i64::MAX,
        };
        cluster.control(|state| state.compact(TOPIC, 0, cleaning));
        let log = cluster.look(|state| state.partition(TOPIC, 0).expect("there").logs[&1].clone());
        let kept: Vec<(i64, i32)> = log
            .batches()
            .map(|stored| (stored.header.base_offset, stored.header.count))
            .collect();
        assert_eq!(kept, [(0, 0), (1, 1)]);
    }

    #[test]
    fn retention_takes_old_batches() {
        let cluster = cluster(&[("retention.ms", "1000")]);
        let mut client = Direct::connect(&cluster, 1);
        client.call(&produce(batch(b"a")), 9);
        client.call(&produce(batch(b"b")), 9);
        client.now_ms += 2_000;
        fetch(&mut client, 0, -1);
        let start = cluster.control(|state| state.apply_retention(TOPIC, 0, 1));
        assert_eq!(
            start,
            Some(1),
            "the second is in the segment that is written to"
        );
        assert_eq!(fetch(&mut client, 0, -1).error_code, 1);
    }

    #[test]
    fn another_cluster_takes_the_place_of_this_one() {
        let cluster = cluster(&[]);
        let mut client = Direct::connect(&cluster, 1);
        cluster.control(|state| state.replace_cluster("another"));
        assert!(client.is_closed());
        let mut client = Direct::connect(&cluster, 1);
        let answer = client.call(&MetadataRequest::default().with_topics(None), 12);
        assert_eq!(answer.cluster_id.as_deref(), Some("another"));
        assert!(answer.topics.is_empty());
    }

    #[test]
    fn a_topic_made_again_has_another_id() {
        let cluster = cluster(&[]);
        let id = |cluster: &Cluster| cluster.look(|state| state.topics[TOPIC].id);
        let before = id(&cluster);
        let mut client = Direct::connect(&cluster, 1);
        client.call(&produce(batch(b"a")), 9);
        cluster.control(|state| state.recreate_topic(TOPIC));
        assert_ne!(id(&cluster), before);
        assert_eq!(only(client.call(&produce(batch(b"a")), 9)).base_offset, 0);
    }
}
