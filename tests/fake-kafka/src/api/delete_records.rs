//! DeleteRecords (`ReplicaManager.deleteRecords`, `Partition.deleteRecordsOnLeader`).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::{Asked, Reply, Served, Subject};
use crate::acls::Operation;
use crate::state::State;

/// Stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

impl Served for DeleteRecordsRequest {
    fn about(&self, _: &State) -> Vec<Subject> {
        let topics = self.topics.iter();
        topics
            .flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)))
            .map(|(topic, p)| Subject::Partition(topic.name.to_string(), p.partition_index))
            .collect()
    }
}

pub(crate) fn handle(state: &mut State, asked: &Asked<'_>, request: DeleteRecordsRequest) -> Reply {
    let mut topics = Vec::new();
    for topic in &request.topics {
        let mut partitions = Vec::new();
        for wanted in &topic.partitions {
            let answer = DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index)
                .with_low_watermark(-1);
            partitions.push(match delete(state, asked, &topic.name, wanted) {
                Ok(low_watermark) => answer.with_low_watermark(low_watermark),
                Err(error) => answer.with_error_code(error.code()),
            });
        }
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions),
        );
    }
    asked.send(&DeleteRecordsResponse::default().with_topics(topics))
}

fn delete(
    state: &mut State,
    asked: &Asked<'_>,
    topic: &str,
    wanted: &DeleteRecordsPartition,
) -> Result<i64, ResponseError> {
    let partition = wanted.partition_index;
    if let Some(error) = asked.refused(topic, partition) {
        return Err(error);
    }
    state.check_topic(asked, Operation::Delete, topic)?;
    if state.topics.get(topic).is_some_and(|topic| topic.internal) {
        return Err(ResponseError::InvalidTopicException);
    }
    let led = state.led(asked.broker, topic, partition, -1)?;
    if !state
        .topic_value(topic, asked.broker, "cleanup.policy")
        .contains("delete")
    {
        return Err(ResponseError::PolicyViolation);
    }
    let high_watermark = led
        .leader_log()
        .expect("led by this broker")
        .high_watermark();
    let offset = match wanted.offset {
        HIGH_WATERMARK => high_watermark,
        offset => offset,
    };
    if offset < 0 || offset > high_watermark {
        return Err(ResponseError::OffsetOutOfRange);
    }
    state.raise_log_start(topic, partition, offset);
    let led = state.led(asked.broker, topic, partition, -1)?;
    Ok(led.leader_log().expect("led by this broker").start_offset())
}
