//! LeaveGroup (`GroupCoordinatorService.leaveGroup`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::{Asked, Reply, Subject, check, code, group, text};
use crate::acls::Operation;
use crate::api::Served;
use crate::groups::coordinator;
use crate::state::State;

/// The first version in which many leave at once (KIP-345).
const MEMBERS_FROM: i16 = 3;

type Member = (String, Option<String>);
type Left = Vec<(Member, Result<(), ResponseError>)>;

impl Served for LeaveGroupRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        group(self.group_id.to_string())
    }

    fn refuse(&self, error: ResponseError) -> Option<LeaveGroupResponse> {
        Some(LeaveGroupResponse::default().with_error_code(error.code()))
    }
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: LeaveGroupRequest,
) -> Reply {
    let answer = LeaveGroupResponse::default();
    let answer = match leave(state, asked, &request) {
        Err(error) => answer.with_error_code(error.code()),
        Ok(left) if asked.api_version < MEMBERS_FROM => {
            let error = left.into_iter().find_map(|(_, result)| result.err());
            answer.with_error_code(code(error))
        }
        Ok(left) => {
            let members = left.into_iter().map(|((id, instance), result)| {
                MemberResponse::default()
                    .with_member_id(text(id))
                    .with_group_instance_id(instance.map(text))
                    .with_error_code(code(result.err()))
            });
            answer.with_members(members.collect())
        }
    };
    asked.send(&answer)
}

fn leave(
    state: &mut State,
    asked: &Asked<'_>,
    request: &LeaveGroupRequest,
) -> Result<Left, ResponseError> {
    let group = request.group_id.to_string();
    check(state, asked, Operation::Read, &group)?;
    if group.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    let members: Vec<Member> = match asked.api_version < MEMBERS_FROM {
        true => vec![(request.member_id.to_string(), None)],
        false => {
            let members = request.members.iter();
            let members = members.map(|member| {
                let instance = member.group_instance_id.as_ref();
                (
                    member.member_id.to_string(),
                    instance.map(|instance| instance.to_string()),
                )
            });
            members.collect()
        }
    };
    let partition = coordinator::partition_of(state, &group)?;
    let (results, _) = coordinator::on_shard(state, asked.broker, partition, |shard, step| {
        match shard.groups.get_mut(&group) {
            Some(group) => group.leave(&members, step),
            // Nobody is a member of a group that isn't there
            // (`GroupCoordinatorShard.classicGroupLeave`).
            None => vec![Err(ResponseError::UnknownMemberId); members.len()],
        }
    })?;
    Ok(members.into_iter().zip(results).collect())
}
