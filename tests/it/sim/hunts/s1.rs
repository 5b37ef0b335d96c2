//! A group commits for the first time while a second process takes the flow over from a first one.

use std::collections::BTreeMap;

use fake_kafka::world::{self, World};

use crate::sim::clients;
use crate::sim::expected::{expected_failure, holds};
use crate::sim::model::{Place, Side, Violation};
use crate::sim::process;
use crate::sim::scene::{Scene, Write};

/// Commits a position of the group on the source.
fn commit(world: &mut World, scene: &Scene, position: i64) {
    let source = scene.source.clone();
    let committing = world.process(&format!("group-at-{position}"), move |ctx| {
        let source = source.clone();
        async move {
            let positions = BTreeMap::from([(0, position)]);
            clients::commit_once(&ctx, &source, "t", "group", &positions).await;
        }
    });
    world.result(&committing, 10_000);
}

/// `before`: the group was there before the second process started.
fn play(world: &mut World, before: bool) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    for brokers in [&scene.source, &scene.target] {
        brokers.cluster.control(|state| state.create_offsets_topic());
    }
    let place = Place::new("t", 0);
    scene.twinlog(world, "first");
    scene.write(world, Side::Primary, &place, 50, Write::default());
    scene.must_copy(world, &[place.clone()], 30_000);
    world.run_for(3_000);
    if before {
        commit(world, &scene, 5);
        world.run_for(3_000);
    }
    process::run(world, "second", &scene.text);
    let a_moment_ms = 50 + world.random(400);
    world.run_for(a_moment_ms.cast_signed());
    commit(world, &scene, 10);
    world.run_for(10_000);
    commit(world, &scene, 40);
    world.run_for(20_000);
    scene.judge_group("group", &place)
}

#[test]
fn a_groups_first_commit_during_a_takeover_is_taken_for_somebody_elses() {
    expected_failure("S1", |seed| world::run(seed, |world| play(world, false)));
}

#[test]
fn a_known_groups_commit_during_a_takeover_is_followed() {
    for seed in 1..=3 {
        holds("a known group", &world::run(seed, |world| play(world, true)));
    }
}
