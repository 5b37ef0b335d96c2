//! Maps as a damaged or hostile state topic would hold them.

use std::sync::Arc;

use super::{MapHead, OffsetMap, SourceOffset, TargetOffset};
use crate::fuzz::{Dice, Input, Target};

const MAPS: Target = Target {
    name: "maps",
    rounds: 4_000,
    bytes_base: 1 << 20,
    bytes_per_byte: 256,
};

#[test]
fn fuzz_maps() {
    let known = map(&mut Dice::new(1), 20);
    let segments = segments(&known);
    let make = |dice: &mut Dice| match dice.below(3) {
        0 => {
            let holes = dice.below(20);
            let bytes = map(dice, holes).encode();
            Input::new("whole", changed(dice, &bytes))
        }
        1 => {
            let segment = dice.one(&segments).clone();
            Input::new("segment", changed(dice, &segment))
        }
        _ => {
            let head = serde_json::to_vec(&known.head()).expect("JSON");
            Input::new("head", dice.damage(&head))
        }
    };
    MAPS.hunt(make, |input| match input.of.as_str() {
        "whole" => {
            if let Ok(map) = OffsetMap::decode(&input.bytes) {
                examine(&map);
            }
        }
        "segment" => {
            for at in 0..segments.len() {
                let mut segments = segments.clone();
                segments[at] = Arc::from(&input.bytes[..]);
                assembled(known.head(), segments);
            }
        }
        _ => {
            if let Ok(head) = serde_json::from_slice(&input.bytes) {
                assembled(head, segments.clone());
            }
        }
    });
}

/// Oldest first.
fn segments(map: &OffsetMap) -> Vec<Arc<[u8]>> {
    let newest_first = map.segments_newest_first().map(|(_, it)| it.clone());
    let mut segments: Vec<_> = newest_first.collect();
    segments.reverse();
    segments
}

fn assembled(head: MapHead, segments: Vec<Arc<[u8]>>) {
    if let Ok(map) = OffsetMap::assemble(head, segments) {
        examine(&map);
    }
}

/// Holes and shifts, in a few segments.
fn map(dice: &mut Dice, holes: usize) -> OffsetMap {
    let start = SourceOffset(dice.below(1_000) as i64);
    let mut map = OffsetMap::starting_at(start, TargetOffset(7)).with_segment_runs(4);
    for _ in 0..holes {
        let (copied, hole) = (1 + dice.below(300) as u64, 1 + dice.below(3) as u64);
        map.push_copied(map.source_end(), map.target_end(), copied)
            .expect("at its end");
        map.push_hole(map.source_end(), hole).expect("at its end");
    }
    map
}

/// Damaged, mostly with a checksum that fits: what damage a checksum lets through is the writer's.
fn changed(dice: &mut Dice, bytes: &[u8]) -> Vec<u8> {
    let body = &bytes[..bytes.len() - 4];
    let mut body = dice.damage(body);
    let checksum = crc32c::crc32c(&body) ^ u32::from(dice.percent(5));
    body.extend(checksum.to_be_bytes());
    body
}

/// What is read is a map: it is written as it was read, and answers anything.
fn examine(map: &OffsetMap) {
    assert_eq!(OffsetMap::decode(&map.encode()).as_ref(), Ok(map));
    let (source_end, target_end) = (map.source_end().0, map.target_end().0);
    for offset in [
        i64::MIN,
        -1,
        0,
        map.source_start().0,
        source_end / 2,
        source_end,
        i64::MAX,
    ] {
        let _ = map.translate(SourceOffset(offset));
    }
    for offset in [
        i64::MIN,
        -1,
        0,
        map.target_start().0,
        target_end / 2,
        target_end,
        i64::MAX,
    ] {
        let _ = map.reverse(TargetOffset(offset));
    }
    let mut trimmed = map.clone();
    trimmed.trim(SourceOffset(source_end / 2), TargetOffset(target_end / 2));
    let _ = (
        trimmed.is_identity(),
        trimmed.constant_shift(),
        trimmed.heap_bytes(),
    );
}
