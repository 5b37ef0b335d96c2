//! A commit that lies in a coordinator that hangs when Twinlog dies: it takes effect behind the first
//! commits of the next start.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};

use crate::sim::expected::holds;
use crate::sim::model::Violation;
use crate::sim::scene::Scene;

const COMMITS: i64 = 60;
const PAUSE_MS: u64 = 100;

fn play(world: &mut World) -> Vec<Violation> {
    let (scene, twinlog, place) = Scene::with_groups(world, COMMITS, "twinlog");
    let group = scene.commits(world, COMMITS, PAUSE_MS);
    world.run_for(2_000);
    let late_ms = 4_000 + world.random(8_000).cast_signed();
    let late = Fault::on(ApiKey::OffsetCommit).times(1);
    let late = scene.target.cluster.fault(late, Action::Delay(late_ms));
    let cluster = scene.target.cluster.clone();
    world.must("a commit is on its way", 10_000, move |_| {
        cluster.fired(late) > 0
    });
    twinlog.process.kill();
    world.run_for(500);
    twinlog.process.restart();
    world.result(&group, 60_000);
    world.run_for(30_000);
    scene.judge_group("group", &place)
}

#[test]
fn a_commit_of_a_process_that_died_is_no_clients() {
    for seed in crate::sim::seeds(10) {
        holds("a late commit", &world::run(seed, play));
    }
}
