//! The old primary comes back with less than was copied from it, and with records that nobody copied.

use std::collections::BTreeSet;

use fake_kafka::world::{self, World};
use twinlog::state::CutoverKind;

use crate::sim::expected::holds;
use crate::sim::logs;
use crate::sim::model::{Case, Offsets, Place, Says, Side, Violation, copy_of, judge};
use crate::sim::process::{self, failover_options};
use crate::sim::scene::{Scene, Write};

/// 100 records are copied, then the source is lost and failed over from. It comes back, `shorter` or
/// not, clients that know nothing of it write 20 more there, and it becomes the primary again.
fn play(world: &mut World, shorter: bool) -> Vec<Violation> {
    let mut scene = Scene::new(world, 1, "");
    scene.topic("t", 1, 1, &[]);
    let place = Place::new("t", 0);
    let twinlog = scene.twinlog(world, "twinlog");
    scene.write(world, Side::Primary, &place, 100, Write::default());
    scene.must_copy(world, std::slice::from_ref(&place), 30_000);
    world.run_for(12_000);
    scene.source.cluster.control(|state| state.stop_broker(1));
    let unplanned = failover_options(CutoverKind::Unplanned);
    let failover = process::failover(world, "operator", &scene.text, unplanned);
    let (report, error) = world.result(&failover, 120_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    scene.write(world, Side::Standby, &place, 50, Write::default());
    scene.source.cluster.control(|state| {
        if shorter {
            state.truncate("t", 0, 90);
        }
        state.start_broker(1);
    });
    scene.write(world, Side::Primary, &place, 20, Write::default());
    // 20, and ten more in the place of lost ones.
    let orphans = if shorter { (90, 110) } else { (100, 120) };
    let of_status = |world: &World| {
        let flow = twinlog.status(world).flows.into_iter().next()?;
        let found = flow.role?.orphans.into_iter().next()?;
        Some((found.from, found.to))
    };
    world.must("status counts from where the logs part", 30_000, |world| {
        of_status(world) == Some(orphans)
    });
    let failback = process::failback(world, "operator-back", &scene.text, true);
    let (report, error) = world.result(&failback, 300_000).expect("it may begin");
    assert!(error.is_none(), "{error:?} {report:?}");
    // All that the standby had while it was the primary, in order; strangers may be between.
    let there = scene.acked.iter().filter(|it| it.side == Side::Primary);
    judge(&Case {
        place: place.clone(),
        offsets: Offsets::Mapped,
        says: Says::Copying { lag: Some(0) },
        excuses: BTreeSet::new(),
        expected: copy_of(&logs::read(&scene.target, &place), &[]),
        strangers: there.map(|it| it.name.clone()).collect(),
        barred: BTreeSet::new(),
        found: logs::read(&scene.source, &place),
    })
}

#[test]
fn a_failback_to_a_log_that_lost_its_tail_brings_it_back() {
    for seed in crate::sim::seeds(3) {
        holds(
            "the lost tail is copied back",
            &world::run(seed, |world| play(world, true)),
        );
    }
}

#[test]
fn a_failback_to_a_whole_log_loses_nothing() {
    for seed in 1..=2 {
        holds(
            "it has all it had",
            &world::run(seed, |world| play(world, false)),
        );
    }
}
