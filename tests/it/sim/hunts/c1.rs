//! A failover command is frozen within a step, and its plan is aborted meanwhile.

use fake_kafka::world::{self, Phase, World};
use twinlog::state::{CutoverKind, CutoverState};

use crate::sim::expected::holds;
use crate::sim::logs;
use crate::sim::model::{CutOver, Place, Side, Violation, judge_role};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

/// The steps that write to the state, each of which it is frozen in.
const STEPS: [&str; 5] = ["fence", "stop_copying", "forks", "release", "promote"];

/// Frozen in `step`. `wakes`: it goes on behind the abort; else it never does.
fn play(world: &mut World, step: &'static str, wakes: bool) -> Vec<Violation> {
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
    world.must("it has begun the step", 120_000, move |_| {
        let journal = logs::newest(&target, "__twinlog_state", "cutover/dr");
        journal.is_some_and(|it| is_doing(&it, step))
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
    let found = judge_role(&[undone], scene.role());
    if found.is_empty() {
        // Nor does anything else of what it did keep the copy from going on.
        scene.write(world, Side::Primary, &place, 20, Write::default());
        scene.must_copy(world, std::slice::from_ref(&place), 30_000);
        let journal = logs::newest(&scene.target, "__twinlog_state", "cutover/dr");
        let journal = journal.expect("there is one");
        assert!(journal.contains("\"aborted\""), "{journal}");
    }
    found
}

fn is_doing(journal: &str, step: &str) -> bool {
    let journal: serde_json::Value = serde_json::from_str(journal).expect("a journal is JSON");
    let steps = journal["steps"].as_array().expect("it has steps");
    steps
        .iter()
        .any(|it| it["step"] == step && it["state"] == "doing")
}

#[test]
fn a_frozen_command_does_nothing_once_its_plan_was_aborted() {
    for (seed, step) in (1..).zip(STEPS) {
        holds(step, &world::run(seed, |world| play(world, step, true)));
    }
}

#[test]
fn an_aborted_plan_leaves_the_source_the_primary() {
    for seed in 1..=2 {
        holds(
            "it never wakes up",
            &world::run(seed, |world| play(world, "promote", false)),
        );
    }
}
