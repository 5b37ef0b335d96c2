//! Marker requests: the fillers of holes, and how their answers are judged.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::task::{Context, Poll};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{
    BrokerId, ListOffsetsRequest, ListOffsetsResponse, ProducerId, TopicName,
    WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};

use super::outcome::{finish, missing_answer, note_batch, note_fill, topic_name};
use super::{Answered, Item};
use crate::flow::error::Trouble;
use crate::flow::fillers::CLOSING;
use crate::flow::work::FillWork;
use crate::wire::{Connection, Metadata, Pending, WireError, is_other_topic};

/// The newest ListOffsets version that asks for nothing but the log end.
const LIST_OFFSETS_VERSION_MAX: i16 = 7;

/// The timestamp that stands for the log end (`ListOffsetsRequest.LATEST_TIMESTAMP`).
const LATEST: i64 = -1;

/// Several markers of one partition are answered as one: the broker merges their results by
/// producer id and partition, the last one winning (`KafkaApis.handleWriteTxnMarkersRequest`), so
/// a failure in the middle can hide. The log end, asked for right behind them on the same
/// connection, can't.
pub(super) struct MarkersPending {
    markers: Pending<WriteTxnMarkersResponse>,
    answer: Option<WriteTxnMarkersResponse>,
    ends: Option<Pending<ListOffsetsResponse>>,
}

impl Future for MarkersPending {
    type Output = Result<Answered, WireError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.answer.is_none() {
            self.answer = Some(std::task::ready!(
                Pin::new(&mut self.markers).poll(context)
            )?);
        }
        let ends = match &mut self.ends {
            Some(ends) => Some(std::task::ready!(Pin::new(ends).poll(context))?),
            None => None,
        };
        Poll::Ready(Ok(Answered::Markers(
            self.answer.take().unwrap_or_default(),
            ends,
        )))
    }
}

/// How many markers these are.
pub(super) fn count(items: &[Item]) -> u64 {
    let fills = items.iter().filter_map(|item| item.work.fill());
    fills
        .map(|fill| u64::try_from(fill.count).unwrap_or(0))
        .sum()
}

/// Which fillers share a request.
///
/// For a marker whose partition the broker doesn't host (any more) it only counts down; the answer is
/// sent by an append's callback that counts to zero, or at once if there was none. So a request whose
/// last partition is unknown is never answered if the appends before it were complete by then
/// (`KafkaApis.handleWriteTxnMarkersRequest`), and all behind it on the connection waits.
///
/// Where the leader is the only replica in sync an append is complete at once, so there a request is
/// for one topic: a topic that is deleted takes its own fillers' answer along at most. One for each
/// partition would halve the rate of a topic with many (64 partitions, one record to a filler).
/// With others in sync an append is complete after a way there and back, when all of the request was
/// looked at. There all share one, for the broker works on one request of a connection at a time: in
/// requests of their own, topics would wait for the replicas of those before them.
///
/// What is left (a topic that goes while it is worked on, an append that is refused at once, replicas
/// that fell out of sync just now) is found by [`waits_in_vain`].
pub(super) fn requests(items: Vec<Item>, target: &Metadata) -> Vec<Vec<Item>> {
    let (shared, alone): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| {
        let at = &item.partition.target;
        let found = target.partition(&at.topic, at.partition);
        found.is_some_and(|partition| partition.in_sync.len() > 1)
    });
    let mut by_topic: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for item in alone {
        let topic = item.partition.target.topic.clone();
        by_topic.entry(topic).or_default().push(item);
    }
    let shared = (!shared.is_empty()).then_some(shared);
    by_topic.into_values().chain(shared).collect()
}

/// Whether the broker hosts one of the partitions no longer: then it may never answer.
pub(super) fn waits_in_vain(items: &[Item], target: &Metadata, broker: i32) -> bool {
    items.iter().any(|item| {
        let at = &item.partition.target;
        let Some(topic) = target.topics.get(&at.topic) else {
            return true;
        };
        match topic.error {
            None => {}
            Some(error) => return error == ResponseError::UnknownTopicOrPartition,
        }
        let is_other = is_other_topic(item.partition.epochs.target_topic_id(), topic.topic_id);
        let partition = target.partition(&at.topic, at.partition);
        is_other || partition.is_none_or(|it| !it.replicas.contains(&broker))
    })
}

/// Sends the markers of one request. `epoch` is that of the claim.
pub(super) fn start(
    connection: &Connection,
    items: &[Item],
    epoch: i16,
) -> Result<MarkersPending, WireError> {
    let mut markers = Vec::new();
    for item in items {
        let Some(fill) = item.work.fill() else {
            continue;
        };
        let topic = WritableTxnMarkerTopic::default()
            .with_name(topic_name(&item.partition))
            .with_partition_indexes(vec![item.partition.target.partition]);
        let producers = item.partition.rules.producers;
        let to_close = item.partition.to_close();
        for number in 1..=fill.count {
            // The running number of the filler: a later filler refuses an earlier one that
            // was left behind in a dead connection, and a restart reads it back.
            // Never below the newest one, which would be refused: after a marker was lost
            // among its neighbours, the number is ahead of the count.
            let newest = i64::from(item.partition.newest_filler.unwrap_or(0));
            let running = (fill.fillers_before + number).max(newest) & 0x7fff_ffff;
            let (id, epoch) = match to_close {
                Some(former) if number == 1 => (former, CLOSING),
                _ => (producers.filler_id, epoch),
            };
            markers.push(
                WritableTxnMarker::default()
                    .with_producer_id(ProducerId(id))
                    .with_producer_epoch(epoch)
                    .with_transaction_result(false)
                    .with_coordinator_epoch(running as i32)
                    .with_topics(vec![topic.clone()]),
            );
        }
    }
    let markers = connection.start(&WriteTxnMarkersRequest::default().with_markers(markers), 1)?;
    let ends = match log_ends_request(items) {
        Some(request) => Some(connection.start(&request, LIST_OFFSETS_VERSION_MAX)?),
        None => None,
    };
    Ok(MarkersPending {
        markers,
        answer: None,
        ends,
    })
}

/// Asks for the log ends of the partitions that get more than one marker, and of those whose steps tell nothing
/// else of it.
pub(super) fn log_ends_request(items: &[Item]) -> Option<ListOffsetsRequest> {
    let several = |item: &&Item| {
        let is_due = item.partition.asks_end();
        item.work.fill().is_some_and(|fill| fill.count > 1) || is_due
    };
    let topics: Vec<ListOffsetsTopic> = items
        .iter()
        .filter(several)
        .map(|item| {
            let partition = ListOffsetsPartition::default()
                .with_partition_index(item.partition.target.partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(LATEST);
            ListOffsetsTopic::default()
                .with_name(topic_name(&item.partition))
                .with_partitions(vec![partition])
        })
        .collect();
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(topics);
    (!request.topics.is_empty()).then_some(request)
}

pub(super) fn settle(
    cluster: &str,
    items: Vec<Item>,
    response: WriteTxnMarkersResponse,
    ends: Option<ListOffsetsResponse>,
) {
    let mut answers: HashMap<(TopicName, i32), i16> = HashMap::with_capacity(items.len());
    for marker in response.markers {
        for topic in marker.topics {
            for partition in topic.partitions {
                let code = answers
                    .entry((topic.name.clone(), partition.partition_index))
                    .or_default();
                // An error stays, whichever marker it was.
                *code = if *code == 0 {
                    partition.error_code
                } else {
                    *code
                };
            }
        }
    }
    let mut log_ends: HashMap<(TopicName, i32), (i16, i64)> = HashMap::new();
    for topic in ends.into_iter().flat_map(|ends| ends.topics) {
        for partition in topic.partitions {
            let end = (partition.error_code, partition.offset);
            log_ends.insert((topic.name.clone(), partition.partition_index), end);
        }
    }
    for item in items {
        let Some(fill) = item.work.fill() else {
            continue;
        };
        let name = (topic_name(&item.partition), item.partition.target.partition);
        let result = check_fill(cluster, fill, answers.remove(&name), log_ends.remove(&name));
        finish(&item.partition, result.map(|()| note(&item, fill)));
    }
}

/// Behind markers that were refused batches may stand too low: what closed the partition is settled by its next opening.
fn note(item: &Item, fill: &FillWork) {
    let partition = &item.partition;
    for batch in item.work.batches() {
        if partition.is_closed() {
            return;
        }
        note_batch(partition, batch);
    }
    partition.note_step(item.work.batches());
    note_fill(partition, fill);
}

pub(super) fn check_fill(
    cluster: &str,
    fill: &FillWork,
    answer: Option<i16>,
    log_end: Option<(i16, i64)>,
) -> Result<(), Trouble> {
    let cluster = format!("target ({cluster})");
    let refused = |code: i16| {
        ResponseError::try_from_code(code).map(|code| Trouble::broker(&cluster, code, None))
    };
    if let Some(trouble) = answer.and_then(refused) {
        return Err(trouble);
    }
    if answer.is_none() {
        return Err(missing_answer(&cluster));
    }
    if fill.count == 1 && log_end.is_none() {
        return Ok(());
    }
    let expected = fill.target_base + fill.count;
    match log_end {
        None => Err(missing_answer(&cluster)),
        Some((code, _)) if code != 0 => {
            Err(refused(code).unwrap_or_else(|| missing_answer(&cluster)))
        }
        Some((_, end)) if end == expected => Ok(()),
        Some((_, end)) if end > expected => Err(Trouble::ForeignWrite {
            expected,
            found: end,
        }),
        Some((_, end)) => Err(Trouble::TargetBehind {
            high_watermark: end,
            written: expected,
        }),
    }
}
