//! How a copy at other offsets is judged, and its map.

use serde_json::Value;
use twinlog::offsets::{OffsetMap, SourceOffset, TargetOffset, Translation};
use twinlog::state::keys::MapKeys;
use twinlog::state::{StateStore, maps};

use super::flow::{block_on, wire_cluster};
use super::read::Seen;
use super::twinlog::Twinlog;

/// Everything but the offset is the same.
pub fn assert_same_sequence(records: &[Seen], copies: &[Seen]) {
    let content = |seen: &Seen| Seen {
        offset: 0,
        log_append_time: false,
        ..seen.clone()
    };
    for (index, (record, copy)) in records.iter().zip(copies).enumerate() {
        assert_eq!(content(record), content(copy), "record {index}");
    }
    assert_eq!(records.len(), copies.len(), "lost or doubled");
}

/// A partition's map as flow `dr` stored it last, and the keys of all its stored segments.
///
/// # Panics
/// When there is none.
pub fn stored_map(target: &str, topic: &str, partition: i32) -> (OffsetMap, Vec<String>) {
    let cluster = wire_cluster(target);
    let keys = MapKeys::new("dr", topic, partition);
    block_on(async {
        let store = StateStore::open_with_map(&cluster, &keys).await;
        let store = store.expect("the state can be read").expect("a state");
        let map = maps::load(&store, &keys).expect("the map can be read");
        let map = map.expect("the map is in the state topic");
        (map, store.keys(keys.segments()))
    })
}

/// Every record is where the map says, and the map knows no others. Returns how many there are.
pub fn assert_map_is_exact(
    map: &OffsetMap,
    partition: i32,
    records: &[Seen],
    copies: &[Seen],
) -> u64 {
    let pairs = records.iter().zip(copies);
    let mut count = 0;
    for (record, copy) in pairs.filter(|(record, _)| record.partition == partition) {
        let (source, target) = (SourceOffset(record.offset), TargetOffset(copy.offset));
        assert_eq!(
            map.translate(source),
            Translation::Exact(target),
            "partition {partition}"
        );
        assert_eq!(
            map.reverse(target),
            Translation::Exact(source),
            "partition {partition}"
        );
        count += 1;
    }
    let mapped: u64 = map.runs().map(|run| run.len).sum();
    assert_eq!(
        mapped, count,
        "the map of partition {partition} has offsets without a record"
    );
    count
}

/// `twinlog translate`, its exit code checked.
pub fn translate(
    twinlog: &Twinlog,
    topic: &str,
    partition: i32,
    offset: i64,
    more: &[&str],
) -> Value {
    let (partition, offset) = (partition.to_string(), offset.to_string());
    let mut arguments = vec!["--json", "--topic", topic];
    arguments.extend(["--partition", &partition, "--offset", &offset]);
    arguments.extend(more);
    let output = twinlog.command("translate", &arguments);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let answer: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {stdout}{}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    let code = if answer["answer"] == "exact" { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(code), "{answer}");
    answer
}
