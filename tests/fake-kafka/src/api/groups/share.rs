//! Start offsets of share groups (`KafkaApis.handleDescribeShareGroupOffsetsRequest`, `handleAlterShareGroupOffsetsRequest`).
//!
//! Nobody reads as a share group here: a start offset is where somebody set it. Unlike a real coordinator's it is in no log.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_share_group_offsets_response::{
    AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
};
use kafka_protocol::messages::describe_share_group_offsets_response::{
    DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition,
    DescribeShareGroupOffsetsResponseTopic,
};
use kafka_protocol::messages::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse,
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, TopicName,
};

use super::{Asked, Reply, Subject, check, code, may_topic, text};
use crate::acls::Operation;
use crate::api::Served;
use crate::groups::coordinator::{self, StartOffsets};
use crate::state::State;

impl Served for DescribeShareGroupOffsetsRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        let groups = self.groups.iter();
        groups
            .map(|group| Subject::Group(group.group_id.to_string()))
            .collect()
    }
}

pub(in crate::api) fn handle_describe(
    state: &mut State,
    asked: &Asked<'_>,
    request: DescribeShareGroupOffsetsRequest,
) -> Reply {
    let groups = request.groups.into_iter().map(|group| {
        let answer = DescribeShareGroupOffsetsResponseGroup::default();
        let found = start_offsets(state, asked, &group.group_id, Operation::Describe);
        let answer = answer.with_group_id(group.group_id);
        match found {
            Ok(offsets) => answer.with_topics(described(state, asked, &offsets)),
            Err(error) => answer.with_error_code(error.code()),
        }
    });
    let groups = groups.collect();
    asked.send(&DescribeShareGroupOffsetsResponse::default().with_groups(groups))
}

/// What its coordinator knows of a group that whoever asks may see.
fn start_offsets(
    state: &State,
    asked: &Asked<'_>,
    group: &str,
    operation: Operation,
) -> Result<StartOffsets, ResponseError> {
    if let Some(error) = asked.refused_about(&Subject::Group(group.to_owned())) {
        return Err(error);
    }
    check(state, asked, operation, group)?;
    let partition = coordinator::partition_of(state, group)?;
    match coordinator::reign(state, partition) {
        Some((leader, _)) if leader == asked.broker => {}
        _ => return Err(ResponseError::NotCoordinator),
    }
    let known = state.groups.shares.get(group).cloned();
    match (known, operation) {
        (Some(offsets), _) => Ok(offsets),
        (None, Operation::Describe) => Err(ResponseError::GroupIdNotFound),
        (None, _) => Ok(StartOffsets::new()),
    }
}

fn described(
    state: &State,
    asked: &Asked<'_>,
    offsets: &StartOffsets,
) -> Vec<DescribeShareGroupOffsetsResponseTopic> {
    let mut topics: Vec<DescribeShareGroupOffsetsResponseTopic> = Vec::new();
    for ((topic, partition), offset) in offsets {
        // Topics that may not be seen are left out.
        if !may_topic(state, asked, Operation::Describe, topic) {
            continue;
        }
        if topics
            .last()
            .is_none_or(|last| last.topic_name.as_str() != topic.as_str())
        {
            let named = DescribeShareGroupOffsetsResponseTopic::default();
            topics.push(named.with_topic_name(TopicName(text(topic.clone()))));
        }
        let answer = DescribeShareGroupOffsetsResponsePartition::default()
            .with_partition_index(*partition)
            .with_start_offset(*offset);
        if let Some(last) = topics.last_mut() {
            last.partitions.push(answer);
        }
    }
    topics
}

impl Served for AlterShareGroupOffsetsRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        vec![Subject::Group(self.group_id.to_string())]
    }
}

/// Makes a group that isn't there, as Kafka 4.3 does.
pub(in crate::api) fn handle_alter(
    state: &mut State,
    asked: &Asked<'_>,
    request: AlterShareGroupOffsetsRequest,
) -> Reply {
    let group = request.group_id.to_string();
    let answer = AlterShareGroupOffsetsResponse::default();
    let mut offsets = match start_offsets(state, asked, &group, Operation::Read) {
        Ok(offsets) => offsets,
        Err(error) => return asked.send(&answer.with_error_code(error.code())),
    };
    let mut responses = Vec::new();
    for topic in request.topics {
        let may = may_topic(state, asked, Operation::Read, &topic.topic_name);
        let error = (!may).then_some(ResponseError::TopicAuthorizationFailed);
        let mut partitions = Vec::new();
        for partition in topic.partitions {
            if may {
                let at = (topic.topic_name.to_string(), partition.partition_index);
                offsets.insert(at, partition.start_offset);
            }
            let answer = AlterShareGroupOffsetsResponsePartition::default();
            let answer = answer.with_partition_index(partition.partition_index);
            partitions.push(answer.with_error_code(code(error)));
        }
        let answer = AlterShareGroupOffsetsResponseTopic::default();
        let answer = answer.with_topic_name(topic.topic_name);
        responses.push(answer.with_partitions(partitions));
    }
    state.groups.shares.insert(group, offsets);
    state.changed();
    asked.send(&answer.with_responses(responses))
}
