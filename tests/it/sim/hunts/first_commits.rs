//! A group commits while the target learns of its first group: our first commit creates the target's log
//! of groups, which is read from then on, beside more of our commits.

use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::{Place, Side, Violation};
use crate::sim::scene::{Scene, Write};

/// The group commits so often,
const COMMITS: i64 = 40;
/// so long after one another.
const PAUSE_MS: u64 = 20;

fn play(world: &mut World) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    let source = &scene.source.cluster;
    source.control(|state| state.create_offsets_topic());
    let place = Place::new("t", 0);
    scene.twinlog(world, "twinlog");
    let written = u64::try_from(COMMITS).expect("not negative");
    scene.write(world, Side::Primary, &place, written, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    // From here on an answer takes its time, and one question overtakes the other.
    let jitter_ms = 20 + world.random(300);
    world.paths(&scene.target, |path| {
        path.jitter_us = jitter_ms.cast_signed() * 1_000
    });
    let group = scene.commits(world, COMMITS, PAUSE_MS);
    world.result(&group, 60_000);
    world.run_for(20_000);
    scene.judge_group("group", &place)
}

#[test]
fn a_group_is_followed_from_the_first_commit_on() {
    for seed in crate::sim::seeds(40) {
        holds("the first group of the target", &world::run(seed, play));
    }
}
