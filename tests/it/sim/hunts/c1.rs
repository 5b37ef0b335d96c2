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

/// What becomes of the frozen command.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It goes on behind the abort.
    Wakes,
    /// It goes on when the broker has forgotten all who wrote to the state topic.
    WakesLate,
    Dies,
}

/// Frozen in `step`.
fn play(world: &mut World, step: &'static str, then: Then) -> Vec<Violation> {
    let (mut scene, place, frozen) = far_operator::begun(world, step);
    frozen.freeze();
    world.run_for(10_000);
    // The word of a promotion and its deed are one write.
    if step != "promote" {
        assert_ne!(scene.role(), Side::Standby, "frozen before the deed");
    }
    let abort = process::abort(world, "colleague", &scene.text);
    let (report, error) = world.result(&abort, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?}");
    assert_eq!(report.state, CutoverState::Aborted);
    let undone = CutOver {
        at_ms: world.now_ms(),
        primary: Side::Primary,
    };
    if then == Then::WakesLate {
        world.run_for(700_000);
        scene.target.cluster.control(|state| {
            let usual = std::mem::replace(&mut state.options.producer_expiration_ms, 3_000);
            assert!(state.expire_producers() > 0, "it forgets somebody");
            state.options.producer_expiration_ms = usual;
        });
    }
    if then != Then::Dies {
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
        holds(
            step,
            &world::run(seed, |world| play(world, step, Then::Wakes)),
        );
    }
}

/// A machine that was suspended for a night.
#[test]
fn a_command_that_wakes_up_when_it_is_forgotten_does_nothing() {
    for (seed, step) in (1..).zip(STEPS) {
        let found = world::run(seed, |world| play(world, step, Then::WakesLate));
        holds(step, &found);
    }
}

#[test]
fn an_aborted_plan_leaves_the_source_the_primary() {
    for seed in 1..=2 {
        holds(
            "it never wakes up",
            &world::run(seed, |world| play(world, "promote", Then::Dies)),
        );
    }
}
