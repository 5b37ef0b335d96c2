//! The cluster as its brokers last described it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use uuid::Uuid;

/// Brokers, controller and topics at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Id of the cluster; `None` until a broker was asked.
    pub cluster_id: Option<String>,
    /// Broker to send cluster-wide changes to; -1 when unknown. KRaft brokers name any that lives, each time another one:
    /// the known one stands as long as it lives and nobody has found it wanting.
    pub controller_id: i32,
    /// Brokers that are up, by id.
    pub brokers: HashMap<i32, BrokerAddress>,
    /// Topics that were asked for so far, with those that don't exist (their `error` says so).
    pub topics: BTreeMap<String, TopicMetadata>,
    /// Topics that were asked for by name and weren't there or are hidden, and that the description of all topics behind
    /// that leaves out too. Who asks for one again and again would else make each description news, which takes it back,
    /// and so on.
    pub(crate) absent: BTreeMap<String, ResponseError>,
}

/// As many absent topics are remembered: those that are asked for at rest are a few.
const ABSENT_MAX: usize = 1_000;

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
    /// Rack or availability zone.
    pub rack: Option<String>,
}

impl BrokerAddress {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn address(&self) -> String {
        if self.host.contains(':') && !self.host.starts_with('[') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Whether two topics of the same name are surely two. A nil id is one that wasn't told: brokers tell none before 2.8, and
/// with ZooKeeper before `inter.broker.protocol.version` is 2.8 (`Uuid.ZERO_UUID`).
pub fn is_other_topic(known: Uuid, now: Uuid) -> bool {
    !known.is_nil() && !now.is_nil() && known != now
}

/// Whether two topics of the same name are surely one. See [`is_other_topic`].
pub fn is_same_topic(known: Uuid, now: Uuid) -> bool {
    !known.is_nil() && known == now
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Changes when a topic is deleted and created again; nil where it isn't told ([`is_other_topic`]).
    pub topic_id: Uuid,
    /// A topic of Kafka itself.
    pub internal: bool,
    /// Why the topic could not be described.
    pub error: Option<ResponseError>,
    /// Sorted by index.
    pub partitions: Vec<PartitionMetadata>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Index in the topic.
    pub index: i32,
    /// Broker id of the leader, -1 when there is none.
    pub leader: i32,
    /// Epoch of the leader, -1 when the broker doesn't say.
    pub leader_epoch: i32,
    /// Broker ids of all replicas.
    pub replicas: Vec<i32>,
    /// Broker ids of replicas in sync.
    pub in_sync: Vec<i32>,
    /// Broker ids of replicas that are down.
    pub offline: Vec<i32>,
    /// Why the partition could not be described.
    pub error: Option<ResponseError>,
}

impl Metadata {
    /// Nothing known.
    pub(crate) fn empty() -> Self {
        Self {
            cluster_id: None,
            controller_id: -1,
            brokers: HashMap::new(),
            topics: BTreeMap::new(),
            absent: BTreeMap::new(),
        }
    }

    /// What shows that both describe one cluster: its id, or, where a service tells none, an address that
    /// brokers of both have.
    pub fn shared_with(&self, other: &Self) -> Option<String> {
        if let (Some(id), Some(other)) = (&self.cluster_id, &other.cluster_id) {
            return (id == other).then(|| id.clone());
        }
        let addresses = |of: &Self| -> BTreeSet<String> {
            let brokers = of.brokers.values();
            brokers
                .map(|it| format!("{}:{}", it.host, it.port))
                .collect()
        };
        let others = addresses(other);
        addresses(self).into_iter().find(|it| others.contains(it))
    }

    /// The partition's leader and its epoch; `None` when unknown or without a leader.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<(i32, i32)> {
        let partition = self.partition(topic, partition)?;
        (partition.leader >= 0).then_some((partition.leader, partition.leader_epoch))
    }

    /// Whether the cluster has this topic, as far as is known.
    pub fn has_topic(&self, name: &str) -> bool {
        self.topics.contains_key(name)
    }

    /// Why the topic could not be described when it was asked for by name; `None` also where nobody asked.
    pub fn error_of(&self, name: &str) -> Option<ResponseError> {
        match self.topics.get(name) {
            Some(topic) => topic.error,
            None => self.absent.get(name).copied(),
        }
    }

    /// A topic that was asked for by name; `None` when it isn't there.
    ///
    /// # Errors
    /// Why it could not be described, which says nothing of whether it is there: a right that is missing, say.
    pub fn described(&self, name: &str) -> Result<Option<&TopicMetadata>, ResponseError> {
        match self.error_of(name) {
            None => Ok(self.topics.get(name)),
            Some(ResponseError::UnknownTopicOrPartition) => Ok(None),
            Some(error) => Err(error),
        }
    }

    /// Whether the topic is there and described, listed or asked for by name.
    pub fn shows(&self, name: &str) -> bool {
        matches!(self.described(name), Ok(Some(_)))
    }

    /// A partition, as far as is known.
    pub fn partition(&self, topic: &str, partition: i32) -> Option<&PartitionMetadata> {
        let partitions = &self.topics.get(topic)?.partitions;
        let found = partitions
            .binary_search_by_key(&partition, |p| p.index)
            .ok()?;
        partitions.get(found)
    }

    /// What a broker's answer says isn't there: of topics that were asked for by name, or where all were, of those that
    /// are known.
    pub(super) fn unheard_of(&self, response: &MetadataResponse, is_whole: bool) -> Vec<String> {
        let described = response.topics.iter();
        let name = |topic: &MetadataResponseTopic| topic.name.as_ref().map(|name| name.to_string());
        if is_whole {
            let described: BTreeSet<String> = described.filter_map(name).collect();
            let known = self
                .topics
                .iter()
                .filter(|(_, topic)| topic.error.is_none());
            let unheard = known.filter(|(name, _)| !described.contains(*name));
            return unheard.map(|(name, _)| name.clone()).collect();
        }
        let unknown = ResponseError::UnknownTopicOrPartition.code();
        let unheard = described.filter(|topic| topic.error_code == unknown);
        unheard.filter_map(name).collect()
    }

    /// This with a broker's answer on top; `None` when the answer says nothing new, as nearly every one
    /// does. `complete` means that every topic was asked for, so topics that aren't in the answer are gone.
    pub(super) fn merged(&self, response: MetadataResponse, complete: bool) -> Option<Self> {
        let mut described = BTreeMap::new();
        for one in response.topics {
            let Some(name) = one.name.as_ref().map(|n| n.to_string()) else {
                continue;
            };
            let known = self.topics.get(&name);
            let topic = topic(one, known);
            if !complete && topic.error.is_some() && self.absent.get(&name).copied() == topic.error
            {
                continue;
            }
            described.insert(name, topic);
        }
        let mut brokers = HashMap::new();
        for broker in response.brokers {
            // A port out of range can't be connected to: leave the broker out.
            let Ok(port) = u16::try_from(broker.port) else {
                continue;
            };
            let address = BrokerAddress {
                host: broker.host.to_string(),
                port,
                rack: broker.rack.map(|r| r.to_string()),
            };
            brokers.insert(broker.node_id.0, address);
        }
        let about_brokers = Self {
            // Some services tell an empty one: that is none, and no two are the same by it.
            cluster_id: response
                .cluster_id
                .map(|id| id.to_string())
                .filter(|id| !id.is_empty()),
            controller_id: match brokers.contains_key(&self.controller_id) {
                true => self.controller_id,
                false => response.controller_id.0,
            },
            brokers,
            topics: BTreeMap::new(),
            absent: BTreeMap::new(),
        };
        let same_topics = (!complete || self.topics.len() == described.len())
            && described
                .iter()
                .all(|(name, topic)| self.topics.get(name) == Some(topic));
        if same_topics && self.has_brokers_of(&about_brokers) {
            return None;
        }
        let mut topics = match complete {
            true => BTreeMap::new(),
            false => self.topics.clone(),
        };
        topics.append(&mut described);
        let absent = match complete {
            true => self.absent_from(&topics),
            false => self.absent.clone(),
        };
        let absent = absent
            .into_iter()
            .filter(|(name, _)| !topics.contains_key(name));
        Some(Self {
            absent: absent.collect(),
            topics,
            ..about_brokers
        })
    }

    /// What was asked for by name and isn't among all topics.
    fn absent_from(
        &self,
        all: &BTreeMap<String, TopicMetadata>,
    ) -> BTreeMap<String, ResponseError> {
        let asked = self.topics.iter().filter_map(|(name, topic)| {
            let error = topic.error.filter(|error| is_absence(*error))?;
            Some((name.clone(), error))
        });
        let before = self
            .absent
            .iter()
            .map(|(name, error)| (name.clone(), *error));
        let absent = before
            .chain(asked)
            .filter(|(name, _)| !all.contains_key(name));
        absent.take(ABSENT_MAX).collect()
    }

    fn has_brokers_of(&self, other: &Self) -> bool {
        self.cluster_id == other.cluster_id
            && self.controller_id == other.controller_id
            && self.brokers == other.brokers
    }
}

/// What a broker answers about a topic that it doesn't list.
fn is_absence(error: ResponseError) -> bool {
    matches!(
        error,
        ResponseError::UnknownTopicOrPartition | ResponseError::TopicAuthorizationFailed
    )
}

fn topic(described: MetadataResponseTopic, known: Option<&TopicMetadata>) -> TopicMetadata {
    let known = known.filter(|k| !is_other_topic(k.topic_id, described.topic_id));
    let mut partitions: Vec<_> = described
        .partitions
        .into_iter()
        .map(|p| PartitionMetadata {
            index: p.partition_index,
            leader: p.leader_id.0,
            leader_epoch: p.leader_epoch,
            replicas: p.replica_nodes.iter().map(|b| b.0).collect(),
            in_sync: p.isr_nodes.iter().map(|b| b.0).collect(),
            offline: p.offline_replicas.iter().map(|b| b.0).collect(),
            error: ResponseError::try_from_code(p.error_code),
        })
        .collect();
    partitions.sort_by_key(|p| p.index);
    partitions.dedup_by_key(|p| p.index);
    for partition in &mut partitions {
        keep_newer_leader(partition, known);
    }
    TopicMetadata {
        topic_id: described.topic_id,
        internal: described.is_internal,
        error: ResponseError::try_from_code(described.error_code),
        partitions,
    }
}

/// A broker that lags behind may name an old leader; epochs only grow, so the higher one is right
/// (the Java client's `Metadata.updateLatestMetadata` does the same). Where nobody leads, whoever is named is asked all
/// the same: one that lags names somebody who is gone or refuses, and the next answer takes that back. But a cluster
/// that was restored from a backup begins again with lower epochs, and would else be waited for for ever.
fn keep_newer_leader(partition: &mut PartitionMetadata, known: Option<&TopicMetadata>) {
    let known = known.and_then(|topic| {
        let at = topic
            .partitions
            .binary_search_by_key(&partition.index, |p| p.index)
            .ok()?;
        topic.partitions.get(at)
    });
    if let Some(known) = known
        && partition.leader_epoch >= 0
        && known.leader_epoch > partition.leader_epoch
        && (known.leader >= 0 || partition.leader < 0)
    {
        partition.leader = known.leader;
        partition.leader_epoch = known.leader_epoch;
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition,
    };
    use kafka_protocol::messages::{BrokerId, TopicName};
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    /// One broker's answer about topics of one partition, by name and leader epoch.
    fn answer(topics: &[(&'static str, i32)]) -> MetadataResponse {
        let described = topics.iter().map(|(name, epoch)| {
            let partition = MetadataResponsePartition::default()
                .with_leader_id(BrokerId(1))
                .with_leader_epoch(*epoch);
            MetadataResponseTopic::default()
                .with_name(Some(TopicName(StrBytes::from_static_str(name))))
                .with_partitions(vec![partition])
        });
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_static_str("here"))
            .with_port(9_092);
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_topics(described.collect())
    }

    #[test]
    fn an_answer_that_says_nothing_new_leaves_everything_as_it_is() {
        let all = answer(&[("a", 3), ("b", 4)]);
        let known = Metadata::empty().merged(all.clone(), true).expect("news");
        assert_eq!(known.merged(all, true), None);
        assert_eq!(known.merged(answer(&[("b", 4)]), false), None);
        let old = known.merged(answer(&[("b", 2)]), false);
        assert_eq!(old, None, "a broker that lags");
        assert_eq!(known.merged(answer(&[]), false), None);
    }

    #[test]
    fn another_controller_is_no_news_as_long_as_the_known_one_lives() {
        let by = |controller, brokers: &[i32]| {
            let mut answer = answer(&[("a", 3)]).with_controller_id(BrokerId(controller));
            let one = answer.brokers.remove(0);
            let brokers = brokers.iter();
            answer.brokers = brokers
                .map(|id| one.clone().with_node_id(BrokerId(*id)))
                .collect();
            answer
        };
        let mut known = Metadata::empty()
            .merged(by(1, &[1, 2]), true)
            .expect("news");
        assert_eq!(known.merged(by(2, &[1, 2]), true), None);
        let gone = known.merged(by(2, &[2]), true).expect("a broker is gone");
        assert_eq!(gone.controller_id, 2);
        // It refused what only the controller does.
        known.controller_id = -1;
        let told = known.merged(by(2, &[1, 2]), false).expect("news");
        assert_eq!(told.controller_id, 2);
    }

    #[test]
    fn a_question_about_a_topic_that_does_not_exist_is_news_once() {
        let all = answer(&[("a", 3), ("b", 4)]);
        let mut missing = answer(&[("m", -1)]);
        missing.topics[0].error_code = ResponseError::UnknownTopicOrPartition.code();
        missing.topics[0].partitions.clear();
        let unknown = Some(ResponseError::UnknownTopicOrPartition);

        let known = Metadata::empty().merged(all.clone(), true).expect("news");
        let asked = known.merged(missing.clone(), false).expect("told");
        assert_eq!(asked.error_of("m"), unknown);
        assert!(asked.has_topic("m"), "until all topics are described");
        let gone = asked.merged(all.clone(), true).expect("not among them");
        assert!(!gone.has_topic("m") && gone.error_of("m") == unknown);
        assert_eq!(gone.merged(missing.clone(), false), None);
        assert_eq!(gone.merged(all.clone(), true), None);

        let made = gone.merged(answer(&[("m", 0)]), false).expect("made");
        assert!(made.has_topic("m") && made.error_of("m").is_none());
        // One that was there is gone by the word of all topics, not by one broker's that may be late.
        let late = made.merged(missing, false).expect("told");
        assert!(late.has_topic("m") && late.error_of("m") == unknown);
        assert!(!late.merged(all, true).expect("gone").has_topic("m"));
    }

    #[test]
    fn a_cluster_without_an_id_is_known_by_its_brokers() {
        let at = |id: Option<&'static str>, host: &'static str| {
            let mut answer = answer(&[]).with_cluster_id(id.map(StrBytes::from_static_str));
            answer.brokers[0].host = StrBytes::from_static_str(host);
            Metadata::empty().merged(answer, true).expect("news")
        };
        let shared = |one: Metadata, other: Metadata| one.shared_with(&other);
        let (id, place) = (Some("id".to_owned()), Some("here:9092".to_owned()));
        assert_eq!(shared(at(Some("id"), "here"), at(Some("id"), "there")), id);
        assert_eq!(
            shared(at(Some("id"), "here"), at(Some("other"), "here")),
            None
        );
        assert_eq!(shared(at(None, "here"), at(None, "here")), place);
        assert_eq!(shared(at(Some("id"), "here"), at(None, "here")), place);
        assert_eq!(shared(at(None, "here"), at(None, "there")), None);
        assert_eq!(shared(at(Some(""), "here"), at(Some(""), "there")), None);
        assert_eq!(shared(at(Some(""), "here"), at(Some("id"), "here")), place);
    }

    #[test]
    fn a_restored_cluster_is_asked_although_its_epochs_are_lower() {
        let led = Metadata::empty().merged(answer(&[("a", 3)]), true);
        let mut nobody = answer(&[("a", 4)]);
        nobody.topics[0].partitions[0].leader_id = BrokerId(-1);
        let nobody = led.expect("news").merged(nobody, true).expect("news");
        assert_eq!(nobody.leader("a", 0), None);
        let restored = nobody.merged(answer(&[("a", 2)]), true).expect("news");
        assert_eq!(restored.leader("a", 0), Some((1, 2)));
        assert_eq!(restored.merged(answer(&[("a", 2)]), true), None);
    }

    #[test]
    fn a_topic_that_is_hidden_is_never_taken_for_one_that_is_not_there() {
        let all = answer(&[("a", 3)]);
        let mut hidden = answer(&[("h", -1)]);
        hidden.topics[0].error_code = ResponseError::TopicAuthorizationFailed.code();
        let refused = Err(ResponseError::TopicAuthorizationFailed);
        let known = Metadata::empty().merged(all.clone(), true).expect("news");
        let asked = known.merged(hidden.clone(), false).expect("told");
        assert_eq!(asked.described("h"), refused);
        // The description of all topics leaves it out, and it is asked for again.
        let listed = asked.merged(all, true).expect("not among them");
        assert_eq!(listed.merged(hidden, false), None);
        assert_eq!(listed.described("h"), refused);
        assert_eq!(listed.described("m"), Ok(None));
        assert!(matches!(listed.described("a"), Ok(Some(_))));
    }

    #[test]
    fn every_kind_of_news_is_taken() {
        let known = Metadata::empty().merged(answer(&[("a", 3), ("b", 4)]), true);
        let known = known.expect("news");
        let moved = known.merged(answer(&[("b", 5)]), false).expect("a leader");
        assert_eq!(
            (moved.topics.len(), moved.leader("b", 0)),
            (2, Some((1, 5)))
        );
        let gone = known
            .merged(answer(&[("a", 3)]), true)
            .expect("one is gone");
        assert_eq!(gone.topics.len(), 1);
        let other = known.merged(answer(&[("a", 3), ("c", 0)]), true);
        assert!(other.is_some_and(|it| it.topics.contains_key("c")));
        let fewer = answer(&[("a", 3)]).with_brokers(Vec::new());
        assert!(known.merged(fewer, false).is_some(), "a broker is gone");
    }
}
