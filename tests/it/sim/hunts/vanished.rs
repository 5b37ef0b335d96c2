//! A broker's host is gone without a word: nothing it was asked is answered, nothing closes its connections. When others
//! lead what it led, nobody waits for it any more.

use fake_kafka::Options;
use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side};
use crate::sim::scene::{Scene, Write};

const PARTITIONS: i32 = 6;
/// Before the others elect: `broker.session.timeout.ms` by default.
const ELECTION_MS: i64 = 9_000;
/// A record that is written right behind the election is on the target so long after it.
const SOON_MS: i64 = 2_000;

fn places(scene: &Scene, side: Side, led_by: Option<i32>) -> Vec<Place> {
    let all = (0..PARTITIONS).map(|at| Place::new("t", at));
    let is_led = |place: &Place| {
        let leader = scene.side(side).cluster.look(|state| {
            let found = state.partition(&place.topic, place.partition);
            found.and_then(|it| it.leader)
        });
        led_by.is_none_or(|id| leader == Some(id))
    };
    all.filter(is_led).collect()
}

fn write(world: &World, scene: &mut Scene, places: &[Place]) {
    for place in places {
        scene.write(world, Side::Primary, place, 3, Write::default());
    }
}

/// `is_busy`: something is on its way to the broker when it vanishes.
fn vanishes(world: &mut World, side: Side, gone: i32, is_busy: bool) -> i64 {
    let options = Options {
        brokers: 3,
        default_replication: 3,
        ..Options::default()
    };
    let mut scene = Scene::with(world, options.clone(), options, "");
    scene.topic("t", PARTITIONS, 3, &[]);
    let twinlog = scene.twinlog(world, "twinlog");
    let all = places(&scene, side, None);
    write(world, &mut scene, &all);
    scene.must_copy(world, &all, 30_000);
    world.run_for(15_000);
    let cluster = scene.side(side).cluster.clone();
    let led = places(&scene, side, Some(gone));
    assert!(!led.is_empty());
    cluster.control(|state| state.freeze_broker(gone));
    if is_busy {
        // On a frozen source nobody writes to what it leads.
        let written = match side {
            Side::Primary => all.iter().filter(|it| !led.contains(it)).cloned().collect(),
            Side::Standby => all.clone(),
        };
        write(world, &mut scene, &written);
    }
    world.run_for(ELECTION_MS);
    cluster.control(|state| state.fence_broker(gone));
    let began_ms = world.now_ms();
    write(world, &mut scene, &all);
    scene.must_copy(world, &all, 30_000);
    let took_ms = world.now_ms() - began_ms;
    cluster.control(|state| state.thaw_broker(gone));
    write(world, &mut scene, &all);
    scene.must_copy(world, &all, 30_000);
    world.run_for(10_000);
    let judged = all.iter();
    let found: Vec<_> = judged
        .flat_map(|place| scene.judge_copy(world, &twinlog, place, Offsets::Identical, &[]))
        .collect();
    holds("a broker that vanished", &found);
    took_ms
}

fn assert_soon(side: Side, gone: i32, is_busy: bool) {
    for seed in crate::sim::seeds(3) {
        let took_ms = world::run(seed, move |world| vanishes(world, side, gone, is_busy));
        println!("{side:?}, broker {gone}, busy {is_busy}: {took_ms} ms");
        assert!(
            took_ms <= SOON_MS,
            "{side:?}, broker {gone}, busy {is_busy}, seed {seed}: {took_ms} ms"
        );
    }
}

/// The first one is who is asked for metadata.
#[test]
fn a_source_broker_that_vanished_is_left_when_another_one_leads() {
    for gone in [1, 2] {
        assert_soon(Side::Primary, gone, true);
    }
}

#[test]
fn a_target_broker_that_vanished_is_left_when_another_one_leads() {
    for gone in [1, 2] {
        assert_soon(Side::Standby, gone, true);
        assert_soon(Side::Standby, gone, false);
    }
}
