//! ListOffsets (`KafkaApis.handleListOffsetRequest`, `Partition.fetchOffsetForTimestamp`).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::{Asked, Reply, Served, Subject};
use crate::acls::Operation;
use crate::log::Found;
use crate::state::State;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const LARGEST_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

impl Served for ListOffsetsRequest {
    fn about(&self, _: &State) -> Vec<Subject> {
        let topics = self.topics.iter();
        topics
            .flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)))
            .map(|(topic, p)| Subject::Partition(topic.name.to_string(), p.partition_index))
            .collect()
    }
}

pub(crate) fn handle(state: &mut State, asked: &Asked<'_>, request: ListOffsetsRequest) -> Reply {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let answer = ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_timestamp(-1)
                .with_offset(-1)
                .with_leader_epoch(-1);
            match find(state, asked, &request, &topic.name, wanted) {
                Ok(Some(found)) => answer
                    .with_timestamp(found.timestamp)
                    .with_offset(found.offset)
                    .with_leader_epoch(found.leader_epoch),
                Ok(None) => answer,
                Err(error) => answer.with_error_code(error.code()),
            }
        });
        ListOffsetsTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    let topics = topics.collect();
    asked.send(&ListOffsetsResponse::default().with_topics(topics))
}

fn find(
    state: &State,
    asked: &Asked<'_>,
    request: &ListOffsetsRequest,
    topic: &str,
    wanted: &ListOffsetsPartition,
) -> Result<Option<Found>, ResponseError> {
    if let Some(error) = asked.refused(topic, wanted.partition_index) {
        return Err(error);
    }
    state.check_topic(asked, Operation::Describe, topic)?;
    let partition = state.led(
        asked.broker,
        topic,
        wanted.partition_index,
        wanted.current_leader_epoch,
    )?;
    let log = partition.leader_log().expect("led by this broker");
    // Consumers see no further than this, and only consumers ask here.
    let end = if request.isolation_level == 1 {
        log.last_stable_offset()
    } else {
        log.high_watermark()
    };
    let at = |offset, epoch: Option<i32>| Found {
        timestamp: -1,
        offset,
        leader_epoch: epoch.unwrap_or(-1),
    };
    let visible = |found: &Found| found.offset < end;
    Ok(match wanted.timestamp {
        LATEST => Some(at(end, Some(partition.leader_epoch))),
        EARLIEST => Some(at(log.start_offset(), log.earliest_epoch())),
        EARLIEST_LOCAL => {
            let remote = partition.remote.map_or(0, |remote| remote.below);
            match log.start_offset().max(remote) {
                start if start == log.start_offset() => Some(at(start, log.earliest_epoch())),
                start => Some(at(start, log.epoch_before(start + 1))),
            }
        }
        LATEST_TIERED => Some(at(-1, None)),
        LARGEST_TIMESTAMP => log.with_largest_timestamp().filter(visible),
        timestamp => log.first_at_or_after(timestamp).filter(visible),
    })
}
