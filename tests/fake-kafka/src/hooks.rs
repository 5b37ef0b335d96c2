//! What the data path asks the transaction coordinator.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::acls::{Operation, ResourceType};
use crate::api::{Asked, Reply, refused_producer};
use crate::state::State;
use crate::transactions;

/// The first version of Produce that knows TRANSACTION_ABORTABLE.
const PRODUCE_KNOWS_ABORTABLE_FROM: i16 = 11;
/// The first version of Produce that puts partitions into the transaction by itself (KIP-890).
const PRODUCE_ADDS_FROM: i16 = 12;
/// The first version of InitProducerId that knows PRODUCER_FENCED.
const INIT_KNOWS_FENCED_FROM: i16 = 4;

/// A transactional batch whose producer has no open transaction in the partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unverified<'a> {
    pub(crate) transactional_id: &'a str,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
}

/// Whether the coordinator knows of a transaction that the batch may begin in this partition (`AddPartitionsToTxnManager`); adds the
/// partition from version 12 of Produce on. `true`: the producer is one of transactions v2.
pub(crate) fn verify(
    state: &mut State,
    asked: &Asked<'_>,
    unverified: &Unverified<'_>,
) -> Result<bool, ResponseError> {
    let id = unverified.transactional_id;
    let producer = (unverified.producer_id, unverified.producer_epoch);
    let at = (unverified.topic.to_owned(), unverified.partition);
    let adds = asked.api_version >= PRODUCE_ADDS_FROM;
    let verified = match adds {
        true => transactions::add_for_broker(state, id, producer, at),
        false => transactions::verify(state, id, producer, &at),
    };
    match verified {
        Ok(()) => Ok(adds),
        Err(error) => Err(as_produced(error, asked.api_version)),
    }
}

/// `ReplicaManager.handleProduceAppend`, `AddPartitionsToTxnManager.AddPartitionsToTxnHandler`.
fn as_produced(error: ResponseError, version: i16) -> ResponseError {
    match error {
        ResponseError::TransactionAbortable if version < PRODUCE_KNOWS_ABORTABLE_FROM => {
            ResponseError::InvalidTxnState
        }
        ResponseError::ProducerFenced => ResponseError::InvalidProducerEpoch,
        ResponseError::ConcurrentTransactions if version < PRODUCE_ADDS_FROM => {
            ResponseError::NotEnoughReplicas
        }
        ResponseError::CoordinatorLoadInProgress
        | ResponseError::CoordinatorNotAvailable
        | ResponseError::NotCoordinator => ResponseError::NotEnoughReplicas,
        other => other,
    }
}

/// InitProducerId with a transactional id (`KafkaApis.handleInitProducerIdRequest`).
pub(crate) fn init_transactional(
    state: &mut State,
    asked: &Asked<'_>,
    request: &InitProducerIdRequest,
) -> Reply {
    match init(state, asked, request) {
        Ok((producer_id, epoch)) => asked.send(
            &InitProducerIdResponse::default()
                .with_producer_id(ProducerId(producer_id))
                .with_producer_epoch(epoch),
        ),
        // Old clients don't know the newer name of the same thing.
        Err(ResponseError::ProducerFenced) if asked.api_version < INIT_KNOWS_FENCED_FROM => {
            asked.send(&refused_producer(ResponseError::InvalidProducerEpoch))
        }
        Err(error) => asked.send(&refused_producer(error)),
    }
}

fn init(
    state: &mut State,
    asked: &Asked<'_>,
    request: &InitProducerIdRequest,
) -> Result<(i64, i16), ResponseError> {
    let id = request.transactional_id.as_deref();
    let id = id.map(ToString::to_string).unwrap_or_default();
    if !state.allows(asked, Operation::Write, ResourceType::TransactionalId, &id) {
        return Err(ResponseError::TransactionalIdAuthorizationFailed);
    }
    let expected = match (request.producer_id.0, request.producer_epoch) {
        (-1, -1) => None,
        (-1, _) | (_, -1) => return Err(ResponseError::InvalidRequest),
        producer => Some(producer),
    };
    let timeout_ms = request.transaction_timeout_ms;
    transactions::init(state, asked.broker, &id, timeout_ms, expected)
}
