//! A group commits while a second process takes the flow over from a first one.

use fake_kafka::world::{self, Phase, World};

use crate::sim::expected::holds;
use crate::sim::model::Violation;
use crate::sim::process;
use crate::sim::scene::Scene;

/// The group commits so often,
const COMMITS: i64 = 80;
/// so long after one another.
const PAUSE_MS: u64 = 50;

/// The second process reaches the source late, when the first still commits what it sees there.
/// `beside`: the first runs until it finds that it has lost its claim; else it has ended in order.
fn play(world: &mut World, beside: bool) -> Vec<Violation> {
    let (scene, first, place) = Scene::with_groups(world, COMMITS, "first");
    world.run_for(3_000);
    let group = scene.commits(world, COMMITS, PAUSE_MS);
    world.run_for(1_000);
    if !beside {
        first.process.stop();
        let ended = first.process.clone();
        world.must("it ends", 15_000, move |_| ended.phase() == Phase::Ended);
    }
    let second = process::run(world, "second", &scene.text);
    let a_moment_ms = 100 + world.random(300);
    world.run_for(a_moment_ms.cast_signed());
    world.partition(&second.process, &scene.source);
    world.run_for(1_000);
    world.heal(&second.process, &scene.source);
    world.result(&group, 60_000);
    world.run_for(20_000);
    scene.judge_group("group", &place)
}

#[test]
fn what_the_old_owner_commits_while_it_is_superseded_is_no_clients() {
    for seed in crate::sim::seeds(10) {
        holds(
            "one beside the other",
            &world::run(seed, |world| play(world, true)),
        );
    }
}

#[test]
fn a_group_is_followed_by_the_next_owner() {
    for seed in crate::sim::seeds(3) {
        holds(
            "one after the other",
            &world::run(seed, |world| play(world, false)),
        );
    }
}
