//! After a night's outage some partitions have much to catch up with: the others, which have a record now and then,
//! don't wait for it on the line that they share.

use std::collections::BTreeMap;

use fake_kafka::memory::Path;
use fake_kafka::world::{self, Brokers, World};

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side};
use crate::sim::scene::{Scene, Write};

/// Partitions with a backlog, and without.
const OLD: i32 = 20;
const FRESH: i32 = 90;
const BATCH_BYTES: usize = 64 * 1024;
/// Of each with a backlog: 160 MB in all.
const BATCHES: u64 = 128;
const RATE: i64 = 20_000_000;
const ONE_WAY_US: i64 = 10_000;
/// A fresh record is on the target within this.
const AGE_MAX_MS: i64 = 2_000;
const STEP_MS: i64 = 50;

fn shared_line(path: &mut Path) {
    (path.to_broker_us, path.to_client_us) = (ONE_WAY_US, ONE_WAY_US);
    path.bytes_per_second = Some(RATE);
}

fn end(brokers: &Brokers, place: &Place) -> i64 {
    brokers.cluster.look(|state| {
        let partition = state.partition(&place.topic, place.partition);
        let log = partition.and_then(|it| it.leader_log());
        log.map_or(0, |log| log.end_offset())
    })
}

fn places(topic: &str, count: i32) -> Vec<Place> {
    (0..count).map(|at| Place::new(topic, at)).collect()
}

/// What is seen while the backlog is copied.
#[derive(Debug, Default)]
struct Seen {
    /// How old fresh records were when they arrived, at most.
    oldest_ms: i64,
    /// Records of the backlog that were copied since all were begun, of the partition with the fewest and of the one with
    /// the most, when half was copied.
    half: (i64, i64),
    took_ms: i64,
}

/// Writes to the fresh ones now and then, and watches both until the backlog is copied.
fn watch(world: &mut World, scene: &mut Scene, old: &[Place], fresh: &[Place]) -> Seen {
    let began_ms = world.now_ms();
    let mut seen = Seen::default();
    let mut written: BTreeMap<Place, Vec<(i64, i64)>> = BTreeMap::new();
    let wanted: i64 = BATCHES.cast_signed() * i64::from(OLD);
    let copied = |scene: &Scene| -> Vec<i64> {
        let ends = old.iter().map(|place| end(&scene.target, place) - 1);
        ends.collect()
    };
    let before = copied(scene);
    for step in 0.. {
        assert!(world.now_ms() - began_ms < 120_000, "{seen:?}");
        if step % 10 == 0 {
            for place in fresh {
                let at = end(&scene.source, place);
                scene.write(world, Side::Primary, place, 1, Write::default());
                let of_place = written.entry(place.clone()).or_default();
                of_place.push((at, world.now_ms()));
            }
        }
        world.run_for(STEP_MS);
        for (place, waiting) in &mut written {
            let copied = end(&scene.target, place);
            for (_, at_ms) in waiting.extract_if(.., |(offset, _)| *offset < copied) {
                seen.oldest_ms = seen.oldest_ms.max(world.now_ms() - at_ms);
            }
        }
        let now = copied(scene);
        let all: i64 = now.iter().sum();
        if all * 2 >= wanted && seen.half == (0, 0) {
            let since = || now.iter().zip(&before).map(|(now, before)| now - before);
            let (least, most) = (since().min(), since().max());
            seen.half = (least.expect("some"), most.expect("some"));
        }
        if all >= wanted {
            break;
        }
    }
    let left = written.values().flatten();
    let oldest = left.map(|(_, at_ms)| world.now_ms() - at_ms).max();
    seen.oldest_ms = seen.oldest_ms.max(oldest.unwrap_or(0));
    seen.took_ms = world.now_ms() - began_ms;
    seen
}

fn catches_up(side: Side, lines: &str) -> Seen {
    let lines = lines.to_owned();
    world::run(1, move |world| {
        let mut scene = Scene::new(world, 1, &lines);
        scene.topic("old", OLD, 1, &[]);
        scene.topic("fresh", FRESH, 1, &[]);
        let (old, fresh) = (places("old", OLD), places("fresh", FRESH));
        let all: Vec<Place> = old.iter().chain(&fresh).cloned().collect();
        let twinlog = scene.twinlog(world, "twinlog");
        for place in &all {
            scene.write(world, Side::Primary, place, 1, Write::default());
        }
        scene.must_copy(world, &all, 60_000);
        twinlog.process.kill();
        world.paths(&scene.side(side).clone(), shared_line);
        let batch = Write {
            bytes: BATCH_BYTES,
            ..Write::default()
        };
        for place in &old {
            scene.write(world, Side::Primary, place, BATCHES, batch);
        }
        let twinlog = scene.twinlog(world, "twinlog-again");
        // Until it has the flow, and all partitions are open: they are opened some at a time.
        let target = scene.target.clone();
        let begun = old.clone();
        world.must("it goes on", 30_000, move |_| {
            begun.iter().all(|place| end(&target, place) > 1)
        });
        let seen = watch(world, &mut scene, &old, &fresh);
        println!("{side:?}: {seen:?}");
        scene.must_copy(world, &all, 60_000);
        world.run_for(5_000);
        let judged = all.iter();
        let found: Vec<_> = judged
            .flat_map(|place| scene.judge_copy(world, &twinlog, place, Offsets::Identical, &[]))
            .collect();
        holds("a backlog beside fresh records", &found);
        seen
    })
}

fn assert_fair(seen: &Seen) {
    assert!(seen.oldest_ms <= AGE_MAX_MS, "{seen:?}");
    let (least, most) = seen.half;
    // Each gets the same in a request; lanes and the first moments differ.
    assert!(least * 3 >= most, "shares are the same: {seen:?}");
}

fn assert_full(seen: &Seen) {
    let bytes = i64::from(OLD) * BATCHES.cast_signed() * BATCH_BYTES as i64;
    let least_ms = bytes * 1_000 / RATE;
    assert!(
        seen.took_ms * 10 <= least_ms * 13,
        "{seen:?}, not {least_ms} ms"
    );
}

#[test]
fn fresh_records_dont_wait_for_a_backlog_on_the_line_to_the_target() {
    let seen = catches_up(Side::Standby, "");
    assert_fair(&seen);
    assert_full(&seen);
}

#[test]
fn fresh_records_dont_wait_for_a_backlog_on_the_line_to_the_source() {
    let seen = catches_up(Side::Primary, "");
    assert_fair(&seen);
    assert_full(&seen);
}

#[test]
fn fresh_records_dont_wait_for_a_backlog_under_a_limit_of_ours() {
    let seen = catches_up(Side::Standby, "limits: { bytes_per_second: 5MiB }");
    assert_fair(&seen);
}
