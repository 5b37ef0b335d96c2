//! A batch that the target refuses, while the target has forgotten who writes.

use fake_kafka::Options;
use fake_kafka::world::{self, World};

use crate::sim::expected::{expected_failure, holds};
use crate::sim::model::{Offsets, Place, Side, Violation};
use crate::sim::scene::{Scene, Write};

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
fn a_refused_batch_is_overtaken_once_its_producer_is_forgotten() {
    expected_failure("A1", |seed| world::run(seed, |world| play(world, true)));
}

#[test]
fn a_refused_batch_is_not_overtaken_while_its_producer_is_known() {
    for seed in 1..=3 {
        holds("remembered", &world::run(seed, |world| play(world, false)));
    }
}
