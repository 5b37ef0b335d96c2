//! A failover command is frozen within a step, and its plan is aborted meanwhile.

use fake_kafka::world::{self, Phase, World};
use twinlog::state::CutoverState;

use crate::sim::expected::holds;
use crate::sim::logs;
use crate::sim::model::{CutOver, Side, Violation, judge_role};
use crate::sim::process;
use crate::sim::scene::Write;

use super::far_operator;

/// The steps that write to the state, each of which it is frozen in.
const STEPS: [&str; 5] = ["fence", "stop_copying", "forks", "release", "promote"];

/// Frozen in `step`. `wakes`: it goes on behind the abort; else it never does.
fn play(world: &mut World, step: &'static str, wakes: bool) -> Vec<Violation> {
    let (mut scene, place, frozen) = far_operator::begun(world, step);
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
