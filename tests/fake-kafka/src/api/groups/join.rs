//! JoinGroup (`GroupCoordinatorService.joinGroup`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Asked, Body, Reply, Subject, Waits, check, code, group, text};
use crate::acls::Operation;
use crate::api::Served;
use crate::groups::classic::{Join, Joined};
use crate::groups::coordinator;
use crate::state::State;

/// `JoinGroupRequest.requiresKnownMemberId` (KIP-394).
const KNOWN_MEMBER_ID_FROM: i16 = 4;
/// The first version whose members have instances.
const INSTANCE_FROM: i16 = 5;
/// The first version whose assignor may be null, and that has a protocol type.
const NULLABLE_PROTOCOL_FROM: i16 = 7;
/// `JoinGroupRequest.supportsSkippingAssignment`.
const SKIPS_ASSIGNMENT_FROM: i16 = 9;

impl Served for JoinGroupRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        group(self.group_id.to_string())
    }

    fn refuse(&self, error: ResponseError) -> Option<JoinGroupResponse> {
        Some(refused(&self.member_id, error))
    }
}

fn refused(member_id: &StrBytes, error: ResponseError) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(-1)
        .with_protocol_name(Some(text("")))
        .with_member_id(member_id.clone())
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: JoinGroupRequest,
) -> Reply {
    match join(state, asked, &request) {
        Ok(waits) => wait(waits, asked.api_version),
        Err(error) => asked.send(&refused(&request.member_id, error)),
    }
}

fn join(
    state: &mut State,
    asked: &Asked<'_>,
    request: &JoinGroupRequest,
) -> Result<Waits, ResponseError> {
    let group = request.group_id.to_string();
    check(state, asked, Operation::Read, &group)?;
    if group.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    let settings = &state.groups.settings;
    let sessions = settings.session_timeout_ms_min..=settings.session_timeout_ms_max;
    if !sessions.contains(&request.session_timeout_ms) {
        return Err(ResponseError::InvalidSessionTimeout);
    }
    let partition = coordinator::partition_of(state, &group)?;
    let join = understood(state, asked, request);
    let ticket = state.next_id();
    let (found, _) = coordinator::on_shard(state, asked.broker, partition, |shard, step| {
        let is_new = !shard.groups.contains_key(&group);
        // Only a new member makes a group.
        if is_new && !join.member_id.is_empty() {
            return Err(ResponseError::UnknownMemberId);
        }
        let group = shard.get_or_create(&group);
        group.join(&join, ticket, step);
        if is_new && step.records.is_empty() {
            step.records.push(group.empty_record());
        }
        Ok(())
    })?;
    let reign = coordinator::reign(state, partition);
    found.map(|()| Waits {
        ticket,
        partition,
        reign,
    })
}

fn understood(state: &mut State, asked: &Asked<'_>, request: &JoinGroupRequest) -> Join {
    let instance_id = request.group_instance_id.as_ref().map(StrBytes::to_string);
    // `ClassicGroup.generateMemberId`.
    let named_after = instance_id.as_deref().unwrap_or(asked.client_id);
    let rebalance_timeout_ms = match request.rebalance_timeout_ms {
        -1 => request.session_timeout_ms,
        given => given,
    };
    let protocols = request.protocols.iter();
    Join {
        member_id: request.member_id.to_string(),
        new_member_id: format!("{named_after}-{}", state.next_uuid()),
        client_id: asked.client_id.to_owned(),
        client_host: coordinator::client_host(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols
            .map(|protocol| (protocol.name.to_string(), protocol.metadata.clone()))
            .collect(),
        needs_known_member_id: asked.api_version >= KNOWN_MEMBER_ID_FROM,
        skips_assignment: asked.api_version >= SKIPS_ASSIGNMENT_FROM,
        instance_id,
    }
}

/// The members decide when the answer is there: every one of them has a session that ends.
fn wait(waits: Waits, version: i16) -> Reply {
    Reply::Wait {
        until_ms: i64::MAX,
        ready: Box::new(move |state, _| match state.groups.joined(waits.ticket) {
            Some(joined) => Some(Body::of(&answer(joined, version), version)),
            None if waits.is_over(state) => {
                let error = ResponseError::NotCoordinator;
                Some(Body::of(&refused(&text(""), error), version))
            }
            None => None,
        }),
    }
}

fn answer(joined: Joined, version: i16) -> JoinGroupResponse {
    let members = joined
        .members
        .into_iter()
        .map(|(id, instance, subscription)| {
            let instance = instance.filter(|_| version >= INSTANCE_FROM);
            JoinGroupResponseMember::default()
                .with_member_id(text(id))
                .with_group_instance_id(instance.map(text))
                .with_metadata(subscription)
        });
    let mut answer = JoinGroupResponse::default()
        .with_error_code(code(joined.error))
        .with_generation_id(joined.generation)
        .with_protocol_name(joined.protocol.map(text))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(joined.member_id))
        .with_members(members.collect());
    if version >= NULLABLE_PROTOCOL_FROM {
        answer.protocol_type = joined.protocol_type.map(text);
    } else {
        answer.protocol_name.get_or_insert_with(|| text(""));
    }
    answer
}
