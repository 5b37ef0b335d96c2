//! One of the clusters is behind a thin line: nothing is given up, and nothing is sent twice.

use fake_kafka::memory::{Path, Traffic};
use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side, Violation};
use crate::sim::scene::{Scene, Write};

const PARTITIONS: i32 = 16;
/// Batches of each partition.
const BATCHES: u64 = 8;
const BATCH_BYTES: usize = 16 * 1024;
/// It takes longer than any request may be silent.
const LARGE_BYTES: usize = 5_000_000;
/// Brokers' socket buffers.
const BUFFER_BYTES: usize = 102_400;
const RATE: i64 = 150_000;
const ONE_WAY_US: i64 = 100_000;

fn thin(path: &mut Path) {
    (path.to_broker_us, path.to_client_us) = (ONE_WAY_US, ONE_WAY_US);
    path.bytes_per_second = Some(RATE);
    path.in_flight_bytes = BUFFER_BYTES;
}

struct Seen {
    found: Vec<Violation>,
    /// What went over the line in the meantime.
    before: Traffic,
    after: Traffic,
    /// Bytes of records, and how long they took.
    data_bytes: usize,
    took_ms: i64,
}

fn copy(world: &mut World, side: Side) -> Seen {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", PARTITIONS, 1, &[("max.message.bytes", "6000000")]);
    let places: Vec<Place> = (0..PARTITIONS).map(|at| Place::new("t", at)).collect();
    let twinlog = scene.twinlog(world, "twinlog");
    for place in &places {
        scene.write(world, Side::Primary, place, 1, Write::default());
    }
    scene.must_copy(world, &places, 30_000);
    world.run_for(5_000);
    let brokers = scene.side(side).clone();
    world.paths(&brokers, thin);
    let before = world.traffic(&brokers);
    let mut data_bytes = 0;
    for place in &places {
        for bytes in [BATCH_BYTES; BATCHES as usize] {
            let batch = Write {
                bytes,
                ..Write::default()
            };
            scene.write(world, Side::Primary, place, 1, batch);
            data_bytes += bytes;
        }
    }
    let large = Write {
        bytes: LARGE_BYTES,
        ..Write::default()
    };
    scene.write(world, Side::Primary, &places[3], 1, large);
    data_bytes += LARGE_BYTES;
    let began_ms = world.now_ms();
    scene.must_copy(world, &places, 200_000);
    let took_ms = world.now_ms() - began_ms;
    let after = world.traffic(&brokers);
    world.run_for(5_000);
    let judged = places.iter();
    let found = judged
        .flat_map(|place| scene.judge_copy(world, &twinlog, place, Offsets::Identical, &[]))
        .collect();
    Seen {
        found,
        before,
        after,
        data_bytes,
        took_ms,
    }
}

/// `percent`: so much may go over the line for the records.
fn assert_full(seen: &Seen, bytes: u64, percent: u64) {
    let data_bytes = u64::try_from(seen.data_bytes).expect("not negative");
    println!(
        "{data_bytes} bytes of records took {} ms and {bytes} bytes on the line; {:?} to {:?}",
        seen.took_ms, seen.before, seen.after
    );
    assert_eq!(
        seen.after.connections, seen.before.connections,
        "no connection is left"
    );
    assert!(
        bytes * 100 <= data_bytes * percent,
        "{bytes} bytes for {data_bytes}"
    );
    let least_ms = seen.data_bytes as i64 * 1_000 / RATE;
    assert!(
        seen.took_ms * 9 <= least_ms * 10,
        "{} ms instead of {least_ms}",
        seen.took_ms
    );
}

#[test]
fn a_thin_line_to_the_target_carries_everything_once() {
    let seen = world::run(1, |world| copy(world, Side::Standby));
    holds("a thin line to the target", &seen.found);
    assert_full(&seen, seen.after.to_brokers - seen.before.to_brokers, 102);
}

#[test]
fn a_thin_line_to_the_source_carries_everything_once() {
    let seen = world::run(1, |world| copy(world, Side::Primary));
    holds("a thin line to the source", &seen.found);
    // Brokers end an answer anywhere in a batch (`FileRecords.slice`), even in the large one: that part comes
    // again.
    assert_full(&seen, seen.after.to_clients - seen.before.to_clients, 110);
}
