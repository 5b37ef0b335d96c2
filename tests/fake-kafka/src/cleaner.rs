//! The log cleaner (`Cleaner`), as far as readers can see it: of every key the last record stays, at its offset.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::batch::{Header, Marker, Record, write_records};
use crate::codec::Codec;
use crate::log::{Log, Stored};

/// How to clean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleaning {
    /// Tombstones and markers go, too: their time (`delete.retention.ms`) is over.
    pub drops_tombstones: bool,
    /// Nothing from here on is touched; the segment that is written to.
    pub below: i64,
}

/// What the log looks like when it was cleaned.
pub(crate) fn clean(log: &Log, cleaning: Cleaning) -> Vec<Stored> {
    // `LogCleanerManager.cleanableOffsets`.
    let below = cleaning.below.min(log.last_stable_offset());
    let dead = dead_transactions(log, below);
    let last = last_offsets(log, below, &dead);
    let mut kept = Vec::new();
    for stored in log.batches() {
        if stored.header.last_offset() >= below {
            kept.push(stored.clone());
        } else if stored.header.is_control() {
            kept.extend(cleaned_marker(
                log,
                stored,
                cleaning,
                &kept_producers(log, &last),
            ));
        } else {
            let is_dead = is_dead(stored, &dead);
            kept.extend(cleaned_data(log, stored, cleaning, &last, is_dead));
        }
    }
    kept
}

/// First and last offset of aborted transactions, and whose they were.
fn dead_transactions(log: &Log, below: i64) -> Vec<(i64, i64, i64)> {
    log.aborted(log.start_offset(), below)
        .iter()
        .map(|aborted| {
            (
                aborted.producer_id,
                aborted.first_offset,
                aborted.last_offset,
            )
        })
        .collect()
}

fn is_dead(stored: &Stored, dead: &[(i64, i64, i64)]) -> bool {
    let header = &stored.header;
    header.is_transactional()
        && dead.iter().any(|&(producer, first, last)| {
            producer == header.producer_id && (first..last).contains(&header.base_offset)
        })
}

/// The last offset of every key (`Cleaner.buildOffsetMap`).
fn last_offsets(log: &Log, below: i64, dead: &[(i64, i64, i64)]) -> BTreeMap<Bytes, i64> {
    let mut last = BTreeMap::new();
    let batches = log
        .batches()
        .filter(|stored| stored.header.last_offset() < below && !stored.header.is_control());
    for stored in batches.filter(|stored| !is_dead(stored, dead)) {
        for record in stored.records().unwrap_or_default() {
            let offset = stored.header.base_offset + i64::from(record.offset_delta);
            if let Some(key) = record.key {
                last.insert(key, offset);
            }
        }
    }
    last
}

/// Producers that still have a record below the end of cleaning; a marker of one of them must stay.
fn kept_producers(log: &Log, last: &BTreeMap<Bytes, i64>) -> BTreeSet<i64> {
    let offsets: BTreeSet<i64> = last.values().copied().collect();
    log.batches()
        .filter(|stored| stored.header.is_transactional() && !stored.header.is_control())
        .filter(|stored| {
            offsets
                .range(stored.header.base_offset..=stored.header.last_offset())
                .next()
                .is_some()
        })
        .map(|stored| stored.header.producer_id)
        .collect()
}

/// A marker goes when its transaction's records are gone and its time is over; the last one of a known producer stays as an empty batch.
fn cleaned_marker(
    log: &Log,
    stored: &Stored,
    cleaning: Cleaning,
    kept: &BTreeSet<i64>,
) -> Option<Stored> {
    let header = &stored.header;
    let aborts = Marker::read(&stored.bytes).is_some_and(|marker| !marker.commit);
    if !cleaning.drops_tombstones || (kept.contains(&header.producer_id) && !aborts) {
        return Some(stored.clone());
    }
    // `Cleaner.cleanInto`, `shouldRetainRecord`: the newest epoch of a producer that is known is kept without its record.
    let newest = log
        .producers()
        .get(&header.producer_id)
        .is_some_and(|producer| producer.epoch == header.producer_epoch);
    newest.then(|| emptied(header))
}

fn cleaned_data(
    log: &Log,
    stored: &Stored,
    cleaning: Cleaning,
    last: &BTreeMap<Bytes, i64>,
    is_dead: bool,
) -> Option<Stored> {
    let header = &stored.header;
    let stays = |record: &Record| {
        let offset = header.base_offset + i64::from(record.offset_delta);
        let newest = record.key.as_ref().and_then(|key| last.get(key)) == Some(&offset);
        newest && !(record.value.is_none() && cleaning.drops_tombstones)
    };
    let records = stored.records().ok()?;
    let all = records.len();
    let kept: Vec<Record> = records
        .into_iter()
        .filter(|r| !is_dead && stays(r))
        .collect();
    if kept.len() == all {
        return Some(stored.clone());
    }
    if !kept.is_empty() {
        return Some(with_records(header, &kept));
    }
    // The last batch of a known producer stays without its records, so that its sequence isn't forgotten.
    let last_of_producer = log
        .producers()
        .get(&header.producer_id)
        .is_some_and(|producer| producer.last_data_offset() == Some(header.last_offset()));
    last_of_producer.then(|| emptied(header))
}

/// The same batch with fewer records: offsets and the batch's ends stay (`MemoryRecords.filterTo`).
fn with_records(header: &Header, records: &[Record]) -> Stored {
    let codec = Codec::from_number(header.codec()).unwrap_or(Codec::None);
    let bytes = codec.compress(&write_records(records));
    let newest = records.iter().map(|record| record.timestamp_delta).max();
    let count = i32::try_from(records.len()).expect("fits");
    let kept = Header {
        count,
        max_timestamp: if header.is_log_append_time() {
            header.max_timestamp
        } else {
            header.base_timestamp + newest.unwrap_or(0)
        },
        ..*header
    };
    Stored::new(kept.seal(&bytes))
}

/// `DefaultRecordBatch.writeEmptyHeader`.
fn emptied(header: &Header) -> Stored {
    let empty = Header {
        count: 0,
        ..*header
    }
    .with_codec(0);
    Stored::new(empty.seal(&[]))
}
