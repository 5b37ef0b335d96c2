//! EndTxn (`TransactionCoordinator.handleEndTransaction`).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};

use super::{Asked, Reply, Subject, check, code_of, subject};
use crate::acls::Operation;
use crate::api::Served;
use crate::state::State;
use crate::transactions;

/// From here on the client has an epoch per transaction (KIP-890).
const EPOCH_PER_TRANSACTION_FROM: i16 = 5;

impl Served for EndTxnRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        subject(&self.transactional_id)
    }

    fn refuse(&self, error: ResponseError) -> Option<EndTxnResponse> {
        Some(EndTxnResponse::default().with_error_code(error.code()))
    }
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: EndTxnRequest,
) -> Reply {
    let bumps = asked.api_version >= EPOCH_PER_TRANSACTION_FROM;
    let ended = check(state, asked, Operation::Write, &request.transactional_id).and_then(|()| {
        let producer = (request.producer_id.0, request.producer_epoch);
        transactions::end(
            state,
            asked.broker,
            &request.transactional_id,
            producer,
            request.committed,
            bumps,
        )
    });
    let mut answer = EndTxnResponse::default().with_error_code(code_of(&ended, asked.api_version));
    if let (true, Ok((producer_id, epoch))) = (bumps, ended) {
        answer.producer_id = ProducerId(producer_id);
        answer.producer_epoch = epoch;
    }
    asked.send(&answer)
}
