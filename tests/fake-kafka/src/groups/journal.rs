//! `__consumer_offsets` as the coordinators use it: what is in a partition's log, and appending to
//! it.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use super::TOPIC;
use super::records::CoordinatorRecord;
use crate::batch::{self, Header, Marker, Record};
use crate::log::Stored;
use crate::partition::Partition;
use crate::state::State;
use crate::topics::NewTopic;

/// The attribute of a batch that is part of a transaction.
const TRANSACTIONAL: i16 = 0x10;

/// What a coordinator reads in its log.
#[derive(Debug)]
pub(super) enum Entry {
    /// A record.
    Record {
        /// Where it is.
        offset: i64,
        /// Whose transaction it is part of.
        producer: Option<i64>,
        /// The record.
        record: CoordinatorRecord,
    },
    /// The end of a transaction.
    Marker {
        /// Whose.
        producer: i64,
        /// Or abort.
        commit: bool,
    },
}

/// Whose transaction records are part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    /// Its id.
    pub(crate) id: i64,
    /// Its epoch.
    pub(crate) epoch: i16,
}

fn partition(state: &State, number: i32) -> Option<&Partition> {
    state.topics.get(TOPIC)?.partitions.get(&number)
}

/// Who leads a partition, since which epoch.
pub(super) fn leader(state: &State, number: i32) -> Option<(i32, i32)> {
    let partition = partition(state, number)?;
    Some((partition.leader?, partition.leader_epoch))
}

/// Where the leader's log ends.
pub(super) fn end(state: &State, number: i32) -> i64 {
    let log = partition(state, number).and_then(Partition::leader_log);
    log.map_or(0, |log| log.end_offset())
}

/// What is replicated.
pub(super) fn committed(state: &State, number: i32) -> i64 {
    let log = partition(state, number).and_then(Partition::leader_log);
    log.map_or(0, |log| log.high_watermark())
}

/// What the leader's log has from an offset on.
pub(super) fn read(state: &State, number: i32, from: i64) -> Vec<Entry> {
    let log = partition(state, number).and_then(Partition::leader_log);
    let batches = log.into_iter().flat_map(|log| log.batches().rev());
    let news: Vec<&Stored> = batches
        .take_while(|stored| stored.header.last_offset() >= from)
        .collect();
    let mut entries = Vec::new();
    for stored in news.into_iter().rev() {
        take(stored, from, &mut entries);
    }
    entries
}

fn take(stored: &Stored, from: i64, entries: &mut Vec<Entry>) {
    let header = &stored.header;
    if header.is_control() {
        if let Some(marker) = Marker::read(&stored.bytes) {
            entries.push(Entry::Marker {
                producer: header.producer_id,
                commit: marker.commit,
            });
        }
        return;
    }
    let producer = header.is_transactional().then_some(header.producer_id);
    for record in stored.records().unwrap_or_default() {
        let offset = header.base_offset + i64::from(record.offset_delta);
        let Some(key) = record.key.filter(|_| offset >= from) else {
            continue;
        };
        let value = record.value;
        entries.push(Entry::Record {
            offset,
            producer,
            record: CoordinatorRecord { key, value },
        });
    }
}

/// Appends records in one batch (`CoordinatorRuntime.CoordinatorContext.append`), and lets the
/// followers copy it.
///
/// # Errors
/// As a produce request with `acks=all` would be answered.
pub(super) fn append(
    state: &mut State,
    broker: i32,
    number: i32,
    records: &[CoordinatorRecord],
    producer: Option<Producer>,
) -> Result<(), ResponseError> {
    let clock_ms = state.clock_ms(broker);
    let rules = state.append_rules(TOPIC, broker);
    let replicas = partition(state, number).map_or(0, |partition| partition.replicas.len());
    let min_in_sync = state.min_in_sync(TOPIC, broker, replicas);
    let partition = state
        .topics
        .get_mut(TOPIC)
        .and_then(|topic| topic.partitions.get_mut(&number))
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    if partition.in_sync.len() < min_in_sync {
        return Err(ResponseError::NotEnoughReplicas);
    }
    let epoch = partition.leader_epoch;
    let log = partition
        .leader_log_mut()
        .ok_or(ResponseError::NotLeaderOrFollower)?;
    let records: Vec<Record> = records
        .iter()
        .map(|record| Record::new(Some(&record.key), record.value.as_deref()))
        .collect();
    let (header, bytes) = batch::produced(&records, clock_ms);
    match producer {
        None => {
            let batch = header.seal(&bytes);
            log.append(&batch, &rules, epoch, clock_ms, false)
                .map_err(|rejected| rejected.error)?;
        }
        Some(producer) => {
            // Only a client's sequences are checked (`ProducerAppendInfo.maybeValidateDataBatch`).
            let known = log.producers().get(&producer.id);
            if known.is_some_and(|known| producer.epoch < known.epoch) {
                return Err(ResponseError::InvalidProducerEpoch);
            }
            let placed = Header {
                base_offset: log.end_offset(),
                leader_epoch: epoch,
                attributes: header.attributes | TRANSACTIONAL,
                producer_id: producer.id,
                producer_epoch: producer.epoch,
                base_sequence: 0,
                ..header
            };
            log.replicate(&Stored::new(placed.seal(&bytes)));
        }
    }
    state.replicate(TOPIC, number);
    Ok(())
}

/// Makes the topic as brokers do (`GroupCoordinatorService.groupMetadataTopicConfigs`).
pub(super) fn create(state: &mut State, partitions: i32, replication: i32) {
    let alive = state.brokers.keys().filter(|id| state.is_alive(**id));
    let alive = i32::try_from(alive.count()).unwrap_or(i32::MAX);
    let configs = [
        ("cleanup.policy", "compact"),
        ("compression.type", "producer"),
        ("segment.bytes", "104857600"),
    ];
    let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let new = NewTopic {
        partitions,
        replication: i16::try_from(replication.min(alive)).unwrap_or(1),
        configs: BTreeMap::from(configs),
        ..NewTopic::default()
    };
    // It is there, or no broker is: either way whoever asks again finds out.
    let _ = state.create_topic(TOPIC, &new);
}
