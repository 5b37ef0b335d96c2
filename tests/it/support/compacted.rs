//! Whether two compacted topics hold the same, although each broker cleans at its own time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::admin::{end_offset, partition_count};
use super::read::{Isolation, Seen, read_all};
use super::wait::eventually;

type Place = (i32, i64);
type Key = (i32, Option<Vec<u8>>);

/// Waits until the end offsets agree (nobody writes any more), then asserts that
/// - a record that is on both sides is the same on both,
/// - every key's latest value is on both sides, at the same offset.
///
/// Returns how many offsets below the source's ends have no record there: the gaps.
///
/// # Panics
/// At the first difference.
pub fn await_compacted_same(
    source_bootstrap: &str,
    target_bootstrap: &str,
    topic: &str,
    deadline: Duration,
) -> i64 {
    let mut ends = 0;
    for partition in 0..partition_count(source_bootstrap, topic) {
        let source_end = end_offset(source_bootstrap, topic, partition);
        ends += source_end;
        eventually(
            deadline,
            &format!("{topic}-{partition} has reached offset {source_end}"),
            || match end_offset(target_bootstrap, topic, partition) {
                end if end == source_end => Ok(()),
                end => Err(end),
            },
        );
    }
    let source = read_all(source_bootstrap, topic, Isolation::ReadCommitted);
    let target = read_all(target_bootstrap, topic, Isolation::ReadUncommitted);
    let by_place: BTreeMap<Place, &Seen> = source
        .iter()
        .map(|record| ((record.partition, record.offset), record))
        .collect();
    let mut shared = 0_usize;
    for record in &target {
        if let Some(source_record) = by_place.get(&(record.partition, record.offset)) {
            assert_eq!(*source_record, record, "source left, target right");
            shared += 1;
        }
    }
    let (source_latest, target_latest) = (latest(&source), latest(&target));
    assert!(!source_latest.is_empty(), "{topic} has no keys");
    assert_eq!(
        source_latest, target_latest,
        "the latest values differ (source left, target right)"
    );
    assert!(shared >= source_latest.len(), "{shared} records are shared");
    let source_count = i64::try_from(source.len()).expect("few");
    println!(
        "{topic}: {source_count} records on the source, {} on the target, {shared} on both, ends {ends}",
        target.len()
    );
    ends - source_count
}

/// The last record of every key. A tombstone stays: nothing here removes one within a day.
fn latest(records: &[Seen]) -> BTreeMap<Key, Seen> {
    records
        .iter()
        .map(|record| ((record.partition, record.key.clone()), record.clone()))
        .collect()
}
