//! A group that had rested for long commits, and Twinlog dies before it has remembered that.

use fake_kafka::world::{self, World};

use crate::sim::clients;
use crate::sim::expected::holds;
use crate::sim::model::{Place, Side, Violation};
use crate::sim::scene::{Scene, Write};

/// The group commits so often,
const COMMITS: i64 = 40;
/// so long after one another.
const PAUSE_MS: u64 = 50;
/// Longer than a record tells of what may have come behind it.
const REST_MS: i64 = 40_000;

fn play(world: &mut World) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    for brokers in [&scene.source, &scene.target] {
        brokers
            .cluster
            .control(|state| state.create_offsets_topic());
    }
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    let written = u64::try_from(COMMITS).expect("not negative");
    scene.write(world, Side::Primary, &place, written, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    for (count, then_ms) in [(1, REST_MS), (COMMITS, 0)] {
        let source = scene.source.clone();
        let group = world.process("group", move |ctx| {
            clients::commit_often(ctx, source.clone(), "t", "group", count, PAUSE_MS)
        });
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
    for seed in 1..=10 {
        holds("behind a rest", &world::run(seed, play));
    }
}
