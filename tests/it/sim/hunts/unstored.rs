//! A group that had rested for long commits, and Twinlog dies before it has remembered that.

use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::Violation;
use crate::sim::scene::Scene;

/// The group commits so often,
const COMMITS: i64 = 40;
/// so long after one another.
const PAUSE_MS: u64 = 50;
/// Longer than a record tells of what may have come behind it.
const REST_MS: i64 = 40_000;

fn play(world: &mut World) -> Vec<Violation> {
    let (scene, twinlog, place) = Scene::with_groups(world, COMMITS, "twinlog");
    for (count, then_ms) in [(1, REST_MS), (COMMITS, 0)] {
        let group = scene.commits(world, count, PAUSE_MS);
        if count > 1 {
            // In the middle of it, before anything of it is remembered.
            let moment_ms = 300 + world.random(1_200);
            world.run_for(moment_ms.cast_signed());
            twinlog.process.kill();
            world.run_for(100);
            twinlog.process.restart();
        }
        world.result(&group, 60_000);
        world.run_for(then_ms);
    }
    world.run_for(20_000);
    scene.judge_group("group", &place)
}

#[test]
fn what_was_committed_right_before_a_crash_is_known_as_ours() {
    for seed in crate::sim::seeds(10) {
        holds("behind a rest", &world::run(seed, play));
    }
}
