//! SyncGroup (`GroupCoordinatorService.syncGroup`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Asked, Body, Reply, Subject, Waits, check, code, group, text};
use crate::acls::Operation;
use crate::api::Served;
use crate::groups::classic::{Sync, Synced};
use crate::groups::coordinator;
use crate::state::State;

/// From here on the protocol's type and name are mandatory, and told.
const PROTOCOL_FROM: i16 = 5;

impl Served for SyncGroupRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        group(self.group_id.to_string())
    }

    fn refuse(&self, error: ResponseError) -> Option<SyncGroupResponse> {
        Some(SyncGroupResponse::default().with_error_code(error.code()))
    }
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: SyncGroupRequest,
) -> Reply {
    match sync(state, asked, &request) {
        Ok(waits) => wait(waits, asked.api_version),
        Err(error) => asked.send(&SyncGroupResponse::default().with_error_code(error.code())),
    }
}

fn sync(
    state: &mut State,
    asked: &Asked<'_>,
    request: &SyncGroupRequest,
) -> Result<Waits, ResponseError> {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if asked.api_version >= PROTOCOL_FROM && !names_protocol {
        return Err(ResponseError::InconsistentGroupProtocol);
    }
    let group = request.group_id.to_string();
    check(state, asked, Operation::Read, &group)?;
    if group.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    let partition = coordinator::partition_of(state, &group)?;
    let string = |text: &Option<StrBytes>| text.as_ref().map(StrBytes::to_string);
    let assignments = request.assignments.iter();
    let sync = Sync {
        member_id: request.member_id.to_string(),
        instance_id: string(&request.group_instance_id),
        generation: request.generation_id,
        protocol_type: string(&request.protocol_type),
        protocol: string(&request.protocol_name),
        assignments: assignments
            .map(|it| (it.member_id.to_string(), it.assignment.clone()))
            .collect(),
    };
    let ticket = state.next_id();
    let (found, _) = coordinator::on_shard(state, asked.broker, partition, |shard, step| {
        let group = shard.groups.get_mut(&group);
        let group = group.ok_or(ResponseError::UnknownMemberId)?;
        group.sync(&sync, ticket, step);
        Ok(())
    })?;
    let reign = coordinator::reign(state, partition);
    found.map(|()| Waits {
        ticket,
        partition,
        reign,
    })
}

/// As long as the group's rebalance may take.
fn wait(waits: Waits, version: i16) -> Reply {
    Reply::Wait {
        until_ms: i64::MAX,
        ready: Box::new(move |state, _| match state.groups.synced(waits.ticket) {
            Some(synced) => Some(Body::of(&answer(synced, version), version)),
            None if waits.is_over(state) => {
                let code = ResponseError::NotCoordinator.code();
                let answer = SyncGroupResponse::default().with_error_code(code);
                Some(Body::of(&answer, version))
            }
            None => None,
        }),
    }
}

fn answer(synced: Synced, version: i16) -> SyncGroupResponse {
    let mut answer = SyncGroupResponse::default()
        .with_error_code(code(synced.error))
        .with_assignment(synced.assignment);
    if version >= PROTOCOL_FROM {
        answer.protocol_type = synced.protocol_type.map(text);
        answer.protocol_name = synced.protocol.map(text);
    }
    answer
}
