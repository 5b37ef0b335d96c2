//! What was copied lies above the standby's high watermark when the source is lost.

use fake_kafka::Options;
use fake_kafka::world::{self, World};
use twinlog::state::CutoverKind;

use crate::sim::logs;
use crate::sim::model::{Place, Side};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

/// 100 records are copied; 30 more reach only the standby's leader, whose follower `lags`.
fn play(world: &mut World, lags: bool) {
    let options = |brokers| Options {
        brokers,
        ..Options::default()
    };
    let mut scene = Scene::with(world, options(2), options(2), "");
    scene.topic("t", 1, 2, &[]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 100, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(12_000);
    let follower = scene.target.cluster.control(|state| {
        let leader = state.partition("t", 0).and_then(|it| it.leader);
        3 - leader.expect("it is led")
    });
    if lags {
        scene
            .target
            .cluster
            .control(|state| state.lag("t", 0, follower));
    }
    scene.write_batch(world, Side::Primary, &place, 30, Write::default());
    world.run_for(1_500);
    scene.lose_source(world);
    twinlog.process.kill();
    let unplanned = failover_options(CutoverKind::Unplanned);
    let failover = process::failover(world, "operator", &scene.text, unplanned);
    let target = scene.target.clone();
    world.must("the forks are recorded", 60_000, move |_| {
        logs::newest(&target, "__twinlog_state", "fork/dr/t").is_some()
    });
    if lags {
        let cluster = &scene.target.cluster;
        let readers_end = cluster.control(|state| {
            let log = state.partition("t", 0).and_then(|it| it.leader_log());
            log.expect("it is led").high_watermark()
        });
        assert_eq!(readers_end, 100, "the follower lags still");
        cluster.control(|state| state.catch_up("t", 0, follower));
    }
    let (report, error) = world.result(&failover, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    let fork = logs::newest(&scene.target, "__twinlog_state", "fork/dr/t").expect("it is there");
    let fork: serde_json::Value = serde_json::from_str(&fork).expect("a fork is JSON");
    assert_eq!(fork["partitions"][0]["source_end"], 130, "{fork:#}");
    assert_eq!(fork["partitions"][0]["target_end"], 130, "{fork:#}");
}

#[test]
fn a_fork_is_where_the_log_ends_not_where_readers_end() {
    for seed in 1..=2 {
        world::run(seed, |world| play(world, true));
    }
}

#[test]
fn a_fork_is_where_both_end_when_nobody_lags() {
    world::run(1, |world| play(world, false));
}
