//! `offsets: mapped` with so many holes that the map is stored in segments.

use std::time::Duration;

use crate::support::flow::{await_position, flow_config};
use crate::support::mapped::{assert_map_is_exact, assert_same_sequence, stored_map, translate};
use crate::support::{
    Isolation, KafkaVersion, Load, Twinlog, await_caught_up, create_topic, delete_records,
    end_offset, eventually, read_all, two_clusters,
};

const DEADLINE: Duration = Duration::from_secs(120);
const TOPIC: &str = "many-holes";
/// Every other one is compacted away. A segment has 1,024 runs.
const RECORDS: u64 = 60_000;
/// So slow that most is still to be copied when the map was stored twice.
const SLOW: &str = "limits: { bytes_per_second: 30KiB }";
const FAST: &str = "limits: { bytes_per_second: unlimited }";
/// Segments that roll and are cleaned at once.
const COMPACT_FAST: [(&str, &str); 4] = [
    ("cleanup.policy", "compact,delete"),
    ("segment.ms", "300"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("max.compaction.lag.ms", "500"),
];

#[test]
fn a_map_in_segments_survives_crashes_and_loses_what_the_logs_lose() {
    let (mut source, target) = two_clusters(KafkaVersion::V4_3);
    let (from, to) = (source.bootstrap(), target.bootstrap());
    create_topic(&from, TOPIC, 1, &COMPACT_FAST);
    make_holes(&from);
    let lines = format!("offsets: mapped\n{SLOW}");
    let mut twinlog = Twinlog::start(&flow_config("dr", TOPIC, &from, &to, &lines));
    // Killed when segments are stored, so that the next one goes on from them.
    let first = await_segments(&twinlog, &to, 1);
    twinlog.kill9();
    twinlog.launch();
    let second = await_segments(&twinlog, &to, first + 1);
    twinlog.kill9();
    let config = std::fs::read_to_string(twinlog.config_file()).expect("our file");
    assert!(config.contains(SLOW), "{config}");
    std::fs::write(twinlog.config_file(), config.replace(SLOW, FAST)).expect("our folder");
    twinlog.launch();
    let end = end_offset(&from, TOPIC, 0);
    await_position(&twinlog, TOPIC, 0, end);
    await_caught_up(&twinlog, DEADLINE);
    assert!(twinlog.terminate().success());

    let (records, copies) = (
        read_all(&from, TOPIC, Isolation::ReadCommitted),
        read_all(&to, TOPIC, Isolation::ReadUncommitted),
    );
    assert_same_sequence(&records, &copies);
    let (map, keys) = stored_map(&to, TOPIC, 0);
    assert_map_is_exact(&map, 0, &records, &copies);
    let numbers = map.segment_numbers();
    println!("segments at the kills: {first}, {second}; at the end: {numbers:?}");
    assert!(numbers.end > second, "there was nothing left to copy");
    assert_eq!(keys.len() as u64, numbers.end);

    // Both logs forget the first half: so does the map, and the state topic. (What only the
    // source forgot is kept: lagging groups still find it on the target.)
    let half = records[records.len() / 2].offset;
    delete_records(&from, TOPIC, 0, half);
    delete_records(&to, TOPIC, 0, copies[copies.len() / 2].offset);
    twinlog.launch();
    eventually(DEADLINE, "the map is trimmed", || {
        let (map, _) = stored_map(&to, TOPIC, 0);
        if map.source_start().0 >= half {
            Ok(())
        } else {
            Err(map.source_start())
        }
    });
    assert!(twinlog.terminate().success());
    let (records, copies) = (&records[records.len() / 2..], &copies[copies.len() / 2..]);
    let (map, keys) = stored_map(&to, TOPIC, 0);
    assert_map_is_exact(&map, 0, records, copies);
    let numbers = map.segment_numbers();
    assert!(numbers.start > 0 && !numbers.is_empty(), "{numbers:?}");
    assert_eq!(keys.len() as u64, numbers.end - numbers.start, "{keys:?}");

    // All that translate needs is on the target.
    source.stop(1);
    for (record, copy) in records.iter().zip(copies).step_by(111) {
        let answer = translate(&twinlog, TOPIC, 0, record.offset, &[]);
        assert_eq!(answer["offset"], copy.offset, "{answer}");
        let back = translate(&twinlog, TOPIC, 0, copy.offset, &["--reverse"]);
        assert_eq!(back["offset"], record.offset, "{back}");
    }
    let below = translate(&twinlog, TOPIC, 0, half - 1, &[]);
    assert_eq!(below["answer"], "before_start");
    assert_eq!(below["limit"], half);
}

/// Fills the topic, until the cleaner has left gaps nearly everywhere.
fn make_holes(source: &str) {
    let load = |first, count| {
        Load::new(TOPIC, count)
            .first(first)
            .keys(1_000_000)
            .shared_key_every(2)
            .produce(source);
    };
    load(0, RECORDS);
    let mut next = RECORDS;
    eventually(DEADLINE, "the source's log is compacted", || {
        // A segment rolls when something is appended to it.
        load(next, 10);
        next += 10;
        let left = read_all(source, TOPIC, Isolation::ReadCommitted).len() as u64;
        if left < next * 55 / 100 {
            Ok(())
        } else {
            Err((left, next))
        }
    });
}

/// Waits until this many segments are stored; returns how many there are.
fn await_segments(twinlog: &Twinlog, target: &str, wanted: u64) -> u64 {
    // The map is made when the topic is found.
    twinlog.wait_until(DEADLINE, "it copies", |status| {
        status["flows"][0]["totals"]["records"].as_i64() > Some(0)
    });
    eventually(DEADLINE, &format!("{wanted} segments are stored"), || {
        let (map, _) = stored_map(target, TOPIC, 0);
        let stored = map.segment_numbers().end;
        if stored >= wanted {
            Ok(stored)
        } else {
            Err(stored)
        }
    })
}
