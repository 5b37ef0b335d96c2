//! A commit that lies in a coordinator that hangs when Twinlog dies: it takes effect behind the first
//! commits of the next start.

use fake_kafka::faults::{Action, Fault};
use fake_kafka::kafka_protocol::messages::ApiKey;
use fake_kafka::world::{self, World};

use crate::sim::clients;
use crate::sim::expected::holds;
use crate::sim::model::{Place, Side, Violation};
use crate::sim::scene::{Scene, Write};

const COMMITS: i64 = 60;
const PAUSE_MS: u64 = 100;

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
    let source = scene.source.clone();
    let group = world.process("group", move |ctx| {
        clients::commit_often(ctx, source.clone(), "t", "group", COMMITS, PAUSE_MS)
    });
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
    for seed in 1..=10 {
        holds("a late commit", &world::run(seed, play));
    }
}
