//! A cut-over that was begun and not finished is told by name, with the commands that go on with it and undo it.

use std::time::Duration;

use fake_kafka::world::{self, World};
use twinlog::cutover::Options;
use twinlog::state::CutoverKind;

use crate::sim::model::{Place, Side};
use crate::sim::process::{self, Running, failover_options};
use crate::sim::scene::{Scene, Write};

fn not_ready(world: &World, twinlog: &Running) -> String {
    twinlog.status(world).not_ready.join("; ")
}

/// What stands in the way of a failover.
fn in_the_way(world: &World, twinlog: &Running) -> String {
    let status = twinlog.status(world);
    let flow = status.flows.into_iter().next().expect("it runs");
    let checks = flow.failover.map(|it| it.checks).unwrap_or_default();
    let of_it = checks.into_iter().filter(|it| it.subject == "cut_over");
    of_it
        .map(|it| format!("{} {}", it.reason, it.hint.unwrap_or_default()))
        .collect()
}

#[test]
fn a_failover_that_stopped_halfway_is_told() {
    world::run(1, |world| {
        let mut scene = Scene::new(world, 1, "");
        scene.topic("t", 1, 1, &[]);
        let place = Place::new("t", 0);
        let twinlog = scene.twinlog(world, "twinlog");
        scene.write(world, Side::Primary, &place, 20, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        world.run_for(12_000);
        assert_eq!(not_ready(world, &twinlog), "");
        let options = Options {
            wait: Duration::from_secs(3),
            ..failover_options(CutoverKind::Planned)
        };
        let command = process::failover(world, "operator", &scene.text, options);
        // Nobody has stopped the producers.
        for _ in 0..20 {
            world.run_for(1_000);
            scene.write(world, Side::Primary, &place, 1, Write::default());
        }
        let (_, error) = world.result(&command, 120_000).expect("it may begin");
        assert!(error.is_some(), "it proves nothing");
        world.run_for(5_000);
        let told = [not_ready(world, &twinlog), in_the_way(world, &twinlog)];
        for told in &told {
            assert!(told.contains("prove"), "{told:?}");
            assert!(told.contains("`twinlog failover"), "{told:?}");
            assert!(told.contains("--abort`"), "{told:?}");
        }
        let command = process::abort(world, "operator-aborts", &scene.text);
        let (report, error) = world.result(&command, 120_000).expect("it may begin");
        assert!(error.is_none(), "{error:?} {report:?}");
        world.run_for(15_000);
        assert_eq!(not_ready(world, &twinlog), "");
        assert_eq!(in_the_way(world, &twinlog), "");
    });
}
