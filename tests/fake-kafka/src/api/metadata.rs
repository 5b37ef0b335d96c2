//! Metadata (`KRaftMetadataCache.getTopicMetadata`, `KafkaApis.handleTopicMetadataRequest`).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use uuid::Uuid;

use super::{Asked, Reply, Served, Subject, text};
use crate::acls::{CLUSTER_NAME, Operation, ResourceType};
use crate::partition::Partition;
use crate::state::{State, Topic};
use crate::topics::{NewTopic, check_name};

/// Stands for "not asked for".
const NO_OPERATIONS: i32 = i32::MIN;

impl Served for MetadataRequest {
    fn about(&self, state: &State) -> Vec<Subject> {
        let Some(topics) = &self.topics else {
            return state.topics.keys().cloned().map(Subject::Topic).collect();
        };
        topics
            .iter()
            .filter_map(|topic| name_of(state, topic))
            .map(Subject::Topic)
            .collect()
    }
}

pub(crate) fn handle(state: &mut State, asked: &Asked<'_>, request: MetadataRequest) -> Reply {
    if request.allow_auto_topic_creation && state.options.auto_create_topics {
        create_missing(state, asked, &request);
    }
    let topics = match &request.topics {
        // Version 0 had no null: an empty list meant all.
        Some(topics) if !topics.is_empty() || asked.api_version > 0 => topics
            .iter()
            .map(|topic| asked_for(state, asked, topic))
            .collect(),
        _ => state
            .topics
            .iter()
            // What may not be seen isn't there.
            .filter(|(name, _)| may_see(state, asked, name))
            .map(|(name, topic)| described(state, asked, name, topic))
            .collect(),
    };
    let topics = with_operations(state, asked, &request, topics);
    let cluster_id =
        Some(asked.cluster_id.unwrap_or(&state.cluster_id)).filter(|id| !id.is_empty());
    asked.send(
        &MetadataResponse::default()
            .with_brokers(brokers(state))
            .with_cluster_id(cluster_id.map(text))
            .with_controller_id(BrokerId(state.controller()))
            .with_cluster_authorized_operations(cluster_operations(state, asked, &request))
            .with_topics(topics),
    )
}

/// `AutoTopicCreationManager`: topics that somebody asks for come into being. (A broker answers this request before they do.)
fn create_missing(state: &mut State, asked: &Asked<'_>, request: &MetadataRequest) {
    let wanted = request.topics.iter().flatten();
    let names: Vec<String> = wanted.filter_map(|topic| name_of(state, topic)).collect();
    for name in names {
        let allowed = state.allows_on_cluster(asked, Operation::Create)
            || state.check_topic(asked, Operation::Create, &name).is_ok();
        if allowed && !state.topics.contains_key(&name) {
            let new = NewTopic {
                partitions: -1,
                replication: -1,
                ..NewTopic::default()
            };
            // What can't be created is answered as unknown.
            let _ = state.create_topic(&name, &new);
        }
    }
}

fn may_see(state: &State, asked: &Asked<'_>, topic: &str) -> bool {
    state.check_topic(asked, Operation::Describe, topic).is_ok()
}

/// Versions in which rights on the cluster were told here; later it is DescribeCluster (KIP-700).
const CLUSTER_OPERATIONS: std::ops::RangeInclusive<i16> = 8..=10;

fn cluster_operations(state: &State, asked: &Asked<'_>, request: &MetadataRequest) -> i32 {
    let asks = CLUSTER_OPERATIONS.contains(&asked.api_version)
        && request.include_cluster_authorized_operations;
    match asks {
        false => NO_OPERATIONS,
        true if !state.allows_on_cluster(asked, Operation::Describe) => 0,
        true => {
            let kind = ResourceType::Cluster;
            state.acls.operations(asked.principal, kind, CLUSTER_NAME)
        }
    }
}

/// Rights on topics, whether they exist or not. Of what may not be seen nothing is told.
fn with_operations(
    state: &State,
    asked: &Asked<'_>,
    request: &MetadataRequest,
    mut topics: Vec<MetadataResponseTopic>,
) -> Vec<MetadataResponseTopic> {
    if !request.include_topic_authorized_operations {
        return topics;
    }
    for topic in &mut topics {
        if let Some(name) = &topic.name
            && may_see(state, asked, name)
        {
            let kind = ResourceType::Topic;
            topic.topic_authorized_operations = state.acls.operations(asked.principal, kind, name);
        }
    }
    topics
}

fn name_of(state: &State, topic: &MetadataRequestTopic) -> Option<String> {
    match &topic.name {
        Some(name) => Some(name.to_string()),
        None => state.topic_name(topic.topic_id).map(str::to_owned),
    }
}

fn asked_for(
    state: &State,
    asked: &Asked<'_>,
    wanted: &MetadataRequestTopic,
) -> MetadataResponseTopic {
    let Some(name) = name_of(state, wanted) else {
        return failed(ResponseError::UnknownTopicId, None, wanted.topic_id);
    };
    if !may_see(state, asked, &name) {
        // Nothing is said of whether it exists; an id is no secret, a name behind it is.
        let error = ResponseError::TopicAuthorizationFailed;
        return match &wanted.name {
            Some(name) => failed(error, Some(name), Uuid::nil()),
            None => failed(error, None, wanted.topic_id),
        };
    }
    match state.topics.get(&name) {
        Some(topic) => described(state, asked, &name, topic),
        None => {
            let error = match check_name(&name) {
                Err((invalid, _)) => invalid,
                Ok(()) => ResponseError::UnknownTopicOrPartition,
            };
            failed(error, Some(&name), wanted.topic_id)
        }
    }
}

fn failed(error: ResponseError, name: Option<&str>, id: Uuid) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        // Only versions that can be asked by id can leave out the name.
        .with_name(name.map(|name| TopicName(text(name))))
        .with_topic_id(id)
        .with_topic_authorized_operations(NO_OPERATIONS)
}

fn described(state: &State, asked: &Asked<'_>, name: &str, topic: &Topic) -> MetadataResponseTopic {
    if let Some(error) = asked.refused_topic(name) {
        return failed(error, Some(name), state.told_id(topic));
    }
    let partitions = topic
        .partitions
        .iter()
        .map(|(&number, partition)| partition_of(state, number, partition));
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(name))))
        .with_topic_id(state.told_id(topic))
        .with_is_internal(topic.internal)
        .with_topic_authorized_operations(NO_OPERATIONS)
        .with_partitions(partitions.collect())
}

fn partition_of(state: &State, number: i32, partition: &Partition) -> MetadataResponsePartition {
    let leader = partition.leader.filter(|&leader| state.is_alive(leader));
    let error = match leader {
        Some(_) => 0,
        None => ResponseError::LeaderNotAvailable.code(),
    };
    let offline = partition.replicas.iter().filter(|&&id| !state.is_alive(id));
    MetadataResponsePartition::default()
        .with_error_code(error)
        .with_partition_index(number)
        .with_leader_id(BrokerId(leader.unwrap_or(-1)))
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(ids(&partition.replicas))
        .with_isr_nodes(ids(&partition.in_sync))
        .with_offline_replicas(ids(offline))
}

fn ids<'a>(ids: impl IntoIterator<Item = &'a i32>) -> Vec<BrokerId> {
    ids.into_iter().map(|&id| BrokerId(id)).collect()
}

/// Those that the controller doesn't miss (`KRaftMetadataCache.getAliveBrokerNodes`): one that is cut off from the others
/// has itself in its own list only.
fn brokers(state: &State) -> Vec<MetadataResponseBroker> {
    state
        .brokers
        .iter()
        .filter(|(id, _)| state.is_alive(**id) && !state.islands.contains_key(*id))
        .map(|(&id, broker)| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_host(text(&broker.host))
                .with_port(i32::from(broker.port))
                .with_rack(broker.rack.as_ref().map(text))
        })
        .collect()
}
