//! A filler that was on its way when another process took the flow over.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side, Violation};
use crate::sim::process;
use crate::sim::scene::{Scene, Write};

/// The first process' filler lies in the broker for as long as the second one needs to fill the same
/// hole. Its number is the same as the second's, so only its epoch tells them apart.
fn play(world: &mut World) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    let first = scene.twinlog(world, "first");
    scene.write(world, Side::Primary, &place, 1, Write::COMMITTED);
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(5_000);
    let late = Fault::on_topic(ApiKey::WriteTxnMarkers, "t").times(1);
    let late = scene.target.cluster.fault(late, Action::Delay(9_000));
    scene.write(world, Side::Primary, &place, 1, Write::COMMITTED);
    let cluster = scene.target.cluster.clone();
    world.must("the filler is on its way", 10_000, move |_| {
        cluster.fired(late) > 0
    });
    first.process.freeze();
    let second = process::run(world, "second", &scene.text);
    world.run_for(20_000);
    first.process.thaw();
    world.run_for(5_000);
    for _ in 0..3 {
        scene.write(world, Side::Primary, &place, 1, Write::COMMITTED);
    }
    world.run_for(10_000);
    scene.judge_copy(world, &second, &place, Offsets::Identical, &[])
}

#[test]
fn a_filler_of_an_older_owner_is_refused() {
    for seed in crate::sim::seeds(5) {
        holds("an old filler", &world::run(seed, play));
    }
}
