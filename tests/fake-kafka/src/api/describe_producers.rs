//! DescribeProducers (KIP-664, `ReplicaManager.activeProducerState`).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use super::{Asked, Reply, Served, Subject, text};
use crate::acls::Operation;
use crate::producers::Producer;
use crate::state::State;

impl Served for DescribeProducersRequest {
    fn about(&self, _: &State) -> Vec<Subject> {
        let topics = self.topics.iter();
        topics
            .flat_map(|topic| topic.partition_indexes.iter().map(move |p| (topic, *p)))
            .map(|(topic, partition)| Subject::Partition(topic.name.to_string(), partition))
            .collect()
    }
}

pub(crate) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: DescribeProducersRequest,
) -> Reply {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|&partition| {
            let answer = PartitionResponse::default()
                .with_partition_index(partition)
                .with_error_message(None);
            match describe(state, asked, &topic.name, partition) {
                Ok(producers) => answer.with_active_producers(producers),
                Err(error) => answer
                    .with_error_code(error.code())
                    .with_error_message(Some(text(error.to_string()))),
            }
        });
        TopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    let topics = topics.collect();
    asked.send(&DescribeProducersResponse::default().with_topics(topics))
}

fn describe(
    state: &State,
    asked: &Asked<'_>,
    topic: &str,
    partition: i32,
) -> Result<Vec<ProducerState>, ResponseError> {
    if let Some(error) = asked.refused(topic, partition) {
        return Err(error);
    }
    state.check_topic(asked, Operation::Read, topic)?;
    let led = state.led(asked.broker, topic, partition, -1)?;
    let log = led.leader_log().expect("led by this broker");
    Ok(log
        .producers()
        .iter()
        .map(|(&id, producer)| described(id, producer))
        .collect())
}

fn described(id: i64, producer: &Producer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence())
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.open_since.unwrap_or(-1))
}
