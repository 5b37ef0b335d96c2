//! What lies in the fakes' logs, as the model wants it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fake_kafka::batch::Marker;
use fake_kafka::partition::Partition;
use fake_kafka::world::Brokers;

use super::model::{Log, Place, Record};

/// Behind a record's name its value is filled up.
const AFTER_NAME: char = '|';

/// A value that carries a record's name and has this size at least.
pub fn value(name: &str, bytes: usize) -> String {
    let fill = bytes.saturating_sub(name.len() + 1);
    format!("{name}{AFTER_NAME}{}", "x".repeat(fill))
}

/// What a reader of committed records finds in a partition: of its leader, or of the replica with the
/// longest log if nobody leads it.
pub fn read(brokers: &Brokers, place: &Place) -> Log {
    brokers.cluster.look(|state| {
        let found = state.partition(&place.topic, place.partition);
        found.map(read_partition).unwrap_or_default()
    })
}

fn read_partition(partition: &Partition) -> Log {
    let longest = || partition.logs.values().max_by_key(|log| log.end_offset());
    let Some(log) = partition.leader_log().or_else(longest) else {
        return Log::default();
    };
    let mut records = Vec::new();
    // Of each producer the records of its open transaction: whether they count is said at its end.
    let mut open: BTreeMap<i64, Vec<Record>> = BTreeMap::new();
    for batch in log.batches() {
        let header = &batch.header;
        if header.is_control() {
            let of_it = open.remove(&header.producer_id).unwrap_or_default();
            if Marker::read(&batch.bytes).is_some_and(|marker| marker.commit) {
                records.extend(of_it);
            }
            continue;
        }
        let of_it = batch.records().expect("a broker took it").into_iter();
        let of_it = of_it.map(|record| {
            let value = record.value.as_ref().map(text).unwrap_or_default();
            Record {
                offset: header.base_offset + i64::from(record.offset_delta),
                name: value
                    .split(AFTER_NAME)
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
                key: record.key.as_ref().map(text),
                timestamp_ms: if header.is_log_append_time() {
                    header.max_timestamp
                } else {
                    header.base_timestamp + record.timestamp_delta
                },
                value_bytes: value.len(),
            }
        });
        if header.is_transactional() {
            open.entry(header.producer_id).or_default().extend(of_it);
        } else {
            records.extend(of_it);
        }
    }
    let start = log.start_offset();
    records.retain(|it: &Record| it.offset >= start);
    records.sort_by_key(|it| it.offset);
    Log {
        start,
        end: log.end_offset(),
        records,
    }
}

/// Whether no transaction is open in a partition.
pub fn is_stable(brokers: &Brokers, place: &Place) -> bool {
    brokers.cluster.look(|state| {
        let found = state.partition(&place.topic, place.partition);
        let log = found.and_then(|it| it.leader_log());
        log.is_some_and(|log| log.last_stable_offset() == log.end_offset())
    })
}

/// How many ends of transactions are in a partition.
pub fn markers(brokers: &Brokers, place: &Place) -> usize {
    brokers.cluster.look(|state| {
        let found = state.partition(&place.topic, place.partition);
        let log = found.and_then(|it| it.leader_log());
        log.map_or(0, |log| {
            log.batches().filter(|it| it.header.is_control()).count()
        })
    })
}

/// How many batches of records a partition has.
pub fn batches(brokers: &Brokers, place: &Place) -> usize {
    brokers.cluster.look(|state| {
        let found = state.partition(&place.topic, place.partition);
        let log = found.and_then(|it| it.leader_log());
        let is_data =
            |log: &fake_kafka::log::Log| log.batches().filter(|it| !it.header.is_control()).count();
        log.map_or(0, is_data)
    })
}

/// Megabytes of letters go through the quick check; only what isn't UTF-8 is looked at bit by bit.
fn text(bytes: &Bytes) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The newest value of a key in a topic of one partition, as it is written.
pub fn newest(brokers: &Brokers, topic: &str, key: &str) -> Option<String> {
    brokers.cluster.look(|state| {
        let log = state.partition(topic, 0)?.leader_log()?;
        let mut newest = None;
        for batch in log.batches().filter(|batch| !batch.header.is_control()) {
            for record in batch.records().expect("a broker took it") {
                if record.key.as_ref().is_some_and(|it| text(it) == key) {
                    newest = record.value.as_ref().map(text);
                }
            }
        }
        newest
    })
}

/// The cleaner of a compacted topic: of what is committed below `below`, only each key's newest record
/// of the whole log stays, at its offset. Gives what went.
pub fn compact(brokers: &Brokers, place: &Place, below: i64) -> Vec<Record> {
    let before = read(brokers, place);
    let mut newest: BTreeMap<Option<String>, i64> = BTreeMap::new();
    for record in &before.records {
        newest.insert(record.key.clone(), record.offset);
    }
    let stay: BTreeSet<i64> = newest.into_values().collect();
    clean(brokers, place, |offset| {
        offset >= below || stay.contains(&offset)
    })
}

/// What a cleaner leaves that was asked so; returns the records that went.
pub fn clean(brokers: &Brokers, place: &Place, stays: impl Fn(i64) -> bool) -> Vec<Record> {
    let before = read(brokers, place);
    brokers.cluster.control(|state| {
        let partition = state
            .partition_mut(&place.topic, place.partition)
            .expect("it is there");
        for log in partition.logs.values_mut() {
            let cleaned: Vec<_> = log
                .batches()
                .filter_map(|batch| cleaned(batch, &stays))
                .collect();
            log.replace_batches(cleaned);
        }
    });
    let after = read(brokers, place);
    let left: BTreeSet<i64> = after.records.iter().map(|it| it.offset).collect();
    let gone = before.records.into_iter();
    gone.filter(|it| !left.contains(&it.offset)).collect()
}

/// A batch without some of its records (`MemoryRecords.filterTo`): its first and last offset stay.
fn cleaned(
    batch: &fake_kafka::log::Stored,
    stays: impl Fn(i64) -> bool,
) -> Option<fake_kafka::log::Stored> {
    if batch.header.is_control() {
        return Some(batch.clone());
    }
    let base = batch.header.base_offset;
    let mut records = batch.records().expect("a broker took it");
    records.retain(|it| stays(base + i64::from(it.offset_delta)));
    if records.is_empty() {
        return None;
    }
    let header = fake_kafka::batch::Header {
        count: i32::try_from(records.len()).expect("no more than before"),
        ..batch.header
    };
    let sealed = header
        .with_codec(0)
        .seal(&fake_kafka::batch::write_records(&records));
    Some(fake_kafka::log::Stored::new(sealed))
}

/// Whether the journal on a cluster says that a step is begun.
pub fn is_begun(brokers: &Brokers, key: &str, step: &str) -> bool {
    let Some(journal) = newest(brokers, "__twinlog_state", key) else {
        return false;
    };
    let journal: serde_json::Value = serde_json::from_str(&journal).expect("a journal is JSON");
    let steps = journal["steps"].as_array().expect("it has steps");
    let mut steps = steps.iter();
    steps.any(|it| it["step"] == step && it["state"] != "pending")
}
