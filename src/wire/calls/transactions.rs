//! Open transactions as their coordinators know them (KIP-664).
//!
//! A partition doesn't know of a transaction before its first record. Its coordinator does from `AddPartitionsToTxn`
//! on, and ends it with a marker in every partition that was added, with or without a record.
//!
//! Who isn't told DESCRIBE on a transactional id isn't told of it either: an empty answer is no proof.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{DescribeTransactionsRequest, ListTransactionsRequest};

use super::coordinators::{ask_all, context};
use super::groups::is_unsupported;
use super::partition::text;
use crate::wire::{Cluster, ErrorContext, Role, TopicPartition, WireError};

/// The coordinators' topic.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";
const LIST_VERSION_MAX: i16 = 1;
const DESCRIBE_VERSION_MAX: i16 = 0;
/// The states in which markers are to come (`org.apache.kafka.coordinator.transaction.TransactionState`).
const OPEN: [&str; 3] = ["Ongoing", "PrepareCommit", "PrepareAbort"];

/// What the coordinators of a cluster tell of open transactions.
#[derive(Clone, Debug, Default)]
pub struct OpenTransactions {
    /// The partitions that such a transaction has been told of, each with the id of one.
    pub partitions: BTreeMap<TopicPartition, String>,
    /// Why more may be known later: a coordinator still loads, has moved, or doesn't answer.
    pub not_yet: Vec<String>,
    /// Why more is never known here: a broker is too old to tell, or may not tell us.
    pub untold: Vec<String>,
}

impl OpenTransactions {
    fn lacks(&mut self, error: &WireError) {
        let is_refused = matches!(
            error.server_code(),
            Some(
                ResponseError::TransactionalIdAuthorizationFailed
                    | ResponseError::TopicAuthorizationFailed
                    | ResponseError::ClusterAuthorizationFailed
            )
        );
        match is_refused || is_unsupported(error) {
            true => self.untold.push(error.to_string()),
            false => self.not_yet.push(error.to_string()),
        }
    }

    fn add(&mut self, other: Self) {
        self.partitions.extend(other.partitions);
        self.not_yet.extend(other.not_yet);
        self.untold.extend(other.untold);
    }
}

/// The open transactions, as far as the cluster's brokers tell.
pub async fn open_transactions(cluster: &Cluster) -> OpenTransactions {
    let mut open = OpenTransactions::default();
    let asking = ask_all(
        cluster,
        (TRANSACTIONS_TOPIC, "ListTransactions"),
        |cluster, broker| async move { of_broker(&cluster, broker).await },
    );
    let told = match asking.await {
        Ok(told) => told,
        Err(error) => {
            open.lacks(&error);
            return open;
        }
    };
    told.answers.into_iter().for_each(|found| open.add(found));
    told.silent.iter().for_each(|error| open.lacks(error));
    // Nobody coordinates their transactions now, and somebody will.
    open.not_yet
        .extend(told.leaderless.known(TRANSACTIONS_TOPIC));
    open.untold
        .extend(told.leaderless.unknown(TRANSACTIONS_TOPIC));
    open
}

async fn of_broker(cluster: &Cluster, broker: i32) -> Result<OpenTransactions, WireError> {
    let connection = cluster.connection(broker, Role::Coordinator).await?;
    let states = OPEN.map(text).to_vec();
    let request = ListTransactionsRequest::default().with_state_filters(states);
    let listed = connection.call(request, LIST_VERSION_MAX).await?;
    let mut open = OpenTransactions::default();
    // A coordinator that still loads its partitions says so, and lists none (`TransactionStateManager.listTransactionStates`).
    if let Some(code) = ResponseError::try_from_code(listed.error_code) {
        let context = context(cluster, broker, "ListTransactions");
        open.lacks(&WireError::server(context, code, None));
    }
    let ids: Vec<_> = listed
        .transaction_states
        .into_iter()
        .map(|it| it.transactional_id)
        .collect();
    if ids.is_empty() {
        return Ok(open);
    }
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    let described = connection.call(request, DESCRIBE_VERSION_MAX).await?;
    for transaction in described.transaction_states {
        match ResponseError::try_from_code(transaction.error_code) {
            None => {}
            // It has come to its end in between, and has been forgotten.
            Some(ResponseError::TransactionalIdNotFound) => continue,
            Some(code) => {
                let context = ErrorContext {
                    subject: Some(transaction.transactional_id.to_string()),
                    ..context(cluster, broker, "DescribeTransactions")
                };
                open.lacks(&WireError::server(context, code, None));
                continue;
            }
        }
        // It may have come to its end in between.
        if !OPEN.contains(&transaction.transaction_state.as_str()) {
            continue;
        }
        for topic in transaction.topics {
            for partition in topic.partitions {
                let at = TopicPartition::new(topic.topic.as_str(), partition);
                let id = transaction.transactional_id.to_string();
                open.partitions.insert(at, id);
            }
        }
    }
    Ok(open)
}
