//! FindCoordinator (`KafkaApis.getCoordinator`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};

use super::{Asked, Reply, Subject, code, text};
use crate::acls::{Operation, ResourceType};
use crate::api::Served;
use crate::groups::{self, coordinator::partition_for};
use crate::state::State;
use crate::transactions;

/// The first version that asks about many (KIP-699).
const BATCHED_FROM: i16 = 4;
/// `CoordinatorType`.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

impl Served for FindCoordinatorRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        let names = self.coordinator_keys.iter().chain([&self.key]);
        let names = names.filter(|name| !name.is_empty());
        names
            .map(|name| match self.key_type {
                TRANSACTION => Subject::TransactionalId(name.to_string()),
                _ => Subject::Group(name.to_string()),
            })
            .collect()
    }
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: FindCoordinatorRequest,
) -> Reply {
    if asked.api_version >= BATCHED_FROM {
        let keys = request.coordinator_keys.iter();
        let coordinators = keys.map(|key| find(state, asked, request.key_type, key));
        let coordinators = coordinators.collect();
        return asked.send(&FindCoordinatorResponse::default().with_coordinators(coordinators));
    }
    let found = find(state, asked, request.key_type, &request.key);
    let mut answer = FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port);
    if asked.api_version >= 1 {
        answer.error_message = found.error_message;
    }
    asked.send(&answer)
}

fn find(state: &mut State, asked: &Asked<'_>, key_type: i8, key: &str) -> Coordinator {
    let answer = Coordinator::default().with_key(text(key));
    match broker_of(state, asked, key_type, key) {
        Ok(id) => {
            let broker = &state.brokers[&id];
            answer
                .with_node_id(BrokerId(id))
                .with_host(text(broker.host.clone()))
                .with_port(i32::from(broker.port))
        }
        Err(error) => answer
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(code(Some(error))),
    }
}

fn broker_of(
    state: &mut State,
    asked: &Asked<'_>,
    key_type: i8,
    key: &str,
) -> Result<i32, ResponseError> {
    let (kind, topic, denied) = match key_type {
        GROUP => (
            ResourceType::Group,
            groups::TOPIC,
            ResponseError::GroupAuthorizationFailed,
        ),
        TRANSACTION => (
            ResourceType::TransactionalId,
            transactions::TOPIC,
            ResponseError::TransactionalIdAuthorizationFailed,
        ),
        // Share coordinators aren't there.
        _ => return Err(ResponseError::InvalidRequest),
    };
    let about = match key_type {
        TRANSACTION => Subject::TransactionalId(key.to_owned()),
        _ => Subject::Group(key.to_owned()),
    };
    if let Some(error) = asked.refused_about(&about) {
        return Err(error);
    }
    if !state.allows(asked, Operation::Describe, kind, key) {
        return Err(denied);
    }
    let Some(partitions) = state.topics.get(topic) else {
        // Whoever asks first has it made, and asks again (`AutoTopicCreationManager`).
        match key_type {
            TRANSACTION => state.create_transactions_topic(),
            _ => state.create_offsets_topic(),
        }
        return Err(ResponseError::CoordinatorNotAvailable);
    };
    let count = i32::try_from(partitions.partitions.len()).unwrap_or(i32::MAX);
    let partition = partitions.partitions.get(&partition_for(key, count));
    partition
        .and_then(|partition| partition.leader)
        .filter(|leader| state.is_alive(*leader))
        .ok_or(ResponseError::CoordinatorNotAvailable)
}
