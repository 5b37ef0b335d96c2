//! A batch that the target refuses, while the target has forgotten who writes: the next one must not take its
//! place, and where that can't be helped it must be known.

use fake_kafka::Options;
use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::error::ResponseError;
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::logs;
use crate::sim::model::{Offsets, Place, Says, Side, Violation};
use crate::sim::scene::{Scene, Write, says};

const TOO_LARGE_FOR_THE_TARGET: usize = 200_000;
const LINES: &str = "configs: { fixed: { max.message.bytes: \"100000\" } }";

/// One that is too large for the target and three that aren't come in one fetch, behind a pause in which
/// the target forgets, or doesn't.
fn play(world: &mut World, forgets: bool) -> Vec<Violation> {
    let target = Options {
        producer_check_interval_ms: None,
        ..Options::default()
    };
    let mut scene = Scene::with(world, Options::default(), target, LINES);
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    let committed = Write {
        transaction: Some(true),
        ..Write::default()
    };
    scene.write(world, Side::Primary, &place, 1, committed);
    scene.write(world, Side::Primary, &place, 1, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    // The limit follows with the metadata.
    world.run_for(6_000);
    if forgets {
        let gone = scene.target.cluster.control(|state| {
            state.options.producer_expiration_ms = 3_000;
            state.expire_producers()
        });
        assert!(gone > 0, "the target knew producers");
    }
    twinlog.process.freeze();
    world.run_for(10);
    let large = Write {
        bytes: TOO_LARGE_FOR_THE_TARGET,
        ..Write::default()
    };
    scene.write(world, Side::Primary, &place, 1, large);
    scene.write(world, Side::Primary, &place, 3, Write::default());
    world.run_for(100);
    twinlog.process.thaw();
    world.run_for(10_000);
    scene.judge_copy(world, &twinlog, &place, Offsets::Identical, &["too_large"])
}

#[test]
fn a_refused_batch_is_not_overtaken_once_its_producer_is_forgotten() {
    for seed in crate::sim::seeds(5) {
        holds("forgotten", &world::run(seed, |world| play(world, true)));
    }
}

#[test]
fn a_refused_batch_is_not_overtaken_while_its_producer_is_known() {
    for seed in crate::sim::seeds(3) {
        holds("remembered", &world::run(seed, |world| play(world, false)));
    }
}

/// Old records are on their way in a row while the target forgets all the time, and one batch is
/// refused for a reason that nobody foresees. Nothing can keep the next one from its place: it must be
/// known, and stay known to the next process. Whether it happened.
fn overtake(world: &mut World) -> bool {
    let target = Options {
        producer_check_interval_ms: None,
        producer_expiration_ms: 0,
        ..Options::default()
    };
    let mut scene = Scene::with(world, Options::default(), target, "");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    let old = Write {
        bytes: 100_000,
        age_ms: 172_800_000,
        ..Write::default()
    };
    let forgotten = Action::HasTakenEffect(Box::new(|state, _| {
        state.expire_producers();
    }));
    scene
        .target
        .cluster
        .fault(Fault::on(ApiKey::Produce).topic("t"), forgotten);
    let refused = Fault::on(ApiKey::Produce).topic("t").nth(8).times(1);
    let refused = scene
        .target
        .cluster
        .fault(refused, Action::Refuse(ResponseError::NotEnoughReplicas));
    for _ in 0..40 {
        scene.write(world, Side::Primary, &place, 1, old);
    }
    let twinlog = scene.twinlog(world, "twinlog");
    world.run_for(20_000);
    assert!(scene.target.cluster.fired(refused) > 0, "one was refused");
    let copied = logs::read(&scene.target, &place);
    let is_right = copied == logs::read(&scene.source, &place);
    let overtaken = |says: Says| {
        let reason = "overtaken".to_owned();
        assert_eq!(says == Says::Stopped { reason }, !is_right, "{says:?}");
    };
    overtaken(says(world, &twinlog, &place));
    twinlog.process.kill();
    let twinlog = scene.twinlog(world, "again");
    world.run_for(20_000);
    overtaken(says(world, &twinlog, &place));
    !is_right
}

#[test]
fn what_cannot_be_kept_from_overtaking_is_found() {
    let overtaken = (1..=10).filter(|&seed| world::run(seed, overtake));
    assert!(overtaken.count() > 0, "no batch took another one's place");
}
