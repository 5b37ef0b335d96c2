//! Heartbeat (`GroupCoordinatorService.heartbeat`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{Asked, Reply, Subject, check, group};
use crate::acls::Operation;
use crate::api::Served;
use crate::groups::coordinator;
use crate::state::State;

impl Served for HeartbeatRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        group(self.group_id.to_string())
    }

    fn refuse(&self, error: ResponseError) -> Option<HeartbeatResponse> {
        Some(HeartbeatResponse::default().with_error_code(error.code()))
    }
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: HeartbeatRequest,
) -> Reply {
    let error = heartbeat(state, asked, &request).err();
    asked.send(&HeartbeatResponse::default().with_error_code(super::code(error)))
}

fn heartbeat(
    state: &mut State,
    asked: &Asked<'_>,
    request: &HeartbeatRequest,
) -> Result<(), ResponseError> {
    let group = request.group_id.to_string();
    check(state, asked, Operation::Read, &group)?;
    if group.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    let partition = coordinator::partition_of(state, &group)?;
    let (alive, _) = coordinator::on_shard(state, asked.broker, partition, |shard, step| {
        let group = shard.groups.get_mut(&group);
        let group = group.ok_or(ResponseError::UnknownMemberId)?;
        let instance = request.group_instance_id.as_deref();
        group.heartbeat(
            &request.member_id,
            instance,
            request.generation_id,
            step.now_ms,
        )
    })?;
    alive
}
