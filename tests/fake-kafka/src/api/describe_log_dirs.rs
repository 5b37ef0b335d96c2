//! DescribeLogDirs (`ReplicaManager.describeLogDirs`).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};

use super::{Asked, Reply, Served, text};
use crate::acls::Operation;
use crate::state::State;

/// Nobody fills this disk.
const TOTAL_BYTES: i64 = 1 << 40;

impl Served for DescribeLogDirsRequest {
    fn refuse(&self, error: ResponseError) -> Option<DescribeLogDirsResponse> {
        Some(DescribeLogDirsResponse::default().with_error_code(error.code()))
    }
}

pub(crate) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: DescribeLogDirsRequest,
) -> Reply {
    if let Err(error) = state.check_cluster(asked, Operation::Describe) {
        // Before version 3 there was nowhere to say so.
        let code = if asked.api_version >= 3 {
            error.code()
        } else {
            0
        };
        return asked.send(&DescribeLogDirsResponse::default().with_error_code(code));
    }
    let is_wanted = |name: &str, partition: i32| match &request.topics {
        None => true,
        Some(topics) => topics
            .iter()
            .any(|topic| topic.topic.as_str() == name && topic.partitions.contains(&partition)),
    };
    let mut topics = Vec::new();
    for (name, topic) in &state.topics {
        let mut partitions = Vec::new();
        for (&number, partition) in &topic.partitions {
            let Some(log) = partition.logs.get(&asked.broker) else {
                continue;
            };
            if is_wanted(name, number) {
                let lag = (log.high_watermark() - log.end_offset()).max(0);
                partitions.push(
                    DescribeLogDirsPartition::default()
                        .with_partition_index(number)
                        .with_partition_size(i64::try_from(log.size_bytes()).expect("fits"))
                        .with_offset_lag(lag),
                );
            }
        }
        if !partitions.is_empty() {
            topics.push(
                DescribeLogDirsTopic::default()
                    .with_name(TopicName(text(name)))
                    .with_partitions(partitions),
            );
        }
    }
    let result = DescribeLogDirsResult::default()
        .with_log_dir(text("/fake/kafka-logs"))
        .with_topics(topics)
        .with_total_bytes(TOTAL_BYTES)
        .with_usable_bytes(TOTAL_BYTES);
    asked.send(&DescribeLogDirsResponse::default().with_results(vec![result]))
}
