//! DescribeGroups and ConsumerGroupDescribe (`KafkaApis.handleDescribeGroupsRequest`,
//! `GroupMetadataManager.describeGroups`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, GroupId, consumer_group_describe_response,
};

use super::{Asked, Reply, Subject, check, code, text};
use crate::acls::{Operation, ResourceType};
use crate::api::Served;
use crate::groups::classic::{ClassicGroup, State as GroupState};
use crate::groups::coordinator;
use crate::state::State;

/// The first version that tells rights.
const OPERATIONS_FROM: i16 = 3;
/// The first version whose members have instances.
const INSTANCE_FROM: i16 = 4;
/// From here on a group that isn't there is an error, not a dead group (KIP-1043).
const MISSING_IS_AN_ERROR_FROM: i16 = 6;
/// Stands for "not asked for".
const NO_OPERATIONS: i32 = i32::MIN;

fn subjects(groups: &[GroupId]) -> Vec<Subject> {
    let groups = groups.iter();
    groups
        .map(|group| Subject::Group(group.to_string()))
        .collect()
}

impl Served for DescribeGroupsRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        subjects(&self.groups)
    }
}

impl Served for ConsumerGroupDescribeRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        subjects(&self.group_ids)
    }
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: DescribeGroupsRequest,
) -> Reply {
    let groups = request.groups.iter().map(|group| {
        let mut described = match describe(state, asked, group) {
            Ok(described) => described,
            Err(error) => missing_or_refused(error, asked.api_version),
        };
        described.group_id = group.clone();
        described.authorized_operations = NO_OPERATIONS;
        let wants = request.include_authorized_operations && asked.api_version >= OPERATIONS_FROM;
        if wants && described.error_code == 0 {
            let operations =
                state
                    .acls
                    .operations(asked.principal, ResourceType::Group, group.as_str());
            described.authorized_operations = operations;
        }
        described
    });
    let groups = groups.collect();
    asked.send(&DescribeGroupsResponse::default().with_groups(groups))
}

fn missing_or_refused(error: ResponseError, version: i16) -> DescribedGroup {
    let answer = DescribedGroup::default();
    match error {
        ResponseError::GroupIdNotFound if version < MISSING_IS_AN_ERROR_FROM => {
            answer.with_group_state(text("Dead"))
        }
        ResponseError::GroupIdNotFound => answer
            .with_group_state(text("Dead"))
            .with_error_code(code(Some(error)))
            .with_error_message(Some(text("Group not found."))),
        _ => answer.with_error_code(code(Some(error))),
    }
}

fn describe(
    state: &mut State,
    asked: &Asked<'_>,
    group: &GroupId,
) -> Result<DescribedGroup, ResponseError> {
    let about = Subject::Group(group.to_string());
    if let Some(error) = asked.refused_about(&about) {
        return Err(error);
    }
    check(state, asked, Operation::Describe, group)?;
    let partition = coordinator::partition_of(state, group)?;
    let version = asked.api_version;
    let (described, _) = coordinator::on_shard(state, asked.broker, partition, |shard, _| {
        let found = shard.groups.get(group.as_str());
        found.map(|group| described(group, version))
    })?;
    described.ok_or(ResponseError::GroupIdNotFound)
}

fn described(group: &ClassicGroup, version: i16) -> DescribedGroup {
    // Only of a stable group the assignor is told, and what members said to it.
    let protocol = group
        .protocol()
        .filter(|_| group.state() == GroupState::Stable);
    let members = group.members().map(|member| {
        let instance = member.instance_id.clone();
        let answer = DescribedGroupMember::default()
            .with_member_id(text(member.id.clone()))
            .with_group_instance_id(instance.filter(|_| version >= INSTANCE_FROM).map(text))
            .with_client_id(text(member.client_id.clone()))
            .with_client_host(text(member.client_host.clone()));
        match protocol {
            None => answer,
            Some(protocol) => answer
                .with_member_metadata(member.subscription(protocol))
                .with_member_assignment(member.assignment.clone()),
        }
    });
    DescribedGroup::default()
        .with_group_state(text(group.state().name()))
        .with_protocol_type(text(group.protocol_type().unwrap_or_default()))
        .with_protocol_data(text(protocol.unwrap_or_default()))
        .with_members(members.collect())
}

/// There are no groups of the new protocol: what is asked for isn't one.
pub(in crate::api) fn handle_consumer(
    state: &mut State,
    asked: &Asked<'_>,
    request: ConsumerGroupDescribeRequest,
) -> Reply {
    let groups = request.group_ids.iter().map(|group| {
        let about = Subject::Group(group.to_string());
        let refused = asked.refused_about(&about);
        let error = refused.unwrap_or_else(|| {
            let allowed = check(state, asked, Operation::Describe, group);
            allowed.err().unwrap_or(ResponseError::GroupIdNotFound)
        });
        consumer_group_describe_response::DescribedGroup::default()
            .with_group_id(group.clone())
            .with_error_code(error.code())
            .with_authorized_operations(NO_OPERATIONS)
    });
    let groups = groups.collect();
    asked.send(&ConsumerGroupDescribeResponse::default().with_groups(groups))
}
