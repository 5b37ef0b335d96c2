//! OffsetFetch (`KafkaApis.handleOffsetFetchRequestFromCoordinator`,
//! `OffsetMetadataManager.fetchOffsets`, `fetchAllOffsets`).
//!
//! Unlike a real coordinator it doesn't hide what isn't replicated yet.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};

use super::{Asked, Reply, Subject, check, code, may_topic, text};
use crate::acls::Operation;
use crate::api::Served;
use crate::groups::coordinator::{self, Shard};
use crate::groups::offsets::{At, Stored};
use crate::state::State;

/// The first version that asks about many groups (KIP-709).
const GROUPS_FROM: i16 = 8;
/// Before it there was no error for the whole answer (`OffsetFetchResponse`).
const WHOLE_ERROR_FROM: i16 = 2;

impl Served for OffsetFetchRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        let names = self.groups.iter().map(|group| &group.group_id);
        let names = names.chain([&self.group_id]);
        let names = names.filter(|name| !name.is_empty());
        names.map(|name| Subject::Group(name.to_string())).collect()
    }
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: OffsetFetchRequest,
) -> Reply {
    if asked.api_version >= GROUPS_FROM {
        let groups = request.groups.iter();
        let groups = groups.map(|group| fetch(state, asked, group, request.require_stable));
        let groups = groups.collect();
        return asked.send(&OffsetFetchResponse::default().with_groups(groups));
    }
    let topics = request.topics.as_ref().map(|topics| {
        let topics = topics.iter().map(|topic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic.name.clone())
                .with_partition_indexes(topic.partition_indexes.clone())
        });
        topics.collect()
    });
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(request.group_id.clone())
        .with_topics(topics);
    let fetched = fetch(state, asked, &group, request.require_stable);
    asked.send(&as_before(fetched, &request, asked.api_version))
}

/// In the layout of the versions that ask about one group.
fn as_before(
    fetched: OffsetFetchResponseGroup,
    request: &OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    let error = fetched.error_code;
    if error != 0 && version < WHOLE_ERROR_FROM {
        return refused_by_partition(request, error);
    }
    let topics = fetched.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|it| {
            let mut partition = OffsetFetchResponsePartition::default()
                .with_partition_index(it.partition_index)
                .with_committed_offset(it.committed_offset)
                .with_metadata(it.metadata)
                .with_error_code(it.error_code);
            if version >= 5 {
                partition.committed_leader_epoch = it.committed_leader_epoch;
            }
            partition
        });
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default()
        .with_topics(topics.collect())
        .with_error_code(error)
}

fn refused_by_partition(request: &OffsetFetchRequest, error: i16) -> OffsetFetchResponse {
    let topics = request.topics.iter().flatten().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|number| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(*number)
                .with_committed_offset(-1)
                .with_metadata(Some(text("")))
                .with_error_code(error)
        });
        OffsetFetchResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

/// One group's offsets: of the partitions that are asked for, or all.
fn fetch(
    state: &mut State,
    asked: &Asked<'_>,
    request: &OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default().with_group_id(request.group_id.clone());
    match offsets(state, asked, request, require_stable) {
        Ok(topics) => answer.with_topics(topics),
        Err(error) => answer.with_error_code(code(Some(error))),
    }
}

fn offsets(
    state: &mut State,
    asked: &Asked<'_>,
    request: &OffsetFetchRequestGroup,
    require_stable: bool,
) -> Result<Vec<OffsetFetchResponseTopics>, ResponseError> {
    let group = request.group_id.to_string();
    if let Some(error) = asked.refused_about(&Subject::Group(group.clone())) {
        return Err(error);
    }
    check(state, asked, Operation::Describe, &group)?;
    let partition = coordinator::partition_of(state, &group)?;
    let look = |shard: &mut Shard| look(shard, &group, request.topics.as_deref(), require_stable);
    let (found, _) = coordinator::on_shard(state, asked.broker, partition, |shard, _| look(shard))?;
    let may = |name: &TopicName| may_topic(state, asked, Operation::Describe, name);
    let mut topics = Vec::new();
    for mut topic in found {
        let may = may(&topic.name);
        // Asked for all, what may not be seen is left out; asked for this one, it is refused.
        if may || request.topics.is_some() {
            if !may {
                topic.partitions.iter_mut().for_each(deny);
            }
            topics.push(topic);
        }
    }
    Ok(topics)
}

fn deny(partition: &mut OffsetFetchResponsePartitions) {
    partition.committed_offset = -1;
    partition.committed_leader_epoch = -1;
    partition.metadata = Some(text(""));
    partition.error_code = ResponseError::TopicAuthorizationFailed.code();
}

fn look(
    shard: &Shard,
    group: &str,
    wanted: Option<&[OffsetFetchRequestTopics]>,
    require_stable: bool,
) -> Vec<OffsetFetchResponseTopics> {
    let partition = |at: &At, stored: Option<&Stored>| {
        let is_unstable = require_stable && shard.offsets.is_pending(group, at);
        let answer = OffsetFetchResponsePartitions::default().with_partition_index(at.1);
        match stored {
            _ if is_unstable => {
                nothing(answer).with_error_code(ResponseError::UnstableOffsetCommit.code())
            }
            None => nothing(answer),
            Some(stored) => answer
                .with_committed_offset(stored.value.offset)
                .with_committed_leader_epoch(stored.value.leader_epoch)
                .with_metadata(Some(text(stored.value.metadata.clone()))),
        }
    };
    let Some(wanted) = wanted else {
        let mut topics: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (at, stored) in shard.offsets.of_group(group) {
            let partitions = topics.entry(at.0.clone()).or_default();
            partitions.push(partition(at, Some(stored)));
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            OffsetFetchResponseTopics::default()
                .with_name(TopicName(text(name)))
                .with_partitions(partitions)
        });
        return topics.collect();
    };
    let topics = wanted.iter().map(|topic| {
        let numbers = topic.partition_indexes.iter();
        let partitions = numbers.map(|number| {
            let at: At = (topic.name.to_string(), *number);
            partition(&at, shard.offsets.get(group, &at))
        });
        OffsetFetchResponseTopics::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    topics.collect()
}

fn nothing(answer: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartitions {
    answer
        .with_committed_offset(-1)
        .with_committed_leader_epoch(-1)
        .with_metadata(Some(text("")))
}
