//! Whether two topics hold the same records.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::admin::{end_offset, partition_count};
use super::read::{Isolation, Seen, read_all};
use super::wait::eventually;

/// Asserts that both sides saw the same records at the same offsets.
///
/// The timestamp is compared, whether the broker set it is not: a mirror keeps the time and
/// may have to call it the producer's.
///
/// # Panics
/// At the first difference, with what surrounds it.
pub fn assert_same(source: &[Seen], target: &[Seen]) {
    for (index, (source_record, target_record)) in source.iter().zip(target).enumerate() {
        assert!(
            same(source_record, target_record),
            "record {index} differs ({} on the source, {} on the target):\n  source {source_record:?}\n  target {target_record:?}\n  before {:?}",
            source.len(),
            target.len(),
            index.checked_sub(1).map(|before| &source[before]),
        );
    }
    let shared = source.len().min(target.len());
    assert_eq!(
        source.len(),
        target.len(),
        "one side has more records (source left, target right); the first extra one: {:?}",
        source.get(shared).or_else(|| target.get(shared)),
    );
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
