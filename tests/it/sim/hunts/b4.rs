//! Two processes start for one flow, whose claim was given back, while transactions are copied.

use fake_kafka::world::{self, World};
use twinlog::flow::AllEnded;

use crate::sim::expected::holds;
use crate::sim::model::{Offsets, Place, Violation};
use crate::sim::process;
use crate::sim::scene::Scene;

const ROUNDS: u64 = 12;
const PARTITIONS: i32 = 4;
/// Rounds of two starts, `apart_ms` apart at least and a moment more, until the model finds something.
fn play(world: &mut World, apart_ms: i64) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", PARTITIONS, 1, &[]);
    let places: Vec<Place> = (0..PARTITIONS).map(|at| Place::new("t", at)).collect();
    let first = scene.twinlog(world, "first");
    scene.commit_for(world, PARTITIONS, 1_000, 20);
    scene.must_copy(world, &places, 30_000);
    let second = process::run(world, "second", &scene.text);
    second.process.kill();
    first.process.stop();
    assert_eq!(world.result(&first.process, 15_000), AllEnded::AsTold);
    for _ in 0..ROUNDS {
        first.process.restart();
        let more_ms = world.random(6);
        scene.commit_for(world, PARTITIONS, apart_ms, 20);
        world.run_for(more_ms.cast_signed());
        second.process.restart();
        scene.commit_for(world, PARTITIONS, 2_000, 20);
        // One of them has lost its claim by now.
        let both = [first.clone(), second.clone()];
        world.must("one of them waits", 10_000, move |world| {
            both.iter().any(|it| it.waits(world))
        });
        world.run_for(5_000);
        let owner = [&first, &second]
            .into_iter()
            .find(|it| it.has_the_flow(world))
            .expect("one of them goes on");
        let found: Vec<Violation> = places
            .iter()
            .flat_map(|at| scene.judge_copy(world, owner, at, Offsets::Identical, &[]))
            .collect();
        if !found.is_empty() {
            return found;
        }
        for it in [&first, &second] {
            it.process.stop();
        }
        for it in [&first, &second] {
            assert_eq!(world.result(&it.process, 15_000), AllEnded::AsTold);
        }
    }
    Vec::new()
}

#[test]
fn of_two_that_start_at_once_one_fills() {
    for seed in crate::sim::seeds(5) {
        let found = world::run(seed, |world| play(world, 0));
        holds("at once", &found);
    }
}

#[test]
fn of_two_that_start_one_after_the_other_one_fills() {
    holds("5 s apart", &world::run(1, |world| play(world, 5_000)));
}
