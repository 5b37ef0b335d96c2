//! ListTransactions and DescribeTransactions.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_transactions_response::{
    TopicData, TransactionState as Described,
};
use kafka_protocol::messages::list_transactions_response::TransactionState as Listed;
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
    ListTransactionsResponse, ProducerId, TopicName, TransactionalId,
};

use super::{Asked, Reply, Subject, check, text};
use crate::acls::{Operation, ResourceType};
use crate::api::Served;
use crate::state::State;
use crate::transactions::{self, Transaction};

/// `TransactionState.AllStates`.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

impl Served for ListTransactionsRequest {
    fn refuse(&self, error: ResponseError) -> Option<ListTransactionsResponse> {
        Some(ListTransactionsResponse::default().with_error_code(error.code()))
    }
}

impl Served for DescribeTransactionsRequest {
    fn about(&self, _state: &State) -> Vec<Subject> {
        let ids = self.transactional_ids.iter();
        ids.map(|id| Subject::TransactionalId(id.to_string()))
            .collect()
    }
}

/// `TransactionStateManager.listTransactionStates`. Patterns of names (version 2) aren't there.
pub(in crate::api) fn handle_list(
    state: &mut State,
    asked: &Asked<'_>,
    request: ListTransactionsRequest,
) -> Reply {
    let now_ms = state.now_ms;
    let wanted = |it: &Transaction| {
        let states = &request.state_filters;
        let producers = &request.producer_id_filters;
        let is_long = now_ms - it.started_at_ms > request.duration_filter;
        (states.is_empty() || states.iter().any(|name| name.as_str() == it.state.name()))
            && (producers.is_empty() || producers.contains(&ProducerId(it.producer_id)))
            && (asked.api_version < 1 || request.duration_filter < 0 || is_long)
    };
    let here = |id: &str| transactions::check_coordinator(state, asked.broker, id).is_ok();
    let all = state.transactions.all();
    let found = all.filter(|(id, it)| {
        here(id) && wanted(it) && check(state, asked, Operation::Describe, id).is_ok()
    });
    let listed = found.map(|(id, it)| {
        Listed::default()
            .with_transactional_id(TransactionalId(text(id.clone())))
            .with_producer_id(ProducerId(it.producer_id))
            .with_transaction_state(text(it.state.name()))
    });
    let unknown = request.state_filters.iter();
    let unknown = unknown.filter(|name| !STATES.contains(&name.as_str()));
    asked.send(
        &ListTransactionsResponse::default()
            .with_unknown_state_filters(unknown.cloned().collect())
            .with_transaction_states(listed.collect()),
    )
}

/// `TransactionCoordinator.handleDescribeTransactions`.
pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: DescribeTransactionsRequest,
) -> Reply {
    let ids = request.transactional_ids.iter();
    let states = ids.map(|id| {
        let described = describe(state, asked, id);
        let described =
            described.unwrap_or_else(|error| Described::default().with_error_code(error.code()));
        described.with_transactional_id(id.clone())
    });
    let states = states.collect();
    asked.send(&DescribeTransactionsResponse::default().with_transaction_states(states))
}

fn describe(state: &State, asked: &Asked<'_>, id: &str) -> Result<Described, ResponseError> {
    if let Some(error) = asked.refused_about(&Subject::TransactionalId(id.to_owned())) {
        return Err(error);
    }
    check(state, asked, Operation::Describe, id)?;
    if id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    transactions::check_coordinator(state, asked.broker, id)?;
    let found = state.transactions.get(id);
    let it = found.ok_or(ResponseError::TransactionalIdNotFound)?;
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, number) in &it.partitions {
        if state.allows(asked, Operation::Describe, ResourceType::Topic, topic) {
            topics.entry(topic).or_default().push(*number);
        }
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        TopicData::default()
            .with_topic(TopicName(text(topic)))
            .with_partitions(partitions)
    });
    Ok(Described::default()
        .with_producer_id(ProducerId(it.producer_id))
        .with_producer_epoch(it.epoch)
        .with_transaction_state(text(it.state.name()))
        .with_transaction_timeout_ms(it.timeout_ms)
        .with_transaction_start_time_ms(it.started_at_ms)
        .with_topics(topics.collect()))
}
