//! The sink side: one lane is one connection to one target broker.
//!
//! A lane takes the next batch of every partition that has work, one per partition and request
//! (`ProduceRequest.validateRecords` allows no more), and keeps several requests on the way. The
//! broker works on one request of a connection at a time, so a partition's batches are appended
//! in the order in which they were sent; that is why a partition never has two lanes.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, ListOffsetsResponse};
use kafka_protocol::messages::{
    ProduceRequest, ProduceResponse, ProducerId, TopicName, WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::claim::Fence;
use super::error::Trouble;
use super::partition::Partition;
use super::position::Producers;
use super::work::{BatchWork, FillWork, Form, Work};
use crate::offsets::{SourceOffset, TargetOffset};
use crate::telemetry::progress::now_ms;
use crate::wire::{Cluster, Connection, Pending, Role, WireError};

/// A request is closed when it holds this much; one larger batch still makes a request.
const REQUEST_BYTES: usize = 1024 * 1024;
/// Requests on the way per lane. What they may hold is bounded by the flow's byte budget.
const REQUESTS_IN_FLIGHT: usize = 32;
/// Markers per request and partition: 2,000 filled 100,000 offsets a second in the experiment.
const MARKERS_PER_REQUEST: i64 = 2_000;
/// The newest Produce version without topic ids; 12 and 13 only concern transactions and ids.
const PRODUCE_VERSION_MAX: i16 = 11;
/// The first flexible version, which the encoder below writes (Kafka 2.6 and later).
const PRODUCE_VERSION_MIN: i16 = 9;
/// The newest ListOffsets version that asks for nothing but the log end.
const LIST_OFFSETS_VERSION_MAX: i16 = 7;
/// The timestamp that stands for the log end (`ListOffsetsRequest.LATEST_TIMESTAMP`).
const LATEST: i64 = -1;
/// How long a broker may wait for its in-sync replicas, milliseconds.
const ACKS_TIMEOUT_MS: i32 = 20_000;

/// What a lane needs.
pub struct Lane {
    /// The target cluster.
    pub cluster: Cluster,
    /// The broker it writes to.
    pub broker: i32,
    /// Which of the broker's lanes this is.
    pub lane: u16,
    /// The flow's producer ids.
    pub producers: Producers,
    /// The right to write fillers.
    pub fence: Fence,
    /// Ends the lane.
    pub cancel: CancellationToken,
}

/// A request on its way.
struct Sent {
    answer: Answer,
    items: Vec<Item>,
}

enum Answer {
    Produce(Pending<ProduceResponse>),
    Markers(MarkersPending),
}

enum Answered {
    Produce(ProduceResponse),
    Markers(WriteTxnMarkersResponse, Option<ListOffsetsResponse>),
}

/// Several markers of one partition are answered as one: the broker merges their results by
/// producer id and partition, the last one winning (`KafkaApis.handleWriteTxnMarkersRequest`), so
/// a failure in the middle can hide. The log end, asked for right behind them on the same
/// connection, can't.
struct MarkersPending {
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

impl Future for Answer {
    type Output = Result<Answered, WireError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Produce(pending) => Pin::new(pending).poll(context).map_ok(Answered::Produce),
            Self::Markers(pending) => Pin::new(pending).poll(context),
        }
    }
}

struct Item {
    partition: Arc<Partition>,
    work: Work,
}

impl Lane {
    /// Runs until cancelled: then nothing new is sent, and what is on its way is waited for.
    pub async fn run(mut self, mut ready: mpsc::UnboundedReceiver<Arc<Partition>>) {
        let mut waiting: VecDeque<Arc<Partition>> = VecDeque::new();
        let mut in_flight: VecDeque<Sent> = VecDeque::new();
        loop {
            while in_flight.len() < REQUESTS_IN_FLIGHT
                && !waiting.is_empty()
                && !self.cancel.is_cancelled()
            {
                self.send_next(&mut waiting, &mut in_flight).await;
            }
            if self.cancel.is_cancelled() && in_flight.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                answer = front(&mut in_flight) => {
                    let Some(sent) = in_flight.pop_front() else { continue };
                    self.settle(sent.items, answer).await;
                }
                partition = ready.recv() => match partition {
                    Some(partition) => {
                        waiting.push_back(partition);
                        while let Ok(partition) = ready.try_recv() {
                            waiting.push_back(partition);
                        }
                    }
                    None if in_flight.is_empty() => return,
                    // Every partition is gone; only the answers are left to wait for.
                    None => self.drain(&mut in_flight).await,
                },
                () = self.cancel.cancelled(), if !self.cancel.is_cancelled() => {}
            }
        }
    }

    async fn drain(&self, in_flight: &mut VecDeque<Sent>) {
        while !in_flight.is_empty() {
            let answer = front(in_flight).await;
            if let Some(sent) = in_flight.pop_front() {
                self.settle(sent.items, answer).await;
            }
        }
    }

    /// Sends at most one produce and one marker request with what the waiting partitions have.
    async fn send_next(
        &mut self,
        waiting: &mut VecDeque<Arc<Partition>>,
        in_flight: &mut VecDeque<Sent>,
    ) {
        let (batches, fills) = collect(waiting);
        if batches.is_empty() && fills.is_empty() {
            return;
        }
        let connection = match self
            .cluster
            .connection(self.broker, Role::Produce(self.lane))
            .await
        {
            Ok(connection) => connection,
            Err(error) => {
                fail_all(batches.into_iter().chain(fills), &error);
                return;
            }
        };
        for (items, markers) in [(batches, false), (fills, true)] {
            if items.is_empty() {
                continue;
            }
            let started = if markers {
                let may_fill = self.fence.may_fill();
                if self.cancel.run_until_cancelled(may_fill).await.is_none() {
                    items.iter().for_each(|item| item.partition.answered());
                    continue;
                }
                self.start_markers(&connection, &items).map(Answer::Markers)
            } else {
                start_produce(&connection, &items).map(Answer::Produce)
            };
            match started {
                Ok(answer) => in_flight.push_back(Sent { answer, items }),
                Err(error) => fail_all(items, &error),
            }
        }
    }

    fn start_markers(
        &self,
        connection: &Connection,
        items: &[Item],
    ) -> Result<MarkersPending, WireError> {
        let mut markers = Vec::new();
        for item in items {
            let Work::Fill(fill) = &item.work else {
                continue;
            };
            let topic = WritableTxnMarkerTopic::default()
                .with_name(topic_name(&item.partition))
                .with_partition_indexes(vec![item.partition.target.partition]);
            for number in 1..=fill.count {
                // The running number of the filler: a later filler refuses an earlier one that
                // was left behind in a dead connection, and a restart reads it back.
                let running = (fill.fillers_before + number) & 0x7fff_ffff;
                markers.push(
                    WritableTxnMarker::default()
                        .with_producer_id(ProducerId(self.producers.filler_id))
                        .with_producer_epoch(0)
                        .with_transaction_result(false)
                        .with_coordinator_epoch(running as i32)
                        .with_topics(vec![topic.clone()]),
                );
            }
        }
        let markers =
            connection.start(&WriteTxnMarkersRequest::default().with_markers(markers), 1)?;
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

    async fn settle(&self, items: Vec<Item>, answer: Result<Answered, WireError>) {
        match answer {
            Ok(Answered::Produce(response)) => settle_produce(self.cluster.name(), items, response),
            Ok(Answered::Markers(response, ends)) => {
                settle_markers(self.cluster.name(), items, response, ends);
            }
            Err(error) => {
                self.cluster
                    .drop_connection(self.broker, Role::Produce(self.lane))
                    .await;
                fail_all(items, &error);
            }
        }
    }
}

/// The oldest request's answer; never resolves while there is none.
async fn front(in_flight: &mut VecDeque<Sent>) -> Result<Answered, WireError> {
    match in_flight.front_mut() {
        Some(sent) => (&mut sent.answer).await,
        None => std::future::pending().await,
    }
}

/// Takes one sendable piece of each waiting partition, up to a request's size. Partitions that
/// still have work stay in the list; the others leave it until they are scheduled again.
fn collect(waiting: &mut VecDeque<Arc<Partition>>) -> (Vec<Item>, Vec<Item>) {
    let (mut batches, mut fills) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..waiting.len() {
        if bytes >= REQUEST_BYTES {
            break;
        }
        let Some(partition) = waiting.pop_front() else {
            break;
        };
        match take(&partition) {
            Some(work @ Work::Fill(_)) => fills.push(Item {
                partition: partition.clone(),
                work,
            }),
            Some(Work::Batch(batch)) => {
                bytes += batch.size_bytes();
                batches.push(Item {
                    partition: partition.clone(),
                    work: Work::Batch(batch),
                });
            }
            Some(Work::Skip { .. }) | None => {
                // Nothing sendable now: an answer or new work schedules it again.
                partition.unschedule();
                if partition.has_work() && partition.unanswered() == 0 && !partition.is_closed() {
                    partition.schedule();
                }
                continue;
            }
        }
        waiting.push_back(partition);
    }
    (batches, fills)
}

/// The next sendable work; skipped offsets are settled on the way, long fills are cut.
fn take(partition: &Arc<Partition>) -> Option<Work> {
    loop {
        match partition.take_sendable()? {
            Work::Skip { source_next } => {
                let from = partition.progress.source_position.load(Ordering::Relaxed);
                let noted = partition.note_in_map(|map| {
                    let from = map.source_end().0.max(from);
                    map.push_hole(
                        SourceOffset(from),
                        u64::try_from(source_next - from).unwrap_or(0),
                    )
                });
                partition.answered();
                if noted.is_err() {
                    partition.fail(map_trouble(partition));
                    return None;
                }
                partition
                    .progress
                    .source_position
                    .store(source_next, Ordering::Relaxed);
            }
            Work::Batch(batch) if batch.target_base < partition.absorb_until => {
                if batch.target_base + batch.count > partition.absorb_until {
                    partition.fail(map_trouble(partition));
                } else {
                    note_batch(partition, &batch);
                }
                partition.answered();
            }
            Work::Fill(fill) if fill.count > MARKERS_PER_REQUEST => {
                let first = FillWork {
                    count: MARKERS_PER_REQUEST,
                    source_next: fill.source_next - (fill.count - MARKERS_PER_REQUEST),
                    ..fill
                };
                partition.push_front(Work::Fill(FillWork {
                    target_base: fill.target_base + MARKERS_PER_REQUEST,
                    count: fill.count - MARKERS_PER_REQUEST,
                    fillers_before: fill.fillers_before + MARKERS_PER_REQUEST,
                    source_next: fill.source_next,
                }));
                return Some(Work::Fill(first));
            }
            work => return Some(work),
        }
    }
}

fn map_trouble(partition: &Partition) -> Trouble {
    Trouble::MapMismatch {
        map_end: partition.map().map_or(-1, |map| map.target_end().0),
        log_end: partition.progress.target_position.load(Ordering::Relaxed),
    }
}

fn topic_name(partition: &Partition) -> TopicName {
    TopicName(StrBytes::from_string(partition.target.topic.clone()))
}

/// Writes the produce request by hand, so that the payload isn't copied: the body is a list of
/// slices that go to the socket as they are.
fn start_produce(
    connection: &Connection,
    items: &[Item],
) -> Result<Pending<ProduceResponse>, WireError> {
    let version =
        connection.version_at_least::<ProduceRequest>(PRODUCE_VERSION_MIN, PRODUCE_VERSION_MAX)?;
    connection.start_raw::<ProduceRequest>(version, encode_produce(items))
}

fn encode_produce(items: &[Item]) -> Vec<Bytes> {
    let mut order: Vec<&Item> = items.iter().collect();
    order.sort_by(|left, right| {
        left.partition
            .target
            .topic
            .cmp(&right.partition.target.topic)
    });
    let topics: Vec<&[&Item]> = order
        .chunk_by(|left, right| left.partition.target.topic == right.partition.target.topic)
        .collect();
    let mut segments = Vec::with_capacity(2 * items.len() + 2);
    let mut head = BytesMut::with_capacity(64);
    head.put_u8(0); // transactional_id: null
    head.put_i16(-1); // acks: all
    head.put_i32(ACKS_TIMEOUT_MS);
    put_count(&mut head, topics.len());
    for topic in topics {
        let name = topic[0].partition.target.topic.as_bytes();
        put_count(&mut head, name.len());
        head.put_slice(name);
        put_count(&mut head, topic.len());
        for item in topic {
            let Work::Batch(batch) = &item.work else {
                continue;
            };
            head.put_i32(item.partition.target.partition);
            put_count(&mut head, batch.size_bytes());
            segments.push(head.split().freeze());
            segments.push(batch.head.clone());
            if !batch.body.is_empty() {
                segments.push(batch.body.clone());
            }
            head.put_u8(0); // partition's tagged fields
        }
        head.put_u8(0); // topic's tagged fields
    }
    head.put_u8(0); // request's tagged fields
    segments.push(head.freeze());
    segments
}

/// A compact length: unsigned varint of `count + 1` (KIP-482).
fn put_count(out: &mut BytesMut, count: usize) {
    let mut rest = count as u64 + 1;
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

fn settle_produce(cluster: &str, items: Vec<Item>, response: ProduceResponse) {
    let mut answers: HashMap<(TopicName, i32), PartitionProduceResponse> =
        HashMap::with_capacity(items.len());
    for topic in response.responses {
        for partition in topic.partition_responses {
            answers.insert((topic.name.clone(), partition.index), partition);
        }
    }
    for item in items {
        let Work::Batch(batch) = &item.work else {
            continue;
        };
        let answer =
            answers.remove(&(topic_name(&item.partition), item.partition.target.partition));
        let result = match answer {
            Some(answer) => check_append(cluster, batch, answer),
            None => Err(missing_answer(cluster)),
        };
        finish(
            &item.partition,
            result.map(|()| note_batch(&item.partition, batch)),
        );
    }
}

fn check_append(
    cluster: &str,
    batch: &BatchWork,
    answer: PartitionProduceResponse,
) -> Result<(), Trouble> {
    if let Some(code) = ResponseError::try_from_code(answer.error_code) {
        let message = answer.error_message.map(|message| message.to_string());
        return Err(Trouble::broker(
            &format!("target ({cluster})"),
            code,
            message,
        ));
    }
    if answer.base_offset == batch.target_base {
        Ok(())
    } else {
        Err(Trouble::ForeignWrite {
            expected: batch.target_base,
            found: answer.base_offset,
        })
    }
}

fn missing_answer(cluster: &str) -> Trouble {
    Trouble::Broker {
        cluster: cluster.to_owned(),
        code: ResponseError::UnknownServerError,
        message: Some("the answer doesn't name the partition".to_owned()),
    }
}

/// Asks for the log ends of the partitions that get more than one marker.
fn log_ends_request(items: &[Item]) -> Option<ListOffsetsRequest> {
    let several = |item: &&Item| matches!(&item.work, Work::Fill(fill) if fill.count > 1);
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

fn settle_markers(
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
        let Work::Fill(fill) = &item.work else {
            continue;
        };
        let name = (topic_name(&item.partition), item.partition.target.partition);
        let result = check_fill(cluster, fill, answers.remove(&name), log_ends.remove(&name));
        finish(
            &item.partition,
            result.map(|()| note_fill(&item.partition, fill)),
        );
    }
}

fn check_fill(
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
    if fill.count == 1 {
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

/// Ends a piece of work: the barrier is lifted and the next piece gets its turn, or the
/// partition closes.
fn finish(partition: &Arc<Partition>, result: Result<(), Trouble>) {
    match result {
        Ok(()) => partition.lift_barrier(),
        Err(trouble) => partition.fail(trouble),
    }
    partition.answered();
    if partition.has_work() {
        partition.schedule();
    }
}

fn fail_all(items: impl IntoIterator<Item = Item>, error: &WireError) {
    for item in items {
        item.partition.fail(Trouble::Wire(error.clone()));
        item.partition.answered();
    }
}

fn note_batch(partition: &Arc<Partition>, batch: &BatchWork) {
    let progress = &partition.progress;
    let noted = partition.note_in_map(|map| {
        let count = u64::try_from(batch.count).unwrap_or(0);
        map.push_copied(
            SourceOffset(batch.source_base),
            TargetOffset(batch.target_base),
            count,
        )
    });
    if noted.is_err() {
        partition.fail(map_trouble(partition));
        return;
    }
    progress
        .source_position
        .store(batch.source_next, Ordering::Relaxed);
    progress
        .target_position
        .store(batch.target_base + batch.count, Ordering::Relaxed);
    progress
        .records
        .fetch_add(u64::try_from(batch.count).unwrap_or(0), Ordering::Relaxed);
    progress
        .bytes
        .fetch_add(batch.size_bytes() as u64, Ordering::Relaxed);
    progress
        .last_timestamp_ms
        .fetch_max(batch.max_timestamp_ms, Ordering::Relaxed);
    match batch.form {
        Form::Passed => progress.batches_passed.fetch_add(1, Ordering::Relaxed),
        Form::Coalesced { batches } => progress
            .batches_coalesced
            .fetch_add(u64::from(batches), Ordering::Relaxed),
        Form::Opened => progress.batches_opened.fetch_add(1, Ordering::Relaxed),
    };
    note_moved(partition);
}

fn note_fill(partition: &Arc<Partition>, fill: &FillWork) {
    let progress = &partition.progress;
    progress
        .source_position
        .store(fill.source_next, Ordering::Relaxed);
    progress
        .target_position
        .store(fill.target_base + fill.count, Ordering::Relaxed);
    progress
        .holes_filled
        .fetch_add(u64::try_from(fill.count).unwrap_or(0), Ordering::Relaxed);
    note_moved(partition);
}

fn note_moved(partition: &Partition) {
    let progress = &partition.progress;
    let now = now_ms();
    progress.progressed_at_ms.store(now, Ordering::Relaxed);
    if progress.lag_offsets() == 0 {
        progress.caught_up_at_ms.store(now, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_lengths_follow_kip_482() {
        for (count, expected) in [
            (0_usize, vec![1_u8]),
            (126, vec![127]),
            (127, vec![0x80, 1]),
            (300, vec![0xad, 2]),
        ] {
            let mut out = BytesMut::new();
            put_count(&mut out, count);
            assert_eq!(out.to_vec(), expected, "count {count}");
        }
    }
}
