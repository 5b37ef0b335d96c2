//! Reading a topic with librdkafka: the judge that shares no line with our wire code.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message, Timestamp};
use rdkafka::{Offset, TopicPartitionList};

use super::admin::{client, partition_count};
use super::wait::Stopwatch;

/// How long reading may take as long as it makes no progress.
const STALL_DEADLINE: Duration = Duration::from_secs(60);

/// What a consumer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Aborted and open transactions too.
    ReadUncommitted,
    /// Only up to the last stable offset, and nothing aborted.
    ReadCommitted,
}

impl Isolation {
    /// As clients spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "read_uncommitted",
            Self::ReadCommitted => "read_committed",
        }
    }
}

/// One record as a consumer saw it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers in order, duplicates kept.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since the epoch; `None` when the record has no timestamp.
    pub timestamp_ms: Option<i64>,
    /// Whether the broker set the timestamp (`LogAppendTime`).
    pub log_append_time: bool,
}

/// Shows bytes as text and shortens long ones, so that a difference can be read.
impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let show = |bytes: &Option<Vec<u8>>| match bytes {
            None => "null".to_owned(),
            Some(bytes) if bytes.len() > 80 => {
                format!("{}... ({} B)", bytes[..80].escape_ascii(), bytes.len())
            }
            Some(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        };
        let headers: Vec<String> = self
            .headers
            .iter()
            .map(|(key, value)| format!("{key:?}: {}", show(value)))
            .collect();
        write!(
            f,
            "{}@{} key {} value {} headers [{}] timestamp {:?}{}",
            self.partition,
            self.offset,
            show(&self.key),
            show(&self.value),
            headers.join(", "),
            self.timestamp_ms,
            if self.log_append_time {
                " (append)"
            } else {
                ""
            },
        )
    }
}

/// Reads a topic from its beginning to the end that it has now, sorted by partition and offset.
///
/// Header keys must be UTF-8: rdkafka panics on others (read those with [`super::java_read`]).
///
/// # Panics
/// When the topic does not exist or nothing arrives for 60 s before the end is reached.
pub fn read_all(bootstrap: &str, topic: &str, isolation: Isolation) -> Vec<Seen> {
    let partitions = partition_count(bootstrap, topic);
    assert!(
        partitions > 0,
        "topic {topic} does not exist on {bootstrap}"
    );
    let consumer: BaseConsumer = client(bootstrap)
        .set("group.id", format!("reader-{}", rand::random::<u64>()))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation.name())
        .set("check.crcs", "true")
        .set("fetch.message.max.bytes", "10485760")
        .set("fetch.wait.max.ms", "50")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("valid settings");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, first(&consumer, topic, partition))
            .expect("an offset");
    }
    consumer.assign(&list).expect("an assignment of our own");

    let mut open: HashSet<i32> = (0..partitions).collect();
    let mut records = Vec::new();
    let mut standing: Option<Stopwatch> = None;
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                // After its end was reached a partition may go on growing: that is not asked for.
                if open.contains(&message.partition()) {
                    records.push(seen(&message));
                }
                standing = None;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
                standing = None;
            }
            // librdkafka retries by itself; the stall deadline ends what is not retriable.
            Some(Err(error)) => assert!(
                stands_for(&mut standing) < STALL_DEADLINE,
                "reading {topic} from {bootstrap}: {error}"
            ),
            None => assert!(
                stands_for(&mut standing) < STALL_DEADLINE,
                "reading {topic} from {bootstrap}: nothing for {STALL_DEADLINE:?}, partitions \
                 {open:?} not at their end, {} records so far",
                records.len()
            ),
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// For how long nothing has come, on a machine with a processor to spare.
fn stands_for(standing: &mut Option<Stopwatch>) -> Duration {
    standing.get_or_insert_with(Stopwatch::start).counted()
}

/// Where a partition begins. A consumer that isn't connected to the leader yet when it is sent to the beginning asks for
/// that half a second later; who asks first is connected.
fn first(consumer: &BaseConsumer, topic: &str, partition: i32) -> Offset {
    let found = consumer.fetch_watermarks(topic, partition, Duration::from_secs(5));
    found.map_or(Offset::Beginning, |(low, _)| Offset::Offset(low))
}

fn seen(message: &impl Message) -> Seen {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    });
    let (timestamp_ms, log_append_time) = match message.timestamp() {
        Timestamp::NotAvailable => (None, false),
        Timestamp::CreateTime(ms) => (Some(ms), false),
        Timestamp::LogAppendTime(ms) => (Some(ms), true),
    };
    Seen {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
        timestamp_ms,
        log_append_time,
    }
}
