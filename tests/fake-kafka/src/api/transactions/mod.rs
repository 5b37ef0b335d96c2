//! The APIs of transactions (`KafkaApis`, `TransactionCoordinator`). InitProducerId is beside
//! them, since most who ask it want no transactions.

pub(super) mod add;
pub(super) mod commit_offsets;
pub(super) mod describe;
pub(super) mod end;

use kafka_protocol::ResponseError;

use super::{Asked, Body, Reply, Subject, text};
use crate::acls::{Operation, ResourceType};
use crate::state::State;

/// The first version of all of them that knows PRODUCER_FENCED.
const KNOWS_FENCED_FROM: i16 = 2;

fn subject(transactional_id: &str) -> Vec<Subject> {
    vec![Subject::TransactionalId(transactional_id.to_owned())]
}

fn code(error: Option<ResponseError>) -> i16 {
    error.map_or(0, |error| error.code())
}

/// The code of a result, as old clients understand it.
fn code_of<T>(result: &Result<T, ResponseError>, version: i16) -> i16 {
    match result {
        Ok(_) => 0,
        Err(ResponseError::ProducerFenced) if version < KNOWS_FENCED_FROM => {
            ResponseError::InvalidProducerEpoch.code()
        }
        Err(error) => error.code(),
    }
}

/// Whether whoever asks may use the transactional id.
fn check(
    state: &State,
    asked: &Asked<'_>,
    operation: Operation,
    transactional_id: &str,
) -> Result<(), ResponseError> {
    let kind = ResourceType::TransactionalId;
    match state.allows(asked, operation, kind, transactional_id) {
        true => Ok(()),
        false => Err(ResponseError::TransactionalIdAuthorizationFailed),
    }
}
