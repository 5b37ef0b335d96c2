//! Single records and whole small logs, read with librdkafka: what our own code wrote is judged by
//! a client that shares no line with it. Everything here blocks.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::config::ClusterSection;
use crate::connect;
use crate::wire::TopicPartition;

const POLL: Duration = Duration::from_millis(100);
const PROPERTIES: [(&str, &str); 1] = [("fetch.wait.max.ms", "100")];

/// A record without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the epoch; -1 without one.
    pub timestamp_ms: i64,
    /// Of the key, the value and the headers.
    pub digest: [u8; 32],
}

/// The first record at or after each place; no entry where there is none by the deadline. `group`
/// is only a name.
///
/// # Errors
/// When librdkafka refuses its settings.
pub fn next_records(
    section: &ClusterSection,
    group: &str,
    places: &[(TopicPartition, i64)],
    patience: Duration,
) -> Result<HashMap<(TopicPartition, i64), Seen>, KafkaError> {
    let consumer = connect::reader(section, group, &PROPERTIES)?;
    let deadline = Instant::now() + patience;
    let mut found = HashMap::new();
    let mut left: Vec<&(TopicPartition, i64)> = places.iter().collect();
    while !left.is_empty() && Instant::now() < deadline {
        // A partition has one position at a time.
        let mut now: HashMap<&TopicPartition, i64> = HashMap::new();
        left.retain(|(at, offset)| {
            let is_taken = now.contains_key(at);
            if !is_taken {
                now.insert(at, *offset);
            }
            is_taken
        });
        let mut list = TopicPartitionList::new();
        for (at, offset) in &now {
            list.add_partition_offset(&at.topic, at.partition, Offset::Offset(*offset))?;
        }
        consumer.assign(&list)?;
        while !now.is_empty() && Instant::now() < deadline {
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let at = TopicPartition::new(message.topic(), message.partition());
                    if let Some((at, offset)) = now.remove_entry(&at) {
                        found.insert((at.clone(), offset), seen(&message));
                    }
                }
                // The end of one partition; librdkafka names it by its number alone.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let ended: Vec<&TopicPartition> = now
                        .keys()
                        .filter(|at| at.partition == partition)
                        .copied()
                        .collect();
                    // Where several topics have such a partition, the deadline decides.
                    if let [only] = ended.as_slice() {
                        now.remove(*only);
                    }
                }
                _ => {}
            }
        }
    }
    consumer.unassign()?;
    Ok(found)
}

fn seen(message: &rdkafka::message::BorrowedMessage<'_>) -> Seen {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut part = |bytes: Option<&[u8]>| {
        let length = bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        context.update(&length.to_be_bytes());
        context.update(bytes.unwrap_or_default());
    };
    part(message.key());
    part(message.payload());
    for header in message.headers().into_iter().flat_map(|it| it.iter()) {
        part(Some(header.key.as_bytes()));
        part(header.value);
    }
    let digest = context.finish();
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Seen {
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        digest: bytes,
    }
}

/// The numbers of all records of a topic, up to these ends.
///
/// # Errors
/// When librdkafka refuses its settings, or the ends aren't reached in time.
pub fn numbers(
    section: &ClusterSection,
    group: &str,
    ends: &HashMap<TopicPartition, i64>,
    patience: Duration,
) -> Result<Vec<u64>, KafkaError> {
    let consumer = connect::reader(section, group, &PROPERTIES)?;
    let deadline = Instant::now() + patience;
    let mut list = TopicPartitionList::new();
    for at in ends.keys() {
        list.add_partition_offset(&at.topic, at.partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut open: HashSet<i32> = ends.keys().map(|at| at.partition).collect();
    let mut numbers = Vec::new();
    while !open.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                numbers.extend(message.payload().and_then(super::canary::number));
            }
            // The ends stand still by now: nobody writes any more.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            _ if Instant::now() >= deadline => {
                let code = rdkafka::types::RDKafkaErrorCode::OperationTimedOut;
                return Err(KafkaError::MessageConsumption(code));
            }
            _ => {}
        }
    }
    consumer.unassign()?;
    Ok(numbers)
}
