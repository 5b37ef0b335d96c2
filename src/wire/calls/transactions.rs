//! Open transactions as their coordinators know them (KIP-664).
//!
//! A partition doesn't know of a transaction before its first record. Its coordinator does from `AddPartitionsToTxn`
//! on, and ends it with a marker in every partition that was added, with or without a record.
//!
//! Who isn't told DESCRIBE on a transactional id isn't told of it either: an empty answer is no proof.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{DescribeTransactionsRequest, ListTransactionsRequest};
use tokio::task::JoinSet;

use super::groups::is_unsupported;
use super::partition::text;
use crate::tasks::brought;
use crate::wire::{Cluster, ErrorContext, Role, TopicPartition, WireError};

/// The coordinators' topic.
const TRANSACTIONS_TOPIC: &str = "__transaction_state";
const LIST_VERSION_MAX: i16 = 1;
const DESCRIBE_VERSION_MAX: i16 = 0;
const PATIENCE: Duration = Duration::from_secs(5);
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
    let topic = [TRANSACTIONS_TOPIC.to_owned()];
    let metadata = match cluster.metadata(Some(&topic)).await {
        Ok(metadata) => metadata,
        Err(error) => {
            open.lacks(&error);
            return open;
        }
    };
    let partitions = metadata.topics.get(TRANSACTIONS_TOPIC);
    let partitions = partitions.map(|topic| topic.partitions.iter());
    // Nobody coordinates their transactions now, and somebody will.
    let leaderless = partitions.into_iter().flatten().filter(|it| it.leader < 0);
    match leaderless.count() {
        0 => {}
        count => open.not_yet.push(format!(
            "{count} partition(s) of {TRANSACTIONS_TOPIC} have no leader"
        )),
    }
    let mut asking = JoinSet::new();
    for broker in metadata.brokers.keys().copied() {
        let cluster = cluster.clone();
        asking.spawn(async move {
            match tokio::time::timeout(PATIENCE, of_broker(&cluster, broker)).await {
                Ok(answer) => answer,
                Err(_) => Err(WireError::Timeout {
                    context: Arc::new(context(&cluster, broker, "ListTransactions")),
                    after: PATIENCE,
                }),
            }
        });
    }
    while let Some(answer) = asking.join_next().await {
        match brought(answer) {
            Ok(found) => open.add(found),
            Err(error) => open.lacks(&error),
        }
    }
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

fn context(cluster: &Cluster, broker: i32, api: &'static str) -> ErrorContext {
    ErrorContext {
        broker: Some(broker),
        api: Some(api),
        ..ErrorContext::cluster(cluster.name())
    }
}
