//! Whether two topics hold the same records.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::admin::{end_offset, partition_count};
use super::read::{Isolation, Seen, read_all};
use super::wait::eventually;

/// Asserts that both sides saw the same records at the same offsets.
///
/// # Panics
/// At the first difference, with what surrounds it.
pub fn assert_same(source: &[Seen], target: &[Seen]) {
    if let Some(difference) = first_difference(source, target) {
        panic!("{difference}");
    }
}

/// What differs first, in words; `None` when both hold the same records at the same offsets.
///
/// The timestamp is compared, whether the broker set it is not: a mirror keeps the time and
/// may have to call it the producer's.
pub fn first_difference(source: &[Seen], target: &[Seen]) -> Option<String> {
    let counts = format!(
        "{} records on the source, {} on the target",
        source.len(),
        target.len()
    );
    let pairs = source.iter().zip(target);
    if let Some((index, (source_record, target_record))) = pairs
        .enumerate()
        .find(|(_, (source_record, target_record))| !same(source_record, target_record))
    {
        let before = index.checked_sub(1).map(|before| &source[before]);
        return Some(format!(
            "record {index} differs ({counts}):\n  source {source_record:?}\n  \
             target {target_record:?}\n  before {before:?}"
        ));
    }
    let shared = source.len().min(target.len());
    let extra = source.get(shared).or_else(|| target.get(shared))?;
    Some(format!("{counts}; the first that only one has: {extra:?}"))
}

/// The same for compacted topics, which each cluster compacts at moments of its own: what both
/// still hold is the same at the same offsets, and so is the last record of every key.
#[allow(dead_code, reason = "the quickstart uses it")]
pub fn first_compacted_difference(source: &[Seen], target: &[Seen]) -> Option<String> {
    let at = |records: &[Seen]| -> BTreeMap<(i32, i64), Seen> {
        let place = |record: &Seen| ((record.partition, record.offset), record.clone());
        records.iter().map(place).collect()
    };
    let (source_at, target_at) = (at(source), at(target));
    let both = |records: &BTreeMap<(i32, i64), Seen>, others: &BTreeMap<(i32, i64), Seen>| {
        let shared = records
            .iter()
            .filter(|(place, _)| others.contains_key(place));
        shared.map(|(_, record)| record.clone()).collect::<Vec<_>>()
    };
    first_difference(&both(&source_at, &target_at), &both(&target_at, &source_at)).or_else(|| {
        let last = |records: &[Seen]| -> Vec<Seen> {
            let by_key = |record: &Seen| ((record.partition, record.key.clone()), record.clone());
            let last: BTreeMap<_, _> = records.iter().map(by_key).collect();
            last.into_values().collect()
        };
        first_difference(&last(source), &last(target))
            .map(|difference| format!("the last records of the keys differ: {difference}"))
    })
}

fn same(source: &Seen, target: &Seen) -> bool {
    source.partition == target.partition
        && source.offset == target.offset
        && source.key == target.key
        && source.value == target.value
        && source.headers == target.headers
        && source.timestamp_ms == target.timestamp_ms
}

/// Reads `topic` on both clusters as committed and asserts that they are the same.
pub fn assert_topic_same(source_bootstrap: &str, target_bootstrap: &str, topic: &str) {
    let source = read_all(source_bootstrap, topic, Isolation::ReadCommitted);
    let target = read_all(target_bootstrap, topic, Isolation::ReadCommitted);
    assert_same(&source, &target);
}

/// Waits until the target has reached the last committed record of the source (which must not
/// be written to meanwhile), then asserts that they are the same; returns the records.
///
/// Also whoever reads uncommitted must see nothing else on the target: what was aborted on the
/// source is not there at all.
pub fn await_same(
    source_bootstrap: &str,
    target_bootstrap: &str,
    topic: &str,
    deadline: Duration,
) -> Vec<Seen> {
    let source = read_all(source_bootstrap, topic, Isolation::ReadCommitted);
    let partitions = partition_count(source_bootstrap, topic);
    eventually(
        deadline,
        &format!("{topic} is on the target"),
        || match partition_count(target_bootstrap, topic) {
            count if count >= partitions => Ok(()),
            count => Err(format!("{count} of {partitions} partitions")),
        },
    );
    for partition in 0..partitions {
        let last = source.iter().rfind(|record| record.partition == partition);
        let Some(last) = last else { continue };
        let what = format!("{topic}-{partition} has reached offset {}", last.offset);
        eventually(deadline, &what, || {
            match end_offset(target_bootstrap, topic, partition) {
                end if end > last.offset => Ok(()),
                end => Err(end),
            }
        });
    }
    assert_same(
        &source,
        &read_all(target_bootstrap, topic, Isolation::ReadCommitted),
    );
    assert_same(
        &source,
        &read_all(target_bootstrap, topic, Isolation::ReadUncommitted),
    );
    source
}

/// A number for the content of a list of records, offsets included.
pub fn digest(records: &[Seen]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for record in records {
        record.hash(&mut hasher);
    }
    hasher.finish()
}
