//! Reads ranges of many partitions of one side with one librdkafka consumer.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::board::{Board, Side, complete_to};
use super::client::Consumer;
use super::digest::{Hasher, RecordDigest, chunk_of, length};
use super::headers;
use super::limiter::Limiter;
use super::link::Link;
use super::progress::Progress;
use super::records::{Content, Read};
use super::scope::Strangers;
use crate::connect::Context;

/// A partition that gives nothing for so many times as long as an answer may take is given up. A log that was cut
/// within a batch, as an election of a replica that is behind may leave it, has no record up to its end, and its
/// leader never says so: whoever reads it waits for the next record.
pub(super) const STALL_ANSWERS: u32 = 2;
/// How long a reader rests when there is nothing to read, or it is ahead of the other side.
const REST: Duration = Duration::from_millis(2);
/// Records taken from one partition before the next one's turn.
const TURN: usize = 1_000;

/// librdkafka's side of the bound of memory: at most this much is fetched ahead of each partition
/// that is being read, and one fetch more. With [`OPEN_MAX`](super::board::OPEN_MAX) partitions
/// open that is about 50 MiB a side. Small ranges, of which more are open, have no more than a few records.
pub(super) const FETCH: [(&str, &str); 6] = [
    ("queued.max.messages.kbytes", "4096"),
    ("queued.min.messages", "20000"),
    ("fetch.message.max.bytes", "2097152"),
    ("fetch.max.bytes", "16777216"),
    // All that is asked for is there: who waits has read to the end of a log.
    ("fetch.wait.max.ms", "10"),
    ("fetch.queue.backoff.ms", "5"),
];

/// What a side is read with.
pub(super) struct Reader<'a> {
    pub side: Side,
    pub consumer: Consumer,
    /// After how long a partition that gives nothing is given up.
    pub stall: Duration,
    pub hasher: Hasher,
    pub limiter: &'a Limiter,
    pub progress: &'a Progress,
    /// Whether the progress counts this as part of the whole.
    pub counts: bool,
}

struct Range<C> {
    unit: usize,
    topic: String,
    partition: i32,
    link: Link,
    strangers: Arc<Strangers>,
    from: i64,
    to: i64,
    /// The last offset that was read or skipped.
    last: i64,
    queue: PartitionQueue<Context>,
    chunk: Option<(i64, C)>,
    moved_at: Instant,
    error: Option<String>,
}

impl<C> Range<C> {
    /// Whether a record is there that the other side never had.
    fn is_stranger(&self, side: Side, offset: i64) -> bool {
        let ranges = match side {
            Side::Source => &self.strangers.on_source,
            Side::Target => &self.strangers.on_target,
        };
        ranges
            .iter()
            .any(|(from, to)| (*from..*to).contains(&offset))
    }
}

enum Step {
    Goes,
    Done,
    Failed(String),
}

impl Reader<'_> {
    /// Reads everything on the board.
    pub(super) fn run<C: Content>(&self, board: &Board<'_, C>, make: &(dyn Fn(usize) -> C + Sync)) {
        let mut ranges: Vec<Range<C>> = Vec::new();
        let mut seen = 0;
        while !board.is_cancelled() {
            let version = board.version();
            if seen != version {
                seen = version;
                let Some(open) = board.open(self.side) else {
                    break;
                };
                // What the other side gave up isn't read any further.
                let (kept, gone): (Vec<Range<C>>, Vec<Range<C>>) = ranges
                    .into_iter()
                    .partition(|range| open.contains(&range.unit));
                ranges = kept;
                self.release(&gone);
                self.begin_all(board, open, &mut ranges);
            }
            if board.is_ahead(self.side) {
                std::thread::sleep(REST);
                // That nothing came was our own doing.
                ranges
                    .iter_mut()
                    .for_each(|range| range.moved_at = Instant::now());
                continue;
            }
            self.turn(board, &mut ranges, make);
        }
        self.release(&ranges);
    }

    /// Begins what isn't read yet, with one assignment for all: each is a round through librdkafka.
    fn begin_all<C: Content>(
        &self,
        board: &Board<'_, C>,
        open: Vec<usize>,
        ranges: &mut Vec<Range<C>>,
    ) {
        let known: HashSet<usize> = ranges.iter().map(|range| range.unit).collect();
        let mut begun = Vec::new();
        let mut list = TopicPartitionList::new();
        for unit in open.into_iter().filter(|unit| !known.contains(unit)) {
            match self.begin(board, unit, &mut list) {
                Ok(Some(range)) => begun.push(range),
                Ok(None) => board.deliver(self.side, unit, None, i64::MAX),
                Err(reason) => board.fail(unit, reason),
            }
        }
        if begun.is_empty() {
            return;
        }
        match self.consumer.incremental_assign(&list) {
            Ok(()) => ranges.extend(begun),
            Err(error) => {
                for range in begun {
                    board.fail(range.unit, error.to_string());
                }
            }
        }
    }

    fn begin<C>(
        &self,
        board: &Board<'_, C>,
        unit: usize,
        list: &mut TopicPartitionList,
    ) -> Result<Option<Range<C>>, String>
    where
        C: Content,
    {
        let place = &board.units[unit].place;
        let (topic, from, to) = board.units[unit].on(self.side);
        if from >= to {
            return Ok(None);
        }
        // Before the assignment, so that every message of it comes by this queue.
        let queue = self
            .consumer
            .split_partition_queue(topic, place.partition)
            .ok_or_else(|| format!("there is no partition {topic}-{}", place.partition))?;
        list.add_partition_offset(topic, place.partition, Offset::Offset(from))
            .map_err(|error| error.to_string())?;
        Ok(Some(Range {
            unit,
            topic: topic.to_owned(),
            partition: place.partition,
            link: place.link.clone(),
            strangers: place.strangers.clone(),
            from,
            to,
            last: from - 1,
            queue,
            chunk: None,
            moved_at: Instant::now(),
            error: None,
        }))
    }

    fn release<C>(&self, ranges: &[Range<C>]) {
        if ranges.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(ranges.len());
        for range in ranges {
            list.add_partition(&range.topic, range.partition);
        }
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::debug!(%error, "partitions could not be given back");
        }
    }

    fn turn<C: Content>(
        &self,
        board: &Board<'_, C>,
        ranges: &mut Vec<Range<C>>,
        make: &(dyn Fn(usize) -> C + Sync),
    ) {
        let mut bytes = 0;
        let mut index = 0;
        let (mut ended, mut ends) = (Vec::new(), Vec::new());
        while index < ranges.len() {
            let range = &mut ranges[index];
            match self.take(board, range, make, &mut bytes) {
                Step::Goes => index += 1,
                Step::Done => {
                    let mut range = ranges.swap_remove(index);
                    if self.counts {
                        let rest = (range.to.min(i64::MAX - 1) - 1 - range.last).max(0);
                        self.progress
                            .read_offsets
                            .fetch_add(rest, Ordering::Relaxed);
                    }
                    ends.push((range.unit, Ok(range.chunk.take())));
                    ended.push(range);
                }
                Step::Failed(reason) => {
                    let range = ranges.swap_remove(index);
                    ends.push((range.unit, Err(reason)));
                    ended.push(range);
                }
            }
        }
        // Before the board knows: the same partition may be begun again, with another range.
        self.release(&ended);
        for (unit, end) in ends {
            match end {
                Ok(chunk) => board.deliver(self.side, unit, chunk, i64::MAX),
                Err(reason) => board.fail(unit, reason),
            }
        }
        let wait = self.limiter.pay(bytes);
        if !wait.is_zero() {
            let until = Instant::now() + wait;
            while Instant::now() < until && !board.is_cancelled() {
                let left = until.saturating_duration_since(Instant::now());
                std::thread::sleep(left.min(Duration::from_millis(100)));
            }
            ranges
                .iter_mut()
                .for_each(|range| range.moved_at = Instant::now());
        }
        let rest = if bytes == 0 { REST } else { Duration::ZERO };
        // Serves what librdkafka has to say; messages come by the partitions' own queues.
        if let Some(Err(error)) = self.consumer.poll(rest) {
            let error = error.to_string();
            for range in ranges {
                range.error = Some(error.clone());
            }
        }
    }

    fn take<C: Content>(
        &self,
        board: &Board<'_, C>,
        range: &mut Range<C>,
        make: &(dyn Fn(usize) -> C + Sync),
        bytes: &mut u64,
    ) -> Step {
        let (before, mut records, mut taken_bytes) = (range.last, 0, 0);
        let mut step = Step::Goes;
        for _ in 0..TURN {
            let message = match range.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => message,
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    step = Step::Done;
                    break;
                }
                Some(Err(error)) => {
                    range.error = Some(error.to_string());
                    if is_final(&error) {
                        step = Step::Failed(error.to_string());
                        break;
                    }
                    continue;
                }
            };
            let offset = message.offset();
            if offset >= range.to {
                step = Step::Done;
                break;
            }
            // After its position was lost a consumer begins again at the log's start.
            if offset <= range.last || offset < range.from {
                continue;
            }
            range.last = offset;
            if range.is_stranger(self.side, offset) {
                continue;
            }
            let read = self.digest(&range.link, &message);
            records += 1;
            taken_bytes += read.bytes;
            let number = chunk_of(read.source_offset);
            if range.chunk.as_ref().is_none_or(|(open, _)| *open != number) {
                let full = range.chunk.replace((number, make(range.unit)));
                board.deliver(self.side, range.unit, full, complete_to(read.source_offset));
            }
            if let Some((_, content)) = &mut range.chunk {
                content.add(self.hasher, &read);
            }
            // Nothing is waited for behind the last one. (Where that is no record, the log's end tells.)
            if offset + 1 >= range.to {
                step = Step::Done;
                break;
            }
        }
        if range.last > before {
            range.moved_at = Instant::now();
            range.error = None;
        }
        *bytes += taken_bytes;
        self.progress
            .bytes
            .fetch_add(taken_bytes, Ordering::Relaxed);
        self.progress.records.fetch_add(records, Ordering::Relaxed);
        if self.counts {
            let offsets = range.last - before;
            self.progress
                .read_offsets
                .fetch_add(offsets, Ordering::Relaxed);
        }
        if matches!(step, Step::Goes) && range.moved_at.elapsed() > self.stall {
            let silent = || "no answer, or no record up to the log's end".to_owned();
            let why = range.error.take().unwrap_or_else(silent);
            let (seconds, next) = (self.stall.as_secs(), range.last + 1);
            return Step::Failed(format!(
                "nothing could be read from offset {next} on for {seconds} s: {why}"
            ));
        }
        step
    }

    fn digest(&self, link: &Link, message: &BorrowedMessage<'_>) -> Read {
        let hasher = self.hasher;
        let (key, value) = (message.key(), message.payload());
        let headers = headers::digest(hasher, message.headers());
        let offset = message.offset();
        let (source_offset, target_offset) = match self.side {
            Side::Source => (offset, link.target_of(offset)),
            Side::Target => (link.source_of(offset), Some(offset)),
        };
        let digest = RecordDigest {
            key: hasher.bytes(key),
            value: hasher.bytes(value),
            headers: headers.digest,
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
            key_bytes: length(key),
            value_bytes: length(value),
            header_count: headers.count,
        };
        let bytes = digest.key_bytes.max(0) + digest.value_bytes.max(0);
        Read {
            source_offset,
            target_offset,
            digest,
            bytes: bytes as u64 + headers.bytes,
            unreadable_headers: headers.unreadable,
        }
    }
}

/// Whether waiting can't help.
fn is_final(error: &KafkaError) -> bool {
    let KafkaError::MessageConsumption(code) = error else {
        return false;
    };
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
    )
}
