//! Open transactions as their coordinators know them (KIP-664).
//!
//! A partition doesn't know of a transaction before its first record. Its coordinator does from `AddPartitionsToTxn`
//! on, and ends it with a marker in every partition that was added, with or without a record.
//!
//! Who isn't told DESCRIBE on a transactional id isn't told of it either: an empty answer is no proof.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{DescribeTransactionsRequest, ListTransactionsRequest};
use tokio::task::JoinSet;

use super::partition::text;
use crate::tasks::brought;
use crate::wire::{Cluster, ErrorContext, Role, TopicPartition, WireError};

const LIST_VERSION_MAX: i16 = 1;
const DESCRIBE_VERSION_MAX: i16 = 0;
const PATIENCE: Duration = Duration::from_secs(5);
/// The states in which markers are to come (`org.apache.kafka.coordinator.transaction.TransactionState`).
const OPEN: [&str; 3] = ["Ongoing", "PrepareCommit", "PrepareAbort"];

/// The partitions of open transactions, each with the id of one, as far as the cluster's brokers tell.
pub async fn open_transactions(cluster: &Cluster) -> BTreeMap<TopicPartition, String> {
    let brokers = cluster.cached();
    let mut asking = JoinSet::new();
    for broker in brokers.brokers.keys().copied() {
        let cluster = cluster.clone();
        asking.spawn(async move {
            match tokio::time::timeout(PATIENCE, of_broker(&cluster, broker)).await {
                Ok(answer) => answer,
                Err(_) => Err(WireError::Timeout {
                    context: Arc::new(ErrorContext {
                        broker: Some(broker),
                        api: Some("ListTransactions"),
                        ..ErrorContext::cluster(cluster.name())
                    }),
                    after: PATIENCE,
                }),
            }
        });
    }
    let mut open = BTreeMap::new();
    while let Some(answer) = asking.join_next().await {
        match brought(answer) {
            Ok(found) => open.extend(found),
            Err(error) => tracing::debug!(%error, "a broker doesn't tell of its transactions"),
        }
    }
    open
}

async fn of_broker(
    cluster: &Cluster,
    broker: i32,
) -> Result<BTreeMap<TopicPartition, String>, WireError> {
    let connection = cluster.connection(broker, Role::Coordinator).await?;
    let states = OPEN.map(text).to_vec();
    let request = ListTransactionsRequest::default().with_state_filters(states);
    let listed = connection.call(request, LIST_VERSION_MAX).await?;
    let ids: Vec<_> = listed
        .transaction_states
        .into_iter()
        .map(|it| it.transactional_id)
        .collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    let described = connection.call(request, DESCRIBE_VERSION_MAX).await?;
    let mut open = BTreeMap::new();
    for transaction in described.transaction_states {
        // It may have come to its end in between.
        if transaction.error_code != 0 || !OPEN.contains(&transaction.transaction_state.as_str()) {
            continue;
        }
        for topic in transaction.topics {
            for partition in topic.partitions {
                let at = TopicPartition::new(topic.topic.as_str(), partition);
                open.insert(at, transaction.transactional_id.to_string());
            }
        }
    }
    Ok(open)
}
