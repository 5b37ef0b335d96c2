//! The brokers' log folders: what is in them, and how much room is left (KIP-827).
//!
//! Needs DESCRIBE on the cluster (`KafkaApis.handleDescribeLogDirsRequest`). Before version 3 a
//! broker that refuses answers with an empty list instead of an error.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::DescribeLogDirsRequest;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;

use super::partition::{TopicPartition, by_topic};
use crate::wire::{Cluster, ErrorContext, Pending, Role, WireError};

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

/// The log folders of every broker, with the sizes of these partitions. Asks once.
///
/// # Errors
/// Per broker, when it didn't answer or refuses.
pub async fn describe_log_dirs(
    cluster: &Cluster,
    partitions: &[TopicPartition],
) -> BTreeMap<i32, Result<Vec<LogDir>, WireError>> {
    let topics = by_topic(partitions, |it| it, |it| it.partition);
    let topics = topics.into_iter().map(|(name, partitions)| {
        DescribableLogDirTopic::default()
            .with_topic(name)
            .with_partitions(partitions)
    });
    let request = DescribeLogDirsRequest::default().with_topics(Some(topics.collect()));
    let brokers: Vec<i32> = cluster.cached().brokers.keys().copied().collect();
    // First everyone is asked, then everyone is listened to.
    let mut pending: BTreeMap<i32, Result<Pending<_>, WireError>> = BTreeMap::new();
    for broker in brokers {
        let started = match cluster.connection(broker, Role::Admin).await {
            Ok(connection) => connection.start(&request, VERSION_MAX),
            Err(error) => Err(error),
        };
        pending.insert(broker, started);
    }
    let mut answers = BTreeMap::new();
    for (broker, started) in pending {
        let response = match started {
            Ok(answer) => answer.await,
            Err(error) => Err(error),
        };
        let dirs = response.and_then(|response| {
            if let Some(code) = ResponseError::try_from_code(response.error_code) {
                return Err(refused(cluster, broker, code));
            }
            let dirs: Vec<LogDir> = response.results.into_iter().map(log_dir).collect();
            // A broker always has one.
            if dirs.is_empty() {
                let code = ResponseError::ClusterAuthorizationFailed;
                return Err(refused(cluster, broker, code));
            }
            Ok(dirs)
        });
        answers.insert(broker, dirs);
    }
    answers
}

fn log_dir(
    found: kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult,
) -> LogDir {
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
    let context = ErrorContext {
        broker: Some(broker),
        api: Some("DescribeLogDirs"),
        ..ErrorContext::cluster(cluster.name())
    };
    WireError::server(context, code, None)
}
