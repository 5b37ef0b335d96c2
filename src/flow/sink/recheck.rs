//! The last look before an opening's first filler: has a marker of a dead connection landed since
//! the position was read?
//!
//! Such a marker may carry the very number that comes next, and a broker refuses only lower ones
//! (`ProducerAppendInfo.checkCoordinatorEpoch`): both would be appended, one offset too many. Between
//! the reading and the first filler may lie hours. The leader is asked for the newest number on the
//! lane's own connection: what it tells is its log's true end, not the high watermark.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::PartitionResponse;
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, TopicName};

use super::Item;
use super::outcome::{missing_answer, topic_name};
use crate::flow::error::Trouble;
use crate::flow::partition::Partition;
use crate::flow::position::Producers;
use crate::flow::work::Work;
use crate::wire::{Connection, Pending, WireError};

/// Asks for the newest filler of each item's partition.
pub(super) fn start(
    connection: &Connection,
    items: &[Item],
) -> Result<Pending<DescribeProducersResponse>, WireError> {
    let mut topics: HashMap<TopicName, Vec<i32>> = HashMap::new();
    for item in items {
        let partition = item.partition.target.partition;
        topics
            .entry(topic_name(&item.partition))
            .or_default()
            .push(partition);
    }
    let topics = topics
        .into_iter()
        .map(|(name, indexes)| {
            TopicRequest::default()
                .with_name(name)
                .with_partition_indexes(indexes)
        })
        .collect();
    connection.start(&DescribeProducersRequest::default().with_topics(topics), 0)
}

/// Puts the fillers back to the front of their partitions, to be sent now, or closes a partition
/// whose log has moved.
pub(super) fn settle(cluster: &str, items: Vec<Item>, response: DescribeProducersResponse) {
    let cluster = format!("target ({cluster})");
    let ours: HashMap<(TopicName, i32), Producers> = items
        .iter()
        .map(|item| {
            let at = (topic_name(&item.partition), item.partition.target.partition);
            (at, item.partition.rules.producers)
        })
        .collect();
    let mut answers: HashMap<(TopicName, i32), Result<Option<i32>, Trouble>> = HashMap::new();
    for topic in response.topics {
        for answer in topic.partitions {
            let at = (topic.name.clone(), answer.partition_index);
            let newest = match ResponseError::try_from_code(answer.error_code) {
                None => Ok(ours.get(&at).and_then(|ours| newest(&answer, *ours))),
                Some(code) => {
                    let message = answer.error_message.map(|message| message.to_string());
                    Err(Trouble::broker(&cluster, code, message))
                }
            };
            answers.insert(at, newest);
        }
    }
    for item in items {
        let name = (topic_name(&item.partition), item.partition.target.partition);
        let newest = answers
            .remove(&name)
            .unwrap_or_else(|| Err(missing_answer(&cluster)));
        match newest.and_then(|newest| check(&item.partition, &item.work, newest)) {
            Ok(()) => {
                item.partition.note_rechecked();
                item.partition.push_front(item.work);
            }
            Err(trouble) => item.partition.fail(trouble),
        }
        item.partition.answered();
        item.partition.schedule();
    }
}

/// The running number of the newest filler that the leader knows.
fn newest(answer: &PartitionResponse, ours: Producers) -> Option<i32> {
    let producers = answer.active_producers.as_slice();
    let found = |id: i64| producers.iter().find(|it| it.producer_id.0 == id);
    let newest = ours.filler_ids().find_map(found);
    newest.map(|producer| producer.coordinator_epoch)
}

/// A number that has expired meanwhile (`producer.id.expiration.ms`) was not raised by anybody.
fn check(partition: &Arc<Partition>, work: &Work, newest: Option<i32>) -> Result<(), Trouble> {
    let (Some(newest), Work::Fill(fill)) = (newest, work) else {
        return Ok(());
    };
    let before = partition.newest_filler.unwrap_or(0);
    if newest == before {
        return Ok(());
    }
    Err(Trouble::LogEndDiffers {
        expected: fill.target_base,
        found: fill.target_base + i64::from(newest) - i64::from(before),
    })
}
