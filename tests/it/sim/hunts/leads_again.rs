//! A broker of the target loses the lead for a moment while fillers are on their way to it, and gets it back before it works
//! on them. Who gave them up meanwhile has them in the log twice.

use fake_kafka::Options;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Side, Violation};
use crate::sim::scene::{Scene, Write};

/// How late the broker works on them. Nothing else moves on their connection meanwhile.
const LATE_MS: i64 = 4_000;

/// `away_ms`: how long another one leads.
fn play(world: &mut World, away_ms: i64) -> Vec<Violation> {
    let options = Options {
        brokers: 3,
        default_replication: 3,
        ..Options::default()
    };
    let mut scene = Scene::with(world, options.clone(), options, "");
    scene.topic("t", 1, 3, &[]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    for _ in 0..3 {
        scene.write(world, Side::Primary, &place, 2, Write::COMMITTED);
    }
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(5_000);
    let cluster = scene.target.cluster.clone();
    let late = Fault::on_topic(ApiKey::WriteTxnMarkers, "t").times(1);
    let late = cluster.fault(late, Action::Delay(LATE_MS));
    scene.write(world, Side::Primary, &place, 2, Write::COMMITTED);
    let watched = cluster.clone();
    world.must("the filler is on its way", 10_000, move |_| {
        watched.fired(late) > 0
    });
    let (first, next) = cluster.control(|state| {
        let found = state.partition("t", 0).expect("it is there");
        let first = found.leader.expect("it is led");
        let others = found.in_sync.iter().filter(|it| **it != first);
        (first, others.copied().next().expect("another is in sync"))
    });
    cluster.control(|state| state.move_leader("t", 0, next));
    world.run_for(away_ms);
    cluster.control(|state| state.move_leader("t", 0, first));
    world.run_for(LATE_MS);
    for _ in 0..3 {
        scene.write(world, Side::Primary, &place, 2, Write::COMMITTED);
    }
    scene.must_copy(world, std::slice::from_ref(&place), 60_000);
    world.run_for(10_000);
    scene.judge_copy(world, &twinlog, &place, Offsets::Identical, &[])
}

#[test]
fn fillers_that_are_carried_out_late_stand_in_the_log_once() {
    for seed in crate::sim::seeds(4) {
        let found = world::run(seed, |world| play(world, 1_800));
        holds("a leader that leads again", &found);
    }
}
