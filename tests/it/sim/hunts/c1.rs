//! A failover command is frozen before it promotes, and its plan is aborted meanwhile.

use fake_kafka::world::{self, Phase, World};
use twinlog::state::{CutoverKind, CutoverState};

use crate::sim::expected::{expected_failure, holds};
use crate::sim::logs;
use crate::sim::model::{CutOver, Place, Side, Violation, judge_role};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

/// `wakes`: the frozen command goes on behind the abort; else it never does.
fn play(world: &mut World, wakes: bool) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 50, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    let options = failover_options(CutoverKind::Planned);
    let frozen = process::failover(world, "operator", &scene.text, options);
    // The operator is far away: there is time between the journal's word and the deed.
    world.path(&frozen, &scene.target, |path| {
        path.to_broker_us = 15_000;
        path.to_client_us = 15_000;
    });
    let target = scene.target.clone();
    world.must("it is about to promote", 120_000, move |_| {
        let journal = logs::newest(&target, "__twinlog_state", "cutover/dr");
        journal.is_some_and(|it| is_doing(&it, "promote"))
    });
    frozen.freeze();
    world.run_for(10_000);
    assert_ne!(scene.role(), Side::Standby, "frozen before the deed");
    let abort = process::abort(world, "colleague", &scene.text);
    let (report, error) = world.result(&abort, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?}");
    assert_eq!(report.state, CutoverState::Aborted);
    let undone = CutOver {
        at_ms: world.now_ms(),
        primary: Side::Primary,
    };
    if wakes {
        frozen.thaw();
        let woken = frozen.clone();
        world.must("it ends", 60_000, move |_| woken.phase() == Phase::Ended);
    } else {
        frozen.kill();
    }
    world.run_for(10_000);
    judge_role(&[undone], scene.role())
}

fn is_doing(journal: &str, step: &str) -> bool {
    let journal: serde_json::Value = serde_json::from_str(journal).expect("a journal is JSON");
    let steps = journal["steps"].as_array().expect("it has steps");
    steps
        .iter()
        .any(|it| it["step"] == step && it["state"] == "doing")
}

#[test]
fn a_frozen_command_promotes_although_its_plan_was_aborted() {
    expected_failure("C1", |seed| world::run(seed, |world| play(world, true)));
}

#[test]
fn an_aborted_plan_leaves_the_source_the_primary() {
    for seed in 1..=2 {
        holds(
            "it never wakes up",
            &world::run(seed, |world| play(world, false)),
        );
    }
}
