//! Old records of the source are in remote storage, which is slow: they are read to their end, and nobody else waits for
//! them.

use fake_kafka::partition::Remote;
use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side};
use crate::sim::scene::{Scene, Write, names, partition_status};

/// More than an ordinary fetch waits.
const DELAY_MS: i64 = 800;
const TIERED: i32 = 8;
const CURRENT: i32 = 6;
const BATCHES: u64 = 40;
const BELOW: i64 = 30;
const BATCH_BYTES: usize = 16 * 1024;
/// A record of a partition that is current is on the target within this.
const AGE_MAX_MS: i64 = 400;

fn play(world: &mut World) {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("old", TIERED, 1, &[("remote.storage.enable", "true")]);
    scene.topic("current", CURRENT, 1, &[]);
    let old: Vec<Place> = (0..TIERED).map(|at| Place::new("old", at)).collect();
    let current: Vec<Place> = (0..CURRENT).map(|at| Place::new("current", at)).collect();
    let batch = Write {
        bytes: BATCH_BYTES,
        ..Write::default()
    };
    for place in &old {
        scene.write(world, Side::Primary, place, BATCHES, batch);
        let remote = Remote {
            below: BELOW,
            delay_ms: DELAY_MS,
        };
        let (topic, partition) = (place.topic.clone(), place.partition);
        scene
            .source
            .cluster
            .control(|state| state.tier(&topic, partition, remote));
    }
    let twinlog = scene.twinlog(world, "twinlog");
    for place in &current {
        scene.write(world, Side::Primary, place, 1, Write::default());
    }
    scene.must_copy(world, &current, 30_000);
    // It is found out who is read from there.
    world.run_for(2_500);
    let (mut oldest_ms, mut told) = (0, 0);
    for round in 0.. {
        assert!(round < 200, "it comes to an end");
        for place in &current {
            scene.write(world, Side::Primary, place, 1, Write::default());
        }
        let began_ms = world.now_ms();
        scene.must_copy(world, &current, 5_000);
        oldest_ms = oldest_ms.max(world.now_ms() - began_ms);
        for place in &old {
            let status = partition_status(world, &twinlog, place).expect("it is known");
            told = told.max(status.remote_records);
        }
        world.run_for(100);
        let is_whole = |place| names(&scene.source, place) == names(&scene.target, place);
        if old.iter().all(is_whole) {
            break;
        }
    }
    println!("current ones within {oldest_ms} ms, {told} records are told to be remote");
    assert!(oldest_ms <= AGE_MAX_MS, "{oldest_ms} ms");
    assert!(told > 0 && told <= BELOW, "{told}");
    for place in old.iter().chain(&current) {
        let found = scene.judge_copy(world, &twinlog, place, Offsets::Identical, &[]);
        holds("a tiered source", &found);
    }
}

#[test]
fn remote_records_are_read_to_their_end_and_hold_up_nobody() {
    world::run(1, play);
}
