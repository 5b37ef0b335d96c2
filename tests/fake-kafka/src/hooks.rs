//! What the data path asks the transaction coordinator.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::InitProducerIdRequest;

use crate::api::{Asked, Reply, refused_producer};
use crate::state::State;

/// A transactional batch whose producer has no open transaction in the partition.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "without a coordinator nobody asks")]
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
    _state: &mut State,
    _asked: &Asked<'_>,
    _unverified: &Unverified<'_>,
) -> Result<bool, ResponseError> {
    Ok(false)
}

/// InitProducerId with a transactional id.
pub(crate) fn init_transactional(
    _state: &mut State,
    asked: &Asked<'_>,
    _request: &InitProducerIdRequest,
) -> Reply {
    asked.send(&refused_producer(ResponseError::CoordinatorNotAvailable))
}
