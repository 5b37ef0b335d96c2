//! How large an offset map becomes: 10 million transactions of a busy topic.
//!
//! The figures are in `docs/BENCHMARKS.md`; `cargo test --test it offsets_memory -- --nocapture`
//! prints them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use twinlog::batch::{Stamp, encode_simple};
use twinlog::offsets::{OffsetMap, SourceOffset as S, TargetOffset as T, Translation};
use twinlog::state::keys::MapKeys;
use twinlog::state::maps;

const HOLES: usize = 10_000_000;
const MEGABYTE: usize = 1_000_000;
/// How much the flow's timer stores at once when a copy is at full speed.
const HOLES_PER_SAVE: usize = 100_000;

#[test]
fn ten_million_holes_are_a_few_dozen_megabytes() {
    let before = resident_bytes();
    let mut lengths = StdRng::seed_from_u64(7);
    let mut map = OffsetMap::identity_from(S(0));
    let keys = MapKeys::new("dr", "a-topic-of-usual-length", 17);
    let mut target: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
    let (mut source, mut on_target) = (0, 0);
    let (mut largest, mut written, mut saves) = (0, 0, 0);
    for hole in 1..=HOLES {
        let len = lengths.random_range(1..=50);
        map.push_copied(S(source), T(on_target), len as u64)
            .unwrap();
        map.push_hole(S(source + len), 1).unwrap();
        (source, on_target) = (source + len + 1, on_target + len);
        if hole % HOLES_PER_SAVE > 0 {
            continue;
        }
        saves += 1;
        for (key, value) in maps::changes(&target, &keys, &map).unwrap() {
            let value = value.expect("nothing was trimmed");
            let record = [(Some(key.as_bytes()), Some(&value[..]))];
            let size = encode_simple(&record, 1_700_000_000_000, Stamp::NONE).len();
            largest = largest.max(size);
            written += size;
            target.insert(key, value);
        }
    }
    let kept: usize = target
        .iter()
        .map(|(key, value)| {
            let record = [(Some(key.as_bytes()), Some(&value[..]))];
            encode_simple(&record, 1_700_000_000_000, Stamp::NONE).len()
        })
        .sum();
    let heap = map.heap_bytes();
    println!(
        "{HOLES} holes: map {} in memory ({:.2} bytes a hole); process with the state's keys {}; \
         state topic {} in {} records, each in a batch of its own, {} written in {saves} saves; \
         largest record {largest} bytes",
        megabytes(heap),
        heap as f64 / HOLES as f64,
        megabytes(resident_bytes().saturating_sub(before)),
        megabytes(kept),
        target.len(),
        megabytes(written),
    );
    assert!(heap <= 48 * MEGABYTE, "{heap} bytes in memory");
    assert!(kept <= 48 * MEGABYTE, "{kept} bytes on the target");
    assert!(largest <= 1 << 20, "a record of {largest} bytes");
    // Every hole was stored once; the rest are heads.
    assert!(
        written - kept <= saves * 64 * 1024,
        "{written} bytes were written for {kept}"
    );

    let stored = maps::load(&target, &keys).unwrap().unwrap();
    assert_eq!(
        (stored.source_end(), stored.target_end()),
        (S(source), T(on_target))
    );
    assert_eq!(stored.runs().count(), HOLES);
    // The stored map shares the bytes of the state: only its table of segments is new.
    let mut lengths = StdRng::seed_from_u64(7);
    let (mut source, mut on_target) = (0, 0);
    for hole in 0..HOLES {
        let len: i64 = lengths.random_range(1..=50);
        if hole % 9_973 == 0 {
            let (last, marker) = (source + len - 1, source + len);
            for (asked, answer) in [
                (source, on_target),
                (last, on_target + len - 1),
                (marker, on_target + len),
            ] {
                assert_eq!(stored.translate(S(asked)), Translation::Exact(T(answer)));
            }
            assert_eq!(stored.reverse(T(on_target)), Translation::Exact(S(source)));
        }
        (source, on_target) = (source + len + 1, on_target + len);
    }
}

fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / MEGABYTE as f64)
}

/// What the process has in memory (Linux); 0 where it isn't told.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    kib.unwrap_or(0) * 1024
}
