//! InitProducerId without a transactional id (`TransactionCoordinator.handleInitProducerId`, `ProducerIdManager`).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{Asked, Reply, Served, Subject};
use crate::acls::{Operation, ResourceType};
use crate::hooks;
use crate::state::State;

impl Served for InitProducerIdRequest {
    fn about(&self, _: &State) -> Vec<Subject> {
        let id = self.transactional_id.as_ref();
        id.map(|id| Subject::TransactionalId(id.to_string()))
            .into_iter()
            .collect()
    }

    fn refuse(&self, error: ResponseError) -> Option<InitProducerIdResponse> {
        Some(refused(error))
    }
}

pub(crate) fn refused(error: ResponseError) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}

pub(crate) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: InitProducerIdRequest,
) -> Reply {
    if request.transactional_id.is_some() {
        return hooks::init_transactional(state, asked, &request);
    }
    let may = state.allows_on_cluster(asked, Operation::IdempotentWrite)
        || state
            .acls
            .allow_on_any(asked.principal, Operation::Write, ResourceType::Topic);
    if !may {
        return asked.send(&refused(ResponseError::ClusterAuthorizationFailed));
    }
    // Without a transactional id nothing is checked and every call gives a new id.
    let id = state.next_producer_id();
    asked.send(
        &InitProducerIdResponse::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(0),
    )
}
