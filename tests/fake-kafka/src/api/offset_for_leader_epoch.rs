//! OffsetForLeaderEpoch (`Partition.lastOffsetForLeaderEpoch`).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::{Asked, Reply, Served, Subject};
use crate::acls::Operation;
use crate::state::State;

impl Served for OffsetForLeaderEpochRequest {
    fn about(&self, _: &State) -> Vec<Subject> {
        let topics = self.topics.iter();
        topics
            .flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)))
            .map(|(topic, p)| Subject::Partition(topic.topic.to_string(), p.partition))
            .collect()
    }
}

pub(crate) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: OffsetForLeaderEpochRequest,
) -> Reply {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let answer = EpochEndOffset::default()
                .with_partition(wanted.partition)
                .with_leader_epoch(-1)
                .with_end_offset(-1);
            match end(state, asked, &topic.topic, wanted) {
                Ok(Some((epoch, end))) => answer.with_leader_epoch(epoch).with_end_offset(end),
                Ok(None) => answer,
                Err(error) => answer.with_error_code(error.code()),
            }
        });
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic.clone())
            .with_partitions(partitions.collect())
    });
    let topics = topics.collect();
    asked.send(&OffsetForLeaderEpochResponse::default().with_topics(topics))
}

fn end(
    state: &State,
    asked: &Asked<'_>,
    topic: &str,
    wanted: &OffsetForLeaderPartition,
) -> Result<Option<(i32, i64)>, ResponseError> {
    if let Some(error) = asked.refused(topic, wanted.partition) {
        return Err(error);
    }
    state.check_topic(asked, Operation::Describe, topic)?;
    let partition = state.led(
        asked.broker,
        topic,
        wanted.partition,
        wanted.current_leader_epoch,
    )?;
    let log = partition.leader_log().expect("led by this broker");
    Ok(log.end_of_epoch(wanted.leader_epoch))
}
