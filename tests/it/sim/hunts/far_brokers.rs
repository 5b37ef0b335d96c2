//! Brokers pin their socket buffers, so over a distance one connection carries little: there are more of them.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::memory::Path;
use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side};
use crate::sim::scene::{Scene, Write};

const PARTITIONS: i32 = 32;
const ONE_WAY_US: i64 = 100_000;
/// `socket.send.buffer.bytes` and `socket.receive.buffer.bytes` by default.
const BUFFER_BYTES: usize = 102_400;
const BATCH_BYTES: usize = 64 * 1024;

fn far(path: &mut Path) {
    (path.to_broker_us, path.to_client_us) = (ONE_WAY_US, ONE_WAY_US);
    path.in_flight_bytes = BUFFER_BYTES;
}

/// Copies so many batches of each partition while that side is far away: how long it takes, and how many
/// connections there were to it in the end.
fn copy(world: &mut World, side: Side, batches: u64, lines: &str) -> (i64, u64) {
    let mut scene = Scene::new(world, 1, lines);
    scene.topic("t", PARTITIONS, 1, &[]);
    let brokers = scene.side(side).clone();
    world.paths(&brokers, far);
    let places: Vec<Place> = (0..PARTITIONS).map(|at| Place::new("t", at)).collect();
    let twinlog = scene.twinlog(world, "twinlog");
    for place in &places {
        scene.write(world, Side::Primary, place, 1, Write::default());
    }
    scene.must_copy(world, &places, 60_000);
    let before = world.traffic(&brokers).connections;
    let batch = Write {
        bytes: BATCH_BYTES,
        ..Write::default()
    };
    for _ in 0..batches {
        for place in &places {
            scene.write(world, Side::Primary, place, 1, batch);
        }
    }
    let began_ms = world.now_ms();
    scene.must_copy(world, &places, 300_000);
    let took_ms = world.now_ms() - began_ms;
    let after = world.traffic(&brokers).connections;
    world.run_for(5_000);
    let judged = places.iter();
    let found: Vec<_> = judged
        .flat_map(|place| scene.judge_copy(world, &twinlog, place, Offsets::Identical, &[]))
        .collect();
    holds("a far side", &found);
    println!("{side:?}: {took_ms} ms, connections {before} to {after}");
    (took_ms, after - before)
}

/// How long one connection takes for all of it.
fn one_connection_ms(batches: u64) -> i64 {
    let bytes = batches.cast_signed() * i64::from(PARTITIONS) * BATCH_BYTES as i64;
    bytes * 2 * ONE_WAY_US / BUFFER_BYTES as i64 / 1_000
}

#[test]
fn partitions_of_a_far_broker_are_spread_over_more_connections() {
    for side in [Side::Primary, Side::Standby] {
        let (took_ms, more) = world::run(1, move |world| copy(world, side, 12, ""));
        let one_ms = one_connection_ms(12);
        assert!(took_ms * 2 <= one_ms, "{took_ms} ms, not {one_ms}");
        assert!(
            (6..=16).contains(&more),
            "{side:?}: {more} more connections"
        );
    }
}

#[test]
fn they_are_no_more_than_the_config_allows() {
    let (_, more) = world::run(1, |world| {
        copy(
            world,
            Side::Standby,
            8,
            "limits: { connections_per_broker: 4 }",
        )
    });
    assert_eq!(more, 2, "from two to four");
}

#[test]
fn next_door_there_are_as_many_as_ever() {
    let made = world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", PARTITIONS, 1, &[]);
        let places: Vec<Place> = (0..PARTITIONS).map(|at| Place::new("t", at)).collect();
        let twinlog = scene.twinlog(world, "twinlog");
        scene.must_copy(world, &places, 60_000);
        let batch = Write {
            bytes: BATCH_BYTES,
            ..Write::default()
        };
        for place in &places {
            scene.write(world, Side::Primary, place, 1, batch);
        }
        scene.must_copy(world, &places, 60_000);
        let count = |side| world.traffic(scene.side(side)).connections;
        let before = (count(Side::Primary), count(Side::Standby));
        for _ in 0..6 {
            for place in &places {
                scene.write(world, Side::Primary, place, 1, batch);
            }
        }
        scene.must_copy(world, &places, 60_000);
        drop(twinlog);
        let count = |side| world.traffic(scene.side(side)).connections;
        (
            count(Side::Primary) - before.0,
            count(Side::Standby) - before.1,
        )
    });
    assert!(
        made.0 <= 1 && made.1 == 0,
        "{made:?}: at most the session of crowded partitions"
    );
}

/// A far source takes longer to answer than a flow waits for it before it looks whether the source is needed at all: what is
/// on its way isn't begun anew.
#[test]
fn a_far_source_is_connected_to_and_asked_once() {
    let made = world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", 1, 1, &[]);
        let place = Place::new("t", 0);
        scene.write(world, Side::Primary, &place, 1, Write::default());
        let brokers = scene.side(Side::Primary).clone();
        let far = Fault::on(ApiKey::Metadata).times(1);
        let far = brokers.cluster.fault(far, Action::Hold);
        let before = world.traffic(&brokers).connections;
        let _twinlog = scene.twinlog(world, "twinlog");
        world.run_for(3_000);
        let spent = world.spent(&brokers);
        let asked = spent.get("Metadata").map_or(0, |it| it.requests);
        let made = world.traffic(&brokers).connections - before;
        brokers.cluster.clear(far);
        scene.must_copy(world, &[place], 10_000);
        (made, asked)
    });
    assert_eq!(made, (1, 1), "connections, and questions");
}
