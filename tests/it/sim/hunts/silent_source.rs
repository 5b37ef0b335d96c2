//! The source is frozen, not dead: it accepts and never answers. Who copies lives, and an unplanned failover costs seconds.

use fake_kafka::world::{self, World};
use twinlog::cutover::Report;
use twinlog::state::CutoverKind;

use crate::sim::model::Side;
use crate::sim::process::{self, Running, failover_options};
use crate::sim::scene::{Scene, Write};

/// What a step took.
fn seconds(report: &Report, step: &str) -> f64 {
    let found = report.steps.iter().find(|it| it.step == step);
    found
        .unwrap_or_else(|| panic!("no step {step}: {report:?}"))
        .seconds
}

/// A partition that somebody copies, and a group; then nothing of the source answers any more, for so long.
fn frozen(world: &mut World, for_ms: i64) -> (Scene, Running) {
    let (mut scene, twinlog, place) = Scene::with_groups(world, 0, "twinlog");
    scene.write(world, Side::Primary, &place, 50, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(12_000);
    scene.lose_source(world);
    world.run_for(for_ms);
    (scene, twinlog)
}

#[test]
fn who_copies_from_it_ends_in_order_and_soon() {
    for (seed, for_ms) in (1..).zip([0, 1_000, 7_000, 25_000, 60_000]) {
        world::run(seed, move |world| {
            let (scene, twinlog) = frozen(world, for_ms);
            let unplanned = failover_options(CutoverKind::Unplanned);
            let failover = process::failover(world, "operator", &scene.text, unplanned);
            let (report, error) = world.result(&failover, 120_000).expect("it may begin");
            assert!(error.is_none(), "{error:?} {report:?}");
            let told = report.for_the_operator.join("\n");
            assert!(!told.contains("gave no sign"), "{for_ms}: {told}");
            let stop = seconds(&report, "stop_copying");
            assert!(stop <= 3.0, "{for_ms}: {stop} s: {report:#?}");
            assert!(report.seconds <= 10.0, "{for_ms}: {report:#?}");
            world.must("it says so", 10_000, move |world| {
                let flow = twinlog.status(world).flows.into_iter().next();
                let role = flow.and_then(|flow| flow.role);
                role.is_some_and(|role| role.primary == "target")
            });
            assert_eq!(scene.role(), Side::Standby);
        });
    }
}

/// Both answers of one status are about one source.
#[test]
fn who_is_silent_is_no_primary_to_fail_over_from_in_order() {
    world::run(1, |world| {
        let (_scene, twinlog) = frozen(world, 0);
        let mut was_silent = false;
        for second in 0..40 {
            world.run_for(1_000);
            let status = twinlog.status(world);
            let not_ready = status.not_ready.join("; ");
            let ready = status.flows[0].failover.clone().expect("it is computed");
            if not_ready.contains("hasn't answered") {
                was_silent = true;
                assert_eq!(ready.kind, "unplanned", "{second} s: {not_ready}");
            }
        }
        assert!(was_silent, "it is told");
    });
}
