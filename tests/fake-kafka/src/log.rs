//! One replica's log (`UnifiedLog`, `LogValidator`, `LeaderEpochFileCache`), in one segment.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;

use crate::batch::{self, HEADER_BYTES, Header, Marker, NO_TIMESTAMP, Record};
use crate::codec::Codec;
use crate::producers::Producer;

/// A batch that is in the log.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its header.
    pub header: Header,
    /// All of it.
    pub bytes: Bytes,
}

impl Stored {
    /// Of a batch whose offsets are set.
    pub fn new(bytes: Bytes) -> Self {
        let header = Header::read(&bytes).expect("a whole batch");
        Self { header, bytes }
    }

    /// Its records.
    pub fn records(&self) -> Result<Vec<Record>, ResponseError> {
        records_of(&self.header, &self.bytes)
    }
}

/// A transaction that was aborted, as readers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// Who began it.
    pub producer_id: i64,
    /// Where.
    pub first_offset: i64,
    /// Where its marker is.
    pub last_offset: i64,
    /// The last stable offset when it ended.
    last_stable_offset: i64,
}

/// The rules of a topic for what is appended.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `max.message.bytes`.
    pub max_batch_bytes: usize,
    /// `compression.type`; none is `producer`.
    pub codec: Option<Codec>,
    /// `cleanup.policy` has `compact`.
    pub compacted: bool,
    /// `message.timestamp.type=LogAppendTime`.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub after_max_ms: i64,
}

impl Default for Rules {
    /// A topic without configs.
    fn default() -> Self {
        Self {
            max_batch_bytes: 1_048_588,
            codec: None,
            compacted: false,
            log_append_time: false,
            before_max_ms: i64::MAX,
            after_max_ms: 3_600_000,
        }
    }
}

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its first offset.
    pub first_offset: i64,
    /// Its last offset.
    pub last_offset: i64,
    /// The broker's time, if the topic has it so; or -1.
    pub log_append_time: i64,
}

/// Why a batch was not appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The code.
    pub error: ResponseError,
    /// For people.
    pub message: String,
    /// Which records, and why.
    pub records: Vec<(i32, String)>,
}

impl Rejected {
    fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self {
            error,
            message: message.into(),
            records: Vec::new(),
        }
    }
}

/// A replica's log.
#[derive(Debug, Clone, Default)]
pub struct Log {
    batches: VecDeque<Stored>,
    start_offset: i64,
    end_offset: i64,
    high_watermark: i64,
    epochs: Vec<(i32, i64)>,
    producers: BTreeMap<i64, Producer>,
    /// First offset of each open transaction, and whose it is.
    open: BTreeMap<i64, i64>,
    /// First and last offset of ended transactions that the high watermark has not passed.
    unreplicated: BTreeMap<i64, i64>,
    aborted: Vec<Aborted>,
}

impl Log {
    /// The first offset that can be read.
    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// The next offset.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// What all in-sync replicas have.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// All batches that are still there.
    pub fn batches(&self) -> impl DoubleEndedIterator<Item = &Stored> {
        self.batches.iter()
    }

    /// All bytes that are still there.
    pub fn size_bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.bytes.len()).sum()
    }

    /// By id.
    pub fn producers(&self) -> &BTreeMap<i64, Producer> {
        &self.producers
    }

    /// Whether this producer has a transaction open here.
    pub fn has_open_transaction(&self, producer_id: i64, epoch: i16) -> bool {
        self.producers
            .get(&producer_id)
            .is_some_and(|producer| producer.open_since.is_some() && producer.epoch == epoch)
    }

    /// Where readers of committed records must stop (`UnifiedLog.fetchLastStableOffsetMetadata`).
    pub fn last_stable_offset(&self) -> i64 {
        let open = self.open.keys().next();
        let unreplicated = self.unreplicated.keys().next();
        let first_unstable = open.into_iter().chain(unreplicated).min();
        first_unstable.map_or(self.high_watermark, |&offset| {
            offset.max(self.start_offset).min(self.high_watermark)
        })
    }

    /// Appends what a client sent.
    pub fn append(
        &mut self,
        batch: &Bytes,
        rules: &Rules,
        leader_epoch: i32,
        now_ms: i64,
        transactions_v2: bool,
    ) -> Result<Appended, Rejected> {
        let header = check_batch(batch, rules)?;
        let stamped = stamp(batch, &header, rules, leader_epoch, self.end_offset, now_ms)?;
        if let Some(duplicate) = self.duplicate(&header) {
            return Ok(duplicate);
        }
        if header.has_producer() {
            self.producer(header.producer_id)
                .check_data(&header, transactions_v2)
                .map_err(|error| {
                    Rejected::new(
                        error,
                        format!(
                            "producer {} epoch {} sequence {}",
                            header.producer_id, header.producer_epoch, header.base_sequence
                        ),
                    )
                })?;
        }
        let stored = Stored::new(stamped);
        let appended = Appended {
            first_offset: stored.header.base_offset,
            last_offset: stored.header.last_offset(),
            log_append_time: if rules.log_append_time {
                now_ms
            } else {
                NO_TIMESTAMP
            },
        };
        self.push(stored);
        Ok(appended)
    }

    /// The timestamp of a duplicate is answered as its append time, whatever the topic's type (`UnifiedLog.append`).
    fn duplicate(&self, header: &Header) -> Option<Appended> {
        if !header.has_producer() {
            return None;
        }
        let duplicate = self.producers.get(&header.producer_id)?.duplicate(header)?;
        Some(Appended {
            first_offset: duplicate.first_offset,
            last_offset: duplicate.last_offset,
            log_append_time: duplicate.timestamp,
        })
    }

    /// Appends the end of a transaction, whether there is one or not.
    pub fn append_marker(
        &mut self,
        marker: Marker,
        producer_id: i64,
        producer_epoch: i16,
        rules: &Rules,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, ResponseError> {
        self.producer(producer_id)
            .check_marker(marker, producer_epoch)?;
        let batch = marker.batch(producer_id, producer_epoch, now_ms, leader_epoch);
        let header = Header::read(&batch)
            .expect("just made")
            .with_log_append_time(rules.log_append_time);
        let header = Header {
            base_offset: self.end_offset,
            ..header
        };
        self.push(Stored::new(header.seal(&batch[HEADER_BYTES..])));
        Ok(Appended {
            first_offset: header.base_offset,
            last_offset: header.base_offset,
            log_append_time: if rules.log_append_time {
                now_ms
            } else {
                NO_TIMESTAMP
            },
        })
    }

    /// Appends what the leader has (`UnifiedLog.appendAsFollower`): nothing is checked.
    pub fn replicate(&mut self, stored: &Stored) {
        self.push(stored.clone());
    }

    fn producer(&self, id: i64) -> Producer {
        self.producers
            .get(&id)
            .cloned()
            .unwrap_or_else(Producer::unknown)
    }

    fn push(&mut self, stored: Stored) {
        self.assign_epoch(stored.header.leader_epoch, stored.header.base_offset);
        self.end_offset = stored.header.last_offset() + 1;
        self.note(&stored);
        self.batches.push_back(stored);
    }

    /// Brings producers and transactions up to date with a batch.
    fn note(&mut self, stored: &Stored) {
        let header = &stored.header;
        if !header.has_producer() {
            return;
        }
        if header.is_control() {
            self.note_marker(stored);
            return;
        }
        let producer = self
            .producers
            .entry(header.producer_id)
            .or_insert_with(Producer::unknown);
        producer.note_data(header);
        if let Some(first_offset) = producer.open_since {
            self.open.insert(first_offset, header.producer_id);
        }
    }

    fn note_marker(&mut self, stored: &Stored) {
        let header = &stored.header;
        let Some(marker) = Marker::read(&stored.bytes) else {
            return;
        };
        let producer = self
            .producers
            .entry(header.producer_id)
            .or_insert_with(Producer::unknown);
        let ended = producer.note_marker(marker, header.producer_epoch, header.max_timestamp);
        let Some(first_offset) = ended else {
            return;
        };
        self.open.remove(&first_offset);
        if !marker.commit {
            let next_open = self.open.keys().next();
            self.aborted.push(Aborted {
                producer_id: header.producer_id,
                first_offset,
                last_offset: header.base_offset,
                last_stable_offset: next_open.map_or(header.base_offset + 1, |&offset| offset),
            });
        }
        self.unreplicated.insert(first_offset, header.base_offset);
    }

    /// Moves the high watermark forward, never back.
    pub fn raise_high_watermark(&mut self, offset: i64) -> bool {
        let raised = offset.min(self.end_offset);
        if raised <= self.high_watermark {
            return false;
        }
        self.high_watermark = raised;
        // `ProducerStateManager.onHighWatermarkUpdated`.
        self.unreplicated
            .retain(|_, last_offset| *last_offset >= raised);
        true
    }

    /// Notes that an epoch begins here (`LeaderEpochFileCache.assign`).
    pub fn assign_epoch(&mut self, epoch: i32, start_offset: i64) {
        if epoch < 0 {
            return;
        }
        let news = self
            .epochs
            .last()
            .is_none_or(|&(latest, start)| epoch != latest || start_offset < start);
        if news {
            self.epochs
                .retain(|&(e, start)| e < epoch && start < start_offset);
            self.epochs.push((epoch, start_offset));
        }
    }

    /// The newest epoch that has records, or that was begun.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.last().map(|&(epoch, _)| epoch)
    }

    /// The epoch of the log's first offset, if it is known.
    pub fn earliest_epoch(&self) -> Option<i32> {
        let &(epoch, start) = self.epochs.first()?;
        (start <= self.start_offset).then_some(epoch)
    }

    /// The largest epoch up to the requested one, and where it ends; `None` if it isn't known (`LeaderEpochFileCache.endOffsetFor`).
    pub fn end_of_epoch(&self, requested: i32) -> Option<(i32, i64)> {
        if self.latest_epoch()? == requested {
            return Some((requested, self.end_offset));
        }
        let &(_, end) = self.epochs.iter().find(|&&(epoch, _)| epoch > requested)?;
        let floor = self.epochs.iter().rev().find(|&&(e, _)| e <= requested);
        Some((floor.map_or(requested, |&(epoch, _)| epoch), end))
    }

    /// The epoch of the last record below `offset`.
    pub fn epoch_before(&self, offset: i64) -> Option<i32> {
        let before = self.epochs.iter().rev().find(|&&(_, start)| start < offset);
        before.map(|&(epoch, _)| epoch)
    }

    /// A hole at the leader's end, left by the cleaner, is one here, too.
    pub fn advance_end(&mut self, offset: i64) {
        self.end_offset = self.end_offset.max(offset);
    }

    /// Whole batches from the one that holds `offset`, cut off at `max_bytes` (`LocalLog.read`). At least one if `at_least_one`.
    pub fn read(&self, offset: i64, below: i64, max_bytes: usize, at_least_one: bool) -> Read {
        let from = self
            .batches
            .partition_point(|stored| stored.header.last_offset() < offset);
        let mut bytes = BytesMut::new();
        let mut next_offset = offset;
        let mut limit = max_bytes;
        for stored in self.batches.range(from..) {
            if stored.header.base_offset >= below {
                break;
            }
            if bytes.is_empty() && at_least_one {
                limit = limit.max(stored.bytes.len());
            }
            let room = limit - bytes.len();
            bytes.extend_from_slice(&stored.bytes[..stored.bytes.len().min(room)]);
            next_offset = stored.header.last_offset() + 1;
            if bytes.len() >= limit {
                break;
            }
        }
        Read {
            bytes: bytes.freeze(),
            next_offset,
        }
    }

    /// Aborted transactions that touch what was read (`TransactionIndex.collectAbortedTxns`).
    pub fn aborted(&self, from: i64, below: i64) -> Vec<Aborted> {
        let mut found = Vec::new();
        for aborted in &self.aborted {
            if aborted.last_offset >= from && aborted.first_offset < below {
                found.push(*aborted);
            }
            if aborted.last_stable_offset >= below {
                break;
            }
        }
        found
    }

    /// The first record with this timestamp or a later one, wherever it is in its batch; markers count (`FileRecords.searchForTimestamp`).
    pub fn first_at_or_after(&self, timestamp: i64) -> Option<Found> {
        self.batches
            .iter()
            .filter(|stored| stored.header.max_timestamp >= timestamp)
            .find_map(|stored| {
                self.find_in(stored, |record_timestamp, offset| {
                    record_timestamp >= timestamp && offset >= self.start_offset
                })
            })
    }

    /// The first record with the largest timestamp.
    pub fn with_largest_timestamp(&self) -> Option<Found> {
        let largest = self.batches.iter().map(|s| s.header.max_timestamp).max()?;
        let stored = self
            .batches
            .iter()
            .find(|stored| stored.header.max_timestamp == largest)?;
        self.find_in(stored, |timestamp, _| timestamp == largest)
    }

    fn find_in(&self, stored: &Stored, wanted: impl Fn(i64, i64) -> bool) -> Option<Found> {
        let header = &stored.header;
        let records = stored.records().ok()?;
        records.iter().find_map(|record| {
            let timestamp = timestamp_of(header, record);
            let offset = header.base_offset + i64::from(record.offset_delta);
            wanted(timestamp, offset).then_some(Found {
                timestamp,
                offset,
                leader_epoch: header.leader_epoch,
            })
        })
    }

    /// Gives up what is below `offset` (`UnifiedLog.maybeIncrementLogStartOffset`). Producers are not forgotten with it.
    pub fn raise_start(&mut self, offset: i64) {
        if offset <= self.start_offset {
            return;
        }
        self.start_offset = offset;
        self.end_offset = self.end_offset.max(offset);
        self.high_watermark = self.high_watermark.max(offset);
        // The batch that holds the offset stays whole.
        self.batches
            .retain(|stored| stored.header.last_offset() >= offset);
        self.unreplicated
            .retain(|_, last_offset| *last_offset >= offset);
        // `LeaderEpochFileCache.truncateFromStart`.
        if let Some(at) = self.epochs.iter().rposition(|&(_, start)| start <= offset) {
            self.epochs.drain(..at);
            self.epochs[0].1 = self.epochs[0].1.max(offset);
        }
    }

    /// Takes back everything from `offset` on. What is known of producers is read from the records that are left.
    pub fn truncate(&mut self, offset: i64) {
        if offset >= self.end_offset {
            return;
        }
        // The batch that holds the offset goes whole, but the log ends at the offset (`LocalLog.truncateTo`).
        self.batches
            .retain(|stored| stored.header.last_offset() < offset);
        self.start_offset = self.start_offset.min(offset);
        self.end_offset = offset;
        self.high_watermark = self.high_watermark.min(self.end_offset);
        self.epochs.retain(|&(_, start)| start < offset);
        self.reload_producers();
    }

    fn reload_producers(&mut self) {
        self.producers.clear();
        self.open.clear();
        self.unreplicated.clear();
        self.aborted.clear();
        for stored in self.batches.clone() {
            self.note(&stored);
        }
        let high_watermark = self.high_watermark;
        self.unreplicated
            .retain(|_, last_offset| *last_offset >= high_watermark);
    }

    /// Forgets a producer.
    pub fn forget_producer(&mut self, id: i64) -> bool {
        self.producers.remove(&id).is_some()
    }

    /// `ProducerStateManager.removeExpiredProducers`; says how many.
    pub fn expire_producers(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers
            .retain(|_, producer| !producer.is_expired(now_ms, expiration_ms));
        before - self.producers.len()
    }

    /// Puts other batches in the place of those that are there, as the cleaner does. Offsets stay.
    pub fn replace_batches(&mut self, batches: impl IntoIterator<Item = Stored>) {
        self.batches = batches.into_iter().collect();
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Batches; the last one may be cut off.
    pub bytes: Bytes,
    /// After the last batch that was read, whole or not.
    pub next_offset: i64,
}

/// A record found by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The record's.
    pub timestamp: i64,
    /// The record's.
    pub offset: i64,
    /// The batch's.
    pub leader_epoch: i32,
}

fn timestamp_of(header: &Header, record: &Record) -> i64 {
    if header.is_log_append_time() {
        header.max_timestamp
    } else {
        header.base_timestamp + record.timestamp_delta
    }
}

fn records_of(header: &Header, bytes: &Bytes) -> Result<Vec<Record>, ResponseError> {
    let codec = Codec::from_number(header.codec()).ok_or(ResponseError::InvalidRecord)?;
    let records = codec
        .decompress(&bytes.slice(HEADER_BYTES..))
        .ok_or(ResponseError::CorruptMessage)?;
    batch::read_records(records, header.count).map_err(|_| ResponseError::InvalidRecord)
}

/// What is checked before the log is touched (`UnifiedLog.analyzeAndValidateRecords`), in this order.
fn check_batch(batch: &Bytes, rules: &Rules) -> Result<Header, Rejected> {
    let header = Header::read(batch)
        .ok_or_else(|| Rejected::new(ResponseError::CorruptMessage, "the batch is too short"))?;
    if header.base_offset != 0 {
        return Err(Rejected::new(
            ResponseError::InvalidRecord,
            format!(
                "the batch's base offset should be 0, but is {}",
                header.base_offset
            ),
        ));
    }
    if batch.len() > rules.max_batch_bytes {
        return Err(Rejected::new(
            ResponseError::MessageTooLarge,
            format!(
                "the batch has {} bytes, more than the {} allowed",
                batch.len(),
                rules.max_batch_bytes
            ),
        ));
    }
    if !batch::is_valid(batch) {
        return Err(Rejected::new(
            ResponseError::CorruptMessage,
            "the batch's checksum is wrong",
        ));
    }
    Ok(header)
}

/// `LogValidator.validateBatch`.
fn check_header(header: &Header) -> Result<(), Rejected> {
    let invalid = |message: &str| Err(Rejected::new(ResponseError::InvalidRecord, message));
    if header.last_offset_delta < 0 || header.count <= 0 {
        return invalid("the batch has no records");
    }
    if header.last_offset_delta + 1 != header.count {
        return invalid("the batch's offsets and its count of records differ");
    }
    if header.is_control() {
        return invalid("clients are not allowed to write control records");
    }
    if header.has_producer() && header.base_sequence < 0 {
        return invalid("a batch of a producer must have a sequence");
    }
    Ok(())
}

/// Checks the records and gives the batch its place in the log (`LogValidator.validateMessagesAndAssignOffsets`).
fn stamp(
    batch: &Bytes,
    header: &Header,
    rules: &Rules,
    leader_epoch: i32,
    offset: i64,
    now_ms: i64,
) -> Result<Bytes, Rejected> {
    check_header(header)?;
    let source = Codec::from_number(header.codec()).ok_or_else(|| {
        Rejected::new(
            ResponseError::UnsupportedCompressionType,
            "an unknown codec",
        )
    })?;
    let target = rules.codec.unwrap_or(source);
    let records = records_of(header, batch)
        .map_err(|error| Rejected::new(error, "the batch's records can't be read"))?;
    check_records(header, &records, rules, now_ms)?;
    let compressed = source != Codec::None || target != Codec::None;
    let in_order = records.iter().zip(0..).all(|(r, n)| r.offset_delta == n);
    let in_place = source == target && (in_order || !compressed);
    if source == target && !in_place {
        // The broker means to write the batch anew, but has skipped its keys: `PartialDefaultRecord` throws.
        return Err(Rejected::new(
            ResponseError::UnknownServerError,
            "key is skipped in PartialDefaultRecord",
        ));
    }
    let max_timestamp = records.iter().map(|r| timestamp_of(header, r)).max();
    let placed = Header {
        base_offset: offset,
        leader_epoch,
        max_timestamp: if rules.log_append_time {
            now_ms
        } else {
            max_timestamp.unwrap_or(NO_TIMESTAMP)
        },
        ..*header
    }
    .with_log_append_time(rules.log_append_time);
    if in_place {
        return Ok(placed.seal(&batch[HEADER_BYTES..]));
    }
    Ok(rebuild(&placed, &records, target))
}

/// The same records with another codec (`LogValidator.buildRecordsAndAssignOffsets`).
fn rebuild(header: &Header, records: &[Record], codec: Codec) -> Bytes {
    let numbered: Vec<Record> = records
        .iter()
        .zip(0..)
        .map(|(record, offset_delta)| Record {
            offset_delta,
            ..record.clone()
        })
        .collect();
    let bytes = codec.compress(&batch::write_records(&numbered));
    header.with_codec(codec.number()).seal(&bytes)
}

/// `LogValidator.validateRecord`: one bad record, and the whole batch is refused.
fn check_records(
    header: &Header,
    records: &[Record],
    rules: &Rules,
    now_ms: i64,
) -> Result<(), Rejected> {
    let mut bad_time = false;
    let mut bad = Vec::new();
    for (record, index) in records.iter().zip(0..) {
        if rules.compacted && record.key.is_none() {
            bad.push((
                index,
                "Compacted topic cannot accept message without key".to_owned(),
            ));
        } else if let Some(message) = time_error(header, record, rules, now_ms) {
            bad_time = true;
            bad.push((index, message));
        }
    }
    if bad.is_empty() {
        return Ok(());
    }
    let error = if bad_time {
        ResponseError::InvalidTimestamp
    } else {
        ResponseError::InvalidRecord
    };
    Err(Rejected {
        error,
        message: "One or more records have been rejected".to_owned(),
        records: bad,
    })
}

/// `LogValidator.validateTimestamp`.
fn time_error(header: &Header, record: &Record, rules: &Rules, now_ms: i64) -> Option<String> {
    let timestamp = timestamp_of(header, record);
    if !rules.log_append_time && timestamp != NO_TIMESTAMP {
        let age_ms = now_ms.saturating_sub(timestamp);
        let wrong = age_ms > rules.before_max_ms || -age_ms > rules.after_max_ms;
        return wrong.then(|| format!("Timestamp {timestamp} is out of range at {now_ms}"));
    }
    header
        .is_log_append_time()
        .then(|| "Producer should not set timestamp type to LogAppendTime".to_owned())
}
