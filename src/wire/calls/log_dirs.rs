//! The brokers' log folders: what is in them, and how much room is left (KIP-827).
//!
//! Needs DESCRIBE on the cluster (`KafkaApis.handleDescribeLogDirsRequest`). Before version 3 a
//! broker that refuses answers with an empty list instead of an error.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::DescribeLogDirsRequest;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::partition::{TopicPartition, by_topic};
use crate::tasks::brought;
use crate::wire::{Cluster, ErrorContext, Role, WireError};

/// 4 tells the volume's size and its free space (Kafka 3.3); 5 adds nothing that is used here.
const VERSION_MAX: i16 = 4;

/// One log folder of one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    /// Its path on the broker.
    pub path: String,
    /// Why the broker can't use it, if so.
    pub error: Option<ResponseError>,
    /// Bytes of the logs that were asked for.
    pub log_bytes: u64,
    /// Bytes of its volume; absent where the broker doesn't tell.
    pub total_bytes: Option<u64>,
    /// Bytes that are free there; absent where the broker doesn't tell.
    pub usable_bytes: Option<u64>,
}

/// What a broker says of one of its folders.
type Told = kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult;

/// The log folders of every broker, with the sizes of these partitions. Asks once, and waits so long for all of them.
///
/// # Errors
/// Per broker, when it didn't answer or refuses.
pub async fn describe_log_dirs(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    patience: Duration,
) -> BTreeMap<i32, Result<Vec<LogDir>, WireError>> {
    let answers = ask_all(cluster, partitions, patience).await.into_iter();
    let read = |dirs: Vec<Told>| -> Vec<LogDir> { dirs.into_iter().map(log_dir).collect() };
    answers
        .map(|(broker, answer)| (broker, answer.map(read)))
        .collect()
}

/// How many bytes the largest replica of each of these partitions has, as far as brokers tell, and why some don't.
pub async fn partition_sizes(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    patience: Duration,
) -> (BTreeMap<TopicPartition, u64>, Vec<WireError>) {
    let (mut sizes, mut silent) = (BTreeMap::new(), Vec::new());
    for answer in ask_all(cluster, partitions, patience).await.into_values() {
        let dirs = answer.unwrap_or_else(|error| {
            silent.push(error);
            Vec::new()
        });
        for topic in dirs.iter().flat_map(|dir| &dir.topics) {
            for log in &topic.partitions {
                let at = TopicPartition::new(topic.name.as_str(), log.partition_index);
                let bytes = u64::try_from(log.partition_size).unwrap_or(0);
                let largest = sizes.entry(at).or_insert(0);
                *largest = bytes.max(*largest);
            }
        }
    }
    (sizes, silent)
}

async fn ask_all(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    patience: Duration,
) -> BTreeMap<i32, Result<Vec<Told>, WireError>> {
    let topics = by_topic(partitions, |it| it, |it| it.partition);
    let topics = topics.into_iter().map(|(name, partitions)| {
        DescribableLogDirTopic::default()
            .with_topic(name)
            .with_partitions(partitions)
    });
    let request = DescribeLogDirsRequest::default().with_topics(Some(topics.collect()));
    let request = Arc::new(request);
    let patience = cluster.or_longer(patience);
    // Side by side: one that hangs while it is connected to takes nobody else's time.
    let mut asking = JoinSet::new();
    for broker in cluster.cached().brokers.keys().copied() {
        let (cluster, request) = (cluster.clone(), request.clone());
        asking.spawn(async move {
            let answer = timeout(patience, ask(&cluster, broker, &request)).await;
            let late = |_| {
                Err(WireError::Timeout {
                    context: Arc::new(context(&cluster, broker)),
                    after: patience,
                })
            };
            (broker, answer.unwrap_or_else(late))
        });
    }
    let mut answers = BTreeMap::new();
    while let Some(answered) = asking.join_next().await {
        answers.extend([brought(answered)]);
    }
    answers
}

async fn ask(
    cluster: &Cluster,
    broker: i32,
    request: &DescribeLogDirsRequest,
) -> Result<Vec<Told>, WireError> {
    let connection = cluster.connection(broker, Role::Admin).await?;
    let response = connection.start(request, VERSION_MAX)?.await?;
    if let Some(code) = ResponseError::try_from_code(response.error_code) {
        return Err(refused(cluster, broker, code));
    }
    // A broker always has one.
    if response.results.is_empty() {
        let code = ResponseError::ClusterAuthorizationFailed;
        return Err(refused(cluster, broker, code));
    }
    Ok(response.results)
}

fn log_dir(found: Told) -> LogDir {
    let logs = found.topics.iter().flat_map(|topic| &topic.partitions);
    let sizes = logs.map(|log| u64::try_from(log.partition_size).unwrap_or(0));
    LogDir {
        path: found.log_dir.to_string(),
        error: ResponseError::try_from_code(found.error_code),
        log_bytes: sizes.fold(0, u64::saturating_add),
        total_bytes: u64::try_from(found.total_bytes).ok(),
        usable_bytes: u64::try_from(found.usable_bytes).ok(),
    }
}

fn refused(cluster: &Cluster, broker: i32, code: ResponseError) -> WireError {
    WireError::server(context(cluster, broker), code, None)
}

fn context(cluster: &Cluster, broker: i32) -> ErrorContext {
    ErrorContext {
        broker: Some(broker),
        api: Some("DescribeLogDirs"),
        ..ErrorContext::cluster(cluster.name())
    }
}
